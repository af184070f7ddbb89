"""What the user named as a source -> its raw files and members of archives, recognised by content -> units of work.

Knows nothing of what becomes of a file after it is found.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, get_args

from data_prep.manifest import UserError
from data_prep.raw.archives import Inside, archive_kind, list_members, open_member
from data_prep.raw.compression import Compression
from data_prep.raw.recognise import Format, format_of, is_packed_name, peek, plain_suffix
from data_prep.raw.tables import Hub, hub_facts, num_row_groups
from data_prep.terminal import escaped

# About what one task reads from disk.
UNIT_BYTES = 8 << 20

_HUB = "hub:"
_WANTED = (
    "text files (.txt), MediaWiki dumps, WikiExtractor output, JSON lines or parquet, plain, .gz, .bz2, .xz, .zst or "
    "in .zip and .tar archives; unpack others, such as .7z and .rar"
)
_SUFFIXES = re.compile(r"(?:\.(?:txt|text|jsonl|ndjson|json|xml|parquet|gz|bz2|xz|zst|tgz|tar|zip))+$", re.IGNORECASE)
_SPLITTABLE: tuple[Format, ...] = ("lines", "wikiextractor", "wikidump", "jsonl")


@dataclass(frozen=True)
class Source:
    """A source as the user named it. `format` None: recognised by content; `text`: the column, "text" if None.

    `format` "lines" on parquet and hub sources says that every row is one line of a running text.
    """

    location: str
    name: str
    is_hub: bool = False
    format: Format | None = None
    text: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None


@dataclass(frozen=True)
class RawFile:
    """A raw file of a known format, or a hub's data set as if it were one.

    `name` is its path below its source as it can be printed; `rank` the position of its source; `parts` the row
    groups of a parquet file or the shards of a data set; `rows_are_lines`: the rows of a table are lines of a running
    text. `fingerprint` stands for the hash of a data set, which has no bytes here. `inside`: it is a member of an
    archive, and `path` names both. `problem`: why there is nothing to be read, as one line. `is_empty`: that is as it
    should be.
    """

    path: str
    name: str
    source: str
    rank: int
    format: Format
    compression: Compression
    size: int
    text: str = "text"
    parts: int = 0
    rows_are_lines: bool = False
    hub: Hub | None = None
    fingerprint: str = ""
    inside: Inside | None = None
    problem: str = ""
    is_empty: bool = False

    @property
    def on_disk(self) -> str:
        """The file that holds its bytes."""
        return self.inside.archive if self.inside else self.path

    @property
    def opened(self) -> Callable[[], BinaryIO] | None:
        """What opens a member of an archive, None for a file of its own."""
        return partial(open_member, self.inside) if self.inside else None


@dataclass(frozen=True)
class Span:
    """The records that start in [start, end) of a file: bytes on disk, row groups of a parquet file, shards."""

    file: RawFile
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes on disk; the sizes of the spans of a file add up to its own."""
        if not self.file.parts:
            return self.end - self.start
        size, parts = self.file.size, self.file.parts
        return size * self.end // parts - size * self.start // parts


Unit = tuple[Span, ...]


def parse_source(spec: str) -> Source:
    """`PATH`, `PATH?name=books&format=lines&text=body` or `hub:OWNER/NAME?config=..&split=train&revision=..`.

    Values stand as they are, without escapes. A path that exists as it is written wins over the reading with "?".
    Raises UserError for what it does not know.
    """
    is_hub = spec.startswith(_HUB)
    location, mark, options = spec.rpartition("?")
    if not mark or (not is_hub and Path(spec).exists()):
        location, options = spec, ""
    values: dict[str, str] = {}
    known = ("name", "format", "text", "config", "split", "revision") if is_hub else ("name", "format", "text")
    for option in options.split("&") if options else []:
        key, equals, value = option.partition("=")
        if key not in known or not (equals and value) or key in values:
            raise UserError(
                f"source {spec}: {option!r} is not understood; options of {'a hub' if is_hub else 'a path'} are "
                f"{', '.join(f'{name}=..' for name in known)}, each once, joined with &"
            )
        values[key] = value
    formats = ("hub", "lines") if is_hub else tuple(name for name in get_args(Format) if name != "hub")
    if values.get("format", formats[0]) not in formats:
        raise UserError(f"source {spec}: format={values['format']} is unknown, wanted one of {', '.join(formats)}")
    location = location.removeprefix(_HUB) if is_hub else location
    if not location:
        raise UserError(f"source {spec!r} names neither a path nor a data set")
    # Names get into documents, which are UTF-8.
    values["name"] = escaped(values.get("name", location if is_hub else _default_name(location)))
    return Source(location=location, is_hub=is_hub, **values)  # type: ignore[arg-type]


def _default_name(location: str) -> str:
    last = Path(os.path.abspath(location)).name
    return _SUFFIXES.sub("", last) or last or location


