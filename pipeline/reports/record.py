"""What a run folder tells: its recipe, ticket, manifests and metrics, as far as the run has come.

Reads only, without torch. A missing or damaged piece is never an error here: it is left out, and `problems` says so.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from data_prep.corpus import Corpus as CorpusFolder
from data_prep.errors import UserError
from data_prep.files import sha256_file
from data_prep.manifest import read_manifest
from pipeline.families.shape import Shape
from pipeline.families.stock_shape import read_shape
from pipeline.recipes.recipe import Recipe, parse_recipe
from pipeline.runs.folder import RunFolder
from pipeline.tickets.select import GROUPS, select_units
from pipeline.tickets.ticket import Ticket

MOST_OBSERVATIONS = 400
DROPPING = ("theta", "expected_depth", "depth", "flops_saved")
_NUMBERS = ("tokens", "loss", "lr", "step_seconds", "tokens_per_second", *DROPPING)


@dataclass(frozen=True)
class StageRecord:
    """One stage: `state` in words, and its manifest once it is done."""

    name: str
    state: str
    manifest: dict[str, Any]

    @property
    def done(self) -> bool:
        return bool(self.manifest)


@dataclass(frozen=True)
class Finetuned:
    """One fine-tuning: a task, a seed, what came out, and what it was made from.

    `model`: the folder as it was named, with the hashes of its files as `model_files`; or in words, without hashes,
    where it is one of the run's two exports as they are now. `data`: hashes of the rows. `settings`: dotted keys
    without task and seed.
    """

    task: str
    seed: str
    metrics: dict[str, float]
    unit: str
    model: str
    model_files: dict[str, str]
    data: dict[str, str]
    settings: dict[str, Any]

    def made_from(self) -> str:
        """What two fine-tunings of a task have in common when only their seeds differ."""
        return json.dumps([self.model_files or self.model, self.data, self.settings], sort_keys=True)


@dataclass(frozen=True)
class Losses:
    """Loss over pre-training. Seconds are those spent in training steps, the search's included."""

    train_tokens: tuple[float, ...] = ()
    train_seconds: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    validation_tokens: tuple[float, ...] = ()
    validation_seconds: tuple[float, ...] = ()
    validation_loss: tuple[float, ...] = ()

    def validation_at(self, tokens: float) -> float | None:
        """Validation loss after this many tokens, linear between two validations; None outside of them."""
        if not self.validation_tokens or not self.validation_tokens[0] <= tokens <= self.validation_tokens[-1]:
            return None
        return float(np.interp(tokens, self.validation_tokens, self.validation_loss))


@dataclass(frozen=True)
class Dropped:
    """Layer dropping over one stage, a value a row of metrics.jsonl, one row or more.

    `theta` is that of the row's last step. `expected_depth` and `depth` are the layers that were to run and that ran,
    means over the steps since the row before (`begin` for the first row). `flops_saved`: the share saved since `begin`.
    """

    begin: int
    steps: tuple[int, ...]
    theta: tuple[float, ...]
    expected_depth: tuple[float, ...]
    depth: tuple[float, ...]
    flops_saved: tuple[float, ...]

    def mean_of(self, depths: Sequence[float]) -> float:
        """The mean over all steps of a column that holds means over the steps of a row."""
        return float(np.average(depths, weights=np.diff([self.begin, *self.steps])))


@dataclass(frozen=True)
class Masks:
    """The masks of the recorded observations: a bool array (observations, units) for each group."""

    steps: tuple[int, ...]
    units: dict[str, np.ndarray]

    def distances(self, group: str) -> np.ndarray:
        """(n, n) normalised Hamming distances: the share of units in which two masks differ."""
        masks = self.units[group].astype(np.float32)
        differ = masks @ (1 - masks).T
        return (differ + differ.T) / masks.shape[1]


