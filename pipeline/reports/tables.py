"""Figures of runs, and the tables of a report. Knows run records, nothing of pages or pictures."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

from data_prep.files import sha256_json
from data_prep.formatting import duration, short
from pipeline.families.shape import Shape
from pipeline.reports.record import Finetuned, RunRecord, StageRecord, flat_values

NOTHING = "\N{EN DASH}"
# What is predicted, on which rows: of recipes that differ here, losses are of different tasks.
_DECIDE_LOSS = ("objective.", "task.", "corpus.", "evaluation.rows")
STAGES = {"search": "search", "pretrain": "pre-training"}


def parameters(run: RunRecord) -> float | None:
    """Parameters of the model that is pre-trained; None before its shape is decided."""
    if (trained := run.result("pretrain", "parameters")) is not None:
        return float(trained)
    return run.trained_shape.num_parameters() if run.trained_shape else None


def dense_parameters(run: RunRecord) -> float | None:
    """Parameters of the model the search starts from."""
    if (known := run.result("pretrain", "parameters_dense")) is not None:
        return float(known)
    return run.dense_shape.num_parameters() if run.dense_shape else None


def forward_flops(run: RunRecord) -> float | None:
    """Matmul FLOPs a token of the forward pass of the model that is pre-trained."""
    return _flops(run, run.trained_shape)


def dense_forward_flops(run: RunRecord) -> float | None:
    """The same of the model the search starts from."""
    return _flops(run, run.dense_shape)


def _flops(run: RunRecord, shape: Shape | None) -> float | None:
    if shape is None or run.recipe is None:
        return None
    return shape.forward_flops_per_token(run.recipe.row_length, run.recipe.predicted_share)


def total_seconds(run: RunRecord) -> float | None:
    """Seconds in training, the search's included."""
    parts = [run.seconds_training(stage) for stage in ("search", "pretrain")]
    return sum(part for part in parts if part is not None) if any(part is not None for part in parts) else None


def speed(run: RunRecord, stage: str) -> float | None:
    """Tokens a second over a finished stage, or at the last row of an unfinished one."""
    if (whole := run.result(stage, "tokens_per_second")) is not None:
        return float(whole)
    return _last(run.series(stage, "train", "tokens_per_second")[0])


def ticket_kept(run: RunRecord) -> float | None:
    """The share of the dense encoder's forward FLOPs that the ticket keeps; None for a run without a search."""
    if not run.has_search:
        return None
    if (known := run.result("pretrain", "encoder_flops_kept")) is not None:
        return float(known)
    if run.ticket is None or run.recipe is None:
        return None
    row_length = run.recipe.row_length
    slim, dense = run.ticket.slim_shape(), run.ticket.dense_shape
    return slim.encoder_flops_per_token(row_length) / dense.encoder_flops_per_token(row_length)


def flops_saved(run: RunRecord, stage: str) -> float | None:
    """The share of a stage's FLOPs that dropping layers has saved so far; None where none were dropped."""
    dropped = run.dropped(stage)
    return max(0.0, dropped.flops_saved[-1]) if dropped else None


def flops_saved_together(run: RunRecord) -> float | None:
    """The same of search and pre-training together, where both have steps; a stage that drops nothing saves nothing."""
    searching, training = _undropped_flops(run, "search"), _undropped_flops(run, "pretrain")
    saved = flops_saved(run, "search"), flops_saved(run, "pretrain")
    if searching is None or training is None or saved == (None, None):
        return None
    whole = searching[1], training[1]
    return sum(flops * (share or 0.0) for flops, share in zip(whole, saved, strict=True)) / sum(whole)


def mean_depth(run: RunRecord) -> float | None:
    """Layers that ran in pre-training, on average over its steps so far; None where none were dropped."""
    dropped = run.dropped("pretrain")
    return dropped.mean_of(dropped.depth) if dropped else None


def of_layers(run: RunRecord) -> str:
    """What a depth is held against: "of 12"."""
    return f"of {len(run.dense_shape.layers)}" if run.dense_shape else ""


