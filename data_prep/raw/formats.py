"""Raw files to documents, one span after another: books, lines, WikiExtractor output, MediaWiki dumps, JSONL, tables.

Wherever a file is cut into spans, the documents of all spans are those of the whole file. Knows nothing of cleaning
rules, splits or tokens.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

from ftfy.fixes import fix_surrogates

from data_prep.raw.books import VOLUME_CHARACTERS, parse_books, volumes
from data_prep.raw.extracted import extracted_paragraphs
from data_prep.raw.markup import mended_paragraphs
from data_prep.raw.sources import RawFile, Span, Unit
from data_prep.raw.streams import (
    BOM,
    MAX_RECORD_BYTES,
    BadInput,
    Complain,
    Damaged,
    Progress,
    Stream,
    own_lines,
    read_lines,
)
from data_prep.raw.tables import Row, read_hub, read_parquet
from data_prep.raw.wikidump import iter_pages, keep_page, parse_page, read_site
from data_prep.raw.wikinames import Names, Site, names_of
from data_prep.raw.wikitext import plain_text
from data_prep.readable import kind_of

# Neighbours in a running text tell of each other: so many bytes of it, or documents of rows, go into one split.
STRETCH, _PARTS_OF_STRETCH = 250_000, 50
# Lines of a running text become documents of about this size: those that start in the same so many bytes of a file,
# which is so wherever it is cut into spans; rows of a table by their characters.
GATHERED = 5_000

_BOOK_SUFFIX = re.compile(r"\.(?:txt|text)(?:\.(?:gz|bz2|xz|zst))?$", re.IGNORECASE)
_DOC = re.compile(r'<doc id="([^"]*)"')
_DOC_START, _DOC_END = "<doc id=", "</doc>"


@dataclass(frozen=True)
class RawDocument:
    """One document before cleaning: paragraphs without line breaks; `kind` is its format.

    `stripped`: boilerplate was cut off. `dropped`: why it is none of the documents wanted, such as a redirect.
    `stretch`: the place in a running text that decides its split; of all other documents their text does. `cut`: how
    many templates of each name were cut out in the middle of a sentence. `edits`: how much was mended, by the rules of
    the tally.
    """

    source: str
    rank: int
    kind: str
    id: str
    paragraphs: list[str]
    stripped: bool = False
    dropped: str | None = None
    stretch: str | None = None
    cut: Mapping[str, int] = field(default_factory=dict)
    edits: dict[str, int] = field(default_factory=dict)


def read_documents(unit: Unit, complain: Complain, report: Callable[[int], object]) -> Iterator[RawDocument]:
    """The documents of all spans of a unit.

    `complain` gets every bad record and every damaged file, once; where it returns, reading goes on with the next
    record or span. `report` is told bytes on disk, in all the sizes of the spans.
    """
    for span in unit:
        progress = _SpanProgress(span, report)
        try:
            if span.file.problem:
                raise Damaged(span.file.problem)
            yield from _READERS[span.file.format](span, complain, progress)
        except Damaged as problem:
            complain(problem)
        progress.finish()


class _SpanProgress:
    """Positions in a file, or parts of it done, to bytes of the span since the last call."""

    def __init__(self, span: Span, report: Callable[[int], object]) -> None:
        self._span, self._report, self._told = span, report, 0

    def at(self, position: int) -> None:
        """The file was read up to here."""
        self._tell(position - self._span.start)

    def parts(self, done: int) -> None:
        """So many row groups or shards of the span are done."""
        self._tell(Span(self._span.file, self._span.start, self._span.start + done).size)

    def finish(self) -> None:
        """All that is wanted of the span was read."""
        self._tell(self._span.size)

    def _tell(self, done: int) -> None:
        more = min(done, self._span.size) - self._told
        if more > 0:
            self._told += more
            self._report(more)


def _document(file: RawFile, identifier: str, paragraphs: list[str], kind: str | None = None) -> RawDocument:
    return RawDocument(file.source, file.rank, kind or file.format, identifier, paragraphs)


def _mended(file: RawFile, identifier: str, mended: tuple[list[str], dict[str, int]]) -> RawDocument:
    paragraphs, edits = mended
    return RawDocument(file.source, file.rank, file.format, identifier, paragraphs, edits=edits)


def _stream(
    span: Span, complain: Complain, progress: Progress, start: int | None = None, end: int | None = None
) -> Stream:
    """The bytes of a span; of files that are not cut, those of the whole file. Damaged parts are left out."""
    start, end = span.start if start is None else start, span.end if end is None else end
    whole = start == 0 and end >= span.file.size
    file = span.file
    return Stream(
        file.path, file.compression, start, None if whole else end, progress, complain=complain, opened=file.opened
    )


def _books(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """The one book of a file; of a collection its books, of very long ones volumes."""
    file = span.file
    identifier = _BOOK_SUFFIX.sub("", file.name.rpartition("/")[2])
    # Nobody to complain to: a book with a hole is none.
    stream = Stream(file.path, file.compression, progress=progress.at, opened=file.opened)
    books = chain.from_iterable(map(parse_books, volumes(_sound_lines(stream))))
    for number, (paragraphs, stripped) in enumerate(books, 1):
        name = identifier if number == 1 else f"{identifier}#{number}"
        yield RawDocument(file.source, file.rank, "book", name, paragraphs, stripped)


def _sound_lines(stream: Stream) -> Iterator[str]:
    for _, line in read_lines(stream):
        if isinstance(line, BadInput):
            # Half a book is none: whatever is bad in it, the rest is refused.
            raise Damaged(str(line))
        yield line


def _articles(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """A document a line."""
    stream = _stream(span, complain, progress.at, max(span.start - 1, 0))
    for offset, line in own_lines(stream, complain, inside=span.start > 0):
        # Behind damaged data a line may be half of one.
        if line.strip() and offset != stream.resumed:
            yield _document(span.file, f"{span.file.name}@{offset}", [line])


def _sentences(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """Documents of a sentence a line, a blank line before each. A document belongs to the span that this blank line
    starts in; one longer than a volume is cut."""
    file = span.file
    stream = _stream(span, complain, progress.at, max(span.start - 1, 0))
    is_ours = span.start == 0
    gathered: list[str] = []
    first = size = 0
    for offset, line in read_lines(stream, inside=span.start > 0):
        if isinstance(line, Damaged):
            raise line
        if isinstance(line, BadInput):
            if is_ours:
                complain(line)
            continue
        # Behind damaged data a line may be half of one, and of another document.
        is_blank = not line.strip() or offset == stream.resumed
        if gathered and (is_blank or size > VOLUME_CHARACTERS):
            yield _document(file, f"{file.name}@{first}", gathered)
            gathered, size = [], 0
        if is_blank:
            if offset >= stream.limit:
                return
            is_ours = True
        elif is_ours:
            first = first if gathered else offset
            gathered.append(line)
            size += len(line)
    if gathered:
        yield _document(file, f"{file.name}@{first}", gathered)


def _lines(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """Lines of a running text: one document for those that start in the same GATHERED bytes; blank lines part, too."""
    begin, end = (-(-cut // GATHERED) * GATHERED for cut in (span.start, span.end))
    if begin == end > 0:
        return
    stream = _stream(span, complain, progress.at, max(begin - 1, 0), end)
    gathered: list[str] = []
    first = 0
    for offset, line in own_lines(stream, complain, inside=begin > 0):
        if offset == stream.resumed:
            # Behind damaged data a line may be half of one.
            line = ""
        if gathered and (not line.strip() or offset // GATHERED != first // GATHERED):
            yield _part_of_text(span.file, f"{span.file.name}@{first}", gathered, first // STRETCH)
            gathered = []
        if line := line.strip():
            first = first if gathered else offset
            gathered.append(line)
    if gathered:
        yield _part_of_text(span.file, f"{span.file.name}@{first}", gathered, first // STRETCH)


def _part_of_text(file: RawFile, identifier: str, lines: list[str], stretch: int | str) -> RawDocument:
    place = f"{file.source}/{file.name}/{stretch}"
    return RawDocument(file.source, file.rank, "lines", identifier, [" ".join(lines)], stretch=place)


def _jsonl(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    stream = _stream(span, complain, progress.at, max(span.start - 1, 0))
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
        yield _mended(file, place, extracted_paragraphs(_with_title(record.get("title"), text.split("\n"))))
    else:
        yield _mended(file, place, mended_paragraphs(text))


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


def _extracted(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """WikiExtractor's two forms: `<doc id= url= title=>` ... `</doc>`, or one JSON object a line."""
    if _is_json(span.file):
        yield from _jsonl(span, complain, progress)
    else:
        yield from _tagged(span, complain, progress)


