"""Stage `report`: run folders as one page. Reads only; a piece that is missing is said in words, never an error.

The page needs no network: pictures are inlined, styles too. The first run is the main one, others are compared with
it.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data_prep.errors import UserError
from data_prep.files import write_atomically
from data_prep.formatting import duration, short
from data_prep.plots import svg_of
from pipeline.layer_drop.describe import drop_words
from pipeline.recipes.recipe import Recipe
from pipeline.reports import plots
from pipeline.reports.plots import Curve, DropCurve
from pipeline.reports.record import RunRecord, read_run
from pipeline.reports.tables import (
    STAGES,
    both_kept,
    change,
    comparison_table,
    dense_forward_flops,
    dense_parameters,
    dropping_kept,
    dropping_table,
    equal_tokens,
    factors,
    finetuning_table,
    flops_saved,
    forward_flops,
    incomparable_losses,
    mean_depth,
    of_layers,
    parameters,
    percent,
    provenance_table,
    recipe_tables,
    speed,
    stage_seconds,
    stage_table,
    ticket_kept,
    total_seconds,
)
from pipeline.tickets.select import GROUPS

TEMPLATE = "page.html.jinja"


def build_report(run_folders: list[Path], out: Path) -> None:
    """Write the page about these runs to `out`.

    Raises UserError when no folder is given or one does not exist; whatever is missing inside of a folder is
    described on the page.
    """
    if not run_folders:
        raise UserError("a report needs at least one run folder, got none")
    for folder in run_folders:
        if not folder.is_dir():
            raise UserError(f"there is no run folder {folder}; `python -m pipeline status` lists the runs")
    if len({folder.resolve() for folder in run_folders}) < len(run_folders):
        raise UserError(f"a run is given twice: {', '.join(str(folder) for folder in run_folders)}")
    runs = [read_run(folder) for folder in run_folders]
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=str(run.folder.root)) for run in runs]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    main = runs[0]
    page = environment.get_template(TEMPLATE).render(
        name=main.name,
        others=[run.name for run in runs[1:]],
        sentences=_sentences(runs),
        tiles=_tiles(main),
        problems=[problem for run in runs for problem in run.problems],
        stages=[stage_table(run) for run in runs],
        time_plot=_time_plot(runs),
        ticket=_ticket(main),
        settling=_settling(main),
        dropping=_dropping(runs),
        training=_training(runs),
        comparison=comparison_table(runs) if len(runs) > 1 else [],
        incomparable=incomparable_losses(runs),
        finetuning=finetuning_table(runs),
        recipe=recipe_tables(runs),
        engine=json.dumps(main.engine, indent=2),
        provenance=[provenance_table(run) for run in runs],
        run_names=[run.name for run in runs],
    )
    write_atomically(out, page)


# Headline


def _sentences(runs: Sequence[RunRecord]) -> list[str]:
    main = runs[0]
    return [_found(main), *([words] if (words := _trained(main)) else []), *_against(main, runs[1:])]


def _found(run: RunRecord) -> str:
    """What the search came to, or why there is nothing to say yet."""
    if run.recipe is None and run.ticket is None:
        return "This folder has no readable recipe.json, so there is little to report."
    if not run.has_search:
        return "A dense run: it was set up without a search, so that nothing is cut."
    ticket = run.ticket
    if ticket is None:
        if run.folder.ticket.exists():
            return "There is a ticket, but it cannot be read; the reason stands below."
        if not run.stages["search"].done:
            return "The search has not finished, so that there is no ticket yet."
        return "The search has finished, but no ticket has been drawn yet."
    slim, dense = ticket.slim_shape().layers, ticket.dense_shape.layers
    kept = (
        f"{sum(x.heads for x in slim):,} of {sum(x.heads for x in dense):,} attention heads and "
        f"{sum(x.ffn for x in slim):,} of {sum(x.ffn for x in dense):,} feed-forward neurons stay."
    )
    if run.draw_rule == "fixed":
        return f"The ticket was drawn at the fixed step {ticket.step:,}: {kept}"
    if ticket.settled:
        return f"The masks settled after step {ticket.step:,}: {kept}"
    return f"The masks had not settled after step {ticket.step:,}, the ticket was drawn there all the same: {kept}"


def _trained(run: RunRecord) -> str | None:
    losses = run.losses()
    model = "slim model" if run.has_search else "model"
    if not losses.train_tokens:
        return f"Pre-training of the {model} has no steps to show yet."
    tokens = short(losses.train_tokens[-1])
    if not run.stages["pretrain"].done:
        return f"Pre-training of the {model} has not finished; it has seen {tokens} tokens so far."
    return None


def _against(main: RunRecord, others: Sequence[RunRecord]) -> list[str]:
    sentences = []
    for other in others:
        ours, theirs = total_seconds(main), total_seconds(other)
        if not (main.stages["pretrain"].done and other.stages["pretrain"].done and ours and theirs):
            sentences.append(f"{main.name} and {other.name} have not both finished: compare with care.")
            continue
        more = ours / theirs - 1
        words = "as long as" if round(more, 3) == 0 else f"{abs(more):.1%} {'more' if more > 0 else 'less'} than"
        search = "search and pre-training together" if main.has_search else "pre-training"
        sentence = (
            f"{search[0].upper()}{search[1:]} took {duration(ours)}, {words} run {other.name} ({duration(theirs)})"
        )
        tokens = equal_tokens([main, other])
        if tokens is not None:
            a, b = (run.losses().validation_at(tokens) for run in (main, other))
            sentence += f"; after {short(tokens)} tokens of pre-training the validation loss is {a:.3f} against {b:.3f}"
            sentence += ", which do not compare, as said below" if incomparable_losses([main, other]) else ""
        sentences.append(sentence + ".")
    return sentences


def _tiles(run: RunRecord) -> list[dict[str, str]]:
    tiles = []
    dense = run.dense_shape
    slim = run.ticket.slim_shape() if run.ticket else None

    def tile(label: str, value: str, note: str = "") -> None:
        tiles.append({"label": label, "value": value, "note": note})

    if run.ticket and run.recipe:
        share = run.ticket.step / run.recipe.pretrain.steps
        tile("Ticket drawn", f"step {run.ticket.step:,}", f"{share:.1%} of {run.recipe.pretrain.steps:,} steps")
    if dense and slim:
        for label, wide, narrow in (
            ("Attention heads", sum(x.heads for x in dense.layers), sum(x.heads for x in slim.layers)),
            ("FFN neurons", sum(x.ffn for x in dense.layers), sum(x.ffn for x in slim.layers)),
        ):
            tile(label, f"{narrow:,}", f"of {wide:,}, {change(narrow, wide)}")
    for label, count, before in (
        ("Parameters", parameters(run), dense_parameters(run)),
        ("FLOPs a token, forward", forward_flops(run), dense_forward_flops(run)),
    ):
        if count is not None and before is not None:
            tile(label, short(count), f"of {short(before)} dense, {change(count, before)}" if slim else "dense")
    depth, saved = mean_depth(run), flops_saved(run, "pretrain")
    if depth is not None and saved is not None:
        tile(
            "Layers run, on average", f"{depth:.2f} {of_layers(run)}", f"{percent(saved)} of pre-training's FLOPs saved"
        )
    if (kept := both_kept(run)) is not None:
        tile("Encoder FLOPs kept", percent(kept), f"ticket \N{MULTIPLICATION SIGN} dropping: {factors(run)}")
    losses = run.losses()
    if losses.validation_loss:
        tile(
            "Validation loss",
            f"{losses.validation_loss[-1]:.3f}",
            f"after {short(losses.validation_tokens[-1])} tokens",
        )
    if (total := total_seconds(run)) is not None:
        parts = [
            f"{word} {duration(seconds)}"
            for stage, word in (("search", "search"), ("pretrain", "pre-training"))
            if (seconds := run.seconds_training(stage)) is not None
        ]
        tile("Time in training", duration(total), ", ".join(parts))
    if rate := speed(run, "pretrain"):
        searching = speed(run, "search")
        tile("Tokens a second", short(rate), f"search: {short(searching)}" if searching else "")
    return tiles


def _time_plot(runs: Sequence[RunRecord]) -> Markup | None:
    times = {run.name: seconds for run in runs if (seconds := stage_seconds(run))}
    return svg_of(plots.stage_times(times), "time", "Bars: time by stage, the figures of the table") if times else None


# The ticket


def _ticket(run: RunRecord) -> dict[str, Any] | None:
    ticket = run.ticket
    if ticket is None:
        return None
    rows = [
        {"layer": layer, "heads": f"{len(heads)} of {dense.heads}", "neurons": f"{len(neurons):,} of {dense.ffn:,}"}
        for layer, (heads, neurons, dense) in enumerate(
            zip(ticket.heads, ticket.neurons, ticket.dense_shape.layers, strict=True)
        )
    ]
    return {
        "heads": svg_of(plots.kept_heads(ticket), "heads", "Grid of layers by heads; filled squares stay"),
        "neurons": svg_of(plots.kept_neurons(ticket), "neurons", "Bars and strips: kept feed-forward neurons by layer"),
        "rows": rows,
        "score": ticket.score,
        "step": f"{ticket.step:,}",
        "largest_difference": run.result("draw", "largest_difference"),
    }


def _settling(run: RunRecord) -> dict[str, Any]:
    """Curves and heat map of the mask distances, or the words for why there are none."""
    if not run.has_search:
        return {"curves": None, "map": None, "rule": None, "words": ["A dense run has no search."]}
    words, curves, heat_map = [], None, None
    draw_step = run.ticket.step if run.ticket else None
    rows = run.rows.get("search", {}).get("distance", [])
    if rows and run.recipe is None:
        words.append("The mask distances are not drawn: without a readable recipe the threshold is not known.")
    elif rows and run.recipe:
        search = run.recipe.search
        figure = plots.distance_curves(
            [row["step"] for row in rows],
            {group: [row.get(group) for row in rows] for group in GROUPS},
            {group: [max(row.get(f"{group}_queue") or [None]) for row in rows] for group in GROUPS},
            search.threshold,
            search.guard_steps if search.draw == "settle" else 0,
            draw_step,
        )
        curves = svg_of(figure, "curves", "Mask distances of heads and neurons over steps, with the threshold")
    else:
        words.append("No mask distances have been logged.")
    try:
        masks = run.masks()
    except UserError as error:
        masks = None
        words.append(str(error))
    if masks is not None:
        matrices = {group: masks.distances(group) for group in GROUPS}
        heat_map = svg_of(
            plots.distance_heat_map(masks.steps, matrices, draw_step), "map", "Distances between the masks of all steps"
        )
    elif not list(run.search.scores.glob("step-*.safetensors")):
        words.append("No scores have been recorded, so that masks cannot be compared with each other.")
    if not run.stages["search"].done:
        words.append("The search has not finished.")
    return {"curves": curves, "map": heat_map, "rule": run.draw_rule, "words": words}


# Layer dropping


def _dropping(runs: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Schedules in words, depth over steps and what it saved, of the runs that drop layers; None where none does."""
    droppers = {run.name: run for run in runs if run.drops_layers}
    if not droppers:
        return None
    words: list[str] = []
    schedules: dict[str, dict[str, tuple[str, str]]] = {}
    for name, run in droppers.items():
        if run.recipe and run.recipe.layer_drop.enabled:
            schedules[name] = _schedule(run, run.recipe)
        else:
            words.append(f"{name} dropped layers, but no readable recipe says by which schedule.")
        if not any(run.dropped(stage) for stage in STAGES):
            words.append(f"{name} has logged no steps with dropped layers yet.")
    aspects = list(dict.fromkeys(aspect for schedule in schedules.values() for aspect in schedule))
    curves = {title: some for stage, title in STAGES.items() if (some := _drop_curves(runs, stage))}
    plot = None
    if curves:
        description = "theta, expected and real depth, and the FLOPs saved, over the steps of " + " and ".join(curves)
        plot = svg_of(plots.layer_dropping(curves), "dropping", description)
    return {
        "words": words,
        "names": list(schedules),
        "schedules": {aspect: [schedule[aspect] for schedule in schedules.values()] for aspect in aspects},
        "plot": plot,
        "stages": list(curves),
        "rows": [row for run in droppers.values() for row in dropping_table(run)],
        "products": [sentence for run in droppers.values() if (sentence := _product(run))],
    }