@dataclass(frozen=True)
class RunRecord:
    """One run as far as it has come.

    `search`: the run folder its ticket comes from. `rows` are those of metrics.jsonl by stage and kind.
    """

    name: str
    folder: RunFolder
    search: RunFolder
    recipe: Recipe | None
    engine: dict[str, Any]
    vocab_size: int | None
    ticket: Ticket | None
    trained: Shape | None
    stages: dict[str, StageRecord]
    rows: dict[str, dict[str, list[dict[str, Any]]]]
    finetuned: tuple[Finetuned, ...]
    problems: tuple[str, ...]

    @property
    def has_search(self) -> bool:
        return self.recipe.search.enabled if self.recipe else self.ticket is not None

    @property
    def draw_rule(self) -> str | None:
        """`search.draw` of the recipe, else as the ticket remembers it."""
        if self.recipe:
            return self.recipe.search.draw
        return self.ticket.provenance.get("search_settings", {}).get("draw") if self.ticket else None

    @property
    def drops_layers(self) -> bool:
        """Whether layers are dropped in any stage, or will be."""
        asked = self.recipe is not None and self.recipe.layer_drop.enabled
        return asked or any(self.dropped(stage) for stage in ("search", "pretrain"))

    @property
    def dense_shape(self) -> Shape | None:
        """The model before the cut; while there are no shards, with as large a vocabulary as the recipe asks.

        None while nothing says how large a vocabulary that is loaded will be, or what shape a checkpoint has.
        """
        if self.ticket:
            return self.ticket.dense_shape
        if self.trained:
            return self.trained
        if self.recipe is None or self.recipe.model.checkpoint or self.recipe.model.family != "slim_bert":
            return None
        if self.recipe.tokenizer and self.vocab_size is None:
            return None
        return self.recipe.dense_shape(self.vocab_size or self.recipe.corpus.vocab_size, 0)

    @property
    def trained_shape(self) -> Shape | None:
        """The model that is pre-trained: the ticket's, or the dense one of a run without a search."""
        if self.ticket:
            return self.ticket.slim_shape()
        return None if self.has_search else self.dense_shape

    def result(self, stage: str, name: str) -> Any:
        """A figure of a finished stage's manifest, else None."""
        return self.stages[stage].manifest.get("results", {}).get(name) if stage in self.stages else None

    def series(self, stage: str, kind: str, *names: str) -> tuple[tuple[Any, ...], ...]:
        """Columns of metrics.jsonl, of the rows that have them all."""
        rows = [row for row in self.rows.get(stage, {}).get(kind, []) if all(name in row for name in names)]
        return tuple(tuple(row[name] for row in rows) for name in names)

    def seconds_training(self, stage: str) -> float | None:
        """Time in training steps of a stage, validation and checkpoints left out; of an unfinished one, so far."""
        if (whole := self.result(stage, "seconds_training")) is not None:
            return float(whole)
        steps, seconds = self.series(stage, "train", "step", "step_seconds")
        return float(_elapsed(steps, seconds, self.first_step(stage))[-1]) if steps else None

    def dropped(self, stage: str) -> Dropped | None:
        """What dropping layers came to in a stage; None where none were dropped."""
        begin, rows = self.first_step(stage), self.rows.get(stage, {}).get("train", [])
        rows = [row for row in rows if "theta" in row and row["step"] > begin]
        return Dropped(begin, *(tuple(row[name] for row in rows) for name in ("step", *DROPPING))) if rows else None

    def losses(self) -> Losses:
        """Loss over the tokens and seconds of pre-training."""
        names = ("step", "tokens", "loss", "step_seconds")
        steps, tokens, losses, step_seconds = self.series("pretrain", "train", *names)
        if not steps:
            return Losses()
        before = self.seconds_training("search") or 0.0
        seconds = before + _elapsed(steps, step_seconds, self.first_step("pretrain"))
        at, validation = self.series("pretrain", "validation", "tokens", "loss")
        return Losses(
            tokens,
            tuple(seconds.tolist()),
            losses,
            at,
            tuple(np.interp(at, [0, *tokens], [before, *seconds]).tolist()),
            validation,
        )

    def masks(self) -> Masks | None:
        """Masks drawn again from the recorded scores; None where none are recorded.

        Of a long record, evenly spaced observations. Raises UserError where the scores cannot be read.
        """
        shape = self.dense_shape
        rules = self.ticket.rules if self.ticket else self.recipe.ticket_rules() if self.recipe else None
        paths = sorted(self.search.scores.glob("step-*.safetensors"))
        if shape is None or rules is None or not paths:
            return None
        if len(paths) > MOST_OBSERVATIONS:
            paths = [paths[i] for i in np.linspace(0, len(paths) - 1, MOST_OBSERVATIONS).astype(int)]
        rows: dict[str, list[np.ndarray]] = {group: [] for group in GROUPS}
        for path in paths:
            try:
                flat = load_file(path)
                scores = {group: [flat[f"{group}.{i}"] for i in range(len(shape.layers))] for group in GROUPS}
            except (SafetensorError, OSError, KeyError) as error:
                raise UserError(f"{path} cannot be read as scores of {len(shape.layers)} layers: {error}") from error
            for group, selection in select_units(scores, shape, rules).items():
                rows[group].append(np.concatenate(selection.masks()))
        steps = tuple(int(path.stem.removeprefix("step-")) for path in paths)
        return Masks(steps, {group: np.stack(masks) for group, masks in rows.items()})

    def first_step(self, stage: str) -> int:
        """The step a stage begins after: that of the search's weights which pre-training goes on with, else 0."""
        if stage != "pretrain" or self.recipe is None or self.ticket is None:
            return 0
        return {"inherit": self.ticket.step, "step": self.recipe.pretrain.rewind_step or 0}.get(
            self.recipe.pretrain.rewind, 0
        )


