"""Buckets of clean documents: which lines of the runs make which file of `clean/`, and that file written.

A line of a run is a document's JSON behind what decides its place: the digest of its text, the key of the whole
document it is a section of, and the group that is in one split together. Knows nothing of tokens or of who runs the
tasks.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_prep.cleaning.dedup import NUM_BANDS
from data_prep.cleaning.filters import RULES_VERSION, Rules
from data_prep.cleaning.repeated_lines import without_lines
from data_prep.cleaning.tally import Tally
from data_prep.documents import (
    SECTION_CHARACTERS,
    SPLITS,
    Document,
    Split,
    bucket_of,
    clean_name,
    digest,
    write_documents,
)
from data_prep.files import sha256_file, whole_file
from data_prep.raw.sources import RawFile
from data_prep.shuffle import RunWriter, read_bucket
from data_prep.work import Report

# How much text a byte on disk holds, roughly; it decides the number of buckets and thereby the memory of a task.
_EXPANSION = {"parquet": 2.0, "hub": 2.0, "none": 1.0, "gzip": 2.7, "bz2": 3.5, "xz": 3.5, "zstd": 3.0}
_FEW_BUCKETS, _SMALL_BUCKET, _BUCKET = 64, 4 << 20, 16 << 20
_CHARACTERS_PER_DOCUMENT = 2_000
_RANGE_BYTES = 32 << 20
# About what a line is long; it decides how many ranges of line hashes are counted one at a time.
_CHARACTERS_PER_LINE = 50
_HEX_DIGEST, _HEX_KEY, _HEX_GROUP = 48, 16, 16
_HEX_PREFIX = _HEX_DIGEST + _HEX_KEY + _HEX_GROUP
_EXAMPLES, _EXAMPLE_CHARACTERS = 10, 200
_PLACE = re.compile(r"\d+$")


@dataclass(frozen=True)
class Cleaning:
    """What is done to the documents. `repeated_lines`: a line of so many documents is dropped, 0 keeps all;
    `on_bad_input`: stop at the first damaged input, or leave it out and go on."""

    rules: Rules
    dedup: Literal["near", "exact", "none"] = "near"
    repeated_lines: int = 20
    on_bad_input: Literal["stop", "skip"] = "stop"
    val_fraction: float = 0.01

    def settings(self) -> dict[str, Any]:
        """All of it as JSON, with the versions and sizes that decide the result too."""
        return {
            **asdict(self.rules),
            "rules_version": RULES_VERSION,
            "dedup": self.dedup,
            "repeated_lines": self.repeated_lines,
            "on_bad_input": self.on_bad_input,
            "val_fraction": self.val_fraction,
            "section_characters": SECTION_CHARACTERS,
        }


@dataclass(frozen=True)
class Layout:
    """How many files each split is written to, and how many ranges of band hashes and of line hashes are searched one
    at a time."""

    buckets: dict[Split, int]
    ranges: int
    line_ranges: int

    @classmethod
    def of(cls, files: Sequence[RawFile], val_fraction: float) -> "Layout":
        """A function of names and sizes, so that every machine and every restart comes to the same."""
        text = sum(file.size * _EXPANSION.get(file.format, _EXPANSION[file.compression]) for file in files)
        shares = {"train": text * (1 - val_fraction), "val": text * val_fraction}
        buckets = {split: _num_buckets(shares[split]) for split in SPLITS}
        bands, lines = text / _CHARACTERS_PER_DOCUMENT * NUM_BANDS, text / _CHARACTERS_PER_LINE
        return cls(buckets, *(1 + int(entries * 16 / _RANGE_BYTES) for entries in (bands, lines)))

    @property
    def num_buckets(self) -> int:
        return sum(self.buckets.values())

    def bucket(self, text_digest: bytes, split: Split) -> int:
        """The number of a document's bucket among those of both splits; val's come behind train's."""
        first = 0 if split == "train" else self.buckets["train"]
        return first + bucket_of(text_digest, self.buckets[split])


