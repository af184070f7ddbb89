"""The command `finetune`: a run of its own for one task, seed and model, through the same stages as pre-training.

Search and draw (where the recipe has a search), training and export in one process, and the figures of all in one file.
"""

import gc
import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import write_atomically
from data_prep.manifest import is_done, read_manifest, write_manifest
from pipeline.families import model_files
from pipeline.objectives.classification import PREDICTIONS
from pipeline.objectives.glue import task_named
from pipeline.objectives.texts import Texts, read_texts
from pipeline.recipes.engine_config import load_with_recipe
from pipeline.recipes.recipe import load_recipe
from pipeline.runs.folder import RunFolder, begin, exclusive
from pipeline.runs.run import Run
from pipeline.stages.setup import read_setting
from pipeline.stages.table import do_stage, stages_of
from pipeline.training.ranks import Ranks, started_ranks

METRICS = "metrics.json"
# What the stages hand to each other and nobody needs once the model is exported.
_BETWEEN = (
    "search/*.safetensors",
    "search/checkpoints",
    "pretrain/*.safetensors",
    "pretrain/checkpoints",
)


def finetune(
    root: Path,
    name: str | None,
    task: str,
    seed: int,
    source: str | None = None,
    model: str | None = None,
    recipe: str = "finetune",
    engine: str | None = None,
    overrides: list[str] | None = None,
    force: bool = False,
) -> int:
    """Fine-tune and score one (task, seed) into runs/NAME/finetune/TASK/seed-N/. Returns the exit code, 0.

    `model`: a folder or a name on the hub, whose own name is NAME where none is given; None: the exported model of the
    run NAME. `source`: as `task.source` of a recipe. `engine`: a DeepSpeed file; None: that of the run. A finished
    (task, seed) is skipped, an interrupted one resumes. Collective over the ranks this was started on. Raises UserError
    for whatever cannot be used, before anything is written.
    """
    started = time.time()
    if seed < 0:
        raise UserError(f"--seed is 0 or more, got {seed}")
    run, texts = plan_run(root, name, task, seed, source, model, recipe, engine, overrides or [])
    folder, label = run.folder.root, f"{texts.task.name} seed {seed}"
    with started_ranks() as ranks:
        settings, inputs = contract(run, texts)
        if ranks.is_main:
            if force or not is_done(folder, "finetune", settings, inputs):
                read_setting(run, ranks).build_dense()  # whatever is wrong is said before the folder is there
            folder.mkdir(parents=True, exist_ok=True)
        # The seed's own lock: other tasks and seeds may be at work beside it.
        with exclusive(folder) if ranks.is_main else nullcontext():
            needed = ranks.from_main(begin(folder, "finetune", settings, inputs, force) if ranks.is_main else None)
            if not needed:
                if ranks.is_main:
                    print(f"finetune {label}: done, skipped ({folder})", flush=True)
                return 0
            if ranks.is_main:
                run.save()
            for stage in stages_of(run.recipe):
                do_stage(stage, run, ranks)
                gc.collect()  # an engine holds itself: the next one shall find its memory free
            if ranks.is_main:
                results = summary(run, texts, seed, ranks, started)
                write_manifest(folder, "finetune", settings, inputs, started, results)
                for pattern in _BETWEEN:
                    for path in folder.glob(pattern):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                listed = ", ".join(f"{metric} {results['metrics'][metric]:.2f}" for metric in texts.task.metrics)
                print(f"{label}: {listed} % on {len(texts.dev)} dev rows ({folder})", flush=True)
        ranks.barrier()
    return 0