def read_run(root: Path) -> RunRecord:
    """Everything there is in a run folder, and its corpus's manifests beside it (../../corpora/NAME)."""
    root = root.resolve()
    folder = RunFolder(root)
    problems: list[str] = []
    recipe, engine = _recipe(folder, problems)
    ticket = None
    if folder.ticket.exists():
        try:
            ticket = Ticket.read(folder.ticket)
        except UserError as error:
            problems.append(str(error))
    folders: dict[str, Path] = {}
    vocab_size = None
    search = folder.beside(recipe.search.run) if recipe and recipe.search.run else folder
    if recipe and recipe.objective.name != "classification":
        corpus = CorpusFolder(root.parent.parent / "corpora" / recipe.corpus.name)
        shards = corpus.shards(recipe.corpus.packing, recipe.corpus.row_length)
        folders |= {"ingest": corpus.clean, "tokenizer": corpus.tokenizer, "shard": shards}
        index = _json(shards / "index.json", problems)
        vocab_size = index.get("vocab_size") if isinstance(index, dict) else None
    if recipe is None or recipe.search.enabled:
        folders |= {"search": search.search, "draw": folder.draw}
    folders |= {"pretrain": folder.pretrain, "export": folder.export}
    return RunRecord(
        name=root.name,
        folder=folder,
        search=search,
        recipe=recipe,
        engine=engine,
        vocab_size=vocab_size,
        ticket=ticket,
        trained=_trained(folder.pretrain / "weights.safetensors", problems),
        stages={name: _stage(name, path, problems) for name, path in folders.items()},
        rows={name: _rows(path / "metrics.jsonl", problems) for name, path in folders.items()},
        finetuned=_finetuned(root, problems),
        problems=tuple(problems),
    )


def _recipe(folder: RunFolder, problems: list[str]) -> tuple[Recipe | None, dict[str, Any]]:
    values = _json(folder.recipe, problems)
    if values is None:
        return None, {}
    try:
        return parse_recipe(values["recipe"], origin=str(folder.recipe)), values["engine"]
    except (UserError, KeyError, TypeError) as error:
        problems.append(f"{folder.recipe} is not a recipe this version knows: {error}")
        return None, {}