@dataclass(frozen=True)
class HeldOut:
    """What is val where the documents are too few to be drawn: lines of these groups, or with these digests; `what`
    they are, in words."""

    what: str
    groups: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()

    def holds(self, line: bytes) -> bool:
        return _group(line) in self.groups or _digest(line) in self.digests


@dataclass(frozen=True)
class DropLines:
    """`frequent`: the lines that are dropped, with the number of documents that each stands in."""

    bucket: int
    layout: Layout
    runs: tuple[Path, ...]
    removed: Path | None
    frequent: Path
    cleaning: Cleaning
    stem: Path


@dataclass(frozen=True)
class WriteBucket:
    """`copied`: digests of documents that are dropped because the other split has them."""

    split: Split
    number: int
    layout: Layout
    runs: tuple[Path, ...]
    removed: Path | None
    copied: Path | None
    held_out: HeldOut | None
    cleaning: Cleaning
    digests: Path
    out: Path


def run_line(document: Document, text_digest: bytes, key: int, group: bytes) -> bytes:
    """A line of a run. `group` is the digest of what decides the split: of the whole document, or of a stretch of a
    running text."""
    return f"{text_digest[8:].hex()}{key:016x}{group[:8].hex()}".encode() + document.to_line()


def _digest(line: bytes) -> str:
    return line[:_HEX_DIGEST].decode()


def _group(line: bytes) -> str:
    return line[_HEX_DIGEST + _HEX_KEY : _HEX_PREFIX].decode()


def _document(line: bytes) -> Document:
    return Document(**json.loads(line[_HEX_PREFIX:]))


def drop_lines(task: DropLines, report: Report) -> dict[str, Any]:
    """Write the documents of one bucket as runs again, without lines of many documents: where that changes a text, its
    place changes, and it may now be the copy of another one."""
    tally = Tally()
    lines = sorted(read_bucket(task.runs, task.bucket))
    is_near = _is_in(_keys(lines), task.removed)
    frequent = np.load(task.frequent, mmap_mode="r")
    split: Split = "train" if task.bucket < task.layout.buckets["train"] else "val"
    runs = RunWriter(task.stem, task.layout.num_buckets)
    repeated: dict[str, int] = {}
    previous = ""
    for line, near in zip(lines, is_near, strict=True):
        document = _document(line)
        text, gone = (document.text, {}) if near else without_lines(document.text, frequent)
        if not gone:
            runs.add(task.bucket, line + b"\n")
            continue
        is_copy = previous == _digest(line) and task.cleaning.dedup != "none"
        previous = _digest(line)
        if not is_copy:
            tally.edited("repeated_lines_dropped", len(gone))
            repeated |= gone
        if len(text) < max(task.cleaning.rules.min_characters, 1):
            tally.dropped("exact_duplicates" if is_copy else "repeated_lines", document.text, document.id)
            continue
        text_digest = digest(text)
        prefix = text_digest[8:].hex().encode() + line[_HEX_DIGEST:_HEX_PREFIX]
        shorter = Document(document.source, document.id, text)
        runs.add(task.layout.bucket(text_digest, split), prefix + shorter.to_line())
    report(1)
    examples = sorted(repeated.items(), key=lambda item: (-item[1], item[0]))[:_EXAMPLES]
    return {
        "runs": [path.name for path in runs.close()],
        "tally": tally.to_json(),
        "repeated_lines": [[text[:_EXAMPLE_CHARACTERS], count] for text, count in examples],
    }


def write_bucket(task: WriteBucket, report: Report) -> dict[str, Any]:
    """Write one file of `clean/`: a bucket's documents in order, without duplicates."""
    tally = Tally()
    lines = sorted(_lines_of(task))
    digests = np.array([int(line[:16], 16) for line in lines], np.uint64)
    is_near, is_elsewhere = _is_in(_keys(lines), task.removed), _is_in(digests, task.copied)
    is_kept = np.zeros(len(lines), bool)
    kept: list[bytes] = []
    characters = 0
    previous = b""
    for number, (line, near, elsewhere) in enumerate(zip(lines, is_near, is_elsewhere, strict=True)):
        document = _document(line)
        is_copy = elsewhere or (line[:_HEX_DIGEST] == previous and task.cleaning.dedup != "none")
        previous = line[:_HEX_DIGEST]
        if is_copy or near:
            tally.dropped("exact_duplicates" if is_copy else "near_duplicates", document.text, document.id)
            continue
        tally.kept(document.source, len(document.text))
        characters += len(document.text)
        kept.append(line[_HEX_PREFIX:] + b"\n")
        is_kept[number] = True
    with whole_file(task.digests) as file:
        np.save(file, np.unique(digests[is_kept]))
    result: dict[str, Any] = {"documents": len(kept), "characters": characters, "tally": tally.to_json()}
    if kept:
        path = task.out / clean_name(task.split, task.number)
        write_documents(path, kept)
        result |= {"name": path.name, "sha256": sha256_file(path)}
    report(1)
    return result


