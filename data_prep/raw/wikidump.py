"""MediaWiki XML dumps: the pages of a stream of bytes, what each page says, and which pages are articles.

Knows nothing of files, compression, wikitext markup or cleaning rules.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.parsers import expat
from xml.sax.saxutils import unescape

from data_prep.raw.wikinames import Names, Site, names_of, redirect_words

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
_MAX_HEAD_BYTES = 1 << 20
_LANGUAGE = re.compile(r"""<mediawiki\b[^>]*\bxml:lang\s*=\s*["']([^"'<>]{1,40})["']""")
_DATABASE = re.compile(r"<dbname>\s*(\w{1,40}?)wik\w*\s*</dbname>")
_NAMESPACE = re.compile(r"""<namespace\b[^>]*\bkey\s*=\s*["'](-?[0-9]{1,6})["'][^>]*>([^<]{1,200})</namespace>""")
# Titles of pages that list meanings: "Mercury (disambiguation)".
_MEANINGS = (
    "disambiguation|begriffskl\u00e4rung|homonymie|desambiguaci\u00f3n|desambigua\u00e7\u00e3o|desambiguaci\u00f3"
    "|disambigua|doorverwijspagina|ujednoznacznienie|\u0437\u043d\u0430\u0447\u0435\u043d\u0438\u044f"
    "|\u0437\u043d\u0430\u0447\u0435\u043d\u043d\u044f|olika betydelser|flertydig|anlam ayr\u0131m\u0131"
    "|rozcestn\u00edk|egy\u00e9rtelm\u0171s\u00edt\u0151 lap|\u66d6\u6627\u3055\u56de\u907f|\u6d88\u6b67\u4e49"
    "|\u6d88\u6b67\u7fa9|\u062a\u0648\u0636\u064a\u062d|\u0627\u0628\u0647\u0627\u0645\u200c\u0632\u062f\u0627\u06cc\u06cc"
    "|\ub3d9\uc74c\uc774\uc758|\u0111\u1ecbnh h\u01b0\u1edbng"
)
_DISAMBIGUATION_TITLE = re.compile(rf".* \((?:{_MEANINGS})\)", re.IGNORECASE | re.DOTALL)
_DISAMBIGUATION_SWITCH = re.compile("__(?:DISAMBIG|\u6d88\u9664\u6b67\u4e49|\u6d88\u9664\u6b67\u7fa9)__", re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """One page of a dump; `text` is its wikitext, `model` its content model ("wikitext" for articles)."""

    id: str
    title: str
    namespace: int
    redirect: bool
    text: str
    model: str


def read_site(blocks: Iterable[bytes]) -> Site:
    """The language and the namespaces of a dump, out of what comes before its first page; empty where it says none."""
    head = b""
    for block in blocks:
        head += block
        if _START in head or len(head) > _MAX_HEAD_BYTES:
            break
    text = head.partition(_START)[0].decode("utf-8", "replace")
    language = _LANGUAGE.search(text) or _DATABASE.search(text)
    namespaces = tuple((int(key), unescape(name).strip()) for key, name in _NAMESPACE.findall(text))
    return Site(language[1] if language else "", namespaces)


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
        redirect=reader.redirect or redirect_words().match(text) is not None,
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


def keep_page(page: Page, names: Names | None = None) -> str | None:
    """None for an article, else why the page is none; without `names` by those of all languages."""
    if page.namespace != 0:
        return "other namespaces"
    if page.redirect:
        return "redirects"
    if page.model != "wikitext":
        return "other content models"
    if _DISAMBIGUATION_TITLE.fullmatch(page.title) or _DISAMBIGUATION_SWITCH.search(page.text):
        return "disambiguation pages"
    if (names or names_of(Site())).disambiguation.search(page.text):
        return "disambiguation pages"
    return None