def factors(run: RunRecord) -> str:
    """The two factors of `both_kept`."""
    ticket, dropping = ticket_kept(run), dropping_kept(run)
    return (
        "" if ticket is None or dropping is None else f"{percent(ticket)} \N{MULTIPLICATION SIGN} {percent(dropping)}"
    )


def dropping_kept(run: RunRecord) -> float | None:
    """The share of its encoder's FLOPs that pre-training really ran; None where no layers were dropped.

    What is saved is saved in the encoder alone, so that its share there is larger than of all FLOPs.
    """
    saved, costs = flops_saved(run, "pretrain"), _undropped_flops(run, "pretrain")
    return None if saved is None or costs is None else 1 - saved * costs[1] / costs[0]


def both_kept(run: RunRecord) -> float | None:
    """The share of the dense encoder's FLOPs that pre-training really ran: `ticket_kept` times `dropping_kept`."""
    ticket, dropping = ticket_kept(run), dropping_kept(run)
    return None if ticket is None or dropping is None else ticket * dropping


def _undropped_flops(run: RunRecord, stage: str) -> tuple[float, float] | None:
    """Forward FLOPs of the encoder and of the whole model in the steps of a stage so far, had all layers run."""
    shape = run.dense_shape if stage == "search" else run.trained_shape
    steps = run.series(stage, "train", "step")[0]
    if shape is None or run.recipe is None or not steps:
        return None
    encoder = whole = 0.0
    begin = 0
    for phase in run.recipe.phases(run.recipe.batch.micro_rows):
        counted = max(0, min(steps[-1], begin + phase.steps) - max(run.first_step(stage), begin))
        tokens = counted * phase.global_rows * phase.row_length
        encoder += tokens * shape.encoder_flops_per_token(phase.row_length)
        whole += tokens * shape.forward_flops_per_token(phase.row_length, run.recipe.predicted_share)
        begin += phase.steps
    return (encoder, whole) if encoder else None


def equal_tokens(runs: Sequence[RunRecord]) -> float | None:
    """The largest number of tokens at which every run has a validation loss."""
    seen = [run.losses().validation_tokens for run in runs]
    if not all(seen):
        return None
    tokens = min(tokens[-1] for tokens in seen)
    return tokens if all(one[0] <= tokens for one in seen) else None


def percent(share: float) -> str:
    """A share as it is read."""
    return f"{share:.1%}"


def change(value: float | None, reference: float | None) -> str:
    """How far `value` lies from `reference`, in percent of it, in words where it does not."""
    if value is None or not reference:
        return ""
    text = f"{value / reference - 1:+.1%}"
    return "the same" if text in ("+0.0%", "-0.0%") else text.replace("-", "\N{MINUS SIGN}")


def comparison_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Rows of the table of runs side by side; most numbers of others carry their change from the main run's."""
    rows = [{"label": "Model", "cells": [("slim" if run.has_search else "dense", "") for run in runs]}]

    def row(
        label: str,
        value: Callable[[RunRecord], float | None],
        text: Callable[[float], str],
        note: Callable[[RunRecord], str] | None = None,
    ) -> None:
        values = [value(run) for run in runs]
        if all(one is None for one in values):
            return
        cells = []
        for index, (run, one) in enumerate(zip(runs, values, strict=True)):
            if one is None:
                cells.append((NOTHING, ""))
            elif note:
                cells.append((text(one), note(run)))
            else:
                cells.append((text(one), change(one, values[0]) if index else ""))
        rows.append({"label": label, "cells": cells})

    row("Parameters", parameters, lambda n: f"{n:,.0f}")
    row("FLOPs a token, forward", forward_flops, short)
    row("Layers run in pre-training, on average", mean_depth, "{:.2f}".format, of_layers)
    for stage, name in STAGES.items():
        row(f"FLOPs saved by dropping, {name}", partial(flops_saved, stage=stage), percent, lambda _: "")
    row("Encoder FLOPs kept, ticket \N{MULTIPLICATION SIGN} dropping", both_kept, percent, factors)
    row("Steps of pre-training", lambda run: _last(run.series("pretrain", "train", "step")[0]), lambda n: f"{n:,.0f}")
    row("Tokens in the search", lambda run: _last(run.series("search", "train", "tokens")[0]), short)
    row("Tokens in pre-training", lambda run: _last(run.losses().train_tokens), short)
    row("Time of the search", lambda run: run.seconds_training("search"), duration)
    row("Time of pre-training", lambda run: run.seconds_training("pretrain"), duration)
    row("Time, both together", total_seconds, duration)
    row("Tokens a second in pre-training", lambda run: speed(run, "pretrain"), short)
    row("Validation loss at the end", lambda run: _last(run.losses().validation_loss), lambda n: f"{n:.4f}")
    tokens = equal_tokens(runs)
    if tokens is not None:
        label = f"Validation loss after {short(tokens)} tokens of pre-training"
        row(label, lambda run: run.losses().validation_at(tokens), lambda n: f"{n:.4f}")
    return rows


