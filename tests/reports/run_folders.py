"""Synthetic run folders in the layout the stages write, for tests of what reads them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline.families.shape import EncoderShape
from pipeline.recipes.recipe import Recipe, parse_recipe
from pipeline.tickets.draw import Watcher, ticket_from
from pipeline.tickets.settle import SettleRules
from pipeline.tickets.ticket import Ticket
from pipeline.training.costs import StepCosts

RECIPE: dict[str, Any] = {
    "corpus": {"name": "tiny", "vocab_size": 2048, "row_length": 64},
    "model": {"layers": 4, "hidden_size": 128, "heads": 4, "ffn": 512},
    "search": {"max_steps": 200, "guard_steps": 40, "every_steps": 5},
    "ticket": {"heads": 0.25, "neurons": 0.3},
    "pretrain": {"steps": 1800},
    "evaluation": {"every_steps": 300},
}
DROPPING: dict[str, Any] = {
    "layer_drop": {"enabled": True, "time": "decreasing", "depth": "linear", "theta": 0.25, "during_search": True}
}
FULL = ("ingest", "tokenizer", "shard", "search", "draw", "pretrain", "export")


def write_manifest(folder: Path, stage: str, seconds: float, results: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "stage": stage,
        "settings": {},
        "inputs": {},
        "results": results or {},
        "seconds": seconds,
        "finished": "2026-01-02T03:04:05Z",
        "commit": "0123456789ab",
        "host": "node7",
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
    }
    (folder / "manifest.json").write_text(json.dumps(values))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(root: Path, name: str, changes: dict[str, Any] | None = None, stages: tuple[str, ...] = FULL) -> Path:
    """A run `root/runs/name` that finished `stages`; a search leaves scores that settle as training noise fades."""
    values = RECIPE | (changes or {})
    recipe = parse_recipe(values, origin="test")
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    resolved = {"recipe": recipe.model_dump(mode="json"), "engine": {"zero_optimization": {"stage": 1}}}
    (folder / "recipe.json").write_text(json.dumps(resolved))
    corpus = root / "corpora" / recipe.corpus.name
    for seconds, (stage, place) in enumerate(
        (("ingest", "clean"), ("tokenizer", "tokenizer"), ("shard", "shards")), start=3
    ):
        if stage in stages:
            write_manifest(corpus / place, stage, seconds)
    if "shard" in stages:
        (corpus / "shards" / "index.json").write_text(json.dumps({"vocab_size": recipe.corpus.vocab_size}))
    if recipe.search.enabled and "search" in stages:
        _search(folder, recipe, "draw" in stages)
    if "pretrain" in stages:
        _pretrain(folder, recipe)
    if "export" in stages:
        write_manifest(folder / "export", "export", 7.5)
    return folder


def _search(folder: Path, recipe: Recipe, draw: bool) -> None:
    shape = recipe.dense_shape(recipe.corpus.vocab_size, 0)
    search = recipe.search
    settle = SettleRules(search.max_steps, search.draw, search.guard_steps, search.queue, search.threshold)
    watcher = Watcher(shape, recipe.ticket_rules(), settle)
    random = np.random.default_rng(7)
    importance = {
        "heads": [random.gamma(2, 1, layer.heads) for layer in shape.layers],
        "neurons": [random.gamma(2, 1 + i / 3, layer.ffn) for i, layer in enumerate(shape.layers)],
    }
    (folder / "search" / "scores").mkdir(parents=True)
    dropping = _Dropping(recipe, shape, 0, searching=True)
    rows: list[dict[str, Any]] = []
    step = 0
    while not watcher.done:
        step += search.every_steps
        noise = 3 * np.exp(-step / 25)
        scores = {
            group: [(x * np.exp(noise * random.normal(size=x.size))).astype(np.float32) for x in layers]
            for group, layers in importance.items()
        }
        flat = {f"{group}.{i}": x for group, layers in scores.items() for i, x in enumerate(layers)}
        save_file(flat, folder / "search" / "scores" / f"step-{step:08d}.safetensors")
        seen = watcher.observe(step, scores)
        row: dict[str, Any] = {"kind": "distance", "step": step, "settled": seen.settled, "drawn": seen.draw}
        for group, distances in seen.distances.items():
            row |= {group: distances[-1] if distances else None, f"{group}_queue": distances}
        rows.append(row)
        if step % 10 == 0 or seen.draw:
            rows.append(_train_row(step, 1400 * step, 7.6 - 0.01 * step, 2e-3, 0.09) | dropping.row(step))
    write_rows(folder / "search" / "metrics.jsonl", rows)
    results = {
        "steps": step,
        "settled": seen.settled,
        "seconds_training": 0.09 * step,
        "tokens_per_second": 1400 / 0.09,
    }
    write_manifest(folder / "search", "search", 0.09 * step + 6, results)
    if draw:
        ticket_from(seen, shape, recipe.ticket_rules(), search.score).write(folder / "ticket.json")
        write_manifest(folder / "draw", "draw", 4.0, {"step": step, "largest_difference": 4.8e-7})


def _pretrain(folder: Path, recipe: Recipe) -> None:
    slim = recipe.search.enabled
    step_seconds = 0.075 if slim else 0.095
    random = np.random.default_rng(11 + slim)
    rows: list[dict[str, Any]] = []
    steps, first = recipe.pretrain.steps, 0
    shape = recipe.dense_shape(recipe.corpus.vocab_size, 0)
    if slim and (folder / "ticket.json").exists():
        ticket = Ticket.read(folder / "ticket.json")
        shape, first = ticket.slim_shape(), ticket.step if recipe.pretrain.rewind == "inherit" else 0
    dropping = _Dropping(recipe, shape, first)
    for step in range(first - first % 10 + 10, steps + 1, 10):
        loss = 3.1 + (0.06 if slim else 0.0) + 4.4 / (1 + np.exp((step - 0.35 * steps) / (0.12 * steps)))
        rate = 4e-3 * min(step / (0.02 * steps), 1 - step / steps)
        noisy = float(loss + random.normal(0, 0.12))
        rows.append(_train_row(step, 1400 * step, noisy, rate, step_seconds) | dropping.row(step))
        if step % recipe.evaluation.every_steps == 0:
            rows.append(
                {"kind": "validation", "step": step, "tokens": 1400 * step, "loss": loss + 0.05, "accuracy": 0.3}
            )
    write_rows(folder / "pretrain" / "metrics.jsonl", rows)
    dense = recipe.dense_shape(recipe.corpus.vocab_size, 0).num_parameters()
    results = {
        "steps": steps,
        "tokens": 1400 * steps,
        "validation_loss": rows[-1]["loss"],
        "parameters": dense - (271_424 if slim else 0),
        "parameters_dense": dense,
        "seconds_training": step_seconds * steps,
        "tokens_per_second": 1400 / step_seconds,
    }
    write_manifest(folder / "pretrain", "pretrain", step_seconds * steps + 9, results)


class _Dropping:
    """The figures of layer dropping that training writes, of micro-batches as the recipe has them on one rank."""

    def __init__(self, recipe: Recipe, shape: EncoderShape, first: int, searching: bool = False) -> None:
        self._drop = recipe.dropping(len(shape.layers), first, searching)
        micro = recipe.batch.global_rows // recipe.batch.micro_rows
        phases = recipe.phases(recipe.batch.micro_rows)
        self._costs = StepCosts(shape, phases, recipe.objective.mask_rate, micro, self._drop, first)
        self._first = self._last = first

    def row(self, step: int) -> dict[str, float]:
        """The figures of the row after `step`; none without layer dropping."""
        since, self._last = self._last, step
        if self._drop is None:
            return {}
        schedule = self._drop.schedule
        return {
            "theta": float(schedule.theta_at(step - 1)[0]),
            "expected_depth": float(schedule.expected_depth(np.arange(since, step)).mean()),
            "depth": self._costs.depth(since, step),
            "flops_saved": self._costs.saved(self._first, step),
        }


def _train_row(step: int, tokens: int, loss: float, rate: float, step_seconds: float) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "tokens": tokens,
        "loss": loss,
        "lr": rate,
        "grad_norm": 1.0,
        "tokens_per_second": 1400 / step_seconds,
        "step_seconds": step_seconds,
        "data_wait_seconds": 0.001,
    }


def add_finetuning(
    folder: Path,
    task: str,
    seed: int,
    metrics: dict[str, float],
    model: Path | None = None,
    lr: float = 1e-4,
    train_rows: str = "rows",
) -> Path:
    """A finished fine-tuning; `model` None: the run's own export, which is made up where it is missing."""
    model = model or folder / "model"
    model.mkdir(exist_ok=True)
    weights = model / "model.safetensors"
    if not weights.exists():
        weights.write_text(f"weights of {model.name} in {folder.name}")
    place = folder / "finetune" / task / f"seed-{seed}"
    place.mkdir(parents=True)
    values = {"task": task, "seed": seed, "model": str(model), "unit": "percent", "metrics": metrics}
    (place / "metrics.json").write_text(json.dumps(values))
    settings = {"task": task, "seed": seed, "optimizer": {"lr": lr}, "pretrain": {"epochs": 3}, "engine": {}}
    inputs = {
        weights.name: hashlib.sha256(weights.read_bytes()).hexdigest(), "train_rows": train_rows, "dev_rows": "dev"
    }  # fmt: skip
    write_manifest(place, "finetune", 70.0)
    written = json.loads((place / "manifest.json").read_text()) | {"settings": settings, "inputs": inputs}
    (place / "manifest.json").write_text(json.dumps(written))
    return place
