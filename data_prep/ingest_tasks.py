"""The tasks of stage `ingest`, each of them bounded in size: what a worker does with one unit, range or bucket.

`read_unit` cleans the documents of one unit of raw files and writes them as runs by bucket; `find_duplicates` looks for
near duplicates in one range of band hashes; `write_bucket` writes one bucket, sorted, as a file of `clean/`. Knows
nothing of who runs them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_prep.cleaning.dedup import NUM_BANDS, band_entries, document_key, near_duplicates
from data_prep.cleaning.filters import RULES_VERSION, Rules, reason_to_drop
from data_prep.cleaning.repair import clean_text
from data_prep.cleaning.tally import Tally
from data_prep.documents import (
    SECTION_CHARACTERS,
    SPLITS,
    Document,
    Split,
    bucket_of,
    clean_name,
    cut_sections,
    digest,
    split_of,
    write_documents,
)
from data_prep.manifest import sha256_file, whole_file
from data_prep.raw.formats import RawDocument, read_documents
from data_prep.raw.sources import RawFile, Unit
from data_prep.raw.streams import BadInput
from data_prep.shuffle import RunWriter, read_bucket
from data_prep.work import Report

# How much text a byte on disk holds, roughly; it decides the number of buckets and thereby the memory of a task.
_EXPANSION = {"parquet": 2.0, "hub": 2.0, "none": 1.0, "gzip": 2.7, "bz2": 3.5, "zstd": 3.0}
_FEW_BUCKETS, _SMALL_BUCKET, _BUCKET = 64, 4 << 20, 16 << 20
_CHARACTERS_PER_DOCUMENT = 2_000
_RANGE_BYTES = 32 << 20
_ENTRIES_IN_MEMORY = 1 << 20
# Longer texts are books, whatever their format says.
_LONGEST_ARTICLE = 100_000
_HEX_DIGEST, _HEX_KEY = 48, 16


@dataclass(frozen=True)
class Cleaning:
    """What is done to the documents. `on_bad_input`: stop at the first damaged input, or leave it out and go on."""

    rules: Rules
    dedup: Literal["near", "exact", "none"] = "near"
    on_bad_input: Literal["stop", "skip"] = "stop"
    val_fraction: float = 0.01

    def settings(self) -> dict[str, Any]:
        """All of it as JSON, with the versions and sizes that decide the result too."""
        return {
            **asdict(self.rules),
            "rules_version": RULES_VERSION,
            "dedup": self.dedup,
            "on_bad_input": self.on_bad_input,
            "val_fraction": self.val_fraction,
            "section_characters": SECTION_CHARACTERS,
        }


@dataclass(frozen=True)
class Layout:
    """How many files each split is written to, and how many ranges of band hashes are searched one at a time."""

    buckets: dict[Split, int]
    ranges: int

    @classmethod
    def of(cls, files: Sequence[RawFile], val_fraction: float) -> "Layout":
        """A function of names and sizes, so that every machine and every restart comes to the same."""
        text = sum(file.size * _EXPANSION.get(file.format, _EXPANSION[file.compression]) for file in files)
        shares = {"train": text * (1 - val_fraction), "val": text * val_fraction}
        buckets = {split: _num_buckets(shares[split]) for split in SPLITS}
        return cls(buckets, 1 + int(text / _CHARACTERS_PER_DOCUMENT * NUM_BANDS * 16 / _RANGE_BYTES))

    @property
    def num_buckets(self) -> int:
        return sum(self.buckets.values())

    def bucket(self, text_digest: bytes, split: Split) -> int:
        """The number of a document's bucket among those of both splits; val's come behind train's."""
        first = 0 if split == "train" else self.buckets["train"]
        return first + bucket_of(text_digest, self.buckets[split])


@dataclass(frozen=True)
class ReadUnit:
    unit: Unit
    stem: Path
    cleaning: Cleaning
    layout: Layout


@dataclass(frozen=True)
class FindDuplicates:
    number: int
    of: int
    entries: tuple[Path, ...]
    out: Path


@dataclass(frozen=True)
class WriteBucket:
    split: Split
    number: int
    bucket: int
    runs: tuple[Path, ...]
    removed: Path | None
    keep_copies: bool
    out: Path