def finetuning_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """A row a task, model, data, settings and metric, a cell a run: mean and standard deviation over seeds.

    Only fine-tunings that differ in nothing but their seed share a cell. Each run's own model stands for itself in
    one row.
    """
    rows = []
    tasks = dict.fromkeys(done.task for run in runs for done in run.finetuned)
    for task in tasks:
        all_done = [done for run in runs for done in run.finetuned if done.task == task]
        groups = {done.made_from(): done for done in all_done}
        told = _told_apart(list(groups.values()))
        for (group, one), (model, settings) in zip(groups.items(), told, strict=True):
            alike = [[d for d in run.finetuned if d.task == task and d.made_from() == group] for run in runs]
            for name in dict.fromkeys(name for some in alike for done in some for name in done.metrics):
                cells = [_over_seeds([done.metrics[name] for done in some if name in done.metrics]) for some in alike]
                metric = f"{name}, {one.unit}" if one.unit else name
                rows.append({"task": task, "model": model, "settings": settings, "metric": metric, "cells": cells})
    return rows


def _over_seeds(values: list[float]) -> tuple[str, str]:
    text = f"{mean(values):.2f}" if values else NOTHING
    spread = f"\N{PLUS-MINUS SIGN} {stdev(values):.2f}" if len(values) > 1 else ""
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}" if values else ""
    return text, ", ".join(part for part in (spread, seeds) if part)


def _told_apart(groups: Sequence[Finetuned]) -> list[tuple[str, str]]:
    """(model, settings) of each group of one task in words, settings and data only as far as the groups differ."""
    named: dict[str, set[str]] = {}
    for one in groups:
        named.setdefault(one.model, set()).add(_short_hash(one.model_files))
    keys = sorted({key for one in groups for key in one.settings})
    differing = [key for key in keys if len({json.dumps(one.settings.get(key)) for one in groups}) > 1]
    other_data = len({_short_hash(one.data) for one in groups}) > 1
    told = []
    for one in groups:
        model = f"{one.model} ({_short_hash(one.model_files)})" if len(named[one.model]) > 1 else one.model
        words = [f"{key} {json.dumps(one.settings.get(key))}" for key in differing]
        words += [f"data {_short_hash(one.data)}"] if other_data else []
        told.append((model, ", ".join(words)))
    return told


def _short_hash(files: dict[str, str]) -> str:
    return sha256_json(files)[:8]


def stage_table(run: RunRecord) -> dict[str, Any]:
    """Every stage of a run: its state, seconds and share of the seconds of all finished stages."""
    times = stage_seconds(run)
    total = sum(times.values())
    rows = []
    for stage in run.stages.values():
        seconds = times.get(stage.name)
        rows.append(
            {
                "name": stage.name,
                "state": stage.state,
                "done": stage.done,
                "seconds": duration(seconds) if seconds is not None else NOTHING,
                "share": f"{seconds / total:.1%}" if seconds is not None and total else NOTHING,
                "finished": _moment(stage),
            }
        )
    return {"name": run.name, "rows": rows, "total": duration(total)}


