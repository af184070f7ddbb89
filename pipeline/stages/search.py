"""Stage `search`: begin training the dense model with gates on its heads and neurons, and record their scores
until the masks drawn from them have settled."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from data_prep.errors import UserError
from data_prep.files import sha256_file, sha256_json
from pipeline.families.hf import read_state
from pipeline.families.shape import Shape
from pipeline.recipes.recipe import Recipe
from pipeline.runs.run import Run
from pipeline.stages.setup import build_engine, build_plan, read_setting, tracker_for
from pipeline.tickets.draw import Observation, Watcher
from pipeline.tickets.gates import GateSet, GateTensors
from pipeline.tickets.score import build_score
from pipeline.tickets.settle import SettleRules
from pipeline.tickets.surgery import fold_gates
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.engine import Engine
from pipeline.training.loop import train
from pipeline.training.metrics import Metrics
from pipeline.training.ranks import Ranks

# Weights: of the dense model as the search found it, of the step to rewind to, and at its end, with the moments.
INIT, REWIND = "init.safetensors", "rewind.safetensors"
FINAL, MOMENTS = "final.safetensors", "moments.safetensors"


def settle_rules(recipe: Recipe) -> SettleRules:
    """When the ticket is drawn, in the detector's own terms."""
    search = recipe.search
    return SettleRules(search.max_steps, search.draw, search.guard_steps, search.queue, search.threshold)