def find_files(sources: Sequence[Source]) -> tuple[list[RawFile], list[str]]:
    """All recognised files in or below `sources`, in the order of sources and names, and the unrecognised names.

    A file reached twice counts once, for the source named first; hidden files and folders are not looked at. Of a
    source with a format all files are taken. What cannot be looked at, and a source that gives nothing, comes as a
    file with a problem. Raises UserError for a missing path, an unrecognised file given by itself, two sources of
    one name, a hub that does not answer, or where nothing is recognised.
    """
    by_name: dict[str, Source] = {}
    for source in sources:
        if source.name in by_name:
            raise UserError(
                f"two sources have the name {source.name}: {by_name[source.name].location} and {source.location}; "
                "name one with ?name=.."
            )
        by_name[source.name] = source
    recognised: dict[str, RawFile] = {}
    unrecognised: list[str] = []
    barren: list[RawFile] = []
    for rank, source in enumerate(sources):
        if source.is_hub:
            file = _hub_file(source, rank)
            recognised.setdefault(file.path, file)
            continue
        files, others = _files_below(source, rank)
        unrecognised += others
        if all(file.is_empty for file in files):
            barren.append(_barren(source, rank, len(files), others))
        for file in files:
            inside = file.inside
            key = os.path.realpath(file.on_disk)
            recognised.setdefault(f"{key}/{inside.member}" if inside else key, file)
    if not recognised:
        raise UserError(barren[0].problem)
    return sorted([*recognised.values(), *(barren if len(barren) < len(sources) else [])], key=_order), unrecognised


def _order(file: RawFile) -> tuple[int, str, int, str]:
    """By source and name; members of an archive as they lie in it, so that it is read once."""
    if file.inside is None:
        return file.rank, file.name, -1, ""
    return file.rank, file.name.removesuffix(file.inside.member), file.inside.place, file.name


def _barren(source: Source, rank: int, num_empty: int, others: Sequence[str]) -> RawFile:
    if num_empty:
        what = f"{num_empty} files looked at, all of them empty"
    else:
        shown = f", such as {others[0]}" if others else ""
        what = f"{len(others)} files looked at{shown}, none is known"
    return _unusable(
        Path(source.location), source, rank, ".", f"no text found in {source.location}: {what}; wanted are {_WANTED}"
    )


def _files_below(source: Source, rank: int) -> tuple[list[RawFile], list[str]]:
    """The files of one source, and the names of those that are not recognised."""
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
            inside = f" and holds nothing that is: {', '.join(map(str, found[:3]))}" if len(found) > 1 else ""
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


def _hub_file(source: Source, rank: int) -> RawFile:
    facts = hub_facts(Hub(source.location, source.config, source.split, source.revision))
    hub = facts.hub
    return RawFile(
        path=f"{_HUB}{hub.dataset}?config={hub.config}&split={hub.split}&revision={hub.revision}",
        name=source.location,
        source=source.name,
        rank=rank,
        format="hub",
        compression="none",
        size=facts.size,
        text=source.text or "text",
        parts=facts.shards,
        rows_are_lines=source.format == "lines",
        hub=hub,
        fingerprint=facts.fingerprint,
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

    for member in list_members(str(path), archive, compression, look):
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
    )


def plan_units(files: Sequence[RawFile], unit_bytes: int | None = None) -> list[Unit]:
    """The work in pieces of about `unit_bytes` (None: UNIT_BYTES): large files cut into spans, small ones together.

    A pure function of the files' order, formats and sizes: every machine and every restart comes to the same.
    """
    wanted = UNIT_BYTES if unit_bytes is None else unit_bytes
    units: list[Unit] = []
    together: list[Span] = []
    size = 0
    for file in files:
        spans = _spans(file, wanted)
        if len(spans) > 1:
            units += [(span,) for span in spans]
            continue
        if together and size + file.size > wanted and not _in_one_pass(together[-1].file, file):
            units.append(tuple(together))
            together, size = [], 0
        together += spans
        size += file.size
    return [*units, tuple(together)] if together else units


def _in_one_pass(before: RawFile, file: RawFile) -> bool:
    """Whether to read a file in one go with the one before it: members of a packed tar file lie behind one another."""
    one, other = before.inside, file.inside
    return one is not None and other is not None and one.archive == other.archive and one.compression != "none"


def _spans(file: RawFile, unit_bytes: int) -> list[Span]:
    number = -(-file.size // unit_bytes)
    if file.format == "hub":
        end = number = file.parts
    elif file.format == "parquet":
        end, number = file.parts, min(file.parts, number)
    elif file.format in _SPLITTABLE and not file.inside and (file.compression == "none" or _may_have_streams(file)):
        end = file.size
    else:
        end, number = file.size, 1
    number = max(number, 1)
    cuts = [end * part // number for part in range(number + 1)]
    return [Span(file, start, stop) for start, stop in pairwise(cuts)]


def _may_have_streams(file: RawFile) -> bool:
    """Multistream dumps can be entered anywhere; whether it is one shows when it is read."""
    return file.format == "wikidump" and file.compression == "bz2"
