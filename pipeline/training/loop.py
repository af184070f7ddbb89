"""The training loop: one, for search, pre-training and fine-tuning. Reads from top to bottom.

It knows an engine, a loader and a validation function; what is trained and why is the stage's matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from data_prep.rows.masking import hash_chain
from pipeline.layer_drop.schedule import LayerDrop
from pipeline.layer_drop.switch import Switch
from pipeline.recipes.sections import Optimizer, Schedule
from pipeline.training.batches import Loader, label_counts, prefetched
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.costs import StepCosts
from pipeline.training.engine import Engine
from pipeline.training.metrics import Metrics, Stopwatch
from pipeline.training.optimizers import peak_rate, rate_factor

_STREAM_DROPOUT = 11


class TicketSearch(Protocol):
    """What a search adds to training: gates in the forward pass, scores from their gradients."""

    @property
    def gates(self) -> Any: ...

    @property
    def settled(self) -> bool: ...

    def after_backward(self, step: int, engine: Engine) -> None: ...

    def after_step(self, step: int, engine: Engine) -> dict[str, Any] | None: ...

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]: ...

    def load_state(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None: ...


@dataclass(frozen=True)
class Plan:
    """How long to train and what to do on the way. Steps are optimiser steps, counted over the whole schedule.

    The run ends at `stop_step`, which may lie before the end of the schedule (`total_steps`): a search is the
    beginning of a longer run. `costs`: FLOPs and depth of the steps, where they are known. `validate_first`: also
    before the first step, where a model begins that has learnt before.
    """

    total_steps: int
    stop_step: int
    optimizer: Optimizer
    schedule: Schedule
    seed: int
    checkpoint_every: int
    validate_every: int
    log_every: int
    first_step: int = 0
    drop: LayerDrop | None = None
    costs: StepCosts | None = None
    validate_first: bool = False


@dataclass(frozen=True)
class Outcome:
    """What training came to. `seconds`: those in training steps since the stage began, without validation and
    checkpoints, whatever interrupted it."""

    step: int
    tokens: int
    seconds: float
    validation: dict[str, float]


def train(
    engine: Engine,
    loader: Loader,
    plan: Plan,
    metrics: Metrics,
    checkpoints: Checkpoints,
    validate: Callable[[Engine], dict[str, float]],
    search: TicketSearch | None = None,
) -> Outcome:
    """Train to plan.stop_step, or until the search has settled; resume from the newest checkpoint if there is one."""
    # Resume
    step, seconds = plan.first_step, 0.0
    validation: dict[str, float] = {}
    restored = checkpoints.restore(engine)
    if restored:
        step, seconds = restored.step, restored.values["seconds"]
        validation = restored.values["validation"]
        if search:
            search.load_state(restored.values["search"], restored.tensors)
        metrics.say(f"resumed after step {step} of {plan.stop_step}")
    metrics.rewind(step)
    if plan.validate_first and not restored:
        validation = _validate(engine, validate, metrics, step, loader.tokens(step))

    steps = prefetched(loader, step, plan.stop_step, engine.accumulation)
    watch, log_watch, log_step, data_wait, skipped = Stopwatch(), Stopwatch(), step, 0.0, 0

    while step < plan.stop_step and not (search and search.settled):
        # Learning rate
        factor = rate_factor(plan.schedule, step, plan.total_steps)
        for group in engine.groups:
            group["lr"] = factor * peak_rate(group, plan.optimizer)

        # The step's micro-batches. Its loss is a mean over all their labels, so these are counted first.
        waiting = Stopwatch()
        batches = next(steps)
        data_wait += waiting.lap()
        counts = engine.mean_counts(label_counts(batches))

        # Forward and backward
        loss_sum = torch.zeros((), device=engine.ranks.device)
        for micro, batch in enumerate(batches):
            # Dropout is a function of where we are, so a resumed run needs no generator state.
            key = hash_chain(plan.seed, _STREAM_DROPOUT, step, micro, engine.ranks.rank)[0]
            torch.manual_seed(int(key) & (2**63 - 1))
            extra: dict[str, Any] = counts | ({"gates": search.gates} if search else {})
            if plan.drop:
                draws = plan.drop.draws(step, micro, len(batch["input_ids"]))
                extra["switch"] = Switch(draws, touch=engine.needs_every_gradient)
            loss = engine.forward(batch, **extra).loss
            engine.backward(loss)
            loss_sum += loss.detach().float() / engine.accumulation
            if search and micro == engine.accumulation - 1:
                search.after_backward(step, engine)
            engine.micro_step()
        step += 1
        distances = search.after_step(step, engine) if search else None
        if distances:
            metrics.write("distance", step, **distances)

        # Logging
        skipped += not engine.step_applied
        last = step == plan.stop_step or bool(search and search.settled)
        if step % plan.log_every == 0 or last:
            mean_loss = float(engine.ranks.sum(loss_sum)) / engine.ranks.world_size
            lap, steps_done = log_watch.lap(), step - log_step
            rate = (loader.tokens(step) - loader.tokens(log_step)) / lap
            costs = _costs(plan, plan.costs, log_step, step, lap) if plan.costs else {}
            metrics.write(
                "train", step, tokens=loader.tokens(step), loss=mean_loss, lr=factor * plan.optimizer.lr,
                grad_norm=engine.grad_norm(), skipped_steps=skipped, tokens_per_second=rate,
                step_seconds=lap / steps_done,
                data_wait_seconds=data_wait / steps_done,
                **costs,
            )  # fmt: skip
            metrics.advance(loss=f"{mean_loss:.3f}", **{"tokens/s": f"{rate:,.0f}"}, **_dropping(costs))
            log_step, data_wait, skipped = step, 0.0, 0
        else:
            metrics.advance()

        # Validation
        if step % plan.validate_every == 0 or last:
            seconds += watch.lap()
            validation = _validate(engine, validate, metrics, step, loader.tokens(step))
            watch.lap()
            log_watch.lap()

        # Checkpoint
        if step % plan.checkpoint_every == 0 and not last:
            seconds += watch.lap()
            values, tensors = search.state() if search else ({}, {})
            state = {"seconds": seconds, "validation": validation, "search": values}
            checkpoints.save(engine, step, state, tensors)
            watch.lap()
            log_watch.lap()

    steps.close()
    return Outcome(step, loader.tokens(step) - loader.tokens(plan.first_step), seconds + watch.lap(), validation)


def _validate(
    engine: Engine, validate: Callable[[Engine], dict[str, float]], metrics: Metrics, step: int, tokens: int
) -> dict[str, float]:
    """Validate, log it and say it."""
    found = validate(engine)
    metrics.write("validation", step, tokens=tokens, **found)
    metrics.say(f"step {step}: " + ", ".join(f"validation {name} {value:.4f}" for name, value in found.items()))
    return found


def _costs(plan: Plan, costs: StepCosts, first: int, last: int, seconds: float) -> dict[str, float]:
    """What the steps [first, last) of a log row cost; with layer dropping also theta and depth.

    Depths are those of all steps since the row before, also where this process began after it.
    """
    row = {"flops_per_second": (costs.flops(last) - costs.flops(first)) / seconds}
    if plan.drop:
        schedule = plan.drop.schedule
        first = max(plan.first_step, (last - 1) // plan.log_every * plan.log_every)
        row |= {
            "theta": float(schedule.theta_at(last - 1)[0]),
            "expected_depth": float(schedule.expected_depth(np.arange(first, last)).mean()),
            "depth": costs.depth(first, last),
            "flops_saved": costs.saved(plan.first_step, last),
        }
    return row


def _dropping(costs: dict[str, float]) -> dict[str, str]:
    """Of the costs of a log row those that layer dropping adds, for the progress line."""
    if "theta" not in costs:
        return {}
    depth = f"{costs['depth']:.1f} ({costs['expected_depth']:.1f} expected)"
    return {"saved": f"{costs['flops_saved']:.0%}", "theta": f"{costs['theta']:.2f}", "depth": depth}
