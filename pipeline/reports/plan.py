"""Command `plan`: what a recipe will do, said and drawn before it is run. Needs no corpus and no torch.

Of a vocabulary that is to be loaded it reads the size, where its files are here.

Draws, depth and FLOPs are those of the run itself: `pipeline.layer_drop.schedule` and `pipeline.training.costs`.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data_prep.errors import UserError
from data_prep.formatting import duration
from pipeline.families.head import Head
from pipeline.families.shape import EncoderShape, Shape
from pipeline.layer_drop.describe import drop_words
from pipeline.layer_drop.schedule import DropSchedule, LayerDrop
from pipeline.recipes.engine_config import accumulation_steps, load_with_recipe, needs_every_gradient
from pipeline.recipes.phases import Phase
from pipeline.recipes.recipe import Recipe, load_recipe
from pipeline.reports import plots
from pipeline.training.costs import StepCosts
from pipeline.training.optimizers import rate_factor

# data_prep.write_shards rounds up to the same multiple; it is not imported, since it brings pyarrow and tokenizers.
VOCAB_MULTIPLE = 64
PERCENTS = (0, 10, 25, 50, 75, 90, 100)
_ENDINGS = (".png", ".svg", ".pdf")
_CURVE_POINTS, _DOTS_PER_INCH = 1000, 160
# A round figure to count time by.
_ACHIEVED = 100e12


@dataclass(frozen=True)
class Outlook:
    """A recipe's dense model and its steps on so many ranks.

    `shape` has one vocabulary entry where nothing here says how many there will be; then `costs` are those of the
    layers alone. `drop` and `costs` are None without layer dropping.
    """

    name: str
    recipe: Recipe
    ranks: int
    micro_rows: int
    micro_steps: int
    phases: list[Phase]
    shape: Shape
    drop: LayerDrop | None
    costs: StepCosts | None
    knows_vocabulary: bool

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.recipe.pretrain.steps

    @property
    def saved(self) -> float:
        """The share of the run's FLOPs that dropping saves; of the layers' FLOPs where the vocabulary is unknown."""
        return self.costs.saved(0, self.steps) if self.costs else 0.0

    def saved_of_layers(self) -> float:
        """The share of the layers' own FLOPs that dropping saves over the run."""
        if not self.knows_vocabulary:
            return self.saved
        layers = StepCosts(_without_heads(self.shape), self.phases, 0.0).flops(self.steps)
        whole = StepCosts(self.shape, self.phases, self.recipe.predicted_share).flops(self.steps)
        return self.saved * whole / layers


def plan(name: str, overrides: list[str], ds: str, ranks: int, out: Path) -> int:
    """Print what a recipe will do in the engine `ds` on so many ranks and draw it into `out`. Returns 0.

    Raises UserError for what the run itself would refuse before its first step, and where `out` cannot be written.
    """
    if out.suffix not in _ENDINGS:
        raise UserError(f"the picture {out} (--out) ends in {out.suffix!r}, wanted one of {', '.join(_ENDINGS)}")
    engine, recipe, notes = load_with_recipe(ds, load_recipe(name, overrides))
    given = {
        "model.checkpoint": recipe.model.checkpoint,
        "pretrain.epochs": recipe.pretrain.epochs,
        "search.epochs": recipe.search.epochs if recipe.search.enabled else None,
    }
    for key in (key for key, value in given.items() if value is not None):
        raise UserError(f"a plan is made of sizes and steps that the recipe says itself, and this one says {key}")
    outlook = look_ahead(recipe, Path(name).stem, ranks, engine)
    for note in notes:
        print(note, file=sys.stderr)
    _save(draw(outlook), out)
    print("\n".join([*report(outlook), f"picture: {out}"]))
    return 0


