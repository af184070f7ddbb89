"""Which layout a text file has, by its first lines: a book, an article a line, or a sentence a line with blank lines
between documents, the form that BERT's own scripts read.

Only what is plain is told apart from a book. Knows nothing of files.
"""

import re
from itertools import pairwise
from typing import Literal

import numpy as np

from data_prep.raw.paragraphs import blocks
from data_prep.sentence_ends import CLOSERS, ENDS, OTHER_ENDS

Layout = Literal["book", "articles", "sentences"]

_FEW_LINES = 5
# Nearly every line of articles is longer than the paragraphs of a book are, dialogue and headings included.
_ARTICLE, _SHORT_ARTICLE = 500, 250
_LONG_LINE, _MANY_LINES = 200, 20
_SENTENCES_A_LINE, _LINES_A_DOCUMENT = 2, 3
_MOST = 0.8
_GUTENBERG = re.compile("PROJECT GUTENBERG", re.IGNORECASE)
_SENTENCE_END = re.compile(rf"[{ENDS}]++[{CLOSERS}]{{0,3}}(?=\s|$)|[{OTHER_ENDS}]++[{CLOSERS}]{{0,3}}")
_LINE_END = re.compile(r"\r\n|\r|\n")


def layout_of(start: str) -> Layout:
    """The layout of a text that begins so; "book" where it is not plain."""
    lines = _whole_lines(start)
    texts = [line for line in lines if line.strip()]
    if len(texts) < _FEW_LINES or _GUTENBERG.search(start):
        return "book"
    lengths = [len(line) for line in texts]
    if not _has_blank_lines(lines):
        few, middle = np.percentile(lengths, [10, 50])
        return "articles" if few >= _SHORT_ARTICLE and middle >= _ARTICLE else "book"
    inner = [line for line, following in pairwise(lines) if line.strip() and following.strip()]
    ends = [_SENTENCE_END.findall(line.rstrip()) for line in inner]
    is_sentence = [0 < len(found) <= _SENTENCES_A_LINE and line.rstrip().endswith(found[-1])
                   for line, found in zip(inner, ends, strict=True)]  # fmt: skip
    in_blocks = np.median([block.count("\n") + 1 for block in blocks("\n".join(lines))])
    return "sentences" if in_blocks >= _LINES_A_DOCUMENT and sum(is_sentence) >= _MOST * len(inner) else "book"


def has_blank_lines(start: str) -> bool:
    """Whether blank lines part a text that begins so."""
    return _has_blank_lines(_whole_lines(start))


def hint_of(start: str) -> str:
    """What to say of a file that is taken for a book although its lines may be something else; "" where nothing is."""
    lines = _whole_lines(start)
    texts = [line for line in lines if line.strip()]
    if len(texts) < _MANY_LINES or _has_blank_lines(lines) or np.median([len(line) for line in texts]) < _LONG_LINE:
        return ""
    return (
        "no line is blank and most are long: taken for one book with a paragraph a line; if every line is an article, "
        "name it with ?format=articles"
    )


def _whole_lines(start: str) -> list[str]:
    """The lines of a beginning, without the last one where there are others: it may go on."""
    lines = _LINE_END.split(start)
    return lines[:-1] if len(lines) > 1 else lines


def _has_blank_lines(lines: list[str]) -> bool:
    """More than a few, and not only around the text."""
    blank = len([line for line in lines if not line.strip()])
    return 100 * blank >= len(lines) and len(blocks("\n".join(lines))) > 1
