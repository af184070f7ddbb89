"""The tasks of stage `ingest`, each of them bounded in size: what a worker does with one unit, range or bucket.

`read_unit` cleans the documents of one unit of raw files and writes them as runs by bucket; `find_duplicates` looks for
near duplicates in one range of band hashes, `count_lines` for lines of many documents in one range of line hashes.
What becomes of the runs is the matter of `data_prep.buckets`. Knows nothing of who runs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.buckets import Cleaning, Layout, in_sorted, run_line
from data_prep.cleaning.dedup import band_entries, document_key, near_duplicates
from data_prep.cleaning.filters import reason_to_drop
from data_prep.cleaning.repair import clean_text
from data_prep.cleaning.repeated_lines import frequent_lines, line_entries
from data_prep.cleaning.tally import Tally
from data_prep.documents import Document, cut_paragraphs, cut_sections, digest, split_of
from data_prep.files import whole_file
from data_prep.raw.formats import RawDocument, read_documents
from data_prep.raw.sources import Unit
from data_prep.raw.streams import BadInput
from data_prep.shuffle import RunWriter
from data_prep.terminal import escaped
from data_prep.work import Report

_ENTRIES_IN_MEMORY = 1 << 20
# Longer texts are books, whatever their format says.
_LONGEST_ARTICLE = 100_000


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
class CountLines:
    number: int
    of: int
    entries: tuple[Path, ...]
    removed: Path | None
    least: int
    out: Path


def read_unit(task: ReadUnit, report: Report) -> dict[str, Any]:
    """Clean the documents of one unit, write them as runs by bucket, and the hashes of their bands and lines."""
    tally = Tally()
    problems: list[str] = []

    def complain(problem: BadInput) -> None:
        if task.cleaning.on_bad_input == "stop":
            raise problem
        problems.append(escaped(str(problem)))

    runs = RunWriter(task.stem, task.layout.num_buckets)
    bands, lines = _EntryWriter(task.stem, "bands"), _EntryWriter(task.stem, "lines")
    for raw in read_documents(task.unit, complain, report):
        if raw.dropped is not None:
            tally.dropped(raw.dropped, "\n".join(raw.paragraphs), raw.id)
            continue
        tally.edited("boilerplate_stripped", raw.stripped)
        tally.cut(raw.cut)
        for rule, amount in raw.edits.items():
            tally.edited(rule, amount)
        text = clean_text(raw.paragraphs, tally)
        reason = reason_to_drop(text, task.cleaning.rules)
        if reason is not None:
            tally.dropped(reason, text, raw.id)
            continue
        text = cut_paragraphs(text)
        key = document_key(text, raw.rank)
        if task.cleaning.dedup == "near":
            bands.add(band_entries(text, key))
        if task.cleaning.repeated_lines:
            lines.add(line_entries(text, key))
        group = digest(raw.stretch or text)
        split = split_of(group, task.cleaning.val_fraction)
        for document in _sections(raw, text):
            text_digest = digest(document.text)
            runs.add(task.layout.bucket(text_digest, split), run_line(document, text_digest, key, group))
    return {
        "runs": [path.name for path in runs.close()],
        "entries": [path.name for path in bands.close()],
        "lines": [path.name for path in lines.close()],
        "tally": tally.to_json(),
        "problems": problems,
    }


def find_duplicates(task: FindDuplicates, report: Report) -> dict[str, Any]:
    """The keys of documents to be removed, as far as one range of band hashes shows them."""
    keys = near_duplicates(_in_range(task.entries, task.number, task.of))
    with whole_file(task.out) as file:
        np.save(file, keys)
    report(1)
    return {"keys": len(keys)}


def count_lines(task: CountLines, report: Report) -> dict[str, Any]:
    """The lines that stand in many documents, as far as one range of line hashes shows them."""
    entries = _in_range(task.entries, task.number, task.of)
    if task.removed:
        entries = entries[~in_sorted(entries[:, 1], np.load(task.removed, mmap_mode="r"))]
    found = frequent_lines(entries, task.least)
    with whole_file(task.out) as file:
        np.save(file, found)
    report(1)
    return {"lines": found.shape[1]}


def _in_range(paths: Sequence[Path], number: int, of: int) -> np.ndarray:
    """(n, 2): of all files of entries those whose hash is in one of `of` equal ranges."""
    low, high = (part * 2**64 // of for part in (number, number + 1))
    found = [np.empty((2, 0), np.uint64)]
    for path in paths:
        entries = np.load(path, mmap_mode="r")
        start = np.searchsorted(entries[0], np.uint64(low))
        end = entries.shape[1] if number + 1 == of else np.searchsorted(entries[0], np.uint64(high))
        found.append(np.asarray(entries[:, start:end]))
    return np.concatenate(found, axis=1).T


class _EntryWriter:
    """Entries as files (2, n) of hashes in rising order and their keys, holding one file's in memory."""

    def __init__(self, stem: Path, suffix: str) -> None:
        self._stem, self._suffix = stem, suffix
        self._waiting: list[np.ndarray] = []
        self._number = 0
        self._paths: list[Path] = []

    def add(self, entries: np.ndarray) -> None:
        self._waiting.append(entries)
        self._number += len(entries)
        if self._number >= _ENTRIES_IN_MEMORY:
            self._flush()

    def close(self) -> list[Path]:
        if self._waiting:
            self._flush()
        return self._paths

    def _flush(self) -> None:
        entries = np.concatenate(self._waiting)
        self._waiting, self._number = [], 0
        path = self._stem.with_name(f"{self._stem.name}-{len(self._paths):04d}.{self._suffix}")
        with whole_file(path) as file:
            np.save(file, np.ascontiguousarray(entries[np.lexsort(entries.T[::-1])].T))
        self._paths.append(path)


def _sections(raw: RawDocument, text: str) -> list[Document]:
    if raw.kind != "book" and len(text) <= _LONGEST_ARTICLE:
        return [Document(raw.source, raw.id, text)]
    return [Document(raw.source, f"{raw.id}/{number:04d}", part) for number, part in enumerate(cut_sections(text))]