def _is_json(file: RawFile) -> bool:
    for block in Stream(file.path, file.compression, text=False, opened=file.opened):
        if start := block.removeprefix(BOM).lstrip():
            return start.startswith(b"{")
    return False


def _tagged(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """A document starts at every `<doc id=` line; lines before a span's first one belong to the span before."""
    path = span.file.path
    stream = _stream(span, complain, progress.at, max(span.start - 1, 0))
    begun: int | None = None
    identifier, paragraphs, size = "", [""], 0
    # True where lines outside of documents need no complaint: what they are the rest of is somebody else's, or refused.
    passing = span.start > 0
    stopped = stream.resumed

    def refuse(what: str, offset: int) -> None:
        nonlocal begun, passing
        begun, passing = None, True
        complain(BadInput(f"{path}: {what} ({stream.where(offset)}); extract the file again, or take that part out"))

    for offset, line in read_lines(stream, inside=span.start > 0):
        if stream.resumed > stopped:
            begun, passing, stopped = None, True, stream.resumed
        if isinstance(line, str) and line.startswith(_DOC_START):
            if begun is not None:
                refuse(f"document {identifier} has no </doc> before the next one begins", begun)
            if offset >= stream.limit:
                return
            match = _DOC.match(line)
            if match is None:
                refuse(f'malformed {line[:80]!r}, wanted <doc id="..." ...>', offset)
                continue
            begun, identifier, paragraphs, size = offset, match[1], [], 0
        elif begun is None and offset >= stream.limit:
            return
        elif isinstance(line, BadInput):
            if begun is None and passing:
                continue
            if isinstance(line, Damaged):
                raise line
            begun, passing = None, True
            complain(line)
        elif line.startswith(_DOC_END):
            if begun is not None:
                yield _mended(span.file, identifier, extracted_paragraphs(paragraphs))
            elif not passing:
                refuse("</doc> without a <doc> before it", offset)
            begun, passing = None, False
        elif line.strip() and begun is not None:
            paragraphs.append(line)
            size += len(line)
            if size > MAX_RECORD_BYTES:
                refuse(f"document {identifier} is longer than {MAX_RECORD_BYTES:,} characters", begun)
        elif line.strip() and not passing:
            refuse(f"text outside <doc> ... </doc>: {line[:60]!r}", offset)
    if begun is not None and stream.resumed == stopped:
        refuse(f"the file ends inside document {identifier} (no </doc>), so it is truncated", begun)


def _dump(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    """Articles of a MediaWiki dump, the title as their first paragraph; other pages as wikitext, `dropped`."""
    file = span.file
    names = _names(file)
    stream = _stream(span, complain, progress.at)
    for offset, raw in iter_pages(stream, MAX_RECORD_BYTES):
        if stream.base + offset >= stream.limit:
            return
        try:
            page = parse_page(raw)
        except ValueError as error:
            where = stream.where(stream.base + offset)
            complain(BadInput(f"{file.path}: {error} ({where}); fetch the dump again or take the page out"))
            continue
        dropped = keep_page(page, names)
        cut: Counter[str] = Counter()
        paragraphs = page.text.split("\n") if dropped else [page.title, *plain_text(page.text, names, cut)]
        yield RawDocument(file.source, file.rank, file.format, page.id, paragraphs, dropped=dropped, cut=cut)


@lru_cache(maxsize=4)
def _names(file: RawFile) -> Names:
    """The names of a dump's wiki, which stand at its beginning only, wherever a span of it starts."""
    try:
        return names_of(read_site(Stream(file.path, file.compression, opened=file.opened)))
    except Damaged:
        # What is wrong with the beginning of the file is said by the span that reads its pages.
        return names_of(Site())


def _parquet(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
    file = span.file
    yield from _table(file, read_parquet(file.path, file.text, span.start, span.end, progress.parts), complain)


def _hub(span: Span, complain: Complain, progress: _SpanProgress) -> Iterator[RawDocument]:
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
            yield _mended(file, row.id, mended_paragraphs(row.text))
            continue
        line = " ".join(mended_paragraphs(row.text)[0]).strip()
        if first is not None and (not line or row.part != first.part or size >= GATHERED):
            yield _part_of_text(file, first.id, gathered, f"{first.part}.{number // _PARTS_OF_STRETCH}")
            number = number + 1 if row.part == first.part else 0
            gathered, first, size = [], None, 0
        if line:
            first = first or row
            gathered.append(line)
            size += len(line) + 1
    if first is not None:
        yield _part_of_text(file, first.id, gathered, f"{first.part}.{number // _PARTS_OF_STRETCH}")


_READERS: dict[str, Callable[[Span, Complain, _SpanProgress], Iterator[RawDocument]]] = {
    "book": _books,
    "lines": _lines,
    "articles": _articles,
    "sentences": _sentences,
    "jsonl": _jsonl,
    "wikiextractor": _extracted,
    "wikidump": _dump,
    "parquet": _parquet,
    "hub": _hub,
}
