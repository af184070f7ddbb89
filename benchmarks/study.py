"""A study as one resumable command: a queue of cases, some at the same time, one row a case added to a JSON file."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.files import write_atomically

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows that are done; none where there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def run_queue(
    path: Path, done: list[Row], cases: Sequence[Any], run_case: Callable[[Any, int], Row], told: Callable[[Row], str],
    jobs: int,
) -> None:  # fmt: skip
    """Run all cases, `jobs` at the same time, each with its share of the cores as its number of threads.

    Every row is added to `done` and written at once. A case that fails ends the queue when the other running ones have
    ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(cases), desc="cases") as bar:
        try:
            for future in as_completed([pool.submit(run_case, case, threads) for case in cases]):
                done.append(row := future.result())
                write_atomically(path, "[\n" + ",\n".join(json.dumps(each) for each in done) + "\n]\n")
                bar.write(told(row))
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
