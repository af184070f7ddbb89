"""Which layout a text file has, by its first lines: a book, an article a line, or a sentence a line with blank lines
between documents, the form that BERT's own scripts read.

Only what is plain is told apart from a book. Knows nothing of files.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from data_prep.raw.paragraphs import blocks
from data_prep.sentence_ends import CLOSERS, ENDS, OTHER_ENDS

Layout = Literal["book", "articles", "sentences"]

_FEW_LINES = 5
# Nearly every line of articles is longer than the paragraphs of a book are, dialogue and headings included. Lines below
# the length of most articles may also be the paragraphs of an essay.
_ARTICLE, _SHORT_ARTICLE, _SURE_ARTICLE = 650, 250, 2_000
# Lines of a file with blank ones that are long for paragraphs.
_LONG_PARAGRAPH = 500
_LONG_LINE, _MANY_LINES = 200, 20
_SENTENCES_A_LINE, _LINES_A_DOCUMENT = 2, 3
_MOST = 0.8
_GUTENBERG = re.compile("PROJECT GUTENBERG", re.IGNORECASE)
_SENTENCE_END = re.compile(rf"[{ENDS}]++[{CLOSERS}]{{0,3}}(?=\s|$)|[{OTHER_ENDS}]++[{CLOSERS}]{{0,3}}")
_ARTICLES = (
    "no line is blank and most are long: taken for one book with a paragraph a line; if every line is an article, "
    "name it with ?format=articles"
)
_ARTICLES_APART = (
    "every line is long and has a blank one behind it: taken for one book with a paragraph a line; if every line is an "
    "article, name it with ?format=articles"
)
_ONE_BOOK = "taken for an article a line; if it is one book with a paragraph a line, name it with ?format=book"


def layout_of(start: str) -> Layout:
    """The layout of a text that begins so; "book" where it is not plain."""
    lines = _whole_lines(start)
    texts = [line for line in lines if line.strip()]
    if len(texts) < _FEW_LINES or _GUTENBERG.search(start):
        return "book"
    lengths = [len(line) for line in texts]
    if not _has_blank_lines(lines):
        return "articles" if _are_long(lengths, _ARTICLE) else "book"
    inner = [line for line, following in pairwise(lines) if line.strip() and following.strip()]
    ends = [_SENTENCE_END.findall(line.rstrip()) for line in inner]
    is_sentence = [0 < len(found) <= _SENTENCES_A_LINE and line.rstrip().endswith(found[-1])
                   for line, found in zip(inner, ends, strict=True)]  # fmt: skip
    in_blocks = np.median([block.count("\n") + 1 for block in blocks("\n".join(lines))])
    return "sentences" if in_blocks >= _LINES_A_DOCUMENT and sum(is_sentence) >= _MOST * len(inner) else "book"


def has_blank_lines(start: str) -> bool:
    """Whether blank lines part a text that begins so."""
    return _has_blank_lines(_whole_lines(start))


def hint_of(start: str, layout: Layout) -> str:
    """What to say of a file that is taken for a book or articles, whose lines may be something else; "" where nothing
    is."""
    lines = _whole_lines(start)
    lengths = [len(line) for line in lines if line.strip()]
    if layout == "articles":
        return "" if np.median(lengths) >= _SURE_ARTICLE else _ONE_BOOK
    if layout != "book" or _GUTENBERG.search(start):
        return ""
    if not _has_blank_lines(lines):
        return _ARTICLES if len(lengths) >= _MANY_LINES and np.median(lengths) >= _LONG_LINE else ""
    are_apart = len(lengths) >= _FEW_LINES and len(blocks("\n".join(lines))) == len(lengths)
    return _ARTICLES_APART if are_apart and _are_long(lengths, _LONG_PARAGRAPH) else ""


def _are_long(lengths: Sequence[int], middle: int) -> bool:
    return bool(np.all(np.percentile(lengths, [10, 50]) >= [_SHORT_ARTICLE, middle]))


def _whole_lines(start: str) -> list[str]:
    """The lines of a beginning, without the last one where there are others: it may go on."""
    lines = start.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if len(lines) > 1 else lines


def _has_blank_lines(lines: list[str]) -> bool:
    """More than a few, and not only around the text."""
    blank = len([line for line in lines if not line.strip()])
    return 100 * blank >= len(lines) and len(blocks("\n".join(lines))) > 1
