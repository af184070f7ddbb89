"""Start the processes of one stage: this one alone, torchrun's agent on one node, or srun over many.

Never the `deepspeed` launcher: it leaves workers behind when it is stopped. Imports torch only when it starts ranks.
"""

import logging
import os
import shutil
import subprocess
import sys
from typing import Literal

from data_prep.errors import UserError

Launcher = Literal["none", "torchrun", "srun"]


def start(words: list[str], launcher: Launcher, num_ranks: int) -> int:
    """Run `python -m pipeline WORDS` on every rank and return the exit code: 0, or the first failing rank's."""
    if launcher == "srun":
        return _srun(words)
    if num_ranks == 1:
        return subprocess.run([sys.executable, "-m", "pipeline", *words], check=False).returncode
    return _torchrun(words, num_ranks)


def _torchrun(words: list[str], num_ranks: int) -> int:
    # The agent behind the torchrun command, called directly: the command itself would bury a rank's one-line error
    # under its own traceback and turn every exit code into 1.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_ranks)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id="earlybird",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "pipeline", *words)
    except ChildFailedError as error:
        first = min(error.failures.values(), key=lambda failure: failure.timestamp)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


def _srun(words: list[str]) -> int:
    if shutil.which("srun") is None:
        raise UserError("--launcher srun: there is no srun on this machine's PATH; use --launcher torchrun")
    command = ["srun", "--kill-on-bad-exit=1", sys.executable, "-m", "pipeline", *words]
    return subprocess.run(command, check=False).returncode
