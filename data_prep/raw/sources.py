"""What the user named as a source -> its raw files, recognised by content -> spans and units of work.

Knows nothing of what becomes of a file after it is found.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

from data_prep.manifest import UserError
from data_prep.raw.compression import Compression
from data_prep.raw.recognise import Format, format_of, peek
from data_prep.raw.tables import Hub, hub_facts, num_row_groups

# About what one task reads from disk.
UNIT_BYTES = 8 << 20

_HUB = "hub:"
_WANTED = (
    "text files (.txt), MediaWiki dumps, WikiExtractor output, JSON lines or parquet, plain, .gz, .bz2, .xz or .zst"
)
_SUFFIXES = re.compile(r"(?:\.(?:txt|text|jsonl|ndjson|json|xml|parquet|gz|bz2|xz|zst))+$", re.IGNORECASE)
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

    `name` is its path below its source; `rank` the position of its source; `parts` the row groups of a parquet
    file or the shards of a data set; `rows_are_lines`: the rows of a table are lines of a running text.
    `fingerprint` stands for the hash of a data set, which has no bytes here.
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
    values.setdefault("name", location if is_hub else _default_name(location))
    return Source(location=location, is_hub=is_hub, **values)  # type: ignore[arg-type]


def _default_name(location: str) -> str:
    last = Path(os.path.abspath(location)).name
    return _SUFFIXES.sub("", last) or last or location


def find_files(sources: Sequence[Source]) -> tuple[list[RawFile], list[str]]:
    """All recognised files in or below `sources`, in the order of sources and names, and the unrecognised names.

    A file reached twice counts once, for the source named first; hidden files and folders are not looked at. Of a
    source with a format all files are taken. Raises UserError for a missing path, an unrecognised file given by
    itself, two sources of one name, a hub that does not answer, or where nothing is recognised.
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
    for rank, source in enumerate(sources):
        if source.is_hub:
            file = _hub_file(source, rank)
            recognised.setdefault(file.path, file)
            continue
        root = Path(source.location)
        if not root.exists():
            raise UserError(f"source {root} does not exist")
        for path in [root] if root.is_file() else _walk(root):
            name = path.name if path == root else str(path.relative_to(root))
            found = _raw_file(path, source, rank, name)
            if found is not None:
                recognised.setdefault(os.path.realpath(path), found)
            elif path == root:
                raise UserError(f"source {root} is of no known format; wanted are {_WANTED}; or say ?format=..")
            else:
                unrecognised.append(name)
    if not recognised:
        raise UserError(
            f"no text found in {', '.join(source.location for source in sources)}: {len(unrecognised)} files looked "
            f"at, none is known; wanted are {_WANTED}"
        )
    return sorted(recognised.values(), key=lambda file: (file.rank, file.name)), unrecognised


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


def _raw_file(path: Path, source: Source, rank: int, name: str) -> RawFile | None:
    """The file as a RawFile, None where it is of no known format or no regular file."""
    if path.exists() and not path.is_file():
        return None
    compression, start, readable = peek(path)
    text = source.text or "text"
    kind = format_of(path.name, start, readable, source.format, text)
    if kind is None:
        return None
    is_table = kind == "parquet"
    return RawFile(
        path=str(path),
        name=name,
        source=source.name,
        rank=rank,
        format=kind,
        compression="none" if is_table else compression,
        size=path.stat().st_size if path.exists() else 0,
        text=text,
        parts=num_row_groups(str(path)) if is_table else 0,
        rows_are_lines=is_table and source.format == "lines",
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
        if together and size + file.size > wanted:
            units.append(tuple(together))
            together, size = [], 0
        together += spans
        size += file.size
    return [*units, tuple(together)] if together else units


def _spans(file: RawFile, unit_bytes: int) -> list[Span]:
    number = -(-file.size // unit_bytes)
    if file.format == "hub":
        end = number = file.parts
    elif file.format == "parquet":
        end, number = file.parts, min(file.parts, number)
    elif file.format in _SPLITTABLE and (file.compression == "none" or _may_have_streams(file)):
        end = file.size
    else:
        end, number = file.size, 1
    number = max(number, 1)
    cuts = [end * part // number for part in range(number + 1)]
    return [Span(file, start, stop) for start, stop in pairwise(cuts)]


def _may_have_streams(file: RawFile) -> bool:
    """Multistream dumps can be entered anywhere; whether it is one shows when it is read."""
    return file.format == "wikidump" and file.compression == "bz2"
