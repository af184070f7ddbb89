"""One document before cleaning, and what all readers of raw files share: where a span stands, and its bytes.

Knows nothing of formats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from data_prep.raw.sources import RawFile, Span
from data_prep.raw.streams import Complain, Progress, Stream


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


class SpanProgress:
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


def document_of(file: RawFile, identifier: str, paragraphs: list[str]) -> RawDocument:
    """A document of a file, of its format."""
    return RawDocument(file.source, file.rank, file.format, identifier, paragraphs)


def mended_document(file: RawFile, identifier: str, mended: tuple[list[str], dict[str, int]]) -> RawDocument:
    """A document of mended paragraphs and the edits that this took."""
    paragraphs, edits = mended
    return RawDocument(file.source, file.rank, file.format, identifier, paragraphs, edits=edits)


def stream_of(
    span: Span, complain: Complain, progress: Progress, start: int | None = None, end: int | None = None
) -> Stream:
    """The bytes of a span; of files that are not cut, those of the whole file. Damaged parts are left out."""
    start, end = span.start if start is None else start, span.end if end is None else end
    whole = start == 0 and end >= span.file.size
    file = span.file
    return Stream(
        file.path, file.compression, start, None if whole else end, progress, complain=complain, opened=file.opened
    )


def part_of_text(file: RawFile, identifier: str, lines: list[str], stretch: int | str) -> RawDocument:
    """Lines of a running text as one document; `stretch` names their place among all of the file."""
    place = f"{file.source}/{file.name}/{stretch}"
    return RawDocument(file.source, file.rank, "lines", identifier, [" ".join(lines)], stretch=place)
