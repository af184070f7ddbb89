"""Tasks on worker processes: each is done once, whoever does it, and a killed run goes on behind those that are done.

A task is a pure function of its description, and its name is a hash of that description. So the record that a task
leaves is found again by every later process, on this machine or another one that sees the same folder, and nothing
that was made from other settings is ever mistaken for it. Knows nothing of what the tasks do.
"""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_sentinel
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from data_prep.errors import UserError
from data_prep.files import sha256_json, write_atomically

Report = Callable[[int], object]
Function = Callable[[Any, Report], dict[str, Any]]

_REFRESH_SECONDS = 0.2
# Libraries leave some memory behind in every task; it is given back when a process has done so many and is replaced.
_TASKS_A_PROCESS = 16
_COUNTER: Any = None


@dataclass(frozen=True)
class Task:
    """`argument` is what the function gets, `size` its share of the progress bar."""

    name: str
    argument: Any
    size: int


@dataclass(frozen=True)
class Part:
    """One machine's share of the work, `number` of `of`, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2/8` is the second of eight shares. Raises UserError for anything else."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(f"--part is {text!r}, wanted NUMBER/OF such as 1/8 (to 8/8)")
        return cls(int(number), int(of))

    def share(self, tasks: Sequence[Task]) -> list[Task]:
        return [task for position, task in enumerate(tasks) if position % self.of == self.number - 1]


def task_name(description: Mapping[str, Any]) -> str:
    """The name of a task: a hash of everything that decides its result."""
    return sha256_json(description)[:24]


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """A pool of `number` processes, started when first needed; one process or one task needs no pool.

    Use as a context manager. Records lie in `folder`, one JSON file a task.
    """

    def __init__(self, folder: Path, number: int) -> None:
        if number < 1:
            raise UserError(f"--workers is {number}, wanted 1 or more")
        self._folder, self._number = folder, number
        self._pool: ProcessPoolExecutor | None = None
        self._counter: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def result(self, task: Task) -> dict[str, Any] | None:
        """The record of a task, or None where it is not done."""
        path = self._record(task.name)
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None

    def run(self, function: Function, tasks: Sequence[Task], title: str, unit: str = "B") -> None:
        """Do all tasks that have no record yet. `function` is a module's function; it may raise UserError.

        The bar counts `unit`s of the tasks' sizes, as the function reports them.
        """
        waiting = [task for task in tasks if not self._record(task.name).exists()]
        total = sum(task.size for task in tasks)
        with tqdm(
            total=total,
            initial=total - sum(task.size for task in waiting),
            desc=title,
            unit=unit,
            unit_scale=unit == "B",
            disable=None,
        ) as bar:
            if self._number == 1 or len(waiting) == 1:
                for task in waiting:
                    _do(function, task, self._record(task.name), bar.update)
            else:
                step = _TASKS_A_PROCESS * self._number
                for start in range(0, len(waiting), step):
                    self._stop()
                    self._run_in_pool(function, waiting[start : start + step], bar)

    def _run_in_pool(self, function: Function, tasks: Sequence[Task], bar: tqdm) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([function.__module__])
            self._counter = context.Value("q", 0)
            self._pool = ProcessPoolExecutor(self._number, context, _begin_worker, (self._counter,))
        self._counter.value = 0
        pending: set[Future[None]] = {
            self._pool.submit(_do_in_worker, function, task, self._record(task.name)) for task in tasks
        }
        shown = 0
        try:
            while pending:
                done, pending = wait(pending, _REFRESH_SECONDS, FIRST_COMPLETED)
                now = self._counter.value
                bar.update(now - shown)
                shown = now
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, most likely because memory ran out; finished work is kept: "
                "run the command again, with fewer --workers"
            ) from error
        finally:
            for future in pending:
                future.cancel()

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _do(function: Function, task: Task, record: Path, report: Report) -> None:
    write_atomically(record, json.dumps(function(task.argument, report)))


def _do_in_worker(function: Function, task: Task, record: Path) -> None:
    _do(function, task, record, _count)


def _count(amount: int) -> None:
    with _COUNTER.get_lock():
        _COUNTER.value += amount


def _begin_worker(counter: Any) -> None:
    global _COUNTER
    _COUNTER = counter
    # The parent is told of Ctrl-C and decides; cores are shared out by processes, not by threads in them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_sentinel([parent.sentinel])
    os._exit(1)