def plan_run(
    root: Path,
    name: str | None,
    task: str,
    seed: int,
    source: str | None,
    model: str | None,
    recipe: str,
    engine: str | None,
    overrides: list[str],
) -> tuple[Run, Texts]:
    """The run of one (task, seed), and its rows; writes nothing. Raises UserError as `finetune`."""
    if model is None:
        base = Run.open(root, name or "sample")
        folder, given = base.folder, base.engine
        model = str(base.folder.model)
        if not base.folder.model.is_dir():
            raise UserError(
                f"{model} is not there: finish the run's export stage, or name a folder or a model of the hub with "
                "--model"
            )
    else:
        folder, given = RunFolder(root / "runs" / (name or Path(model).name or Path(model).resolve().name)), {}
        if folder.recipe.exists():
            raise UserError(
                f"{folder.root} is a run with a model of its own: name another place for fine-tunings of {model} with "
                "--run"
            )
    of_glue = task_named(task)
    chosen = [f"model.checkpoint={json.dumps(model)}", f"seed={seed}"]
    chosen += [f"task.name={json.dumps(of_glue.name if of_glue else task)}"]
    chosen += [f"task.source={json.dumps(source)}"] if source else []
    recipe_read = load_recipe(recipe, [*chosen, *overrides])
    if engine is not None or not given:
        given, recipe_read, _ = load_with_recipe(engine or "cpu", recipe_read)
    if recipe_read.search.run is not None:
        raise UserError("search.run is for pre-training: a fine-tuning leaves no weights that another could cut")
    texts = read_texts(recipe_read.task)
    place = RunFolder(folder.finetune(texts.task.name, seed))
    return replace(Run.of(root, folder.root.name, recipe_read, given), folder=place), texts


def contract(run: Run, texts: Texts) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, inputs) that decide the result. Hashes the model folder's files."""
    recipe = run.recipe.model_dump(mode="json")
    settings: dict[str, Any] = {"task": texts.task.name, "seed": recipe["seed"]}
    for section in ("model", "batch", "optimizer", "schedule", "search", "ticket", "pretrain"):
        settings[section] = recipe[section]
    settings["texts"] = {name: x for name, x in recipe["task"].items() if name not in ("name", "source")}
    for key in ("checkpoint", "revision"):
        del settings["model"][key]
    settings["engine"] = run.engine
    chosen = run.recipe.model
    assert chosen.checkpoint is not None  # the recipe has looked
    return settings, model_files.hashes(model_files.fetch(chosen.checkpoint, chosen.revision)) | texts.hashes()


def summary(run: Run, texts: Texts, seed: int, ranks: Ranks, started: float) -> dict[str, Any]:
    """Write metrics.json and dev.tsv beside the stages' folders; what they hold, for the manifest."""
    found = {stage.name: _results(stage.folder(run)) for stage in stages_of(run.recipe)}
    trained = found["pretrain"]
    epochs = _validations(run.folder.pretrain / "metrics.jsonl")
    results: dict[str, Any] = {
        "task": texts.task.name,
        "seed": seed,
        "model": run.recipe.model.checkpoint,
        "unit": "percent",
        **{key: trained[key] for key in ("headline", "headline_of", "metrics")},
        "dev_loss": trained["validation_loss"],
        "best_epoch_headline": max(epoch["headline"] for epoch in epochs),
        "epochs": epochs,
        **{key: trained[key] for key in ("train_rows", "dev_rows", "steps", "tokens", "parameters", "max_length")},
        "world_size": ranks.world_size,
        "seconds_training": trained["seconds_training"],
    }
    if run.recipe.search.enabled:
        results |= {
            "parameters_dense": trained["parameters_dense"],
            "encoder_flops_kept": trained["encoder_flops_kept"],
            "ticket_step": found["draw"]["step"],
            "seconds_search": found["search"]["seconds_training"],
            "seconds_draw": _seconds(run.folder.draw),
        }
    results["seconds"] = round(time.time() - started, 2)
    shutil.copyfile(run.folder.pretrain / PREDICTIONS, run.folder.root / PREDICTIONS)
    write_atomically(run.folder.root / METRICS, json.dumps(results, indent=1) + "\n")
    return results


def _results(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None  # the stage has just written it
    return manifest["results"]


def _seconds(folder: Path) -> float:
    manifest = read_manifest(folder)
    assert manifest is not None
    return float(manifest["seconds"])


def _validations(path: Path) -> list[dict[str, float]]:
    """The validation rows of metrics.jsonl, those before a restart included."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == "validation"]
