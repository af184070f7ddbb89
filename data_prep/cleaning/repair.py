"""Text repair: one function from raw paragraphs to clean text, with every edit counted.

Knows nothing of files, splits, tokens or of which documents are worth keeping.
"""

import re
import unicodedata
from collections.abc import Iterable

from ftfy import TextFixerConfig, fix_text
from ftfy.badness import is_bad
from ftfy.chardata import CONTROL_CHARS, LIGATURES
from ftfy.fixes import uncurl_quotes

from data_prep.cleaning.tally import Tally

# Replaced before ftfy, which drops some of them and joins what they separate. C1 controls it reads as
# Windows-1252: U+0085 is an ellipsis, which is how that character comes into texts. Full-width punctuation is how
# Chinese and Japanese are written.
_FTFY = TextFixerConfig(normalization="NFC", fix_line_breaks=False, fix_character_width=False, explain=False)
_SEPARATORS = re.compile("[\x0b\x0c\r\x1c-\x1e\u2028\u2029]")
# Not yet ESC, by which ftfy knows terminal escapes, nor C1 controls, by which it knows mojibake.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1f\x7f\ufeff]")
_LEFT_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
_ANY_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")

# What ftfy does to a line without any of these is to straighten quotes and to normalise, unless it sees mojibake.
_TOUCHED_BY_FTFY = re.compile(
    "[&\x1b\x80-\x9f\ud800-\udfff"
    + "".join(re.escape(chr(code)) for code in sorted(CONTROL_CHARS | LIGATURES) if code > 0x7F)
    + "]"
)
_CURLY = re.compile("[\u02bc\u2018-\u201f]")
# By themselves no signs of mojibake.
_COMMON_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
# What str.split() takes for white space, but blanks and line ends.
_WHITE_SPACE = (
    "\t\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
)
_WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
# Each of ftfy's signs of mojibake is at most 7 characters long and holds one of these, which are all characters but
# ASCII and common punctuation; so such characters and what stands around them show every sign.
_SUSPECT = re.compile("[^\x00-\x7f\xa0\xad\xb4\xb7\u2013-\u2015\u2018\u2019\u201c\u201d\u2026]+")
_CONTEXT = 12
# Longer lines ftfy takes in parts.
_LONGEST_LINE = 500_000


def clean_text(paragraphs: Iterable[str], tally: Tally) -> str:
    """Clean paragraphs joined with "\\n"; "" when nothing is left.

    A paragraph holds no "\\n". What is left has single spaces and "\\n" as its only white space, none of it at the
    ends of lines, no empty line, no control character and no lone surrogate.
    """
    raw = "\n".join(paragraphs)
    has_controls = bool(_ANY_CONTROL.search(raw))
    if has_controls:
        raw, separators = _SEPARATORS.subn(" ", raw)
        tally.edited("separators_replaced", separators)
        raw, controls = _CONTROLS.subn("", raw)
        tally.edited("controls_dropped", controls)
    text = repair(raw)
    is_repaired = text != raw
    tally.edited("documents_repaired", is_repaired)
    if has_controls or is_repaired:
        text, controls = _LEFT_CONTROLS.subn("", text)
        tally.edited("controls_dropped", controls)
    clean = _single_spaced(text)
    lines, kept = text.count("\n") + 1, clean.count("\n") + 1 if clean else 0
    tally.edited("whitespace_dropped", len(text) - len(clean) - (lines - kept if kept else 0))
    tally.edited("empty_paragraphs_dropped", lines - kept if raw else 0)
    return clean


def repair(text: str) -> str:
    """Exactly `ftfy.fix_text(text, ...)` with this module's configuration, without its cost for lines it leaves alone.

    `text` holds no control characters but those that ftfy knows terminal escapes and mojibake by.
    """
    if text.isascii() and "&" not in text and "\x1b" not in text:
        return text
    straight = text
    for mark, plain in _COMMON_QUOTES.items():
        straight = straight.replace(mark, plain)
    if straight.isascii() and "&" not in text and "\x1b" not in text:
        return straight
    config = _FTFY
    mended = straight.split("\n")
    last = len(mended) - 1
    for number, line in enumerate(text.split("\n")):
        # One line with "<" and ftfy takes the rest for HTML, whose entities are meant.
        if config.unescape_html and "<" in line:
            config = config._replace(unescape_html=False)
        if not mended[number].isascii() or "&" in line or "\x1b" in line:
            # Where its line end goes, the next line goes on with this one.
            mended[number] = _repair_line(line + "\n" * (number < last), config)
        elif number < last:
            mended[number] += "\n"
    return "".join(mended)


def _repair_line(line: str, config: TextFixerConfig) -> str:
    """One line, with its line end where it has one, as ftfy mends it."""
    if len(line) < _LONGEST_LINE:
        while not _TOUCHED_BY_FTFY.search(line) and not _has_mojibake(line):
            mended = uncurl_quotes(line) if _CURLY.search(line) else line
            if not unicodedata.is_normalized("NFC", mended):
                mended = unicodedata.normalize("NFC", mended)
            if mended == line or mended.isascii():
                return mended
            line = mended
    return fix_text(line, config)


def _single_spaced(text: str) -> str:
    for space in _WHITE_SPACE:
        text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    return text.strip(" \n")


def _has_mojibake(line: str) -> bool:
    """Whether ftfy sees any, found by looking at suspect characters and around them."""
    start = end = 0
    for match in _SUSPECT.finditer(line):
        if match.start() - _CONTEXT > end:
            if end and is_bad(line[max(0, start - _CONTEXT) : end + _CONTEXT]):
                return True
            start = match.start()
        end = match.end()
    return end > 0 and is_bad(line[max(0, start - _CONTEXT) : end + _CONTEXT])
