"""Stage `finetune`: train a run's model, or any BERT or RoBERTa folder, on one GLUE task with one seed and score it.

The same engine and loop as pre-training; what a task is stands in tasks/.
"""

import json
import math
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from data_prep.errors import UserError
from data_prep.files import sha256_file, sha256_json, write_atomically
from data_prep.manifest import is_done, write_manifest
from pipeline.families.modeling_slim_bert import SlimBertForSequenceClassification
from pipeline.objectives.classification import ClassificationLoader, EvaluationBatches, Inputs, encode, read_tokenizer
from pipeline.objectives.classifier import build_classifier, read_pretrained, weight_files, what_of_head
from pipeline.objectives.glue import find_task, read_task
from pipeline.objectives.tasks import Example, Task, predictions_of, score
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import Recipe, apply_override, parse_recipe
from pipeline.recipes.sections import Batch, Optimizer, Schedule
from pipeline.runs.folder import begin, exclusive
from pipeline.runs.run import Run
from pipeline.stages.setup import build_engine, check_engine, tracker_for
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.engine import Engine
from pipeline.training.loop import Plan, train
from pipeline.training.metrics import Metrics
from pipeline.training.ranks import Ranks, started_ranks

METRICS, PREDICTIONS = "metrics.json", "dev.tsv"
# Of a model folder, besides its weights; the last three have a say in what tokenizer transformers makes.
_READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OVERRIDABLE = ("finetune", "tracking", "checkpoint")


@dataclass(frozen=True)
class Job:
    """One task, one seed, one model. `run.recipe` has the command line's overrides in it."""

    run: Run
    task: Task
    seed: int
    model: Path
    train: list[Example]
    dev: list[Example]

    @property
    def folder(self) -> Path:
        return self.run.folder.finetune(self.task.name, self.seed)

    def contract(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(settings, inputs) that decide the result. Hashes the model folder's files."""
        settings = {
            "task": self.task.name,
            "seed": self.seed,
            "finetune": self.run.recipe.finetune.model_dump(mode="json"),
            "engine": self.run.engine,
        }
        files = [self.model / name for name in _READ if (self.model / name).is_file()]
        files += self.model.glob("*.safetensors")
        inputs = {path.name: sha256_file(path) for path in sorted(files)}
        for split, examples in (("train", self.train), ("dev", self.dev)):
            inputs[f"{split}_rows"] = sha256_json([(e.first, e.second, e.label) for e in examples])
        return settings, inputs


def finetune(
    run: Run,
    task: str,
    seed: int,
    data: Path | None = None,
    model: Path | None = None,
    overrides: list[str] | None = None,
    force: bool = False,
) -> int:
    """Fine-tune and score one (task, seed) of a run into runs/R/finetune/TASK/seed-N/. Returns the exit code, 0.

    `data` is a folder of GLUE's TSVs (None: the hub), `model` a model folder (None: the run's exported compact model).
    A finished (task, seed) is skipped, an interrupted one resumes. Collective over the ranks this was started on.
    Raises UserError for unknown tasks and overrides, missing or bad data, an unusable model folder, and a folder made
    from other settings or inputs.
    """
    started = time.time()
    job = prepare(run, task, seed, data, model, overrides)
    with started_ranks() as ranks:
        settings, inputs = job.contract()
        is_new = force or not is_done(job.folder, "finetune", settings, inputs) if ranks.is_main else None
        material = read_material(job, ranks) if ranks.from_main(is_new) else None
        if ranks.is_main:
            job.folder.mkdir(parents=True, exist_ok=True)
        # The seed's own lock: other tasks and seeds of the run may be at work beside it.
        with exclusive(job.folder) if ranks.is_main else nullcontext():
            needed = ranks.from_main(begin(job.folder, "finetune", settings, inputs, force) if ranks.is_main else None)
            if material is None or not needed:
                if ranks.is_main:
                    print(f"finetune {job.task.name} seed {seed}: done, skipped ({job.folder})", flush=True)
                return 0
            results = train_task(job, material, ranks, started)
            if ranks.is_main:
                write_manifest(job.folder, "finetune", settings, inputs, started, results)
                shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
                listed = ", ".join(f"{name} {results['metrics'][name]:.2f}" for name in job.task.metrics)
                print(f"{job.task.name} seed {seed}: {listed} % on {len(job.dev)} dev rows ({job.folder})", flush=True)
        ranks.barrier()
    return 0


def prepare(run: Run, task: str, seed: int, data: Path | None, model: Path | None, overrides: list[str] | None) -> Job:
    """Check and read everything a (task, seed) needs before any rank is started. Raises UserError as `finetune`."""
    if seed < 0:
        raise UserError(f"--seed is 0 or more, got {seed}")
    wanted = find_task(task)
    recipe = overridden(run.recipe, overrides or [])
    folder = model or run.folder.model
    if folder.is_dir() and any(folder.glob("*.bin")):
        weight_files(folder)  # a folder of former years lacks more, and one command makes all of it
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not a model folder: it has no {' and no '.join(missing)}; finish the run's export stage, or "
            "name with --model a folder that a model and its tokenizer were saved to with save_pretrained"
        )
    rows = [read_task(wanted, split, data) for split in ("train", "dev")]
    return Job(replace(run, recipe=recipe), wanted, seed, folder, *rows)