class EarlyBird:
    """The search inside the training loop: gates, scores, and the watch over the masks.

    Gates live outside the engine, whole and in fp32 on every rank, so that the search is the same under every ZeRO
    stage and precision.
    """

    def __init__(self, recipe: Recipe, shape: Shape, scores_folder: Path, ranks: Ranks) -> None:
        search = recipe.search
        self._every, self._folder, self._ranks = search.every_steps, scores_folder, ranks
        self._rewind_step, self._shape = recipe.pretrain.rewind_step, shape
        self._gates = GateSet(shape, device=ranks.device)
        self._score = build_score(
            search.score, self._gates, shape, lr=search.l1_lr, heads_penalty=search.l1_heads,
            neurons_penalty=search.l1_neurons, decay=search.decay, seed=recipe.seed,
            decay_steps=search.max_steps if search.l1_decay == "linear" else None,
        )  # fmt: skip
        self._drop = recipe.dropping(len(shape.layers), searching=True)
        self.watcher = Watcher(shape, recipe.ticket_rules(), settle_rules(recipe))
        self.seen: Observation | None = None

    @property
    def gates(self) -> GateTensors | None:
        """What the forward pass multiplies by; None where the score needs no gradients."""
        return self._gates.tensors if self._score.needs == "gradients" else None

    @property
    def settled(self) -> bool:
        return self.watcher.done

    def after_backward(self, step: int, engine: Engine) -> None:
        """Take the gates' gradients of the whole step, the 0-based `step`, before the optimiser moves the weights."""
        if self._score.needs != "gradients":
            return
        scales = stands_for = None
        if self._drop:
            draws = self._drop.draws(step, 0, rows=1)
            keep = self._drop.schedule.keep(step)[0].tolist()
            scales = [draw.scale * draw.runs for draw in draws]
            stands_for = [1 / kept if draw.runs else 0.0 for draw, kept in zip(draws, keep, strict=True)]
        divide_by = engine.loss_scale * self._ranks.world_size
        gradients = self._gates.collect(divide_by, self._ranks.sum_in_place, scales)
        self._score.update(self._gates, gradients, None, stands_for)

    def after_step(self, step: int, engine: Engine) -> dict[str, Any] | None:
        """Every few steps record the scores and look at the masks; returns the row to log."""
        if step == self._rewind_step:
            self._keep_weights(engine)
        last = step >= self.watcher.settle.max_step
        if step % self._every and not last:
            return None
        if self._score.needs == "weights":
            self._score.update(self._gates, None, engine.weights())
        if not self._score.complete:
            return None
        scores = self._score.scores()
        if self._ranks.is_main:
            self._folder.mkdir(parents=True, exist_ok=True)
            flat = {
                f"{group}.{i}": torch.from_numpy(layer)
                for group, layers in scores.items()
                for i, layer in enumerate(layers)
            }
            save_file(flat, self._folder / f"step-{step:08d}.safetensors")
        self.seen = self.watcher.observe(step, scores)
        row: dict[str, Any] = {"settled": self.seen.settled, "drawn": self.seen.draw}
        for group, distances in self.seen.distances.items():
            row |= {group: distances[-1] if distances else None, f"{group}_queue": distances}
        return row

    def folded(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights that compute without the gates what these compute with them."""
        return weights if self.gates is None else fold_gates(weights, self._shape, self.gates)

    def _keep_weights(self, engine: Engine) -> None:
        weights = engine.weights()
        if self._ranks.is_main:
            save_file(self.folded(weights), self._folder.parent / REWIND)

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        tensors = {f"gates/{name}": value for name, value in self._gates.state().items()}
        tensors |= {f"score/{name}": value for name, value in self._score.state().items()}
        return {"watcher": self.watcher.state_dict()}, tensors

    def load_state(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.watcher.load_state_dict(values["watcher"])
        self._gates.load_state(under("gates/"))
        self._score.load_state(under("score/"))
        for path in self._folder.glob("step-*.safetensors") if self._ranks.is_main else ():
            # Written after the checkpoint by the run that was cut short: the steps are run again.
            if int(path.stem.removeprefix("step-")) > (self.watcher.last_step or 0):
                path.unlink()


def search(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Train the dense model until the ticket settles. Returns the results for the manifest. Collective.

    Leaves init.safetensors, scores/step-*.safetensors and what the recipe's rewind asks for: the weights of a step,
    or the last ones with the optimiser moments; gates are folded in. Raises UserError when nothing settled and the
    recipe says to stop then.
    """
    folder, setting = run.folder.search, read_setting(run, ranks)
    recipe, objective, shape = setting.recipe, setting.objective, setting.dense
    model, notes = setting.build_dense()
    if ranks.is_main:
        save_file(read_state(model), folder / INIT)
    engine = build_engine(model, run.engine, recipe, ranks)
    early_bird = EarlyBird(recipe, shape, run.folder.scores, ranks)

    plan = build_plan(setting, shape, recipe.search.max_steps, searching=True)
    plan = replace(plan, validate_every=recipe.search.max_steps)
    checkpoints = Checkpoints(folder / "checkpoints", recipe.checkpoint.keep)
    tracker = tracker_for(run, "search", folder, ranks)
    with Metrics(folder, "search", plan.stop_step, tracker, ranks.is_main) as metrics:
        for note in (*notes, *objective.notes):
            metrics.say(note)
        outcome = train(engine, objective.loader, plan, metrics, checkpoints, objective.validate, early_bird)

    if early_bird.seen is None:
        raise UserError(
            f"no ticket can be drawn: in none of the search's {outcome.step} steps had every layer been scored, as "
            "gradients overflowed; raise search.max_steps or lower fp16.initial_scale_power"
        )
    settled = early_bird.seen.settled
    if recipe.search.draw == "settle" and not settled:
        if recipe.search.on_unsettled == "stop":
            raise UserError(
                f"the masks had not settled after search.max_steps ({recipe.search.max_steps}): raise it, raise "
                f'search.threshold ({recipe.search.threshold}), or set search.on_unsettled = "draw"'
            )
        metrics.say(f"the masks had not settled after {outcome.step} steps: the ticket is drawn there all the same")
    if recipe.pretrain.rewind == "inherit":
        _save_inheritance(folder, engine, early_bird)
    if recipe.pretrain.rewind == "step" and outcome.step < (recipe.pretrain.rewind_step or 0):
        raise UserError(
            f"the search ended after {outcome.step} steps, before pretrain.rewind_step ({recipe.pretrain.rewind_step})"
        )
    results: dict[str, Any] = {
        "steps": outcome.step,
        "settled": settled,
        "tokens": outcome.tokens,
        "world_size": ranks.world_size,
        "validation_loss": outcome.validation["loss"],
        "seconds_training": outcome.seconds,
        "tokens_per_second": outcome.tokens / outcome.seconds,
    }
    if ranks.is_main:
        results["scores_sha256"] = scores_hash(run.folder.scores)
        results["init_sha256"] = sha256_file(folder / INIT)
        tracker.summary(results)
        checkpoints.clear()
    tracker.finish()
    return results


def scores_hash(folder: Path) -> str:
    """One SHA-256 for all recorded scores."""
    return sha256_json({path.name: sha256_file(path) for path in sorted(folder.glob("step-*.safetensors"))})


def _save_inheritance(folder: Path, engine: Engine, early_bird: EarlyBird) -> None:
    weights, moments = engine.weights(), engine.moments()
    if engine.ranks.is_main:
        save_file(early_bird.folded(weights), folder / FINAL)
        flat = {f"{kind}/{name}": value for kind, values in moments.items() for name, value in values.items()}
        save_file(flat, folder / MOMENTS)
