"""The ordered table of stages: what each reads, what decides its result, and how it is started.

Everything here is torch-free, so that a finished run is recognised without starting anything.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.errors import UserError
from data_prep.files import sha256_file
from data_prep.manifest import MANIFEST_NAME, differing_keys, read_manifest, write_manifest
from pipeline.families import model_files
from pipeline.recipes.engine_config import accumulation_steps
from pipeline.recipes.recipe import Recipe
from pipeline.recipes.sections import Source
from pipeline.runs.folder import RunFolder, begin, check_settings, exclusive
from pipeline.runs.run import Run
from pipeline.stages import launch

if TYPE_CHECKING:
    from pipeline.training.ranks import Ranks

SAMPLES = Path("data_prep") / "samples"


@dataclass(frozen=True)
class Stage:
    """One row of the table. `settings` and `inputs`: what, when changed, makes the result another one."""

    name: str
    distributed: bool
    folder: Callable[[Run], Path]
    settings: Callable[[Run], dict[str, Any]]
    inputs: Callable[[Run], dict[str, Any]]


def _results(run: Run, stage: str, folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"stage '{stage}' has not finished in {run.folder.root} (no {folder / MANIFEST_NAME})")
    return manifest["results"]


def _training_settings(run: Run) -> dict[str, Any]:
    recipe = run.recipe.model_dump(mode="json")
    # Where the model and the texts lie does not matter: what is in them does, and that is an input.
    for section, keys in (("model", ("checkpoint", "revision")), ("task", ("source",))):
        for key in keys:
            del recipe[section][key]
    kept = {key: recipe[key] for key in ("seed", "model", "objective", "batch", "optimizer", "schedule")}
    if run.recipe.objective.name == "classification":
        kept["task"] = recipe["task"]
    if run.recipe.pretrain.epochs is not None:
        kept["epochs"] = run.recipe.pretrain.epochs
    if run.recipe.corpus.long_row_length is not None:
        kept["long_fraction"] = run.recipe.corpus.long_fraction
    return kept | {"steps": run.recipe.pretrain.steps, "engine": run.engine}


def _drop_settings(run: Run) -> dict[str, Any]:
    drop = run.recipe.layer_drop
    return {"layer_drop": drop.model_dump(mode="json")} if drop.enabled else {}


def _ticket_settings(run: Run) -> dict[str, Any]:
    recipe = run.recipe.model_dump(mode="json")
    return {"search": recipe["search"], "ticket": recipe["ticket"]}


def _search_settings(run: Run) -> dict[str, Any]:
    # Only a search that is to be inherited from keeps its last weights and moments.
    pretrain = run.recipe.pretrain
    inherited: dict[str, Any] = {"inherited": pretrain.rewind == "inherit"}
    if pretrain.rewind_step is not None:
        inherited["rewind_step"] = pretrain.rewind_step
    dropped = _drop_settings(run) if run.recipe.layer_drop.during_search else {}
    return _training_settings(run) | _ticket_settings(run) | inherited | dropped


def _pretrain_settings(run: Run) -> dict[str, Any]:
    rewind = {"rewind": run.recipe.pretrain.rewind, "dense": not run.recipe.search.enabled}
    return _training_settings(run) | rewind | _drop_settings(run)


def _data(run: Run) -> dict[str, Any]:
    """Hashes of the rows a training reads, and of the model it starts from."""
    chosen = run.recipe.model
    found: dict[str, Any] = {}
    if chosen.checkpoint is not None:
        found["checkpoint"] = model_files.hashes(model_files.fetch(chosen.checkpoint, chosen.revision))
    if run.recipe.objective.name == "classification":
        # Imported here: scikit-learn takes a second, which other runs need not wait for.
        from pipeline.objectives.texts import read_texts

        return found | read_texts(run.recipe.task).hashes()
    return found | _shards(run)


def _shards(run: Run) -> dict[str, Any]:
    found = {}
    for key, folder in (("shards", run.shards), ("long_shards", run.long_shards)):
        if folder is None:
            continue
        if not (folder / MANIFEST_NAME).exists():
            raise UserError(f"stage 'shard' has not finished in {run.corpus.root} (no {folder / MANIFEST_NAME})")
        found[key] = sha256_file(folder / "index.json")
    return found


def _scores(run: Run) -> dict[str, Any]:
    other = run.recipe.search.run
    if other is not None and read_manifest(run.search.search) is None:
        raise UserError(f"search.run ({other}): there is no finished search in {run.search.root}")
    results = _results(run, "search", run.search.search)
    if other is not None:
        _check_borrowed(run)
    return {"scores": results["scores_sha256"]}


def _check_borrowed(run: Run) -> None:
    """Raise UserError where the search of `search.run` was not this run's but for the ticket's budget."""
    manifest = read_manifest(run.search.search)
    assert manifest is not None  # its results were there
    wanted = {"settings": _search_settings(run), "inputs": _data(run)}
    found = {"settings": manifest["settings"], "inputs": manifest["inputs"]}
    # What is kept for a rewind, and how much is cut, changes no score; neither does what is only drawn later.
    drawn_by = ["run", "draw", "guard_steps", "queue", "threshold", "on_unsettled"]
    if run.recipe.search.l1_decay == "constant":
        drawn_by.append("max_steps")
    free = (
        "settings.ticket.",
        "settings.inherited",
        "settings.rewind_step",
        *(f"settings.search.{x}:" for x in drawn_by),
    )
    changed = [key for key in differing_keys(found, json.loads(json.dumps(wanted))) if not key.startswith(free)]
    if changed:
        raise UserError(
            f"search.run ({run.recipe.search.run}) was searched with other settings or inputs: {'; '.join(changed)}"
        )


def _data_and_ticket(run: Run) -> dict[str, Any]:
    if not run.recipe.search.enabled:
        return _data(run)
    _results(run, "draw", run.folder.draw)
    return _data(run) | {"ticket": sha256_file(run.folder.ticket)}


def _weights(run: Run) -> dict[str, Any]:
    return {"weights": _results(run, "pretrain", run.folder.pretrain)["weights_sha256"]}


SEARCH = Stage("search", True, lambda run: run.folder.search, _search_settings, _data)
DRAW = Stage("draw", False, lambda run: run.folder.draw, _ticket_settings, _scores)
PRETRAIN = Stage("pretrain", True, lambda run: run.folder.pretrain, _pretrain_settings, _data_and_ticket)
EXPORT = Stage("export", False, lambda run: run.folder.export, lambda _: {}, _weights)
TRAINING_STAGES = (SEARCH, DRAW, PRETRAIN, EXPORT)


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The training stages this recipe has: a dense run has no search and no draw, and some take another's search."""
    if not recipe.search.enabled:
        return PRETRAIN, EXPORT
    return TRAINING_STAGES if recipe.search.run is None else (DRAW, PRETRAIN, EXPORT)