def _trained(weights: Path, problems: list[str]) -> Shape | None:
    """The shape of the weights that pre-training has written."""
    if not weights.exists():
        return None
    try:
        with safe_open(weights, framework="np") as file:
            return read_shape(json.loads(file.metadata()["shape"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"{weights} does not say what it is of: {error}")
        return None


def _stage(name: str, path: Path, problems: list[str]) -> StageRecord:
    try:
        manifest = read_manifest(path)
    except UserError as error:
        problems.append(str(error))
        return StageRecord(name, "its manifest cannot be read", {})
    if manifest is not None:
        return StageRecord(name, "done", manifest)
    if not path.exists():
        return StageRecord(name, "not begun", {})
    newest = sorted(path.glob("checkpoints/step-*"))
    return StageRecord(name, f"not finished, resumes from {newest[-1].name}" if newest else "not finished", {})


def _rows(path: Path, problems: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows by kind. A step written twice, before and after a restart, counts as written last."""
    if not path.exists():
        return {}
    *lines, torn = path.read_text(encoding="utf-8").split("\n")
    found: dict[str, dict[int, dict[str, Any]]] = {}
    unreadable = 0
    for line in lines:
        try:
            row = json.loads(line)
            _check_row(row)
            found.setdefault(row["kind"], {})[row["step"]] = row
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            unreadable += 1
    if unreadable or torn:
        which = f"{unreadable} line(s)" if unreadable else "the last line, torn off,"
        problems.append(f"{path}: {which} could not be read and are left out here")
    return {kind: [rows[step] for step in sorted(rows)] for kind, rows in found.items()}


def _check_row(row: Any) -> None:
    """Raise KeyError, TypeError or ValueError for a row that cannot be what a stage wrote.

    A loss may be NaN: runs diverge. Of the figures of layer dropping a row has all or none.
    """
    if type(row["step"]) is not int or any(type(row[name]) not in (int, float) for name in _NUMBERS if name in row):
        raise TypeError
    if not any(name in row for name in DROPPING):
        return
    theta, *depths, saved = (row[name] for name in DROPPING)
    # Rounding may make nothing saved a little less than nothing.
    if not (0 <= theta <= 1 and -1e-9 < saved <= 1 and all(math.isfinite(depth) and depth >= 0 for depth in depths)):
        raise ValueError


def _finetuned(root: Path, problems: list[str]) -> tuple[Finetuned, ...]:
    found = []
    exports: dict[str, str | None] = {}
    for path in sorted(root.glob("finetune/*/seed-*/metrics.json")):
        values = _json(path, problems)
        if not isinstance(values, dict) or not isinstance(values.get("metrics"), dict):
            if values is not None:
                problems.append(f'{path} holds no "metrics"')
            continue
        manifest = _stage("finetune", path.parent, problems).manifest
        if not manifest:
            problems.append(f"{path} is left out: no manifest beside it says what it was made from")
            continue
        rows = {"train_rows", "dev_rows"}
        data = {name: value for name, value in manifest["inputs"].items() if name in rows}
        files = {name: value for name, value in manifest["inputs"].items() if name not in rows}
        key = json.dumps(files, sort_keys=True)
        if key not in exports:
            exports[key] = _export_of(root, files)
        found.append(
            Finetuned(
                task=values.get("task", path.parent.parent.name),
                seed=path.parent.name.removeprefix("seed-"),
                metrics={name: value for name, value in values["metrics"].items() if isinstance(value, (int, float))},
                unit=values.get("unit", ""),
                model=exports[key] or values.get("model", "unknown"),
                model_files={} if exports[key] else files,
                data=data,
                settings=flat_values({k: v for k, v in manifest["settings"].items() if k not in ("task", "seed")}),
            )
        )
    return tuple(found)


def _export_of(root: Path, files: dict[str, str]) -> str | None:
    """Which of the run's exports has just these files, in words; None where neither has."""
    for name, words in (("model", "the run's model"), ("model-expanded", "the run's expanded model")):
        folder = root / name
        if files and all((folder / one).is_file() and sha256_file(folder / one) == files[one] for one in files):
            return words
    return None


def flat_values(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_values(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _json(path: Path, problems: list[str]) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path} is not valid JSON ({error})")
        return None


def _elapsed(steps: Sequence[int], step_seconds: Sequence[float], first_step: int) -> np.ndarray:
    """Seconds up to each row; a row's `step_seconds` is the mean over the steps since the row before."""
    return np.cumsum(np.diff([first_step, *steps]) * np.asarray(step_seconds))
