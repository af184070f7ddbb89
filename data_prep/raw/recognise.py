"""Which format a raw file has: by its first unpacked bytes, else by its name.

Knows nothing of sources, and reads no more than the beginning of a file.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from data_prep.raw.compression import MAGIC_BYTES, Compression, compression_of
from data_prep.raw.layouts import has_blank_lines, hint_of, layout_of
from data_prep.raw.streams import BOM, Damaged, Stream, wide_encoding

Format = Literal["book", "lines", "articles", "sentences", "wikiextractor", "wikidump", "jsonl", "parquet", "hub"]

_PACKED_SUFFIX = re.compile(r"\.(?:gz|bz2|xz|zst)$", re.IGNORECASE)
_BY_SUFFIX: dict[str, Format] = {
    ".txt": "book",
    ".text": "book",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
# A first line is looked at up to here; WikiExtractor's JSON form keeps a whole article on a line.
_PEEK_BYTES = 1 << 20
# So much shows the layout of a text.
_LAYOUT_BYTES = 1 << 16
_PARQUET = b"PAR1"
_DUMP = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<(?:mediawiki|page)[\s>]")
_EXTRACTED = re.compile(rb"\s*<doc id=")
_EXTRACTED_KEYS = {"id", "url", "title", "text"}


def peek(path: str, opened: Callable[[], BinaryIO] | None = None) -> tuple[Compression, bytes, bool]:
    """How a file is packed, its first unpacked bytes as far as they can be read, and whether any could.

    `opened` gives the bytes of what is no file of its own.
    """
    start = b""
    compression: Compression = "none"
    try:
        with opened() if opened else Path(path).open("rb") as file:
            compression = compression_of(file.read(MAGIC_BYTES))
        for block in Stream(path, compression, text=False, opened=opened):
            start += block
            if len(start) >= _PEEK_BYTES:
                break
    except (OSError, Damaged):
        # Reading the whole file will complain of it.
        return compression, start.removeprefix(BOM), bool(start)
    return compression, start.removeprefix(BOM), True


def format_of(name: str, start: bytes, readable: bool, wanted: Format | None, text: str) -> Format | None:
    """The format of a file by what `peek` saw, None where it is none we know.

    `wanted` is what the user says of all files; parquet is known for sure nevertheless, and so are "lines" that blank
    lines part into documents: those are "sentences". A file that cannot be read is
    taken for what its name says, or a book, so that reading it complains.
    """
    if start.startswith(_PARQUET):
        return "parquet"
    if wanted == "lines":
        return "sentences" if has_blank_lines(_decoded(start)) else "lines"
    found = wanted or _by_content(start, text) or _BY_SUFFIX.get(plain_suffix(name))
    if found is None and not readable:
        return "wikidump" if ".xml" in name.lower() else "book"
    return layout_of(_decoded(start)) if found == "book" and wanted is None else found


def hint(kind: Format, start: bytes) -> str:
    """What to say of a file of this format, where it may be something else; "" where there is nothing to say."""
    return hint_of(_decoded(start), kind) if kind in ("book", "articles") else ""


def _decoded(start: bytes) -> str:
    return start[:_LAYOUT_BYTES].decode("utf-8", "replace")


def plain_suffix(name: str) -> str:
    """The suffix of a name without that of its packing, in lower case."""
    return Path(_PACKED_SUFFIX.sub("", name)).suffix.lower()


def is_packed_name(name: str) -> bool:
    """Whether a name ends as those of packed files do."""
    return _PACKED_SUFFIX.search(name) is not None


def _by_content(start: bytes, text: str) -> Format | None:
    if wide_encoding(start):
        # Not readable, but to be refused as what it is.
        start = start.replace(b"\0", b"").lstrip(b"\xff\xfe")
    if _DUMP.match(start):
        return "wikidump"
    if _EXTRACTED.match(start):
        return "wikiextractor"
    line, newline, _ = start.partition(b"\n")
    if not line.startswith(b"{") or not (newline or len(start) < _PEEK_BYTES):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if text == "text" and record.keys() >= _EXTRACTED_KEYS:
        return "wikiextractor"
    return "jsonl" if isinstance(record.get(text), str) else None
