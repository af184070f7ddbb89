"""Learning rate schedules and parameter groups. Pure functions without torch; knows nothing of engines."""

import math
from typing import TYPE_CHECKING, Any

from pipeline.recipes.sections import Optimizer, Schedule

if TYPE_CHECKING:
    from torch import nn


def rate_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """Fraction of the peak learning rate at `step` (0-based) of `total_steps`.

    Linear warm-up over warmup_fraction of the steps (step 0 already moves), then decay to final_fraction at the end.
    """
    warmup = round(schedule.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.decay == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total_steps - warmup)
    shape = 1 - progress if schedule.decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_fraction + (1 - schedule.final_fraction) * shape


def parameter_groups(model: "nn.Module", weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weight decay on matrices and embeddings, none on biases and norms.

    With Muon, DeepSpeed splits each group further, and the engine sees to it that Muon gets the matrices inside the
    layers and AdamW the rest.
    """
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay, "name": "decayed"},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "name": "bare"},
    ]


def peak_rate(group: dict[str, Any], optimizer: Optimizer) -> float:
    """The peak learning rate of one of the engine's parameter groups."""
    if group.get("use_muon") is False and optimizer.adamw_lr is not None:
        return optimizer.adamw_lr
    return optimizer.lr