def corpus_commands(run: Run) -> list[list[str]]:
    """The data_prep command lines that make the corpus, in order."""
    corpus = run.recipe.corpus
    sources = corpus.sources or [str(Path(__file__).parents[2] / SAMPLES)]
    here = ["--corpus", str(run.corpus.root)]
    ingest = ["ingest", "--out", str(run.corpus.root)]
    for option in ("val_fraction", "min_characters", "filters", "dedup", "repeated_lines", "on_bad_input"):
        ingest += [f"--{option.replace('_', '-')}", str(getattr(corpus, option))]
    ingest += ["--language", corpus.language] if corpus.language else []
    weights = []
    for source in sources:
        ingest += ["--source", source if isinstance(source, str) else source.spec()]
        if isinstance(source, Source) and source.weight != 1:
            weights += ["--weight", f"{source.name}={source.weight}"]
    if run.recipe.tokenizer:
        tokenizer = ["tokenizer", *here, "--load", _vocabulary(run.recipe)]
    else:
        tokenizer = ["tokenizer", *here, "--vocab-size", str(corpus.vocab_size), "--kind", corpus.tokenizer_kind]
    for option, is_so in (("cased", corpus.cased), ("strip-accents", corpus.strip_accents)):
        tokenizer += [] if is_so is None else [f"--{'' if is_so else 'no-'}{option}"]
    shard = ["shard", *here, "--packing", corpus.packing, *weights]
    return [ingest, tokenizer, *([*shard, "--row-length", str(length)] for length in corpus.row_lengths)]


def _vocabulary(recipe: Recipe) -> str:
    """The file or folder that the corpus' vocabulary is loaded from."""
    if recipe.corpus.tokenizer or recipe.model.checkpoint is None:
        return str(recipe.corpus.tokenizer)
    return str(model_files.fetch(recipe.model.checkpoint, recipe.model.revision))


def make_corpus(
    run: Run, force: bool, only: str | None = None, part: str | None = None, workers: int | None = None
) -> int:
    """Make the run's corpus, or one stage of it, in processes of data_prep; the exit code of the first that fails.

    Raises UserError before any text is read where corpus.tokenizer is needed and not there.
    """
    given = run.recipe.corpus.tokenizer
    if given and only in (None, "tokenizer") and not Path(given).exists():
        raise UserError(f"corpus.tokenizer ({given}) does not exist (looked in {Path.cwd()})")
    for arguments in corpus_commands(run):
        stage = arguments[0]
        if only not in (None, stage):
            continue
        options = ["--force"] if force else []
        if stage != "tokenizer":
            options += ["--part", part] if part else []
            options += ["--workers", str(workers)] if workers else []
        command = [sys.executable, "-m", "data_prep", "--recipe-keys", *arguments, *options]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


