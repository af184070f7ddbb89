"""A study as one resumable command: a queue of cases, some at the same time, one row a case added to a JSON file."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.files import write_atomically

Row = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[1]


def study_parser(about: str, name: str, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """What every study is told; its runs go to study/NAME."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="rows are added to this file")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--ds", default="cpu")
    parser.add_argument("--root", type=Path, default=REPOSITORY / "study" / name)
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time")
    parser.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="on top of the recipe")
    parser.add_argument("--table", action="store_true", help="only print what FILE holds")
    return parser


def refuse_others(parser: argparse.ArgumentParser, path: Path, done: Sequence[Row], given: Mapping[str, Any]) -> None:
    """End with a message where a row of the file was made with something else than is `given` now."""
    for row in done:
        if other := {key: row[key] for key in given if row[key] != given[key]}:
            parser.error(f"{path} has rows made with {other}: give this run a --json and a --root of its own")


def run_pipeline(words: Sequence[Any], log: Path, threads: int) -> None:
    """`python -m pipeline WORDS`, what it prints at the end of `log`. Raises CalledProcessError where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    with log.open("a", encoding="utf-8") as file:
        subprocess.run(command, env=environment, check=True, stdout=file, stderr=file)


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
