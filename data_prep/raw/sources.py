"""What the user named as a source -> its raw files and members of archives, recognised by content -> units of work.

Knows nothing of what becomes of a file after it is found.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

from data_prep.errors import UserError
from data_prep.raw.listing import barren_source, files_below
from data_prep.raw.raw_files import RawFile, Source
from data_prep.raw.recognise import Format
from data_prep.raw.tables import Hub, hub_facts
from data_prep.terminal import escaped

__all__ = ["RawFile", "Source", "Span", "Unit", "find_files", "parse_source", "plan_units"]

# About what one task reads from disk.
UNIT_BYTES = 8 << 20

_HUB = "hub:"
_SUFFIXES = re.compile(r"(?:\.(?:txt|text|jsonl|ndjson|json|xml|parquet|gz|bz2|xz|zst|tgz|tar|zip))+$", re.IGNORECASE)
_SPLITTABLE: tuple[Format, ...] = ("lines", "articles", "sentences", "wikiextractor", "wikidump", "jsonl")


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
        files, others = files_below(source, rank)
        unrecognised += others
        if all(file.is_empty for file in files):
            barren.append(barren_source(source, rank, len(files), others))
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
