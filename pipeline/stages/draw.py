"""Stage `draw`: the ticket, as a pure function of the recorded scores and the recipe, and the proof that the cut is
exact. Can be run again at any time."""

from collections.abc import Iterable
from typing import Any

from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from data_prep.manifest import read_manifest
from pipeline.runs.run import Run
from pipeline.stages.search import INIT, settle_rules
from pipeline.stages.setup import read_setting
from pipeline.tickets.draw import Scores, drawn_because, replay, ticket_from
from pipeline.tickets.surgery import check_surgery
from pipeline.training.ranks import Ranks


def recorded_scores(run: Run, num_layers: int) -> list[tuple[int, Scores]]:
    """Every (step, scores) the search recorded, in order."""
    recorded: list[tuple[int, Scores]] = []
    for path in sorted(run.search.scores.glob("step-*.safetensors")):
        flat = load_arrays(path)
        groups = {group: [flat[f"{group}.{layer}"] for layer in range(num_layers)] for group in ("heads", "neurons")}
        recorded.append((int(path.stem.removeprefix("step-")), groups))
    return recorded


def draw(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Write ticket.json. Returns the results for the manifest.

    Raises RuntimeError when cutting does not give the same numbers as masking: then no ticket is written.
    """
    setting = read_setting(run, ranks)
    recipe, shape = setting.recipe, setting.dense
    rules, settle = recipe.ticket_rules(), settle_rules(recipe)
    manifest = read_manifest(run.search.search)
    assert manifest is not None  # the stage's contract has looked
    provenance = {
        "scores_sha256": manifest["results"]["scores_sha256"],
        "init_sha256": manifest["results"]["init_sha256"],
        "search_settings": manifest["settings"]["search"],
    }
    seen = replay(recorded_scores(run, len(shape.layers)), shape, rules, settle)
    ticket = ticket_from(seen, shape, rules, recipe.search.score, provenance)

    difference = check_surgery(load_file(run.search.search / INIT), shape, ticket, setting.objective.probe())
    ticket.write(run.folder.ticket)
    slim = ticket.slim_shape()
    heads, neurons = [layer.heads for layer in slim.layers], [layer.ffn for layer in slim.layers]
    print(
        f"ticket after step {ticket.step} ({drawn_because(settle.rule, ticket.settled)}): "
        f"heads {heads} of {_widths(layer.heads for layer in shape.layers)}, "
        f"neurons {neurons} of {_widths(layer.ffn for layer in shape.layers)}; "
        f"parameters {shape.num_parameters():,} -> {slim.num_parameters():,}; masked - sliced: {difference:.1e}"
    )
    return {
        "step": ticket.step,
        "settled": ticket.settled,
        "heads": heads,
        "neurons": neurons,
        "parameters": slim.num_parameters(),
        "parameters_dense": shape.num_parameters(),
        "largest_difference": difference,
    }


def _widths(counts: Iterable[int]) -> int | list[int]:
    """One number where all layers have it."""
    listed = list(counts)
    return listed[0] if len(set(listed)) == 1 else listed
