"""Tasks: done once, by any number of processes, whatever is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.work import Part, Report, Task, Workers, task_name

LOG = "log.txt"


def square(argument: tuple[str, int], report: Report) -> dict[str, int]:
    """Leaves a line in a log for every call; fails, kills itself or waits for certain numbers."""
    folder, number = argument
    with (Path(folder) / LOG).open("a") as log:
        log.write(f"{number} {os.getpid()}\n")
    if number == -1:
        raise UserError("number is -1, wanted another one")
    if number == -2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == -3:
        time.sleep(600)
    report(1)
    return {"square": number * number}


def tasks(folder: Path, numbers: list[int]) -> list[Task]:
    return [Task(task_name({"square": number}), (str(folder), number), 1) for number in numbers]


def calls(folder: Path) -> list[int]:
    path = folder / LOG
    return sorted(int(line.split()[0]) for line in path.read_text().split("\n")[:-1]) if path.exists() else []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_task_is_done_once(tmp_path: Path, workers: int) -> None:
    wanted = tasks(tmp_path, list(range(9)))
    for _ in range(2):
        with Workers(tmp_path / "records", workers) as pool:
            pool.run(square, wanted[:5], "some", "task")
            pool.run(square, wanted, "all", "task")
            assert [pool.result(task) for task in wanted] == [{"square": n * n} for n in range(9)]
    assert calls(tmp_path) == list(range(9))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_done_before_a_mistake_is_kept(tmp_path: Path, workers: int) -> None:
    wanted = tasks(tmp_path, [1, 2, 3, -1])
    with Workers(tmp_path / "records", workers) as pool, pytest.raises(UserError, match="number is -1"):
        pool.run(square, wanted, "all", "task")
    with Workers(tmp_path / "records", workers) as pool:
        done = [pool.result(task) for task in wanted]
        assert done[3] is None
        pool.run(square, wanted[:3], "again", "task")
    assert calls(tmp_path).count(1) == 1


def test_a_killed_worker_is_one_clear_line(tmp_path: Path) -> None:
    with Workers(tmp_path / "records", 2) as pool, pytest.raises(UserError, match="a worker process was killed"):
        pool.run(square, tasks(tmp_path, [1, -2, 2]), "all", "task")


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Otherwise they would go on writing beside the run that takes the work up again."""
    program = (
        "import sys; from pathlib import Path; from tests.data_prep.test_work import *\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    with Workers(folder / 'records', 2) as pool:\n"
        "        pool.run(square, [Task(str(n), (str(folder), -3), 1) for n in range(2)], 'wait', 'task')\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, cwd=root)
    deadline = time.monotonic() + 60
    while len(calls(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [int(line.split()[1]) for line in (tmp_path / LOG).read_text().split("\n")[:-1]]
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_parts_share_all_tasks_out(tmp_path: Path) -> None:
    wanted = tasks(tmp_path, list(range(10)))
    shares = [Part.parse(f"{number}/3").share(wanted) for number in (1, 2, 3)]
    assert sorted(task.name for share in shares for task in share) == sorted(task.name for task in wanted)
    assert [len(share) for share in shares] == [4, 3, 3]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="wanted NUMBER/OF"):
        Part.parse(text)


def test_no_workers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0"):
        Workers(tmp_path, 0)


def test_names_follow_the_description() -> None:
    assert task_name({"a": 1, "b": [2]}) == task_name(json.loads('{"b": [2], "a": 1}'))
    assert task_name({"a": 1}) != task_name({"a": 2})
