"""Records with a column of text as documents: JSON lines, parquet files, data sets of the hub.

Knows nothing of other columns but the id, and for articles of wikis the title.
"""

import json
from collections.abc import Iterable, Iterator

from ftfy.fixes import fix_surrogates

from data_prep.formatting import kind_of
from data_prep.raw.extracted import extracted_paragraphs
from data_prep.raw.lines import own_lines
from data_prep.raw.markup import mended_paragraphs
from data_prep.raw.raw_documents import RawDocument, SpanProgress, mended_document, part_of_text, stream_of
from data_prep.raw.sources import RawFile, Span
from data_prep.raw.streams import BadInput, Complain, Stream
from data_prep.raw.tables import Row, read_hub, read_parquet

# Rows that are lines of a running text become documents of about so many characters, and so many of those go into one
# split, because neighbours tell of each other.
GATHERED, _PARTS_OF_STRETCH = 5_000, 50


def read_jsonl(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    stream = stream_of(span, complain, progress.at, max(span.start - 1, 0))
    for offset, line in own_lines(stream, complain, inside=span.start > 0):
        if line.strip():
            yield from _json_document(span.file, line, offset, stream, complain)


def _json_document(file: RawFile, line: str, offset: int, stream: Stream, complain: Complain) -> Iterator[RawDocument]:
    where = f"{file.path}: the line {stream.where(offset)}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        # Behind damaged data a line may be half of one.
        if offset != stream.resumed:
            complain(BadInput(f"{where} is no JSON ({error}); mend it or take it out"))
        return
    text = record.get(file.text) if isinstance(record, dict) else None
    if not isinstance(text, str):
        complain(BadInput(f"{where} {_lack(record, file.text)}; name the column with ?text=.. or take it out"))
        return
    # JSON can write halves of surrogate pairs, which are no text.
    identifier = record.get("id")
    place = f"{file.name}@{offset}" if identifier is None else fix_surrogates(str(identifier))
    text = fix_surrogates(text)
    if file.format == "wikiextractor":
        yield mended_document(file, place, extracted_paragraphs(_with_title(record.get("title"), text.split("\n"))))
    else:
        yield mended_document(file, place, mended_paragraphs(text))


def _with_title(title: object, lines: list[str]) -> list[str]:
    """The lines of WikiExtractor's JSON, of which some versions leave out the title."""
    named = isinstance(title, str) and title.strip() and title.casefold() != lines[0].strip().casefold()
    return [fix_surrogates(str(title)), *lines] if named else lines


def _lack(record: object, text: str) -> str:
    if not isinstance(record, dict):
        return f"is a JSON {kind_of(record).removeprefix('a ')}, wanted an object with the text as {text!r}"
    if text in record:
        return f"has {kind_of(record[text])} as {text!r}, wanted a string"
    return f"has no {text!r}, it has {', '.join(map(repr, list(record)[:10]))[:200] or 'nothing'}"


def read_parquet_file(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    file = span.file
    yield from _table(file, read_parquet(file.path, file.text, span.start, span.end, progress.parts), complain)


def read_data_set(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    file = span.file
    assert file.hub is not None
    yield from _table(file, read_hub(file.hub, file.text, span.start, span.end, progress.parts), complain)


def _table(file: RawFile, rows: Iterable[Row], complain: Complain) -> Iterator[RawDocument]:
    """A document a row, or as many rows as make one of about GATHERED characters; blank rows and parts end it."""
    gathered: list[str] = []
    first: Row | None = None
    size = number = 0
    for row in rows:
        if isinstance(row.text, BadInput):
            complain(row.text)
            continue
        if not file.rows_are_lines:
            yield mended_document(file, row.id, mended_paragraphs(row.text))
            continue
        line = " ".join(mended_paragraphs(row.text)[0]).strip()
        if first is not None and (not line or row.part != first.part or size >= GATHERED):
            yield part_of_text(file, first.id, gathered, f"{first.part}.{number // _PARTS_OF_STRETCH}")
            number = number + 1 if row.part == first.part else 0
            gathered, first, size = [], None, 0
        if line:
            first = first or row
            gathered.append(line)
            size += len(line) + 1
    if first is not None:
        yield part_of_text(file, first.id, gathered, f"{first.part}.{number // _PARTS_OF_STRETCH}")
