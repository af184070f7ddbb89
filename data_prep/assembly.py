"""From the units that were read to the files of `clean/`: duplicates found, repeated lines counted, buckets written.

Knows nothing of raw files; the work itself is done by the tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.buckets import Cleaning, DropLines, HeldOut, Layout, WriteBucket, drop_lines, hold_out, write_bucket
from data_prep.cleaning.tally import RULE_LABELS, Tally
from data_prep.documents import SPLITS, Split
from data_prep.errors import UserError
from data_prep.files import whole_file
from data_prep.ingest_tasks import CountLines, FindDuplicates, count_lines, find_duplicates
from data_prep.work import Task, Workers, task_name

_PROBLEMS_KEPT = 1000
_EXAMPLES = 10

Records = dict[Split, list[dict[str, Any]]]


@dataclass(frozen=True)
class Assembly:
    """`upstream` names all units together; `units` is the folder of what tasks leave for each other, `out` that of the
    clean files."""

    pool: Workers
    cleaning: Cleaning
    layout: Layout
    upstream: str
    units: Path
    out: Path

    def finish(self, reads: Sequence[Task]) -> dict[str, Any]:
        """Write all clean files; the stage's results. Raises UserError where a split would be empty."""
        records = [self._required(task) for task in reads]
        tally = Tally()
        for record in records:
            tally.merge(Tally.from_json(record["tally"]))
        runs, bands, lines = (
            tuple(self.units / name for record in records for name in record[kind])
            for kind in ("runs", "entries", "lines")
        )
        removed = self._removed(bands) if bands else None
        frequent = self._frequent(lines, removed) if lines else None
        repeated: dict[str, int] = {}
        if frequent:
            dropped = self._without_lines(runs, removed, frequent)
            runs = tuple(self.units / name for record in dropped for name in record["runs"])
            for record in dropped:
                tally.merge(Tally.from_json(record["tally"]))
                repeated |= dict(record["repeated_lines"])
        held_out = None
        written = self._write(runs, removed, held_out)
        if not all(sum(record["documents"] for record in written[split]) for split in SPLITS):
            held_out = hold_out(runs, self.layout, removed, self.cleaning.val_fraction)
            written = self._write(runs, removed, held_out) if held_out else written

        splits: dict[str, dict[str, Any]] = {split: {"documents": 0, "characters": 0, "files": {}} for split in SPLITS}
        for split in SPLITS:
            for record in written[split]:
                tally.merge(Tally.from_json(record["tally"]))
                if "name" in record:
                    entry = {k: record[k] for k in ("sha256", "documents", "characters")}
                    splits[split]["files"][record["name"]] = entry
                for key in ("documents", "characters"):
                    splits[split][key] += record[key]
        _check_splits(splits, tally)
        problems = [problem for record in records for problem in record["problems"]]
        return {
            "tally": tally.to_json(),
            "splits": splits,
            "held_out": held_out.what if held_out else None,
            "repeated_lines": sorted(repeated.items(), key=lambda item: (-item[1], item[0]))[:_EXAMPLES],
            "problems": problems[:_PROBLEMS_KEPT],
            "num_problems": len(problems),
        }

    def _removed(self, entries: tuple[Path, ...]) -> Path:
        """The file of the keys of all documents that are near copies of others."""
        tasks = []
        for number in range(self.layout.ranges):
            name = self._name("duplicates", number, self.layout.ranges)
            argument = FindDuplicates(number, self.layout.ranges, entries, self.units / f"{name}.keys")
            tasks.append(Task(name, argument, 1))
        self.pool.run(find_duplicates, tasks, "ingest: duplicates", "range")
        keys = np.unique(np.concatenate([np.load(task.argument.out) for task in tasks]))
        return self._saved(f"{self._name('removed')}.keys", keys)

    def _frequent(self, entries: tuple[Path, ...], removed: Path | None) -> Path | None:
        """The file of the lines that are dropped; None where there are none."""
        tasks = []
        for number in range(self.layout.line_ranges):
            name = self._name("lines", number, self.layout.line_ranges)
            out = self.units / f"{name}.frequent"
            argument = CountLines(number, self.layout.line_ranges, entries, removed, self.cleaning.repeated_lines, out)
            tasks.append(Task(name, argument, 1))
        self.pool.run(count_lines, tasks, "ingest: repeated lines", "range")
        # The ranges rise, and so do the hashes in each.
        found = np.concatenate([np.load(task.argument.out) for task in tasks], axis=1)
        return self._saved(f"{self._name('frequent')}.lines", found) if found.shape[1] else None

    def _without_lines(self, runs: tuple[Path, ...], removed: Path | None, frequent: Path) -> list[dict[str, Any]]:
        """The records of all buckets, written anew without these lines."""
        tasks = []
        for bucket in range(self.layout.num_buckets):
            name = self._name("without lines", bucket, self.cleaning.repeated_lines)
            argument = DropLines(bucket, self.layout, runs, removed, frequent, self.cleaning, self.units / name)
            tasks.append(Task(name, argument, 1))
        self.pool.run(drop_lines, tasks, "ingest: drop repeated lines", "file")
        return [self._required(task) for task in tasks]

    def _write(self, runs: tuple[Path, ...], removed: Path | None, held_out: HeldOut | None) -> Records:
        """The records of all buckets: val's are written first, and what they hold is not in train a second time."""
        copied: Path | None = None
        records: Records = {}
        for split in reversed(SPLITS):
            tasks = []
            for number in range(self.layout.buckets[split]):
                name = self._name("write", split, number, held_out and held_out.what)
                argument = WriteBucket(
                    split, number, self.layout, runs, removed, copied, held_out, self.cleaning,
                    self.units / f"{name}.digests", self.out,
                )  # fmt: skip
                tasks.append(Task(name, argument, 1))
            self.pool.run(write_bucket, tasks, f"ingest: write {split}", "file")
            records[split] = [self._required(task) for task in tasks]
            if split == "val" and self.cleaning.dedup != "none":
                digests = np.unique(np.concatenate([np.load(task.argument.digests) for task in tasks]))
                copied = self._saved(f"{self._name('copied', held_out and held_out.what)}.digests", digests)
        return records

    def _name(self, *what: Any) -> str:
        return task_name({"task": what, "upstream": self.upstream})

    def _saved(self, name: str, values: np.ndarray) -> Path:
        with whole_file(self.units / name) as file:
            np.save(file, values)
        return self.units / name

    def _required(self, task: Task) -> dict[str, Any]:
        record = self.pool.result(task)
        assert record is not None, task.name
        return record


def _check_splits(splits: dict[str, dict[str, Any]], tally: Tally) -> None:
    total = sum(figures["documents"] for figures in splits.values())
    if not total:
        raise UserError(f"no document is left; give --source more text. Left out were: {_fates(tally) or 'none'}")
    for split, figures in splits.items():
        if not figures["documents"]:
            raise UserError(
                f"{split} would be empty: there are only {total} documents or sections, too few to be parted; give "
                "--source more text"
            )


def _fates(tally: Tally) -> str:
    dropped = tally.to_json()["dropped"]
    return ", ".join(f"{figures['documents']:,} {RULE_LABELS.get(rule, rule)}" for rule, figures in dropped.items())