def overridden(recipe: Recipe, overrides: list[str]) -> Recipe:
    """The run's recipe with `finetune.key=value` (also `tracking.` and `checkpoint.`) on top."""
    values = recipe.model_dump(mode="json")
    for override in overrides:
        section = override.partition("=")[0].partition(".")[0].strip()
        if section not in _OVERRIDABLE:
            raise UserError(
                f"override {override!r} changes nothing in fine-tuning; it reads the sections {', '.join(_OVERRIDABLE)}"
            )
        apply_override(values, override)
    return parse_recipe(values, origin=f"with overrides {' '.join(overrides)}")


def finetune_recipe(recipe: Recipe, world_size: int) -> Recipe:
    """The run's recipe with batch, optimiser and schedule of fine-tuning, for the engine and the loop.

    The clipping norm is BERT's. Raises UserError where these ranks cannot share the rows of a step.
    """
    chosen = recipe.finetune
    if chosen.rows % world_size:
        raise UserError(
            f"finetune.rows ({chosen.rows}) is not a multiple of the number of ranks ({world_size}); "
            "change finetune.rows or start fewer ranks"
        )
    optimizer = Optimizer(
        name="adamw",
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        betas=chosen.betas,
        eps=chosen.eps,
        gradient_clipping=1.0,
    )
    return recipe.model_copy(
        update={
            "batch": Batch(global_rows=chosen.rows, micro_rows=chosen.rows),
            "optimizer": optimizer,
            "schedule": Schedule(warmup_fraction=chosen.warmup_fraction, decay="linear", final_fraction=0.0),
        }
    )


class DevEvaluation:
    """Call with an engine: the task's metrics in percent, and the mean loss, over all dev rows.

    `predictions` (n,) are those of the latest call: class indices, or scores.
    """

    def __init__(self, task: Task, batches: EvaluationBatches, labels: np.ndarray) -> None:
        self._task, self._batches, self._labels = task, batches, labels
        self.predictions = np.empty(0)

    def __call__(self, engine: Engine) -> dict[str, float]:
        ranks = engine.ranks
        logits = torch.zeros(len(self._labels), self._task.num_outputs, dtype=torch.float64, device=ranks.device)
        with engine.evaluating():
            for index in range(len(self._batches)):
                rows, batch = self._batches.batch(index)
                found = engine.forward({name: x for name, x in batch.items() if name != "labels"}).logits
                logits[torch.from_numpy(rows).to(ranks.device)] = found[: len(rows)].double()
        logits = ranks.sum(logits).cpu()
        labels = torch.from_numpy(self._labels)
        self.predictions = predictions_of(self._task, logits.numpy())
        if self._task.is_regression:
            loss = F.mse_loss(logits[:, 0], labels.double())
        else:
            loss = F.cross_entropy(logits, labels)
        return {"loss": float(loss)} | score(self._task, self.predictions, self._labels)


@dataclass(frozen=True)
class Material:
    """All that a fine-tuning reads, read and checked: the recipe of these ranks, the model, its rows, and `notes`."""

    recipe: Recipe
    model: SlimBertForSequenceClassification
    loader: ClassificationLoader
    validate: DevEvaluation
    max_length: int
    notes: tuple[str, ...]


def read_material(job: Job, ranks: Ranks) -> Material:
    """Read a job's model, tokenizer and rows, and write nothing.

    Raises UserError for whatever cannot be used, so that a seed's folder begins with what it can end with.
    """
    task, chosen = job.task, job.run.recipe.finetune
    recipe = finetune_recipe(job.run.recipe, ranks.world_size)
    check_engine(job.run.engine, ranks)

    # Data
    pretrained = read_pretrained(job.model)
    shape = pretrained.shape
    # Rotary positions have no table that ends.
    longest = shape.max_row_length if shape.positions == "absolute" else chosen.max_length
    max_length = min(chosen.max_length, longest)
    tokenizer = read_tokenizer(job.model, shape.vocab_size)
    _check_length(job, max_length, tokenizer)
    train_rows, dev_rows = (encode(rows, tokenizer, max_length, task.is_regression) for rows in (job.train, job.dev))
    micro_rows, _ = engine_config.accumulation_steps(
        recipe.batch.global_rows, recipe.batch.micro_rows, ranks.world_size
    )
    inputs = Inputs(shape.pad_token_id, max_length, with_types=shape.type_vocab_size > 1)
    rank, world_size = ranks.rank, ranks.world_size
    loader = ClassificationLoader(train_rows, inputs, job.seed, recipe.batch.global_rows, micro_rows, rank, world_size)
    validate = DevEvaluation(task, EvaluationBatches(dev_rows, inputs, micro_rows, rank, world_size), dev_rows.labels)

    # Model
    model = build_classifier(pretrained, task, chosen.dropout, job.seed)
    notes = [note for note in [what_of_head(pretrained, task)] if note]
    if max_length < chosen.max_length:
        notes.append(
            f"texts are cut at {max_length} tokens: the model has no more positions ({chosen.max_length} asked)"
        )
    return Material(recipe, model, loader, validate, max_length, tuple(notes))