def look_ahead(recipe: Recipe, name: str, ranks: int, engine: Mapping[str, Any] | None = None) -> Outlook:
    """What the recipe comes to on so many ranks. Raises UserError where they cannot share its rows.

    `engine`: the DeepSpeed config, which decides whether a skipped layer still runs on one row; None: it does not.
    """
    micro_rows, micro_steps = accumulation_steps(recipe.batch.global_rows, recipe.batch.micro_rows, ranks)
    recipe.check_rows(micro_rows)
    entries = _vocabulary_entries(recipe)
    known = entries is not None
    shape = _dense(recipe, 1 if entries is None else -(-entries // VOCAB_MULTIPLE) * VOCAB_MULTIPLE)
    phases, drop = recipe.phases(micro_rows), recipe.dropping(len(shape.layers))
    counted, predicted = (shape, recipe.predicted_share) if known else (_without_heads(shape), 0.0)
    touch = needs_every_gradient(engine or {})
    costs = StepCosts(counted, phases, predicted, micro_steps, drop, touch=touch) if drop else None
    return Outlook(name, recipe, ranks, micro_rows, micro_steps, phases, shape, drop, costs, known)


def _vocabulary_entries(recipe: Recipe) -> int | None:
    """Entries of the vocabulary to train, or of the one to load; None where its files are not here."""
    if recipe.corpus.tokenizer is None:
        return recipe.corpus.vocab_size
    path = Path(recipe.corpus.tokenizer)
    if not path.exists():
        return None
    # Brings tokenizers, which a recipe that trains its vocabulary can do without here.
    from data_prep.tokenization.sizes import count_entries

    return count_entries(path)


def report(outlook: Outlook) -> list[str]:
    """The lines that `plan` prints, warnings last."""
    lines = [_steps_words(outlook), _ranks_words(outlook), _model_words(outlook)]
    if outlook.knows_vocabulary:
        lines.append(_work_words(outlook))
    if outlook.recipe.search.enabled:
        lines += _search_words(outlook.recipe)
    lines.append(f"learning rate: {_rate_words(outlook.recipe, outlook.steps)}")
    if outlook.drop and outlook.costs:
        lines += _dropping_words(outlook, outlook.drop)
        lines += _table(outlook, outlook.drop.schedule, outlook.costs)
        lines.append(_saving_words(outlook, outlook.costs))
    else:
        lines.append("layer dropping: off, all layers run in every step (layer_drop.enabled is false)")
    return lines + [f"warning: {warning}" for warning in outlook.recipe.warnings()]


def draw(outlook: Outlook) -> Figure:
    """The learning rate over the steps and, with layer dropping, what is kept, run and saved."""
    recipe, last = outlook.recipe, outlook.steps - 1
    steps = np.unique(np.linspace(0, last, min(_CURVE_POINTS, outlook.steps)).astype(np.int64))
    factors = np.array([rate_factor(recipe.schedule, step, outlook.steps) for step in steps.tolist()])
    rates = {label: (steps.tolist(), (rate * factors).tolist()) for label, rate in _peaks(recipe).items()}
    if outlook.drop is None or outlook.costs is None:
        return plots.learning_rates(rates)
    return plots.dropping_plan(outlook.drop.schedule, outlook.costs, rates, whole_step=outlook.knows_vocabulary)


def _save(figure: Figure, out: Path) -> None:
    partial = out.with_name(f".{os.getpid()}.partial{out.suffix}")
    try:
        figure.savefig(partial, dpi=_DOTS_PER_INCH)
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"the picture {out} (--out) cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _dense(recipe: Recipe, vocab_size: int) -> Shape:
    """The dense model of a recipe with a vocabulary of this size."""
    if recipe.model.family == "slim_bert":
        return recipe.dense_shape(vocab_size, pad_token_id=0)
    # Brings torch and transformers, which count the stock class.
    from pipeline.families.stock import random_shape

    model = recipe.model
    sizes = recipe.stock_sizes(vocab_size, dict.fromkeys(("pad", "cls", "sep"), 0))
    return random_shape(model.family, sizes, Head(recipe.objective.name), model.dropout, model.attention_dropout)


def _without_heads(shape: Shape) -> Shape:
    """The shape whose FLOPs without a predicted token are those of its layers alone."""
    return replace(shape, sentence_head=False) if isinstance(shape, EncoderShape) else shape


def _steps_words(outlook: Outlook) -> str:
    parts = [
        f"{_count(phase.steps, 'step')} of {_count(phase.global_rows, 'row')} of {phase.row_length:,} tokens"
        for phase in outlook.phases
        if phase.steps
    ]
    tokens = sum(phase.steps * phase.global_rows * phase.row_length for phase in outlook.phases)
    total = f"{outlook.steps:,} steps, " if len(parts) > 1 else ""
    return f"{outlook.name}: {', then '.join(parts)}; {total}{tokens:,} tokens"


def _ranks_words(outlook: Outlook) -> str:
    batches = f"{outlook.micro_steps:,} micro-batch{'' if outlook.micro_steps == 1 else 'es'}"
    rows = _count(outlook.micro_rows, "row")
    each = "1 rank" if outlook.ranks == 1 else f"{outlook.ranks:,} ranks, each"
    return f"ranks: {each} with {batches} of {rows} a step"


def _model_words(outlook: Outlook) -> str:
    shape = outlook.shape
    words = f"dense model: {_count(len(shape.layers), 'layer')}, "
    if outlook.knows_vocabulary:
        return f"{words}{shape.num_parameters():,} parameters with a vocabulary of {shape.vocab_size:,}"
    an_entry = _dense(outlook.recipe, 2).num_parameters() - shape.num_parameters()
    rest = shape.num_parameters() - an_entry
    return (
        f"{words}{rest:,} parameters and {an_entry:,} more for every entry of the vocabulary, whose size is unknown: "
        f"corpus.tokenizer ({outlook.recipe.corpus.tokenizer}) brings it and is not here (looked in {Path.cwd()})"
    )


def _work_words(outlook: Outlook) -> str:
    """FLOPs of the matrix products of the dense model, forward and backward, with every layer run."""
    predicted = outlook.recipe.predicted_share
    steps = [
        phase.global_rows * phase.row_length * outlook.shape.train_flops_per_token(phase.row_length, predicted)
        for phase in outlook.phases
    ]
    whole = sum(phase.steps * flops for phase, flops in zip(outlook.phases, steps, strict=True))
    return (
        f"work: {whole:.3g} FLOPs for the dense model, {steps[0]:.3g} in the first step; in all "
        f"{duration(whole / _ACHIEVED)} of one GPU that achieves {_ACHIEVED / 1e12:.0f} TFLOP/s"
    )


def _search_words(recipe: Recipe) -> list[str]:
    words = f"search: {'at most' if recipe.search.draw == 'settle' else 'exactly'} {recipe.search.max_steps:,} steps"
    if recipe.layer_drop.enabled:
        during = recipe.layer_drop.during_search
        words += ", whole layers dropped with one draw a step" if during else ", no layers dropped"
    below = ", and the FLOPs below," if recipe.layer_drop.enabled else ""
    lines = [words, f"  parameters{below} are the dense model's; those of the slim one depend on its ticket"]
    if recipe.pretrain.rewind == "inherit":
        anew = recipe.layer_drop.enabled and recipe.layer_drop.after_search == "restart"
        lines.append(
            "  pre-training goes on at the step at which the search ends; the steps below count from 0"
            + ("; its layer dropping begins anew at that step" if anew else "")
        )
    return lines


def _peaks(recipe: Recipe) -> dict[str, float]:
    """Peak learning rates by what they move."""
    optimizer = recipe.optimizer
    if optimizer.adamw_lr is None:
        return {"learning rate": optimizer.lr}
    return {"matrices inside the layers (Muon)": optimizer.lr, "all else (AdamW)": optimizer.adamw_lr}


def _rate_words(recipe: Recipe, steps: int) -> str:
    schedule, peaks = recipe.schedule, _peaks(recipe)
    peak = " and ".join(f"{rate:g}" + (f" for {what}" if len(peaks) > 1 else "") for what, rate in peaks.items())
    warmup = round(schedule.warmup_fraction * steps)
    begins = f"rises to {peak} over the first {_count(warmup, 'step')}, then" if warmup else f"begins at {peak}, then"
    if schedule.decay == "constant" or schedule.final_fraction == 1:
        return f"{begins} stays there"
    way = {"linear": "in a straight line", "cosine": "along a cosine"}[schedule.decay]
    return f"{begins} falls {way} to {f'{schedule.final_fraction:.3g} of that' if schedule.final_fraction else '0'}"


def _dropping_words(outlook: Outlook, drop: LayerDrop) -> list[str]:
    schedule, every = drop.schedule, np.arange(outlook.steps)
    theta = schedule.theta_at(every)
    least, most = (schedule.keep(int(at))[0] for at in (theta.argmin(), theta.argmax()))
    lines = [
        f"layer dropping: {schedule.time} over time, {schedule.depth} over depth, by {drop.unit}",
        *(f"  {aspect}: {words}" for aspect, (_, words) in drop_words(drop).items()),
    ]
    if least.min() == 1:
        return [*lines, "  nothing is ever dropped: these values keep every layer at every step"]
    # theta of time "pld" gets ever closer to its least value: what counts is the first step at which it reads so.
    first = int(np.argmax(theta < theta.min() + 0.0005))
    where = f"{_named(_dropped_most(least))}, first at step {first:,}"
    lines.append(f"  keep: smallest {least.min():.3f} ({where}), largest {most.max():.3f}")
    return lines + (_row_words(outlook, drop, theta) if drop.unit == "sample" else [])


def _row_words(outlook: Outlook, drop: LayerDrop, theta: NDArray[np.float64]) -> list[str]:
    """A line for every row length: the rows that the layers dropped most run on when they are dropped most."""
    lines, begin = [], 0
    for phase in outlook.phases:
        end = begin + phase.steps
        step = begin + int(theta[begin:end].argmin()) if phase.steps else begin
        keep = drop.schedule.keep(step)[0]
        if phase.steps and keep.min() < 1:
            most = _dropped_most(keep)
            share = drop.executed(np.array([step]), outlook.micro_steps, phase.micro_rows)[0, most[0]]
            rows = (
                f"{share * phase.micro_rows:,.0f} of {_count(phase.micro_rows, 'row')} of {phase.row_length:,} tokens"
            )
            verb = "runs" if len(most) == 1 else "run"
            lines.append(f"  rows: {_named(most)} {verb} on {rows} at step {step:,}, dropped most there")
        begin = end
    return lines


def _dropped_most(keep: NDArray[np.float64]) -> list[int]:
    """Indices, from 0, of the layers with the smallest of these keep probabilities (layers,)."""
    return np.flatnonzero(keep == keep.min()).tolist()


def _named(indices: list[int]) -> str:
    """Layers counted from 1: layer 4; layers 2 to 11; layers 2, 4, 6; layers 2, 4, 6 ... 24."""
    numbers = [index + 1 for index in indices]
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"layers {numbers[0]} to {numbers[-1]}"
    if len(numbers) > 6:
        return f"layers {', '.join(map(str, numbers[:3]))} ... {numbers[-1]}"
    return f"layers {', '.join(map(str, numbers))}"


def _table(outlook: Outlook, schedule: DropSchedule, costs: StepCosts) -> list[str]:
    """One line for each of `PERCENTS`: theta at that step, depth in a hundredth of the run from there, saved before."""
    total, window = outlook.steps, max(1, round(outlook.steps / 100))
    saved = "FLOPs saved so far" if outlook.knows_vocabulary else "layers' FLOPs saved so far"
    lines = [f"  {'':>4}  {'step':>11}  {'theta':>6}  expected depth  real depth  {saved}"]
    # Percents of a very short run may name the same step: the last of them stays.
    for done, percent in {round(total * percent / 100): percent for percent in PERCENTS}.items():
        step, first = min(done, total - 1), min(done, total - window)
        expected = schedule.expected_depth(np.arange(first, first + window)).mean()
        lines.append(
            f"  {percent:>3}%  {done:>11,}  {schedule.theta_at(step)[0]:>6.3f}  {expected:>14.2f}  "
            f"{costs.depth(first, first + window):>10.2f}  {costs.saved(0, done):>{len(saved)}.1%}"
        )
    depths = f"means over the {window:,} steps from there on, at the end the last" if window > 1 else "of that step"
    return [*lines, f"  (depths: {depths}; real depth: as it will be drawn)"]


def _saving_words(outlook: Outlook, costs: StepCosts) -> str:
    depth = f"{costs.depth(0, outlook.steps):.2f} of {_count(len(outlook.shape.layers), 'layer')} on average"
    layers = f"{outlook.saved_of_layers():.1%} of the layers alone"
    if not outlook.knows_vocabulary:
        return f"over the run: {depth}; FLOPs saved: {layers}, of the whole step unknown without the vocabulary"
    return f"over the run: {depth}; FLOPs saved: {outlook.saved:.1%} of the whole step, {layers}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
