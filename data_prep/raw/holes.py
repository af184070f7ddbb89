"""Sentences with holes, where somebody cut templates and formulas out of them: empty parentheses, quotes, commas.

Knows nothing of formats. Every function takes one paragraph and leaves a whole one as it is.

Patterns begin with the character that is rare in texts, and look back from there: that is many times faster.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial

from data_prep.raw.gaps import GAP, without_gaps

# Where there may be something to close, and a character without which there is not: one is found much faster than two.
_SIGNS = {
    "_": ("formula_", "codice_"),
    '"': ('""',),
    "\u201d": ("\u201c\u201d", "\u201c \u201d"),
    "\u00bb": ("\u00ab\u00bb", "\u00ab \u00bb"),
    ",": (" ,",),
    ".": (" .",),
    "\u201e": ("\u201e\u201c", "\u201e\u201d"),
    "\u300c": ("\u300c\u300d",),
    "\u300e": ("\u300e\u300f",),
}
_LETTER = re.compile(r"[^\W\d_]")

# WikiExtractor numbers the formulas and the pieces of code that it cuts out.
_PLACEHOLDER = re.compile(r"\b(?:formula|codice)_[0-9]++")
_EMPTY_QUOTES = re.compile(r'""(?<![^\s(]"")(?!\w)|\u201c ?\u201d|\u00ab ?\u00bb|\u201e[\u201c\u201d]')
_EMPTY_CORNERS = re.compile("\u300c\u300d|\u300e\u300f")
# Italics became quotes, so that a title in a quotation has two of them: ""Asteroid" clones", "from "Endeavour"".
_POSSESSIVE = re.compile(r'""(?<=\w"")(?=s\b)')
_BEFORE_COMMA = re.compile(r'"","(?<=\w"",")(?!\w)')
_TWO_OPEN = re.compile(r'""(?<![\w"]"")(?=\S)([^"]++)(?<!\s)"((?:[^"]*+(?<![\s(]))?)"(?![\w"])')
_TWO_CLOSED = re.compile(r'"(?<![\w"]")([^"]*+(?<=[\s(]))"([^"]++)""(?![\w"])')
# Behind a word () is the call of a function.
_OPENED = re.compile(r"\((?=\s*+(?:[,;]|:\s))|\((?<![^\s(]\()(?=\s*+\))")
_CLOSED = re.compile(r"\)(?:(?<=[,;:]\))|(?<=[,;:][ \xa0]\)))")
# The same in the wide forms of Chinese and Japanese, which have no blanks about them.
_WIDE_HOLE = re.compile("\uff08(?=[\uff09,;\u3001\uff0c\uff1b])|[,;\u3001\uff0c\uff1b] ?\uff09")
_WIDE_START = re.compile("\uff08(?:\\s*+[,;\u3001\uff0c\uff1b])++\\s*+")
_WIDE_END = re.compile("(?:[,;\u3001\uff0c\uff1b]\\s*+)++\uff09")
_LEFT_OPEN = re.compile(r"\((?:\s*+[,;])++\s++(?=\S)")
_DOUBLED = re.compile(r"([,;])(?:\s++[,;])++")
_BEFORE_POINT = re.compile(r'(?<=[\w"\u201d)\]]) ++(?=[,.](?!\S)(?! \.))')
_BLANKS = re.compile(r"(?<=\() ++| ++(?=\))")
# In texts of any kind: a hole behind a word of a sentence, where no code is and blanks do not stand before every comma.
_IN_PROSE = re.compile(r'\((?<=[\w"\u201d] \()(?:\s*+\)|\s*+[,;]\s)')
_NO_PROSE = re.compile(r"[{}\\=|]|;\s*+$|->|::|\w\(\)|\bfor \(|\w [,.] \w")


def close_holes(paragraph: str) -> str:
    """A paragraph of an extracted article, mended where something had been cut out of it."""
    text = paragraph
    if "formula_" in text or "codice_" in text:
        text = _PLACEHOLDER.sub(GAP, text)
    if '""' in text:
        text = _BEFORE_COMMA.sub('",', _POSSESSIVE.sub("\"'", text))
        text = _TWO_CLOSED.sub(r'"\1\2"', _TWO_OPEN.sub(r'"\1\2"', text))
    if '""' in text or "\u201c" in text or "\u00ab" in text or "\u201e" in text:
        text = _EMPTY_QUOTES.sub(GAP, text)
    if "\u300c\u300d" in text or "\u300e\u300f" in text:
        text = _EMPTY_CORNERS.sub("", text)
    if "\uff08" in text:
        text = _without_wide_holes(text)
    if "(" in text or GAP in text:
        text = _without_empty_parentheses(text)
    if " ," in text or " ;" in text or " ." in text:
        text = _BEFORE_POINT.sub("", _DOUBLED.sub(r"\1", text))
    return paragraph if text == paragraph else " ".join(text.split())


def close_all_holes(text: str) -> tuple[str, int]:
    """The paragraphs of an extracted article, a line each, all of them mended, and how many were; blank ones go."""
    starts = {text.rfind("\n", 0, place) + 1 for place in _places(text)}
    kept, position, mended = [], 0, 0
    for start in sorted(starts):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        paragraph = close_holes(text[start:end])
        if paragraph != text[start:end]:
            mended += 1
            kept.append(text[position:start])
            # A paragraph that was nothing but holes takes its line end with it.
            position = end if _LETTER.search(paragraph) else end + 1
            kept.append(paragraph * (position == end))
    return "".join([*kept, text[position:]]), mended


def _places(text: str) -> Iterator[int]:
    """Where there may be something to close, once a line for each sign."""
    finders: list[Callable[[int], int]] = [
        partial(text.find, sign) for character, signs in _SIGNS.items() if character in text for sign in signs
    ]
    finders += [partial(_find, pattern, text) for pattern in (_OPENED, _CLOSED)]
    if "\uff08" in text:
        finders.append(partial(_find, _WIDE_HOLE, text))
    for find in finders:
        place = find(0)
        while place >= 0:
            yield place
            end = text.find("\n", place)
            place = find(end) if end >= 0 else -1


def _find(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.search(text, start)
    return match.start() if match else -1


def close_parentheses(paragraph: str) -> str:
    """A paragraph of any text, mended where it is prose with parentheses out of which something had been cut."""
    if "\uff08" in paragraph and _WIDE_HOLE.search(paragraph):
        paragraph = _without_wide_holes(paragraph)
    if "(" not in paragraph or not _IN_PROSE.search(paragraph) or _NO_PROSE.search(paragraph):
        return paragraph
    return _without_empty_parentheses(paragraph)


def _without_wide_holes(text: str) -> str:
    return _WIDE_END.sub("\uff09", _WIDE_START.sub("\uff08", text)).replace("\uff08\uff09", "")


def _without_empty_parentheses(text: str) -> str:
    text = _CLOSED.sub(f"{GAP})", _OPENED.sub(f"({GAP}", text))
    if GAP in text:
        text = _LEFT_OPEN.sub("(", without_gaps(text))
        text = _BLANKS.sub("", text)
    return text
