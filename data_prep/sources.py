"""Raw files: finds them below the given paths, recognises their format by content, reads their lines.

Knows nothing of what becomes of a document after it is read.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from data_prep.manifest import UserError

Kind = Literal["book", "wikipedia"]

_BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_TEXT_NAME = re.compile(r"\.txt(\.gz)?$", re.IGNORECASE)
_EXTRACTED_DOC = re.compile(rb"\s*<doc id=")
# A first line is looked at up to here; WikiExtractor's JSON form keeps a whole article on a line.
_PEEK_BYTES = 1 << 20
_LINES_PER_REPORT = 2000


@dataclass(frozen=True)
class SourceFile:
    """A raw file of a recognised format. `name` is its path below the source it was found in."""

    path: Path
    name: str
    kind: Kind


def find_files(sources: Iterable[Path]) -> tuple[list[SourceFile], list[str]]:
    """All recognised files in or below `sources`, and the names of those that were not recognised.

    A file reached twice counts once; hidden files and folders are not looked at.
    Raises UserError for a missing path, an unrecognised file given by itself, or where nothing is recognised.
    """
    recognised: dict[str, SourceFile] = {}
    unrecognised: list[str] = []
    sources = list(sources)
    for source in sources:
        if not source.exists():
            raise UserError(f"--source {source} does not exist")
        paths = [source] if source.is_file() else list(_walk(source))
        for path in paths:
            kind = recognise(path)
            name = path.name if path == source else str(path.relative_to(source))
            if kind is not None:
                recognised.setdefault(os.path.realpath(path), SourceFile(path, name, kind))
            elif path == source:
                raise UserError(
                    f"--source {source} is of no known format; wanted are text files (.txt, .txt.gz) and "
                    "WikiExtractor output"
                )
            else:
                unrecognised.append(name)
    if not recognised:
        raise UserError(
            f"no text found in {', '.join(map(str, sources))}: {len(unrecognised)} files looked at, none is a "
            "text file (.txt, .txt.gz) or WikiExtractor output"
        )
    return sorted(recognised.values(), key=lambda file: (file.kind, file.name, str(file.path))), unrecognised


def _walk(folder: Path) -> Iterator[Path]:
    visited = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        if here in visited:
            folders.clear()
            continue
        visited.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name)


def recognise(path: Path) -> Kind | None:
    """The kind of a file: WikiExtractor's by its first bytes, a book by its name (.txt, .txt.gz)."""
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:
            start = stream.read(_PEEK_BYTES).removeprefix(_BOM)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(path, error)
    if _EXTRACTED_DOC.match(start) or _is_extracted_json(start):
        return "wikipedia"
    return "book" if _TEXT_NAME.search(path.name) else None


def _is_extracted_json(start: bytes) -> bool:
    line, newline, _ = start.partition(b"\n")
    if not line.startswith(b"{") or not newline:
        return False
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and {"id", "url", "title", "text"} <= record.keys()


def read_lines(path: Path, report: Callable[[int], object]) -> Iterator[str]:
    """The lines of a UTF-8 file, plain or gzip, without their "\\n" or "\\r\\n" and without a leading BOM.

    Lines end at "\\n" only: U+2028 and U+0085 occur inside real texts. `report` is told the bytes read from
    disk since its last call. Raises UserError for a binary file, one that is not UTF-8 (with the byte offset
    in the unpacked text), and a truncated or corrupt .gz.
    """
    reported = offset = 0
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:
            for number, line in enumerate(stream):
                if b"\0" in line:
                    raise UserError(
                        f"{path} is not a text file: NUL byte at offset {offset + line.index(0)}; "
                        "move it out of the source, or convert it to UTF-8 if it is UTF-16"
                    )
                body = line.removeprefix(_BOM) if number == 0 else line
                try:
                    text = body.decode("utf-8")
                except UnicodeDecodeError as error:
                    position = offset + len(line) - len(body) + error.start
                    raise UserError(
                        f"{path} is not UTF-8: byte 0x{body[error.start]:02x} at offset {position}; "
                        "convert it (for instance iconv -f latin1 -t utf-8) or move it out of the source"
                    ) from error
                offset += len(line)
                if number % _LINES_PER_REPORT == 0:
                    position_on_disk = raw.tell()
                    report(position_on_disk - reported)
                    reported = position_on_disk
                yield text.removesuffix("\n").removesuffix("\r")
            report(path.stat().st_size - reported)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(path, error)


def _unpacked(raw: BinaryIO) -> BinaryIO:
    """The stream itself, or its unpacked bytes where it begins like a gzip file, whatever its name."""
    magic = raw.read(len(_GZIP_MAGIC))
    raw.seek(0)
    return gzip.open(raw, "rb") if magic == _GZIP_MAGIC else raw  # type: ignore[return-value]


def _refuse(path: Path, error: Exception) -> NoReturn:
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    what = "ends in the middle (truncated)" if isinstance(error, EOFError) else f"is corrupt ({error})"
    raise UserError(f"{path}: this gzip file {what}; fetch it again or move it out of the source") from error