def _drop_curves(runs: Sequence[RunRecord], stage: str) -> list[DropCurve]:
    found = [(index, run.name, run.dropped(stage)) for index, run in enumerate(runs)]
    return [
        DropCurve(name, index, one.steps, one.theta, one.expected_depth, one.depth, one.flops_saved)
        for index, name, one in found
        if one
    ]


def _product(run: RunRecord) -> str | None:
    """How the ticket's share of the encoder's FLOPs and the dropping's make one."""
    ticket, dropping, both = ticket_kept(run), dropping_kept(run), both_kept(run)
    if ticket is None or dropping is None or both is None:
        return None
    return (
        f"{run.name}: the ticket keeps {percent(ticket)} of the dense encoder's FLOPs, and pre-training ran "
        f"{percent(dropping)} of what the ticket kept: {factors(run)} = {percent(both)}."
    )


def _schedule(run: RunRecord, recipe: Recipe) -> dict[str, tuple[str, str]]:
    """A recipe's layer dropping in pre-training by aspect, and what the search does about it."""
    drop = recipe.dropping(recipe.model.layers, run.first_step("pretrain"))
    assert drop is not None
    words = {aspect.capitalize(): cell for aspect, cell in drop_words(drop).items()}
    return words | {"Search": ("", _searching(recipe))}


