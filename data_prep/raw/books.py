"""Books: Project Gutenberg's boilerplate cut off, hard-wrapped lines joined to paragraphs.

Knows nothing of files on disk, cleaning rules or tokens.
"""

import re
from collections.abc import Iterable, Iterator

# The last start line before the first end line counts: old headers carry a "small print" of their own.
_START = re.compile(
    r"\s*\*{3}\s*START OF (?:THE|THIS) .*PROJECT GUTENBERG|\s*\*END[ *]*THE SMALL PRINT!", re.IGNORECASE
)
_END = re.compile(
    r"\s*\*{3}\s*END OF (?:THE|THIS) .*PROJECT GUTENBERG"
    r"|\s*\**\s*END OF (?:THE |THIS )?PROJECT GUTENBERG(?:'S|\u2019S| E-?(?:BOOK|TEXT))",
    re.IGNORECASE,
)
_CREDITS = re.compile(
    r"\[?(?:This )?(?:E-?text |E-?book )?(?:was )?(?:Produced|Prepared|Transcribed) (?:by|from)\b", re.I
)
_CREDIT_PARAGRAPHS = 3
# A title too long for its start line goes on below, to the closing asterisks.
_LONGEST_START_LINES = 4


def parse_book(lines: list[str]) -> tuple[list[str], bool]:
    """The paragraphs of one book, and whether boilerplate was cut off."""
    first, last = gutenberg_bounds(lines)
    stripped = (first, last) != (0, len(lines))
    paragraphs = list(join_wrapped(lines[first:last]))
    if stripped:
        head = [text for text in paragraphs[:_CREDIT_PARAGRAPHS] if not _CREDITS.match(text)]
        paragraphs = head + paragraphs[_CREDIT_PARAGRAPHS:]
    return paragraphs, stripped


def gutenberg_bounds(lines: list[str]) -> tuple[int, int]:
    """First line of the book proper and the line behind its last; the whole file where no marker stands."""
    starts = [number for number, line in enumerate(lines) if _START.match(line)]
    behind = starts[0] if starts else -1
    last = next((n for n, line in enumerate(lines) if n > behind and _END.match(line)), len(lines))
    first = max((number + 1 for number in starts if number < last), default=0)
    if first and not lines[first - 1].rstrip().endswith("*"):
        ahead = range(first, min(first + _LONGEST_START_LINES, last))
        first = next((n + 1 for n in ahead if lines[n].rstrip().endswith("***")), first)
    return first, last


def join_wrapped(lines: Iterable[str]) -> Iterator[str]:
    """Paragraphs of hard-wrapped text: runs of non-blank lines, each joined with single spaces."""
    paragraph: list[str] = []
    for line in lines:
        if stripped := line.strip():
            paragraph.append(stripped)
        elif paragraph:
            yield " ".join(paragraph)
            paragraph = []
    if paragraph:
        yield " ".join(paragraph)
