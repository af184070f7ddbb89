"""MediaWiki XML dumps: the pages of a stream of bytes, what each page says, and which pages are articles.

Knows nothing of files, compression, wikitext markup or cleaning rules.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.parsers import expat

MAX_PAGE_BYTES = 32 << 20
_START, _END = b"<page>", b"</page>"
_MAX_DEPTH = 16
_TEXT_BUFFER = 1 << 16

# Where a page keeps what is read of it. Of several revisions the last one counts, as dumps are in order of time.
_FIELDS = {
    ("page", "title"): "title",
    ("page", "ns"): "ns",
    ("page", "id"): "id",
    ("page", "revision", "model"): "model",
    ("page", "revision", "text"): "text",
}
_REDIRECT = ("page", "redirect")
_REDIRECT_TEXT = re.compile(r"\s*#redirect\s*:?\s*\[\[", re.IGNORECASE)
# By name, not by ending: {{disambiguation needed}} and {{other uses (disambiguation)}} stand in articles.
_DISAMBIGUATION = re.compile(
    r"__DISAMBIG__|\{\{\s*(?:template:)?(?:"
    r"(?:(?:human name|hospital|place name|geo|school|church|county|airport|road|station|genus|species latin name|"
    r"mathematical|music|opus number|letter-number combination|chinese title|phonetics|taxonomic authority|"
    r"plant common name|biology|village|synagogue|caselaw)[ _])?disambig(?:uation)?(?: page)?"
    r"|disamb|disambig-\w+|dab|hn-?dis|geo-?dis|schooldis|num(?:ber)?dis|roaddis|mil-unit-dis|mathdab|callsigndis|tndis"
    r"|begriffskl\u00e4rung|homonymie|desambiguaci\u00f3n|desambigua\u00e7\u00e3o|disambigua|dp|doorverwijspagina"
    r"|\u043d\u0435\u043e\u0434\u043d\u043e\u0437\u043d\u0430\u0447\u043d\u043e\u0441\u0442\u044c"
    r")\s*(?:\||\}\})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Page:
    """One page of a dump; `text` is its wikitext, `model` its content model ("wikitext" for articles)."""

    id: str
    title: str
    namespace: int
    redirect: bool
    text: str
    model: str


def iter_pages(blocks: Iterable[bytes], limit: int = MAX_PAGE_BYTES) -> Iterator[tuple[int, bytes]]:
    """(offset in the stream, `<page>...</page>`) of every page that starts in the blocks (UTF-8).

    A page that has no end, because the stream stops, the next page starts or `limit` bytes are over, comes as
    far as it goes and is refused by `parse_page`; reading goes on at the next `<page>`. An empty block says that
    what follows does not go on with what came before: half a page before it does not come. At most `limit` bytes and
    one block are held.
    """
    buffer, offset, seen, inside = bytearray(), 0, 0, False
    for block in blocks:
        if not block:
            offset, seen, inside = offset + len(buffer), 0, False
            buffer.clear()
        buffer += block
        while True:
            if not inside:
                start = buffer.find(_START, seen)
                inside = start >= 0
                skipped = start if inside else max(len(buffer) - len(_START) + 1, 0)
                del buffer[:skipped]
                offset, seen = offset + skipped, len(_START) if inside else 0
                if not inside:
                    break
            end = buffer.find(_END, seen)
            following = buffer.find(_START, seen, end if end >= 0 else len(buffer))
            if following >= 0:
                stop = following
            elif end >= 0:
                stop = end + len(_END)
            elif len(buffer) > limit + len(_END):
                stop = limit
            else:
                seen = max(len(buffer) - len(_END) + 1, len(_START))
                break
            yield offset, bytes(buffer[: min(stop, limit)])
            del buffer[:stop]
            offset, seen, inside = offset + stop, 0, False
    if inside:
        yield offset, bytes(buffer[:limit])


def parse_page(page: bytes) -> Page:
    """Read one `<page>...</page>`. Raises ValueError, in one line, where it is malformed or incomplete.

    There is no room for a document type before `<page>`, so no entities but XML's five and numeric ones.
    """
    if not page.startswith(_START):
        raise ValueError(f"a page starts with <page>, this one with {page[:20]!r}")
    if not page.endswith(_END):
        raise ValueError(f"the page has no </page> in its {len(page):,} bytes: it is cut short or too long")
    reader = _PageReader()
    try:
        reader.parser.Parse(page, True)
    except expat.ExpatError as error:
        raise ValueError(f"the page is not well-formed XML: {error}") from error
    fields = {name: "".join(parts) for name, parts in reader.parts.items()}
    missing = [name for name in ("title", "ns", "id", "text") if name not in fields]
    if missing:
        raise ValueError(f"the page has no <{missing[0]}>: not a page of a MediaWiki dump, or of one older than 1.18")
    if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", fields["ns"]):
        raise ValueError(f"the page's <ns> is {fields['ns'][:40]!r}, wanted a number")
    text = fields["text"]
    return Page(
        id=fields["id"].strip(),
        title=fields["title"].strip(),
        namespace=int(fields["ns"]),
        redirect=reader.redirect or _REDIRECT_TEXT.match(text) is not None,
        text=text,
        model=fields.get("model", "wikitext").strip(),
    )


class _PageReader:
    """Handlers that keep the text of the elements in _FIELDS and drop everything else."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate("UTF-8")
        self.parser.buffer_text = True
        self.parser.buffer_size = _TEXT_BUFFER
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parts: dict[str, list[str]] = {}
        self.redirect = False
        self._path: list[str] = []

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > _MAX_DEPTH:
            raise ValueError(f"the page nests elements more than {_MAX_DEPTH} deep: not a page of a MediaWiki dump")
        path = tuple(self._path)
        self.redirect = self.redirect or path == _REDIRECT
        field = _FIELDS.get(path)
        if field is not None:
            self.parts[field] = []
            self.parser.CharacterDataHandler = self.parts[field].append
        else:
            self.parser.CharacterDataHandler = None

    def _end(self, _: str) -> None:
        self._path.pop()
        self.parser.CharacterDataHandler = None


def keep_page(page: Page) -> str | None:
    """None for an article, else why the page is none."""
    if page.namespace != 0:
        return "other namespaces"
    if page.redirect:
        return "redirects"
    if page.model != "wikitext":
        return "other content models"
    if page.title.lower().endswith(" (disambiguation)") or _DISAMBIGUATION.search(page.text):
        return "disambiguation pages"
    return None
