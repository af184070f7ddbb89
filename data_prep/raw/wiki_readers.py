"""Articles of wikis as documents: MediaWiki dumps, and what WikiExtractor made of them.

Knows nothing of markup.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from data_prep.raw.extracted import extracted_paragraphs
from data_prep.raw.lines import MAX_RECORD_BYTES, read_lines
from data_prep.raw.raw_documents import RawDocument, SpanProgress, mended_document, stream_of
from data_prep.raw.record_readers import read_jsonl
from data_prep.raw.sources import RawFile, Span
from data_prep.raw.streams import BOM, BadInput, Complain, Damaged, Stream
from data_prep.raw.wikidump import iter_pages, keep_page, parse_page, read_site
from data_prep.raw.wikinames import Names, Site, names_of
from data_prep.raw.wikitext import plain_text

_DOC = re.compile(r'<doc id="([^"]*)"')
_DOC_START, _DOC_END = "<doc id=", "</doc>"


def read_extracted(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """WikiExtractor's two forms: `<doc id= url= title=>` ... `</doc>`, or one JSON object a line."""
    if _is_json(span.file):
        yield from read_jsonl(span, complain, progress)
    else:
        yield from _tagged(span, complain, progress)


def _is_json(file: RawFile) -> bool:
    for block in Stream(file.path, file.compression, text=False, opened=file.opened):
        if start := block.removeprefix(BOM).lstrip():
            return start.startswith(b"{")
    return False


def _tagged(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """A document starts at every `<doc id=` line; lines before a span's first one belong to the span before."""
    path = span.file.path
    stream = stream_of(span, complain, progress.at, max(span.start - 1, 0))
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
                yield mended_document(span.file, identifier, extracted_paragraphs(paragraphs))
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


def read_dump(span: Span, complain: Complain, progress: SpanProgress) -> Iterator[RawDocument]:
    """Articles of a MediaWiki dump, the title as their first paragraph; other pages as wikitext, `dropped`."""
    file = span.file
    names = _names(file)
    stream = stream_of(span, complain, progress.at)
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
        paragraphs = page.text.split("\n") if dropped else [page.title, *plain_text(page.text, names, cut, page.title)]
        yield RawDocument(file.source, file.rank, file.format, page.id, paragraphs, dropped=dropped, cut=cut)


@lru_cache(maxsize=4)
def _names(file: RawFile) -> Names:
    """The names of a dump's wiki, which stand at its beginning only, wherever a span of it starts."""
    try:
        return names_of(read_site(Stream(file.path, file.compression, opened=file.opened)))
    except Damaged:
        # What is wrong with the beginning of the file is said by the span that reads its pages.
        return names_of(Site())
