"""metrics.jsonl and the progress line of one stage. Knows nothing of engines or models.

One JSON object a line, with "kind" ("train", "validation", "distance", ...) and "step".
"""

import json
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from data_prep.files import write_atomically
from pipeline.training.tracking import Tracker

TERMINAL_SECONDS, LOGFILE_SECONDS = 0.3, 30.0
BAR = "{desc} {percentage:3.0f}%|{bar:16}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"


class Metrics:
    """Rows to metrics.jsonl and the tracker, figures to the progress bar. Silent on every rank but the first.

    In a log file, where a redrawn bar would be a line a redraw, the bar is printed as a line twice a minute.
    """

    def __init__(self, folder: Path, label: str, total_steps: int, tracker: Tracker, is_main: bool) -> None:
        self._path = folder / "metrics.jsonl"
        self._tracker, self._is_main = tracker, is_main
        self._prints_lines = is_main and not sys.stderr.isatty()
        self._line_due = time.monotonic() + LOGFILE_SECONDS
        self._bar = tqdm(
            total=total_steps,
            desc=label,
            disable=not is_main,
            file=open(os.devnull, "w") if self._prints_lines else sys.stderr,  # noqa: SIM115 - closed with the bar
            mininterval=TERMINAL_SECONDS,
            dynamic_ncols=not self._prints_lines,
            ncols=140 if self._prints_lines else None,
            bar_format=BAR,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._prints_lines:
            self._bar.fp.close()

    def rewind(self, step: int) -> None:
        """Forget rows after `step`: they will be written again by the steps that are run again."""
        self._bar.n = step
        self._bar.last_print_n = step
        self._bar.refresh()
        if not self._is_main or not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").split("\n"):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the torn last line of a killed run
            if row["step"] <= step:
                kept.append(line + "\n")
        write_atomically(self._path, "".join(kept))

    def advance(self, **figures: str) -> None:
        """One step done; `figures` stand at the end of the progress line."""
        if figures:
            self._bar.set_postfix_str(", ".join(f"{name} {text}" for name, text in figures.items()), refresh=False)
        self._bar.update(1)
        if self._prints_lines and (time.monotonic() >= self._line_due or self._bar.n == self._bar.total):
            print(self._bar, file=sys.stderr, flush=True)
            self._line_due = time.monotonic() + LOGFILE_SECONDS

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one row."""
        if not self._is_main:
            return
        row = {"kind": kind, "step": step, **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        prefix = "" if kind == "train" else f"{kind}/"
        self._tracker.log({f"{prefix}{name}": value for name, value in values.items()}, step=step)

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._is_main:
            tqdm.write(text, file=sys.stderr)


class Stopwatch:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds
