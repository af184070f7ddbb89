"""Archives: the members of .zip and .tar files (however packed) listed, and read as files, never unpacked to disk.

A member's name is a name and nothing else. Knows nothing of the members' formats.
"""

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

from data_prep.raw.compression import Compression
from data_prep.raw.streams import BOMB_BYTES, BOMB_RATIO, Damaged, Stream

Kind = Literal["zip", "tar"]
Seen = TypeVar("Seen")

# So much of a member is read when it is listed, for its format to be recognised.
HEAD_BYTES = 1 << 20
_TAR_HEADER = 512
_TAR_BLOCK = 1 << 20
_ENCRYPTED = 1
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_REMEDY = "mend the archive, or unpack it and name the folder as the source"


@dataclass(frozen=True)
class Inside:
    """Where a member's bytes are: `place` is its number in a zip file, its offset in an unpacked tar file."""

    archive: str
    kind: Kind
    compression: Compression
    member: str
    place: int
    size: int


@dataclass(frozen=True)
class Member(Generic[Seen]):
    """A member and what was seen at its beginning; with a `problem` it is not to be read.

    Where neither is there, it has no bytes of its own, as a device has none. Without a name it is the archive itself.
    """

    name: str
    inside: Inside | None = None
    seen: Seen | None = None
    problem: str = ""


