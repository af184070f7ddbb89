"""Markup left in texts of any kind: HTML tags go, those that break lines part paragraphs, and references are cut out.

Only what is surely markup: comparisons, code between backticks, source code of pages, and tokens such as <s> or <unk>
stay. In time proportional to the text. Knows nothing of formats.
"""

import operator
import re

from data_prep.raw.holes import close_parentheses

# Tags that were joined of the remains of others; deeper ones are nobody's text.
_MAX_DEPTH = 4

_BREAKS = (
    "br|hr|p|div|h[1-6]|ul|ol|li|dl|dt|dd|blockquote|center|table|caption|thead|tbody|tfoot|tr|td|th|section|article"
    "|header|footer|figure|figcaption|poem"
)
# Neither <s>, with which some tokenizers begin a text, nor <code>, in which tags may be what is written about.
_INLINE = (
    "a|abbr|b|bdi|big|cite|del|dfn|em|font|i|img|ins|mark|noinclude|nowiki|onlyinclude|q|small|span|strike|strong|sub"
    "|sup|time|tt|u|var|wbr"
)
_TAG = re.compile(
    rf"<(?P<end>/?)(?P<name>{_BREAKS}|{_INLINE})\b"
    r"""(?P<attributes>(?:\s+[a-z_:][\w:.-]*+\s*+=\s*+(?:"[^"<>]*+"|'[^'<>]*+'|[^\s"'<>=`]++))*+)\s*+/?+\s*+>""",
    re.IGNORECASE,
)
# The same with its brackets escaped, perhaps more than once.
_ESCAPED_TAG = re.compile(
    rf"&(?:amp;)*+lt;(?P<end>/?)(?P<name>{_BREAKS}|{_INLINE})\b"
    r"(?P<attributes>(?:\s+[a-z_:][\w:.-]*+\s*+=(?:(?!&(?:amp;)*+[lg]t;)[^<>])++)?+)\s*+/?+&(?:amp;)*+gt;",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"<ref\b[^<>]*+(?:(?<=/)>|>[^<]*+(?:<(?!/?ref\b)[^<]*+)*+</ref\s*>)|</?ref\b[^<>]*+>|<!--[^<>]*+(?<=--)>",
    re.IGNORECASE,
)
_ESCAPED_REFERENCE = re.compile(
    r"&(?:amp;)*+lt;(?:ref\b(?:(?!&(?:amp;)*+[lg]t;)[^<>])*+(?:(?<=/)&(?:amp;)*+gt;"
    r"|&(?:amp;)*+gt;(?:(?!&(?:amp;)*+lt;/?ref\b).)*+&(?:amp;)*+lt;/ref\s*&(?:amp;)*+gt;)"
    r"|/?ref\b(?:(?!&(?:amp;)*+[lg]t;)[^<>])*+&(?:amp;)*+gt;"
    r"|!--(?:(?!--&|&(?:amp;)*+lt;!--).)*+--&(?:amp;)*+gt;)",
    re.IGNORECASE | re.DOTALL,
)
_POWER = re.compile(r"<sup>(?<=\d<sup>)(?=[-+\u2212]?\d)", re.IGNORECASE)
_ESCAPED_POWER = re.compile(r"&(?<=\d&)(?:amp;)*+lt;sup&(?:amp;)*+gt;(?=[-+\u2212]?\d)", re.IGNORECASE)
_END_OF_REFERENCE = re.compile(r"(?<![\w<>/-])/?ref>(?!\S)")
# `this' and `that' are quotes, not code.
_CODE = re.compile(r"(```.*?(?:```|\Z)|`(?=\S)[^`\n]{1,200}+(?<=\S)`(?!\w))", re.DOTALL)
_SOURCE_CODE = re.compile(r"<(?:!doctype|html|head|body|script|style|\?xml|\?php)\b", re.IGNORECASE)
_BREAK = re.compile(_BREAKS, re.IGNORECASE)
# Those of which no type is the name, whatever they stand behind.
_SURE = re.compile("br|hr|li|d[dlt]|[ou]l|t[dhr]|h[1-6]|blockquote", re.IGNORECASE)


def mended_paragraphs(text: str) -> tuple[list[str], dict[str, int]]:
    """The paragraphs of a text of any kind without markup and without holes in prose, and how many edits were made."""
    clean = text if _SOURCE_CODE.search(text) else without_markup(text)
    found = clean.split("\n")
    paragraphs = list(map(close_parentheses, found)) if "(" in clean or "\uff08" in clean else found
    holes = sum(map(operator.ne, found, paragraphs))
    return paragraphs, {"markup_dropped": int(clean != text), "holes_closed": holes}


def without_markup(text: str) -> str:
    """A text without HTML tags, comments and references, and with "\\n" for tags that break lines.

    A bare tag inside of a line, such as <b>, goes where the text holds its end; one in code stays. A raised number
    behind a number is a power, as in a dump: 10<sup>6</sup> -> 10^6.
    """
    if "<" not in text and ("&" not in text or "lt;" not in text) and (">" not in text or "ref>" not in text):
        return text
    pieces = _CODE.split(text) if "`" in text else [text]
    for _ in range(_MAX_DEPTH):
        ended = {
            match["name"].lower()
            for tags in (_TAG, _ESCAPED_TAG)
            for piece in pieces[::2]
            for match in tags.finditer(piece)
            if match["end"]
        }
        mended = [_without_tags(piece, ended) for piece in pieces[::2]]
        if mended == pieces[::2]:
            break
        pieces[::2] = mended
    return "".join(pieces)


def _without_tags(text: str, ended: set[str]) -> str:
    def gone(match: re.Match[str]) -> str:
        name, before = match["name"].lower(), match.string[match.start() - 1 : match.start()]
        breaks = _BREAK.fullmatch(name) is not None
        # vector<span>, p<q>: what stands behind a word and has no end may be a comparison, or a type.
        sure = match["end"] or match["attributes"] or name in ended or _SURE.fullmatch(name)
        sure = sure or (name == "p" and match.string[match.end() : match.end() + 1].isupper())
        if not sure and (not breaks or before.isalnum()):
            return match[0]
        return "\n" if breaks else ""

    if "<" in text:
        text = _TAG.sub(gone, _POWER.sub("^", _REFERENCE.sub("", text)))
    if "lt;" in text:
        text = _ESCAPED_TAG.sub(gone, _ESCAPED_POWER.sub("^", _ESCAPED_REFERENCE.sub("", text)))
    return _END_OF_REFERENCE.sub("", text) if "ref>" in text else text
