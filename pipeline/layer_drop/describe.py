"""Layer dropping in words, for people: what a recipe's schedule and draws come to. Knows nothing of torch."""

from pipeline.layer_drop.schedule import GROWING, DropSchedule, LayerDrop


def drop_words(drop: LayerDrop) -> dict[str, tuple[str, str]]:
    """By aspect, in order: the value of the recipe's key, "" where an aspect has none, and what it means.

    Formulas have their numbers filled in: t counts optimiser steps, l layers, and `keep` is the probability with which
    a layer or a row runs.
    """
    schedule = drop.schedule
    return {
        "over time": (schedule.time, _over_time(schedule)),
        "over depth": (schedule.depth, _over_depth(schedule)),
        "dense phases": ("", _dense_phases(schedule)),
        "skipped": (drop.unit, _skipped(drop)),
        "scaling": (drop.scaling, _scaling(drop)),
    }


def _over_time(schedule: DropSchedule) -> str:
    begin, after = _dense_steps(schedule)
    theta, fall, length = schedule.least_theta, 1 - schedule.least_theta, max(1, schedule.total_steps - begin - after)
    if schedule.time == "constant":
        return f"theta stays at {theta:g}"
    if schedule.time == "stages":
        stages = schedule.stages or GROWING
        return f"theta = {', '.join(f'{value:g}' for value in stages)}, each for {length / len(stages):.6g} steps"
    origin = schedule.first_step + begin
    times = f"for t = 0 to {length - 1:,}{f', counted from step {origin:,}' if origin else ''}"
    if schedule.time == "pld":
        gamma = 100 / length if schedule.gamma is None else schedule.gamma
        return f"theta(t) = {fall:g} exp(-{gamma:.4g} t) + {theta:g} {times}: drops ever more"
    last = max(1, length - 1)
    return f"theta(t) = {theta:g} + {fall:g} t / {last:,} {times}: drops most at first, nothing at the end"


def _over_depth(schedule: DropSchedule) -> str:
    layers = schedule.num_layers
    which = f"for layer l = 1 to {layers}"
    return {
        "uniform": "keep = theta for every layer",
        "pld": f"keep = 1 - l / {layers} (1 - theta) {which}: the deepest are dropped most",
        "linear": f"keep = 1 - (l - 1) / {max(1, layers - 1)} (1 - theta) {which}: the first always runs",
        "alternate": "keep = theta for every second layer, from layer 2 on; the others always run",
        "inner": "keep = theta for all but the first and the last layer, which always run",
    }[schedule.depth]


def _dense_phases(schedule: DropSchedule) -> str:
    steps = zip(("first", "last"), _dense_steps(schedule), strict=True)
    parts = [f"the {end} {count:,}" for end, count in steps if count]
    counted = f", counted from step {schedule.first_step:,}" if schedule.first_step else ""
    return f"{' and '.join(parts) or 'none'} of {schedule.total_steps:,} steps{counted}"


def _skipped(drop: LayerDrop) -> str:
    if _nothing_is_drawn(drop.schedule):
        return "the same layers in every step of a stage, nothing is drawn"
    if drop.unit == "layer":
        return f"a layer for a whole {'step' if drop.once_a_step else 'micro-batch'}, with probability 1 - keep"
    same = ", the same in all of a step" if drop.once_a_step else ""
    return f"a layer on a random share 1 - keep of the rows of a micro-batch{same}"


def _scaling(drop: LayerDrop) -> str:
    if _nothing_is_drawn(drop.schedule):
        return "nothing is scaled: keep is 0 or 1"
    return {
        "block": "what a layer adds counts 1 / keep times",
        "sublayer": "what each sub-layer adds counts 1 / keep times (PLD)",
        "none": "nothing is scaled (LayerDrop)",
    }[drop.scaling]


def _nothing_is_drawn(schedule: DropSchedule) -> bool:
    """Whether every layer either runs or not, for certain, at every step."""
    return (
        schedule.time == "stages"
        and schedule.depth in ("alternate", "inner")
        and set(schedule.stages or GROWING) <= {0.0, 1.0}
    )


def _dense_steps(schedule: DropSchedule) -> tuple[int, int]:
    """The steps at the beginning and at the end in which all layers run."""
    total = schedule.total_steps
    return round(schedule.dense_start * total), round(schedule.dense_end * total)
