"""Text files as documents: books, articles a line, sentences with blank lines between documents, running text.

Knows nothing of how paragraphs are found in a book, or of other formats.
"""

import re
from collections.abc import Iterator
from itertools import chain

from data_prep.raw.books import VOLUME_BYTES, parse_books
from data_prep.raw.lines import own_lines, read_lines, read_texts
from data_prep.raw.raw_documents import RawDocument, SpanProgress, document_of, part_of_text, stream_of
from data_prep.raw.sources import Span
from data_prep.raw.streams import BadInput, Complain, Damaged, Stream

# Neighbours in a running text tell of each other: so many bytes of it go into one split.
STRETCH = 250_000
# Lines of a running text become documents of about this size: those that start in the same so many bytes of a file,
# which is so wherever it is cut into spans.
GATHERED = 5_000

_BOOK_SUFFIX = re.compile(r"\.(?:txt|text)(?:\.(?:gz|bz2|xz|zst))?$", re.IGNORECASE)


def read_books(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """The one book of a file; of a collection its books, of very long ones volumes."""
    file = span.file
    identifier = _BOOK_SUFFIX.sub("", file.name.rpartition("/")[2])
    # Nobody to complain to: a book with a hole is none.
    stream = Stream(file.path, file.compression, progress=progress.at, opened=file.opened)
    books = chain.from_iterable(map(parse_books, read_texts(stream, VOLUME_BYTES)))
    for number, (paragraphs, stripped, left_out) in enumerate(books, 1):
        name = identifier if number == 1 else f"{identifier}#{number}"
        edits = {"additions_dropped": left_out} if left_out else {}
        yield RawDocument(file.source, file.rank, "book", name, paragraphs, stripped, edits=edits)


def read_articles(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """A document a line."""
    stream = stream_of(span, complain, progress.at, max(span.start - 1, 0))
    for offset, line in own_lines(stream, complain, inside=span.start > 0):
        # Behind damaged data a line may be half of one.
        if line.strip() and offset != stream.resumed:
            yield document_of(span.file, f"{span.file.name}@{offset}", [line])


def read_sentences(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """Documents of a sentence a line, a blank line before each. A document belongs to the span that this blank line
    starts in; one longer than a volume is cut."""
    file = span.file
    stream = stream_of(span, complain, progress.at, max(span.start - 1, 0))
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
        if gathered and (is_blank or size > VOLUME_BYTES):
            yield document_of(file, f"{file.name}@{first}", gathered)
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
        yield document_of(file, f"{file.name}@{first}", gathered)


def read_running_text(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """Lines of a running text: one document for those that start in the same GATHERED bytes; blank lines part, too."""
    begin, end = (-(-cut // GATHERED) * GATHERED for cut in (span.start, span.end))
    if begin == end > 0:
        return
    stream = stream_of(span, complain, progress.at, max(begin - 1, 0), end)
    gathered: list[str] = []
    first = 0
    for offset, line in own_lines(stream, complain, inside=begin > 0):
        if offset == stream.resumed:
            # Behind damaged data a line may be half of one.
            line = ""
        if gathered and (not line.strip() or offset // GATHERED != first // GATHERED):
            yield part_of_text(span.file, f"{span.file.name}@{first}", gathered, first // STRETCH)
            gathered = []
        if line := line.strip():
            first = first if gathered else offset
            gathered.append(line)
    if gathered:
        yield part_of_text(span.file, f"{span.file.name}@{first}", gathered, first // STRETCH)
