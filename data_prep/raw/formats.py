"""Raw files to documents, one span after another: books, lines, WikiExtractor output, MediaWiki dumps, JSONL, tables.

Wherever a file is cut into spans, the documents of all spans are those of the whole file. Knows nothing of cleaning
rules, splits or tokens.
"""

from collections.abc import Callable, Iterator

from data_prep.raw.raw_documents import RawDocument, SpanProgress
from data_prep.raw.record_readers import read_data_set, read_jsonl, read_parquet_file
from data_prep.raw.sources import Span, Unit
from data_prep.raw.streams import Complain, Damaged
from data_prep.raw.text_readers import read_articles, read_books, read_running_text, read_sentences
from data_prep.raw.wiki_readers import read_dump, read_extracted

__all__ = ["RawDocument", "read_documents"]


def read_documents(unit: Unit, complain: Complain, report: Callable[[int], object]) -> Iterator[RawDocument]:
    """The documents of all spans of a unit.

    `complain` gets every bad record and every damaged file, once; where it returns, reading goes on with the next
    record or span. `report` is told bytes on disk, in all the sizes of the spans.
    """
    for span in unit:
        progress = SpanProgress(span, report)
        try:
            if span.file.problem:
                raise Damaged(span.file.problem)
            yield from _READERS[span.file.format](span, complain, progress)
        except Damaged as problem:
            complain(problem)
        progress.finish()


_READERS: dict[str, Callable[[Span, Complain, SpanProgress], Iterator[RawDocument]]] = {
    "book": read_books,
    "lines": read_running_text,
    "articles": read_articles,
    "sentences": read_sentences,
    "jsonl": read_jsonl,
    "wikiextractor": read_extracted,
    "wikidump": read_dump,
    "parquet": read_parquet_file,
    "hub": read_data_set,
}
