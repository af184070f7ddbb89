"""The files below one source: folders walked, archives looked into, formats recognised, and what cannot be used named.

Knows nothing of the order of sources, or of what becomes of a file.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

from data_prep.errors import UserError
from data_prep.raw.archives import archive_kind, list_members
from data_prep.raw.compression import Compression
from data_prep.raw.raw_files import RawFile, Source
from data_prep.raw.recognise import format_of, hint, is_packed_name, peek, plain_suffix
from data_prep.raw.tables import num_row_groups
from data_prep.terminal import escaped

_WANTED = (
    "text files (.txt), MediaWiki dumps, WikiExtractor output, JSON lines or parquet (of another column than 'text': "
    "?text=COLUMN), plain, .gz, .bz2, .xz, .zst or in .zip and .tar archives; unpack others, such as .7z and .rar, and "
    "archives in archives"
)


def files_below(source: Source, rank: int) -> tuple[list[RawFile], list[str]]:
    """The files of one source, and the names of those that are not recognised.

    Raises UserError for a path that is missing or no file, and for an unrecognised file given by itself.
    """
    root = Path(source.location)
    files: list[RawFile] = []
    others: list[str] = []
    try:
        mode = root.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENOENT and not root.is_symlink():
            raise UserError(f"source {root} does not exist") from error
        problem = f"cannot look at {root}: {error.strerror}; mend that or leave the source away"
        return [_unusable(root, source, rank, ".", problem)], []
    if not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            raise UserError(f"source {root} is neither a file nor a folder; write what it gives to a file first")
        found = list(_raw_files(root, source, rank, escaped(root.name)))
        if not any(isinstance(file, RawFile) for file in found):
            held = [str(name) for name in found if name != escaped(root.name)]
            inside = f" and holds nothing that is: {', '.join(held[:3])}" if held else ""
            raise UserError(f"source {root} is of no known format{inside}; wanted are {_WANTED}; or say ?format=..")
        return [file for file in found if isinstance(file, RawFile)], [name for name in found if isinstance(name, str)]
    for path, refused in _walk(root):
        name = escaped(str(path.relative_to(root)))
        if refused is not None:
            problem = f"cannot list the folder {path}: {refused.strerror or refused}; mend that or move it out"
            files.append(_unusable(path, source, rank, name, f"{problem} of the source"))
            continue
        for file in _raw_files(path, source, rank, name):
            if isinstance(file, RawFile):
                files.append(file)
            else:
                others.append(file)
    return files, others


def _walk(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """All files that are not hidden, and the folders that cannot be listed with what the system says."""
    visited = set()
    refused: list[OSError] = []
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refused.append):
        here = os.path.realpath(root)
        if here in visited:
            folders.clear()
            continue
        visited.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name), None
    for error in refused:
        yield Path(error.filename), error


def _unusable(path: Path, source: Source, rank: int, name: str, problem: str) -> RawFile:
    return RawFile(str(path), name, source.name, rank, "book", "none", 0, problem=problem)


def barren_source(source: Source, rank: int, num_empty: int, others: Sequence[str]) -> RawFile:
    """What stands for a source that gives no text: it has empty files and others that are not recognised."""
    if num_empty:
        what = f"{num_empty} files looked at, all of them empty"
    else:
        shown = f", such as {others[0]}" if others else ""
        what = f"{len(others)} files looked at{shown}, none is known"
    return _unusable(
        Path(source.location), source, rank, ".", f"no text found in {source.location}: {what}; wanted are {_WANTED}"
    )


def _raw_files(path: Path, source: Source, rank: int, name: str) -> Iterator[RawFile | str]:
    """The file as a RawFile, or its members if it is an archive; names of those of no known format."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield name
            return
        size = status.st_size
    except OSError:
        # Reading it will say what is wrong.
        size = 0
    compression, start, readable = peek(str(path))
    archive = archive_kind(path.name, start)
    if archive is None:
        yield _raw_file(str(path), source, rank, name, size, (compression, start, readable)) or name
        return

    def look(member: str, head: bytes) -> RawFile | None:
        place = f"{path}/{member}"
        return _raw_file(place, source, rank, f"{name}/{escaped(member)}", 0, peek(place, partial(BytesIO, head)))

    is_empty = True
    for member in list_members(str(path), archive, compression, look):
        is_empty = False
        shown = f"{name}/{escaped(member.name)}" if member.name else name
        if member.problem:
            yield _unusable(path / member.name, source, rank, shown, member.problem)
        elif member.inside is None or member.seen is None:
            yield shown
        elif member.seen.format == "parquet":
            problem = f"{member.seen.path}: parquet is not read inside of an archive; unpack it and name the folder"
            yield _unusable(path / member.name, source, rank, shown, problem)
        else:
            size = member.inside.size
            yield replace(member.seen, size=size, inside=member.inside, name=shown, path=f"{path}/{member.name}")
    if is_empty:
        yield name


def _raw_file(
    path: str, source: Source, rank: int, name: str, size: int, seen: tuple[Compression, bytes, bool]
) -> RawFile | None:
    """The file as a RawFile by what `peek` has seen, None where it is of no known format."""
    compression, start, readable = seen
    text = source.text or "text"
    is_empty = readable and not start.strip()
    kind = format_of(name, start, readable, source.format, text)
    problem = ""
    if is_empty and compression == "none" and not start and is_packed_name(name):
        kind, problem = kind or "book", f"{path} is empty, and no packed file is; fetch it again or move it out"
    elif is_empty and plain_suffix(name) == ".xml":
        kind, problem = kind or "wikidump", f"{path} holds no dump: it is empty; fetch it again or move it out"
    if kind is None:
        return None
    is_table = kind == "parquet"
    return RawFile(
        path=path,
        name=name,
        source=source.name,
        rank=rank,
        format=kind,
        compression="none" if is_table else compression,
        size=size,
        text=text,
        parts=num_row_groups(path) if is_table else 0,
        rows_are_lines=is_table and source.format == "lines",
        problem=f"{problem} of the source" if problem else "",
        is_empty=is_empty and not is_table and not problem,
        hint=hint(kind, start) if source.format is None else "",
    )