def stage_seconds(run: RunRecord) -> dict[str, float]:
    """Seconds from start to end of each finished stage."""
    return {name: float(stage.manifest["seconds"]) for name, stage in run.stages.items() if "seconds" in stage.manifest}


def dropping_table(run: RunRecord) -> list[dict[str, str]]:
    """A row for each stage with steps of a run that drops layers, and one for both; a dash where nothing was dropped.

    Depths are means over the steps so far, theta the smallest and the largest of the logged steps.
    """
    rows, layers = [], of_layers(run)
    for stage, name in STAGES.items():
        steps = run.series(stage, "train", "step")[0]
        if not steps:
            continue
        dropped, saved = run.dropped(stage), flops_saved(run, stage)
        rows.append(
            {
                "run": run.name,
                "stage": name,
                "steps": f"{steps[-1] - run.first_step(stage):,}",
                "theta": _range(dropped.theta) if dropped else NOTHING,
                "expected": f"{dropped.mean_of(dropped.expected_depth):.2f} {layers}" if dropped else NOTHING,
                "depth": f"{dropped.mean_of(dropped.depth):.2f} {layers}" if dropped else NOTHING,
                "saved": NOTHING if saved is None else percent(saved),
            }
        )
    if (together := flops_saved_together(run)) is not None:
        nothing = dict.fromkeys(("steps", "theta", "expected", "depth"), "")
        rows.append({"run": run.name, "stage": "both together", **nothing, "saved": percent(together)})
    return rows


def _range(values: Sequence[float]) -> str:
    """The smallest and the largest, one where they read the same."""
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))


def recipe_tables(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Dotted keys and their values as JSON: the first run's whole recipe, and where the runs differ."""
    flat = [flat_values(run.recipe.model_dump(mode="json")) if run.recipe else {} for run in runs]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    values_of = {key: [json.dumps(values[key]) if key in values else NOTHING for values in flat] for key in keys}
    return {
        "main": {key: values[0] for key, values in values_of.items() if key in flat[0]},
        "differing": {key: values for key, values in values_of.items() if len(set(values)) > 1},
    }


def incomparable_losses(runs: Sequence[RunRecord]) -> str | None:
    """Why losses of these runs do not compare, a sentence; None where they are of the same task on the same rows."""
    known = [run for run in runs if run.recipe]
    differing = {
        key: values
        for key, values in recipe_tables(known)["differing"].items()
        if key.startswith(_DECIDE_LOSS) and key != "corpus.verify"
    }
    if not differing:
        return None
    told = [
        f"{key} is {', '.join(f'{value} in {run.name}' for run, value in zip(known, values, strict=True))}"
        for key, values in differing.items()
    ]
    return f"Losses of these runs do not compare, nor do their changes in percent: {'; '.join(told)}."


def provenance_table(run: RunRecord) -> dict[str, Any]:
    """Commit, host and time of each finished stage, the packages' versions, and what a reader should know."""
    done = [stage for stage in run.stages.values() if stage.done]
    versions: dict[str, str] = {}
    for stage in done:
        versions |= stage.manifest.get("versions", {})
    commits = {stage.manifest.get("commit") for stage in done}
    notes = []
    if len(commits) > 1:
        notes.append("The stages were run from different commits.")
    if any(str(commit).endswith("+changes") for commit in commits):
        notes.append("At least one stage was run with uncommitted changes.")
    rows = [
        {
            "stage": stage.name,
            "commit": stage.manifest.get("commit") or "unknown",
            "host": stage.manifest.get("host", NOTHING),
            "finished": _moment(stage),
        }
        for stage in done
    ]
    return {"name": run.name, "rows": rows, "versions": versions, "notes": notes}


def _moment(stage: StageRecord) -> str:
    """2026-01-02T03:04:05Z as people write it."""
    return str(stage.manifest.get("finished", NOTHING)).replace("T", " ").replace("Z", " UTC")


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None