def _check_length(job: Job, max_length: int, tokenizer: Tokenizer) -> None:
    """UserError where rows of `max_length` tokens have no room for a token of every text: they cannot be cut to it."""
    is_pair = len(job.task.columns) > 1
    least = tokenizer.num_special_tokens_to_add(is_pair) + (2 if is_pair else 1)
    if max_length < least:
        raise UserError(
            f"{job.model} has positions for {max_length} tokens (max_position_embeddings of its config.json), and a "
            f"row of {job.task.name} needs {least} or more: take a model with more positions"
        )


def train_task(job: Job, material: Material, ranks: Ranks, started: float) -> dict[str, Any]:
    """Train for the recipe's epochs, evaluating after each, and write metrics.json and dev.tsv. Collective.

    `started` is when reading began. Returns the results for the manifest, the same as metrics.json.
    """
    task, folder, chosen = job.task, job.folder, job.run.recipe.finetune
    recipe, loader, validate = material.recipe, material.loader, material.validate
    parameters = sum(parameter.numel() for parameter in material.model.parameters())
    engine = build_engine(material.model, job.run.engine, recipe, ranks)

    # Training
    steps = chosen.epochs * loader.steps_per_epoch
    plan = Plan(
        total_steps=steps,
        stop_step=steps,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        seed=job.seed,
        checkpoint_every=recipe.checkpoint.every_steps,
        validate_every=loader.steps_per_epoch,
        log_every=recipe.tracking.log_every_steps,
    )
    label = f"finetune {task.name} seed {job.seed}"
    tracker = tracker_for(job.run, label.replace(" ", "-"), folder, ranks)
    with Metrics(folder, label, steps, tracker, ranks.is_main) as metrics:
        for note in material.notes:
            metrics.say(note)
        outcome = train(
            engine, loader, plan, metrics, Checkpoints(folder / "checkpoints", recipe.checkpoint.keep), validate
        )

    # Results
    if not ranks.is_main:
        tracker.finish()
        return {}
    epochs = _epochs(folder / "metrics.jsonl")
    results: dict[str, Any] = {
        "task": task.name,
        "seed": job.seed,
        "model": str(job.model),
        "unit": "percent",
        "headline": outcome.validation["headline"],
        "headline_of": list(task.metrics),
        "metrics": {name: outcome.validation[name] for name in task.metrics},
        "dev_loss": outcome.validation["loss"],
        "best_epoch_headline": max(epoch["headline"] for epoch in epochs),
        "epochs": epochs,
        "train_rows": len(job.train),
        "dev_rows": len(job.dev),
        "steps": outcome.step,
        "tokens": outcome.tokens,
        "parameters": parameters,
        "max_length": material.max_length,
        "world_size": ranks.world_size,
        "seconds_training": outcome.seconds,
        "seconds": round(time.time() - started, 2),
    }
    _write_predictions(folder / PREDICTIONS, task, validate.predictions, job.dev)
    write_atomically(folder / METRICS, json.dumps(results, indent=1) + "\n")
    tracker.summary({key: value for key, value in results.items() if isinstance(value, (int, float))})
    tracker.finish()
    return results


def _epochs(path: Path) -> list[dict[str, float]]:
    """The validation rows of metrics.jsonl: one after every epoch, those before a restart included."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == "validation"]


def _write_predictions(path: Path, task: Task, predictions: np.ndarray, dev: list[Example]) -> None:
    """dev.tsv: index of the row in the dev file (from 0), prediction, label; as words, or as scores."""

    def word(value: float) -> str:
        return f"{value:.4f}" if task.is_regression else task.label_names[math.trunc(value)]

    lines = ["index\tprediction\tlabel"]
    lines += [
        f"{index}\t{word(predicted)}\t{word(example.label)}"
        for index, (predicted, example) in enumerate(zip(predictions.tolist(), dev, strict=True))
    ]
    write_atomically(path, "\n".join(lines) + "\n")