def _keys(lines: Sequence[bytes]) -> np.ndarray:
    return np.array([int(line[_HEX_DIGEST : _HEX_DIGEST + _HEX_KEY], 16) for line in lines], np.uint64)


def _is_in(values: np.ndarray, path: Path | None) -> np.ndarray:
    """Which values (n,) the file of rising ones holds; none where there is no file."""
    return in_sorted(values, np.load(path, mmap_mode="r")) if path else np.zeros(len(values), bool)


def _lines_of(task: WriteBucket) -> Iterator[bytes]:
    """The lines of a bucket; with `held_out` those that belong there by it, from whatever bucket they were put in."""
    train, val = (range(task.layout.buckets["train"]), range(task.layout.buckets["train"], task.layout.num_buckets))
    if task.held_out is None:
        yield from read_bucket(task.runs, (train if task.split == "train" else val)[task.number])
        return
    for bucket in (task.number, *val) if task.split == "train" else (*train, *val):
        for line in read_bucket(task.runs, bucket):
            is_val = task.held_out.holds(line)
            place = bucket_of(bytes(8) + bytes.fromhex(_digest(line)), task.layout.buckets[task.split])
            if is_val == (task.split == "val") and place == task.number:
                yield line


def hold_out(runs: tuple[Path, ...], layout: Layout, removed: Path | None, val_fraction: float) -> HeldOut | None:
    """What to hold out where drawing leaves a split empty: the document whose length comes closest to the share that
    is wanted; of a single one its end. None where there is no more than one section."""
    gone = np.load(removed) if removed else np.empty(0, np.uint64)
    lengths: Counter[str] = Counter()
    names: dict[str, str] = {}
    sections: list[tuple[int, str, int]] = []
    for bucket in range(layout.num_buckets):
        for line in read_bucket(runs, bucket):
            key = np.array([int(line[_HEX_DIGEST : _HEX_DIGEST + _HEX_KEY], 16)], np.uint64)
            if in_sorted(key, gone)[0]:
                continue
            document, group = _document(line), _group(line)
            lengths[group] += len(document.text)
            names[group] = document.id.rpartition("/")[0] or document.id
            place = _PLACE.search(document.id)
            sections.append((int(place[0]) if place else 0, _digest(line), len(document.text)))
            if len(lengths) > 1:
                sections.clear()
    wanted = val_fraction * lengths.total()
    if len(lengths) > 1:
        group = min(lengths, key=lambda group: (abs(lengths[group] - wanted), group))
        share = lengths[group] / lengths.total()
        return HeldOut(f"{names[group]}, {share:.1%} of the text", groups=frozenset([group]))
    end: list[str] = []
    taken = 0
    for _, text_digest, length in sorted(sections, reverse=True)[: len(sections) - 1]:
        if taken < wanted:
            end.append(text_digest)
            taken += length
    return HeldOut(f"the end of the only document, {len(end)} of its sections", digests=frozenset(end)) if end else None


def in_sorted(keys: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Which `keys` (n,) are among `rising`, without reading all of a long memory-mapped list."""
    places = np.searchsorted(rising, keys)
    inside = places < len(rising)
    inside[inside] = rising[places[inside]] == keys[inside]
    return inside


def _num_buckets(text_bytes: float) -> int:
    return 1 + int(max(min(text_bytes / _SMALL_BUCKET, _FEW_BUCKETS), text_bytes / _BUCKET))
