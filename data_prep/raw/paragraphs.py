"""How the lines of a text file make paragraphs: hard-wrapped lines are joined, lines that are paragraphs stay apart.

Which of the two a text is shows in its inner lines, those with text on the next line: hard-wrapped ones end anywhere
and are of one width, paragraphs and sentences end where a sentence does. Knows nothing of files or formats.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import quantiles

import numpy as np

from data_prep.sentence_ends import CLOSERS, ENDS

# Nobody wraps lines wider than this.
_WIDEST_WRAPPED = 200
# So few lines of a common width tell nothing else.
_FEW_LINES, _LINES_LOOKED_AT = 8, 2_000
# That many lines, all of them sentences, are no accident.
_FEW_SENTENCES = 2
# Of inner lines of hard-wrapped prose 5 to 35 % end a sentence; of texts with a sentence or paragraph a line, most.
_ENDS_OF_WRAPPED = 0.6
# Blocks beyond this have paragraphs of their own, marked otherwise than by blank lines, and so have the blocks of files
# with so few of them.
_LARGE_BLOCK, _LINES_OF_LARGE_BLOCKS = 5_000, 40
# So many of the indented lines inside blocks stand alone where they begin paragraphs; in verse and quotations few do.
_ALONE = 0.5
_INDENTED = re.compile(r"\n(?<=[^\n]\n)[ \t\u3000]+(?=\S)")
_TWO_INDENTED = re.compile(r"\n(?<=[^\n]\n)[ \t\u3000]+\S.*\n[ \t\u3000]+(?=\S)")
_LAST_LINE = 0.8
_SENTENCE_END = re.compile(rf"[{ENDS}:;][{CLOSERS}_*]{{0,4}}+$")
_LONGEST_END = 5
_BLANK_LINES = re.compile(r"\n\s*\n")
# Patterns that begin with the line break are found at the speed of a search for it.
_SPACE_AROUND = re.compile(r"\n(?:(?=\s)|(?<=\s\n))")
# A word that goes on with the next line: colour-/sergeant, half-/past, bread-/and-butter, 1914-/18, night--/day. In
# "two- and threefold", "Hin- und Rückfahrt" the hyphen stands for a part of a word, which the blank keeps apart.
_BROKEN = re.compile(
    r"(?<=\S)(--+|[\u2013\u2014])\n(?=[^\W_]|[\"'\u2018\u201c(_])"
    r"|(?<=\w)([-\u2010\u2011])\n(?!(?:and|or|to|nor|und|oder|bis|et|ou|en|of|och|og)\b(?!-))(?=\w)"
)
# A dash that begins a line, but does not begin what somebody says.
_BROKEN_BEFORE = re.compile(r"\n(?<=[\w,;]\n)(?=(?:--+|\u2014)[^\s\u2014-])")
_DASH_AT_END = re.compile(r"\n(?<=[-\u2010\u2011\u2013\u2014]\n)")
_SOFT_HYPHEN = re.compile(r"\u00ad(?:\n(?=\w))?")
# Scripts that have no blanks between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese; and quotes beside them.
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60"
    r"\U00020000-\U0003ffff"
)
_QUOTES = r"\u2018-\u201d\u2026"
_WITHOUT_BLANK = re.compile(
    rf"\n(?![\0-\u0dff])(?:(?<=[{_UNSPACED}]\n)(?=[{_UNSPACED}{_QUOTES}])|(?<=[{_QUOTES}]\n)(?=[{_UNSPACED}]))"
)


def paragraphs_of(text: str, left_out: Callable[[str], bool] = lambda _: False) -> list[str]:
    """The paragraphs of a text, none empty, in order, each without line breaks and with what stood in its lines.

    Of hard-wrapped texts blocks between blank lines that are to be `left_out` are.
    """
    lines = text.split("\n")
    if is_wrapped(lines):
        found = blocks(text)
        has_few = len(lines) >= _FEW_LINES and len(lines) >= _LINES_OF_LARGE_BLOCKS * (len(found) - 1)
        largest = 0 if has_few or _has_indents(text, len(found)) else _LARGE_BLOCK
        return [paragraph for block in found if not left_out(block) for paragraph in _unwrapped(block, largest)]
    return [paragraph for line in lines if (paragraph := line.replace("\u00ad", "").strip())]


def is_wrapped(lines: Sequence[str]) -> bool:
    """Whether lines go on with the next one, so that blank lines or indents part paragraphs."""
    step = max(1, len(lines) // _LINES_LOOKED_AT)
    pairs = zip(lines[:-1:step], lines[1::step], strict=True) if len(lines) > 1 else ()
    inner = [line.rstrip() for line, following in pairs if line.strip() and following.strip()]
    if len(inner) < _FEW_LINES:
        are_sentences = len(inner) >= _FEW_SENTENCES and all(map(_is_sentence, inner))
        return not are_sentences and max(map(len, inner), default=0) <= _WIDEST_WRAPPED
    lengths = np.fromiter(map(len, inner), np.int64, len(inner))
    width = int(np.percentile(lengths, 90))
    if width > _WIDEST_WRAPPED:
        return False
    full = [line for line in inner if 2 * len(line) >= width]
    return sum(_ends_sentence(line) for line in full) < _ENDS_OF_WRAPPED * len(full)


def blocks(text: str) -> list[str]:
    """Runs of lines that are not blank, with their indents."""
    return [block for block in _BLANK_LINES.split(text) if block and not block.isspace()]


def joined(block: str) -> str:
    """Hard-wrapped lines as one: with a blank between them, none at a hyphen or dash, nor in scripts without blanks."""
    if _SPACE_AROUND.search(block):
        block = "\n".join(map(str.strip, block.split("\n")))
    if "-\n" in block or not block.isascii():
        block = _joined_words(block)
    if "\n-" in block or "\n\u2014" in block:
        block = _BROKEN_BEFORE.sub("", block)
    return block.strip().replace("\n", " ")


def _joined_words(block: str) -> str:
    if "\u00ad" in block:
        block = _SOFT_HYPHEN.sub("", block)
    if _DASH_AT_END.search(block):
        block = _BROKEN.sub(r"\1\2", block)
    return _WITHOUT_BLANK.sub("", block)


def _has_indents(text: str, num_blocks: int) -> bool:
    """Whether the paragraphs of a text begin with an indent: more do than with a blank line, a minority of lines."""
    indented = len(_INDENTED.findall(text))
    if indented < max(num_blocks, 2) or 2 * indented > text.count("\n"):
        return False
    return len(_TWO_INDENTED.findall(text)) <= (1 - _ALONE) * indented


def _unwrapped(block: str, largest: int) -> Iterator[str]:
    if len(block) <= largest:
        yield joined(block)
        return
    lines = block.strip("\n").split("\n")
    starts = _indented(lines) or _behind_short_lines(lines)
    for start, end in pairwise([0, *starts, len(lines)]):
        yield joined("\n".join(lines[start:end]))


def _indented(block: Sequence[str]) -> list[int]:
    """Lines that begin a paragraph by their indent; none where most lines have one."""
    starts = [number for number, line in enumerate(block) if number and line[:1].isspace()]
    return starts if 2 * len(starts) < len(block) else []


def _behind_short_lines(block: Sequence[str]) -> list[int]:
    """Lines behind one that ends a sentence before the width is full: the last one of a paragraph."""
    lines = [line.rstrip() for line in block]
    ending = [number for number, line in enumerate(lines[:-1], 1) if _ends_sentence(line)]
    if not ending:
        return []
    width = quantiles(map(len, lines), n=20, method="inclusive")[-1]
    return [number for number in ending if len(lines[number - 1]) < _LAST_LINE * width]


def _ends_sentence(line: str) -> bool:
    return _SENTENCE_END.search(line[-_LONGEST_END:]) is not None


def _is_sentence(line: str) -> bool:
    return _ends_sentence(line) and line[-1] not in ":;"