def read_unit(task: ReadUnit, report: Report) -> dict[str, Any]:
    """Clean the documents of one unit, write them as runs by bucket, and their MinHash bands."""
    tally = Tally()
    problems: list[str] = []

    def complain(problem: BadInput) -> None:
        if task.cleaning.on_bad_input == "stop":
            raise problem
        problems.append(str(problem))

    runs = RunWriter(task.stem, task.layout.num_buckets)
    bands = _EntryWriter(task.stem)
    for raw in read_documents(task.unit, complain, report):
        if raw.dropped is not None:
            tally.dropped(raw.dropped, "\n".join(raw.paragraphs), raw.id)
            continue
        tally.edited("boilerplate_stripped", raw.stripped)
        for rule, amount in raw.edits.items():
            tally.edited(rule, amount)
        text = clean_text(raw.paragraphs, tally)
        reason = reason_to_drop(text, task.cleaning.rules)
        if reason is not None:
            tally.dropped(reason, text, raw.id)
            continue
        key = document_key(text, raw.rank)
        if task.cleaning.dedup == "near":
            bands.add(band_entries(text, key))
        for document in _sections(raw, text):
            text_digest = digest(document.text)
            split = split_of(text_digest, task.cleaning.val_fraction)
            prefix = f"{text_digest[8:].hex()}{key:016x}".encode()
            runs.add(task.layout.bucket(text_digest, split), prefix + document.to_line())
    return {
        "runs": [path.name for path in runs.close()],
        "entries": [path.name for path in bands.close()],
        "tally": tally.to_json(),
        "problems": problems,
    }


def find_duplicates(task: FindDuplicates, report: Report) -> dict[str, Any]:
    """The keys of documents to be removed, as far as one range of band hashes shows them."""
    low, high = (number * 2**64 // task.of for number in (task.number, task.number + 1))
    found = []
    for path in task.entries:
        entries = np.load(path, mmap_mode="r")
        start = np.searchsorted(entries[0], np.uint64(low))
        end = entries.shape[1] if task.number + 1 == task.of else np.searchsorted(entries[0], np.uint64(high))
        found.append(np.asarray(entries[:, start:end]))
    keys = near_duplicates(np.concatenate(found, axis=1).T)
    with whole_file(task.out) as file:
        np.save(file, keys)
    report(1)
    return {"keys": len(keys)}


def write_bucket(task: WriteBucket, report: Report) -> dict[str, Any]:
    """Write one file of `clean/`: a bucket's documents in order, duplicates left out."""
    tally = Tally()
    lines = sorted(read_bucket(task.runs, task.bucket))
    keys = np.array([int(line[_HEX_DIGEST : _HEX_DIGEST + _HEX_KEY], 16) for line in lines], np.uint64)
    gone = _in_sorted(keys, np.load(task.removed, mmap_mode="r")) if task.removed else np.zeros(len(keys), bool)
    kept: list[bytes] = []
    characters = 0
    previous = b""
    for line, is_gone in zip(lines, gone, strict=True):
        body = line[_HEX_DIGEST + _HEX_KEY :]
        document = Document(**json.loads(body))
        is_copy = line[:_HEX_DIGEST] == previous and not task.keep_copies
        previous = line[:_HEX_DIGEST]
        if is_copy or is_gone:
            tally.dropped("exact_duplicates" if is_copy else "near_duplicates", document.text, document.id)
            continue
        tally.kept(document.source, len(document.text))
        characters += len(document.text)
        kept.append(body + b"\n")
    result: dict[str, Any] = {"documents": len(kept), "characters": characters, "tally": tally.to_json()}
    if kept:
        path = task.out / clean_name(task.split, task.number)
        write_documents(path, kept)
        result |= {"name": path.name, "sha256": sha256_file(path)}
    report(1)
    return result


class _EntryWriter:
    """Band entries as files (2, n) of hashes in rising order and their keys, holding one file's in memory."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._waiting: list[np.ndarray] = []
        self._paths: list[Path] = []

    def add(self, entries: np.ndarray) -> None:
        self._waiting.append(entries)
        if len(self._waiting) * NUM_BANDS >= _ENTRIES_IN_MEMORY:
            self._flush()

    def close(self) -> list[Path]:
        if self._waiting:
            self._flush()
        return self._paths

    def _flush(self) -> None:
        entries = np.concatenate(self._waiting)
        self._waiting = []
        path = self._stem.with_name(f"{self._stem.name}-{len(self._paths):04d}.bands")
        with whole_file(path) as file:
            np.save(file, np.ascontiguousarray(entries[np.lexsort(entries.T[::-1])].T))
        self._paths.append(path)


def _num_buckets(text_bytes: float) -> int:
    return 1 + int(max(min(text_bytes / _SMALL_BUCKET, _FEW_BUCKETS), text_bytes / _BUCKET))


def _in_sorted(keys: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Which `keys` (n,) are among `rising`, without reading all of a long memory-mapped list."""
    places = np.searchsorted(rising, keys)
    inside = places < len(rising)
    inside[inside] = rising[places[inside]] == keys[inside]
    return inside


def _sections(raw: RawDocument, text: str) -> list[Document]:
    if raw.kind != "book" and len(text) <= _LONGEST_ARTICLE:
        return [Document(raw.source, raw.id, text)]
    return [Document(raw.source, f"{raw.id}/{number:04d}", part) for number, part in enumerate(cut_sections(text))]