def run_all(run: Run, root: Path, launcher: launch.Launcher, num_ranks: int, force: bool) -> int:
    """Every stage in order, finished ones skipped. Returns the exit code of the first that fails, else 0."""
    micro_rows, _ = accumulation_steps(run.recipe.batch.global_rows, run.recipe.batch.micro_rows, num_ranks)
    run.recipe.check_rows(micro_rows)
    for warning in run.recipe.warnings():
        print(f"warning: {warning}", flush=True)
    began = time.time()
    if not force:
        for stage in stages_of(run.recipe):
            check_settings(stage.folder(run), stage.name, stage.settings(run))
    code = make_corpus(run, force) if run.recipe.objective.name != "classification" else 0
    if code:
        return code
    run.save()
    for stage in stages_of(run.recipe):
        with exclusive(run.folder.root):
            needed = begin(stage.folder(run), stage.name, stage.settings(run), stage.inputs(run), force)
        if not needed:
            print(f"{stage.name}: done, skipped ({stage.folder(run)})", flush=True)
            continue
        words = [stage.name, "--run", run.folder.root.name, "--root", str(root)]
        ranks = num_ranks if stage.distributed else 1
        code = launch.start(words, launcher if stage.distributed else "none", ranks)
        if code:
            return code
        if read_manifest(stage.folder(run)) is None:
            raise UserError(f"stage '{stage.name}' ended without its manifest in {stage.folder(run)}")
    print(f"all stages done in {time.time() - began:.0f} s")
    return 0


def statuses(run: Run) -> list[tuple[str, str, str]]:
    """(stage, state, seconds) of every stage of a run, in order."""
    folders: dict[str, Path] = {}
    if run.recipe.objective.name != "classification":
        folders |= {"ingest": run.corpus.clean, "tokenizer": run.corpus.tokenizer, "shard": run.shards}
        if run.long_shards is not None:
            folders["shard long"] = run.long_shards
    folders |= {stage.name: stage.folder(run) for stage in stages_of(run.recipe)}
    return _states(folders)


def finetuned(folder: RunFolder) -> list[tuple[str, str, str]]:
    """The same of the fine-tunings in a folder."""
    found = sorted(folder.root.glob("finetune/*/seed-*/"))
    return _states({f"finetune {path.parent.name} {path.name}": path for path in found})


def _states(folders: dict[str, Path]) -> list[tuple[str, str, str]]:
    rows = []
    for name, folder in folders.items():
        manifest = read_manifest(folder)
        if manifest is not None:
            rows.append((name, "done", f"{manifest['seconds']:.1f}"))
        elif folder.with_name(f".{folder.name}.partial").exists():
            rows.append((name, "interrupted, goes on behind what is done", ""))
        elif folder.exists():
            newest = sorted([*folder.glob("checkpoints/step-*"), *folder.glob("*/checkpoints/step-*")])
            rows.append((name, f"interrupted, resumes from {newest[-1].name}" if newest else "begun", ""))
        else:
            rows.append((name, "not begun", ""))
    return rows


def run_stage(stage: Stage, run: Run, force: bool) -> None:
    """Do one training stage in this process, on however many ranks it was started. Collective.

    Raises UserError when the stage's inputs are missing or it was made from others.
    """
    from pipeline.training.ranks import started_ranks

    with started_ranks() as ranks:
        with exclusive(run.folder.root) if ranks.is_main else nullcontext():
            do_stage(stage, run, ranks, force)
        ranks.barrier()


def do_stage(stage: Stage, run: Run, ranks: "Ranks", force: bool = False) -> None:
    """One stage on ranks that are there, whose main one holds the run's lock. Collective. Raises UserError as
    `run_stage`."""
    started = time.time()
    settings, inputs = stage.settings(run), stage.inputs(run)
    needed = ranks.from_main(begin(stage.folder(run), stage.name, settings, inputs, force) if ranks.is_main else None)
    if not needed:
        if ranks.is_main:
            print(f"{stage.name}: done, skipped ({stage.folder(run)})", flush=True)
        return
    if stage.distributed or ranks.is_main:
        results = _function(stage.name)(run, ranks)
        if ranks.is_main:
            write_manifest(stage.folder(run), stage.name, settings, inputs, started, results)
    ranks.barrier()


def _function(name: str) -> Callable[..., dict[str, Any]]:
    # Imported only here: torch and DeepSpeed take seconds that a skipped stage should not cost.
    if name == "search":
        from pipeline.stages.search import search

        return search
    if name == "draw":
        from pipeline.stages.draw import draw

        return draw
    if name == "pretrain":
        from pipeline.stages.pretrain import pretrain

        return pretrain
    from pipeline.stages.export import export

    return export
