"""Raw lines to documents: books with Project Gutenberg's boilerplate, and WikiExtractor's two output forms.

Knows nothing of files on disk, cleaning rules or tokens.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data_prep.manifest import UserError
from data_prep.sources import Kind

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
_DOC = re.compile(r'<doc id="([^"]*)"')


@dataclass(frozen=True)
class RawDocument:
    """One document before cleaning: paragraphs without line breaks, and whether boilerplate was cut off."""

    kind: Kind
    id: str
    paragraphs: list[str]
    stripped: bool = False


def parse_documents(lines: Iterable[str], kind: Kind, name: str) -> Iterator[RawDocument]:
    """The documents of one file. `name` is the file's path below its source, for ids and errors.

    Raises UserError where WikiExtractor output is cut short or malformed.
    """
    if kind == "book":
        yield parse_book(list(lines), name)
    else:
        yield from parse_extracted(lines, name)


def parse_book(lines: list[str], name: str) -> RawDocument:
    """One text file as one document: boilerplate cut off, hard-wrapped lines joined to paragraphs."""
    first, last = gutenberg_bounds(lines)
    stripped = (first, last) != (0, len(lines))
    paragraphs = list(join_wrapped(lines[first:last]))
    if stripped:
        head = [text for text in paragraphs[:_CREDIT_PARAGRAPHS] if not _CREDITS.match(text)]
        paragraphs = head + paragraphs[_CREDIT_PARAGRAPHS:]
    stem = re.sub(r"\.txt(\.gz)?$", "", name.rpartition("/")[2], flags=re.IGNORECASE)
    return RawDocument("book", stem, paragraphs, stripped)


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


def parse_extracted(lines: Iterable[str], name: str) -> Iterator[RawDocument]:
    """WikiExtractor output: `<doc id= url= title=>` ... `</doc>`, or one JSON object a line."""
    identifier: str | None = None
    paragraphs: list[str] = []
    for number, line in enumerate(lines, start=1):
        if identifier is None and line.startswith("{"):
            yield _parse_extracted_json(line, f"{name}, line {number}")
        elif line.startswith("<doc id="):
            if identifier is not None:
                raise UserError(f"{name}, line {number}: a new <doc> begins before document {identifier} ends")
            match = _DOC.match(line)
            if match is None:
                raise UserError(f'{name}, line {number}: malformed {line[:80]!r}, wanted <doc id="..." ...>')
            identifier, paragraphs = match[1], []
        elif line.startswith("</doc>"):
            if identifier is None:
                raise UserError(f"{name}, line {number}: </doc> without a <doc> before it")
            yield RawDocument("wikipedia", identifier, paragraphs)
            identifier = None
        elif line.strip():
            if identifier is None:
                raise UserError(f"{name}, line {number}: text outside <doc> ... </doc>: {line[:60]!r}")
            paragraphs.append(line)
    if identifier is not None:
        raise UserError(f"{name} ends inside document {identifier} (no </doc>): it is truncated, extract it again")


def _parse_extracted_json(line: str, where: str) -> RawDocument:
    try:
        record = json.loads(line)
        identifier, text = record["id"], record["text"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: not a WikiExtractor JSON object ({error}); extract the file again") from error
    return RawDocument("wikipedia", str(identifier), str(text).split("\n"))
