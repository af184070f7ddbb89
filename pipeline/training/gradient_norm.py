"""The norm of a step's mean gradient, as it was before Muon, clipping and the scale of fp16.

DeepSpeed tells the norm of what it steps with. Under Muon these are orthogonalised matrices, whose norm is about the
same in every step. So what it measures on the way is noted: the norm of every parameter group, and that of every
matrix before Muon is given it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from deepspeed.runtime.zero import stage3, stage_1_and_2

from pipeline.training.ranks import Ranks

# Whose backward or step DeepSpeed is in. Its hooks run in other threads too, so this is no context variable.
_noting: list["GradientNorm"] = []


@cache
def _note_groups() -> None:
    combine = stage3.combine_grad_norm_groups

    def combine_grad_norm_groups(norms: list[torch.Tensor], *args: Any, **more: Any) -> torch.Tensor:
        for noting in _noting:
            noting.groups = list(norms)
        return combine(norms, *args, **more)

    for module in (stage_1_and_2, stage3):
        module.combine_grad_norm_groups = combine_grad_norm_groups


@cache
def _note_matrices() -> None:
    # Imported here because it imports torch's compiler, which AdamW does not need.
    from deepspeed.runtime.zero.muon import original_muon

    update = original_muon.muon_update

    def muon_update(grad: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        for noting in _noting:
            # Before the update, which overwrites the gradient.
            noting.matrices.append(torch.linalg.vector_norm(grad, dtype=torch.float32))
        return update(grad, *args, **more)

    original_muon.muon_update = muon_update


class GradientNorm:
    """Of one DeepSpeed engine, whose backward runs inside `noting` and whose step inside `of_step`.

    `offloads`: whether the engine keeps the optimiser elsewhere. `groups` and `matrices` hold what was noted on this
    rank since the step before, a tensor () each.
    """

    def __init__(self, engine: Any, stage: int, offloads: bool, ranks: Ranks) -> None:
        self._engine, self._stage, self._offloads, self._ranks = engine, stage, offloads, ranks
        self.groups: list[torch.Tensor] = []
        self.matrices: list[torch.Tensor] = []
        self._of_step: tuple[list[torch.Tensor], list[torch.Tensor], float] = [], [], 1.0
        if stage:
            _note_groups()
        if any(group.get("use_muon") for group in engine.optimizer.param_groups):
            _note_matrices()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what DeepSpeed measures inside the block."""
        _noting.append(self)
        try:
            yield
        finally:
            _noting.remove(self)

    @contextmanager
    def of_step(self, loss_scale: float) -> Iterator[None]:
        """The block takes the optimiser step, with gradients that are `loss_scale` times too large."""
        whole = self._whole_gradients() if self._stage == 0 else []
        with self.noting():
            yield
        # Without ZeRO DeepSpeed measures nothing, or something else with every precision; all gradients are here.
        self._of_step = whole or self.groups, self.matrices, loss_scale
        self.groups, self.matrices = [], []

    def latest(self) -> float | None:
        """The norm in the latest step. Collective.

        Infinite where a gradient overflowed, None before the first step and where the engine config turns it off.
        """
        groups, matrices, loss_scale = self._of_step
        if self._stage == 0:
            whole = float(torch.stack(groups).norm()) / loss_scale if groups else None
            return whole if whole is None or math.isfinite(whole) else math.inf
        told = self._engine.get_global_grad_norm()
        if told is None or not math.isfinite(told) or not groups:
            # No groups: DeepSpeed's optimiser for bf16 with gradients in fp32, which measures before Muon.
            return None if told is None else float(told)
        optimizer = self._engine.optimizer
        parameters = optimizer.fp16_groups if self._stage == 3 else optimizer.bit16_groups
        under_muon = [any(getattr(parameter, "use_muon", False) for parameter in group) for group in parameters]
        rest = [norm for norm, muon in zip(groups, under_muon, strict=True) if not muon]
        square = sum(float(norm) ** 2 for norm in rest) / loss_scale**2
        if any(under_muon):
            mine = torch.zeros((), device=self._ranks.device)
            for matrix, share in zip(matrices, self._shares(len(matrices)), strict=True):
                mine += share * matrix.square()
            # With offload DeepSpeed takes the scale off before Muon.
            square += float(self._ranks.sum(mine)) / (1.0 if self._offloads else loss_scale) ** 2
        return math.sqrt(square)

    def _whole_gradients(self) -> list[torch.Tensor]:
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]

    def _shares(self, matrices: int) -> list[float]:
        """Of each matrix noted, one over the number of ranks that note it."""
        if self._offloads:
            return [1 / self._ranks.world_size] * matrices
        if self._stage == 3:
            return [1.0] * matrices
        # A matrix on a partition's border is noted by both neighbours.
        optimizer = self._engine.optimizer
        return [
            1 / len(optimizer.param_to_partition_ids[index][optimizer.get_param_id(parameter)])
            for index, partition in enumerate(optimizer.params_in_partition)
            for parameter in partition
            if getattr(parameter, "use_muon", False)
        ]
