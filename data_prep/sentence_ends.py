"""The characters that end a sentence, in all scripts that people write today.

Knows nothing of texts.
"""

# Of Unicode's Sentence_Terminal (PropList.txt) those of living scripts, for classes of regular expressions. ASCII's and
# the ellipsis also stand inside sentences and end one before white space; the others do so wherever they stand.
ASCII_ENDS = r".!?\u2026"
OTHER_ENDS = (
    r"\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0964\u0965\u0f0d-\u0f0f\u104a\u104b\u1362\u1367\u1368\u1803\u1809"
    r"\u17d4\u17d5\u1c7e\u1c7f\u203c\u203d\u2047-\u2049\u3002\ua4ff\ua60e\ua9c8\ua9c9\uabeb\uff01\uff1f\uff61"
)
ENDS = ASCII_ENDS + OTHER_ENDS
# What closes behind the end of a sentence: quotes and brackets.
CLOSERS = r"\"'\u201d\u2019\u00bb\u203a\u300d\u300f\uff09)\]"