def archive_kind(name: str, start: bytes) -> Kind | None:
    """What archive a file is, by its first unpacked bytes; documents that are zip files under another name are none."""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip" if Path(name).suffix.lower() in (".zip", "") else None
    if len(start) < _TAR_HEADER or not start[0]:
        return None
    try:
        tarfile.TarInfo.frombuf(start[:_TAR_HEADER], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "tar"


def list_members(
    path: str, kind: Kind, compression: Compression, look: Callable[[str, bytes], Seen]
) -> Iterator[Member[Seen]]:
    """All members but folders and what is hidden, the last one of each name; `look` sees name and beginning of each.

    A link to another member is that one once more and does not come. What is wrong comes as a problem: names that
    lead out of the archive, other links, members that are encrypted or damaged, an archive that is a bomb.
    """
    entries = _zip_entries(path) if kind == "zip" else _tar_entries(path, compression)
    members: dict[str, Member[Seen]] = {}
    links: dict[str, str] = {}
    for member, target in entries:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if any(part.startswith(".") and part != ".." for part in parts):
            continue
        if member.name.startswith("/") or ".." in parts:
            problem = f"{path}: the name of its member {member.name} leads out of the archive; {_REMEDY}"
            members[member.name] = Member(member.name, problem=problem)
        elif target is not None:
            links[name] = os.path.normpath(target)
        else:
            # Looked at here, where nothing is caught: what the libraries raise over damage says nothing of us.
            seen = None if member.seen is None else look(member.name, member.seen)
            members[name] = Member(name, member.inside, seen, member.problem)
    yield from members.values()
    for name, target in links.items():
        if target not in members:
            yield Member(name, problem=f"{path}: its member {name} is a link to {target}, not in it; {_REMEDY}")


def _zip_entries(path: str) -> Iterator[tuple[Member[bytes], str | None]]:
    try:
        archive = zipfile.ZipFile(path)
    except (*_ERRORS, OSError) as error:
        yield Member("", problem=_damaged(path, error)), None
        return
    with archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > BOMB_BYTES and size > BOMB_RATIO * os.path.getsize(path):
            problem = f"{path} unpacks to {size >> 20:,} MiB, as only a decompression bomb does; {_REMEDY}"
            yield Member("", problem=problem), None
            return
        for number, entry in enumerate(entries):
            if entry.is_dir():
                continue
            name, mode = entry.filename, entry.external_attr >> 16
            inside = Inside(path, "zip", "none", name, number, entry.file_size)
            try:
                if entry.flag_bits & _ENCRYPTED:
                    yield Member(name, problem=f"{path}: its member {name} is encrypted; {_REMEDY}"), None
                elif entry.compress_type not in _ZIP_METHODS:
                    way = f"method {entry.compress_type}, which is not read here"
                    yield Member(name, problem=f"{path}: its member {name} is packed by {way}; {_REMEDY}"), None
                elif stat.S_ISLNK(mode):
                    target = archive.read(entry).decode("utf-8", "surrogateescape")
                    yield Member(name), os.path.join(os.path.dirname(name), target)
                else:
                    with archive.open(entry) as file:
                        yield Member(name, inside, file.read(HEAD_BYTES)), None
            except (*_ERRORS, OSError) as error:
                yield Member(name, problem=_damaged(f"{path}: its member {name}", error)), None


def _tar_entries(path: str, compression: Compression) -> Iterator[tuple[Member[bytes], str | None]]:
    """Each member is known to be whole when the next header is found."""
    forward = _Forward(path, compression)
    found: tuple[Member[bytes], str | None] | None = None
    problem = ""
    try:
        with tarfile.open(
            fileobj=io.BufferedReader(forward), mode="r|", bufsize=_TAR_BLOCK, errors="surrogateescape"
        ) as archive:
            for entry in archive:
                if found:
                    yield found
                found = _tar_entry(path, compression, archive, entry)
        if found:
            yield found
    except _ERRORS as error:
        problem = _damaged(path, error)
    if problem or forward.problem:
        yield Member("", problem=forward.problem or problem), None


def _tar_entry(
    path: str,
    compression: Compression,
    archive: tarfile.TarFile,
    entry: tarfile.TarInfo,
) -> tuple[Member[bytes], str | None] | None:
    name = entry.name
    if entry.isdir():
        return None
    if entry.islnk():
        return Member(name), entry.linkname
    if entry.issym():
        return Member(name), os.path.join(os.path.dirname(name), entry.linkname)
    if entry.issparse():
        return Member(name, problem=f"{path}: its member {name} is stored as a sparse file; {_REMEDY}"), None
    file = archive.extractfile(entry)
    if file is None:
        return Member(name), None
    inside = Inside(path, "tar", compression, name, entry.offset_data, entry.size)
    return Member(name, inside, file.read(HEAD_BYTES)), None


def _damaged(what: str, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return f"{what} cannot be read ({reason}); {_REMEDY}"


def open_member(inside: Inside) -> BinaryIO:
    """A member's bytes, from the first to the last. Reading raises Damaged for what is not as it was listed."""
    status = os.stat(inside.archive)
    stamp = (status.st_size, status.st_mtime_ns)
    if inside.kind == "zip":
        archive = _zip_file(inside.archive, stamp)
        return io.BufferedReader(_Section(inside, archive.open(archive.infolist()[inside.place])))
    if inside.compression == "none":
        file = io.FileIO(inside.archive)
        file.seek(inside.place)
        return io.BufferedReader(_Section(inside, file))
    forward = _forward(inside.archive, inside.compression, stamp)
    if forward.position > inside.place:
        _forward.cache_clear()
        forward = _forward(inside.archive, inside.compression, stamp)
    forward.skip(inside.place - forward.position)
    return io.BufferedReader(_Section(inside, forward))


@lru_cache(maxsize=1)
def _zip_file(path: str, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """Its list of members is read once, not once for each of them."""
    return zipfile.ZipFile(path)


@lru_cache(maxsize=1)
def _forward(path: str, compression: Compression, stamp: tuple[int, int]) -> "_Forward":
    """Members of a packed tar file are read one after another: the next one lies ahead."""
    return _Forward(path, compression)


class _Forward(io.RawIOBase):
    """The unpacked bytes of a file, from the first on, up to its end or to the `problem` that ends it."""

    def __init__(self, path: str, compression: Compression) -> None:
        self._blocks = iter(Stream(path, compression, text=False))
        self._block, self._used = b"", 0
        self.position = 0
        self.problem = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._used == len(self._block):
            try:
                self._block, self._used = next(self._blocks, b""), 0
            except Damaged as damaged:
                # What came before it is still to be read.
                self._block, self._used, self.problem = b"", 0, str(damaged)
        part = self._block[self._used : self._used + len(buffer)]
        buffer[: len(part)] = part
        self._used += len(part)
        self.position += len(part)
        return len(part)

    def skip(self, size: int) -> None:
        while size and (passed := len(self.read(min(size, _TAR_BLOCK)))):
            size -= passed


class _Section(io.RawIOBase):
    """The next bytes of an open file, as many as a member has."""

    def __init__(self, inside: Inside, file: Any) -> None:
        self._inside, self._file, self._left = inside, file, inside.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._left)
        what = f"{self._inside.archive}: its member {self._inside.member}"
        try:
            data = self._file.read(wanted) if wanted else b""
        except _ERRORS as error:
            raise Damaged(_damaged(what, error)) from error
        if wanted and not data:
            raise Damaged(f"{what} ends {self._left:,} bytes too early; {_REMEDY}")
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        # The next member is read from where this one ends.
        if not isinstance(self._file, _Forward):
            self._file.close()
        super().close()