def _searching(recipe: Recipe) -> str:
    """What is dropped in the search, and how the schedule goes on after it."""
    if not recipe.search.enabled:
        return "there is none"
    if not recipe.layer_drop.during_search:
        searching = "all layers run"
    else:
        steps = f"over {recipe.pretrain.steps:,} steps from step 0 on"
        searching = f"the same schedule {steps}, but a layer is skipped for a whole step"
    if recipe.pretrain.rewind not in ("step", "inherit"):
        return f"{searching}; pre-training begins at step 0"
    if recipe.layer_drop.after_search == "restart":
        return f"{searching}; pre-training goes on with its weights and begins the schedule anew"
    where = "the search ends" if recipe.pretrain.rewind == "inherit" else f"step {recipe.pretrain.rewind_step:,} was"
    return f"{searching}; pre-training goes on where {where}"


# Training


def _training(runs: Sequence[RunRecord]) -> dict[str, Any]:
    tokens, seconds = [], []
    rates = {}
    for run in runs:
        losses = run.losses()
        if not losses.train_tokens:
            continue
        fit = (losses.train_loss, losses.validation_loss)
        tokens.append(Curve(run.name, losses.train_tokens, fit[0], losses.validation_tokens, fit[1]))
        seconds.append(Curve(run.name, losses.train_seconds, fit[0], losses.validation_seconds, fit[1]))
        steps, values = run.series("pretrain", "train", "step", "lr")
        rates[run.name] = (steps, values)
    missing = [run.name for run in runs if not run.losses().train_tokens]
    found: dict[str, Any] = {"missing": missing, "tokens": None, "seconds": None, "rate": None}
    if tokens:
        found["tokens"] = svg_of(
            plots.loss_curves(tokens, "tokens of pre-training"), "tokens", "Loss over tokens of pre-training"
        )
        found["seconds"] = svg_of(
            plots.loss_curves(seconds, "seconds of training, search included"), "seconds", "Loss over training time"
        )
        found["rate"] = svg_of(plots.learning_rates(rates), "rate", "Learning rate over steps")
    return found
