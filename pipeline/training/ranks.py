"""Ranks: who this process is, and the few collectives the pipeline itself uses.

The only place that reads a launcher's environment. Started by torchrun or srun alike, or alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from data_prep.errors import UserError

COLLECTIVE_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among all of them. `device` is where its tensors live."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_in_place(self, tensor: torch.Tensor) -> None:
        """`sum` for callers that hold on to the tensor."""
        self.sum(tensor)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def from_main(self, value: object) -> object:
        """What rank 0 passes as `value`, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


def launcher_environment(environ: dict[str, str]) -> dict[str, str]:
    """RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for this process.

    Taken as torchrun sets them, or from SLURM's task variables under srun, or for one process alone.
    Raises UserError when srun gave ranks but nobody said where rank 0 listens.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if all(name in environ for name in names):
        return {name: environ[name] for name in names} | {
            "LOCAL_WORLD_SIZE": environ.get("LOCAL_WORLD_SIZE", environ["WORLD_SIZE"])
        }
    if "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
        if missing:
            raise UserError(
                f"started by srun without {' and '.join(missing)}; slurm/pretrain.sbatch exports them, "
                "export them the same way in your own job script"
            )
        tasks_here = environ.get("SLURM_STEP_TASKS_PER_NODE", environ["SLURM_NTASKS"]).split(",")[0].split("(")[0]
        return {
            "RANK": environ["SLURM_PROCID"],
            "LOCAL_RANK": environ["SLURM_LOCALID"],
            "WORLD_SIZE": environ["SLURM_NTASKS"],
            "LOCAL_WORLD_SIZE": tasks_here,
            "MASTER_ADDR": environ["MASTER_ADDR"],
            "MASTER_PORT": environ["MASTER_PORT"],
        }
    return {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }


@contextmanager
def started_ranks() -> Iterator[Ranks]:
    """Join the process group (NCCL on CUDA, gloo on CPU) for the duration of a stage."""
    environment = launcher_environment(dict(os.environ))
    # DeepSpeed's CPU accelerator counts its devices from LOCAL_SIZE and would otherwise count NUMA nodes.
    os.environ.update(environment | {"LOCAL_SIZE": environment["LOCAL_WORLD_SIZE"]})
    rank, local_rank, world_size = (int(environment[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        device, backend = torch.device("cuda", local_rank), "nccl"
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        device, backend = torch.device("cpu"), "gloo"
    if world_size == 1:
        store = dist.HashStore()
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=COLLECTIVE_TIMEOUT)
    else:
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT)
    try:
        yield Ranks(rank, local_rank, world_size, device)
    finally:
        dist.destroy_process_group()
