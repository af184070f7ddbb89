"""Stands where pipeline/__main__.py stands, so that the job scripts run unchanged and in seconds.

The tests copy it into a project of their own, beside the pipeline's other modules: ranks and rendezvous are
the real ones. What it sees, it writes to files in the working folder. `--recipe` names what a task does.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any


def write(name: str, **values: Any) -> None:
    """Write `name` in one go; a reader never sees half of it."""
    partial = Path(f".{name}.{os.getpid()}")
    partial.write_text(json.dumps(values), encoding="utf-8")
    partial.rename(name)


def sum_over_ranks() -> int:
    import torch

    from pipeline.training.ranks import started_ranks

    with started_ranks() as ranks:
        total = ranks.sum(torch.tensor([float(ranks.rank + 1)]))
        write(
            f"rank-{ranks.rank}.json",
            local_rank=ranks.local_rank,
            world_size=ranks.world_size,
            local_world_size=os.environ["LOCAL_WORLD_SIZE"],
            node=os.environ["SLURMD_NODENAME"],
            threads=os.environ["OMP_NUM_THREADS"],
            total=total.item(),
        )
        print(f"the sum is {total.item():.0f}")
    return 0


def wait_for_signals(rank: str) -> int:
    """Take SIGTERM as a trainer does (note it, go on); leave with 0 on SIGUSR1."""

    def note(number: int, _frame: FrameType | None) -> None:
        write(f"{signal.Signals(number).name}-{rank}")
        if number == signal.SIGUSR1:
            sys.exit(0)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGUSR1, note)
    write(f"started-{rank}", job=os.environ["SLURM_JOB_ID"], start=os.environ.get("SLURM_RESTART_COUNT", "0"))
    while True:
        time.sleep(600)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("word", choices=["run", "finetune", "step"])
    for name in ("--launcher", "--recipe", "--run", "--task", "--seed", "--data", "--root"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    if arguments.word == "run":
        assert arguments.launcher == "srun"
        assert "SLURM_STEP_ID" not in os.environ, "the batch script must not look like a task"
        words = [sys.executable, "-m", "pipeline", "step", "--recipe", arguments.recipe]
        return subprocess.run(["srun", "--kill-on-bad-exit=1", *words], check=False).returncode
    rank = os.environ["SLURM_PROCID"]
    if arguments.word == "finetune":
        write(
            f"index-{os.environ['SLURM_ARRAY_TASK_ID']}.json",
            task=arguments.task,
            seed=arguments.seed,
            run=arguments.run,
            data=arguments.data,
            step=os.environ["SLURM_STEP_ID"],
            ntasks=os.environ["SLURM_NTASKS"],
        )
        return 0
    match arguments.recipe:
        case "sum":
            return sum_over_ranks()
        case "fail":
            if rank == "0":
                return wait_for_signals(rank)
            while not Path("started-0").exists():
                time.sleep(0.1)
            return 3
        case "wait":
            return wait_for_signals(rank)
    raise AssertionError(arguments.recipe)


if __name__ == "__main__":
    sys.exit(main())
