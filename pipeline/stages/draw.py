"""Stage `draw`: the ticket, as a pure function of the recorded scores and the recipe, and the proof that the cut is
exact. Can be run again at any time."""

from typing import Any

from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from data_prep.manifest import read_manifest
from data_prep.rows.shards import ShardReader
from pipeline.objectives.masked_lm import PretrainLoader
from pipeline.runs.run import Run
from pipeline.stages.search import INIT, settle_rules
from pipeline.tickets.draw import Scores, drawn_because, replay, ticket_from
from pipeline.tickets.surgery import check_surgery
from pipeline.training.ranks import Ranks

PROOF_ROWS = 4


def recorded_scores(run: Run) -> list[tuple[int, Scores]]:
    """Every (step, scores) the search recorded, in order."""
    recorded: list[tuple[int, Scores]] = []
    for path in sorted(run.folder.scores.glob("step-*.safetensors")):
        flat = load_arrays(path)
        groups = {
            group: [flat[f"{group}.{layer}"] for layer in range(run.recipe.model.layers)]
            for group in ("heads", "neurons")
        }
        recorded.append((int(path.stem.removeprefix("step-")), groups))
    return recorded


def draw(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Write ticket.json. Returns the results for the manifest.

    Raises RuntimeError when cutting does not give the same numbers as masking: then no ticket is written.
    """
    recipe = run.recipe
    reader = ShardReader(run.shards, "val", "size")
    shape = recipe.dense_shape(reader.vocab_size, reader.special_tokens["pad"])
    rules, settle = recipe.ticket_rules(), settle_rules(recipe)
    manifest = read_manifest(run.folder.search)
    assert manifest is not None  # the stage's contract has looked
    provenance = {
        "scores_sha256": manifest["results"]["scores_sha256"],
        "init_sha256": manifest["results"]["init_sha256"],
        "search_settings": manifest["settings"]["search"],
    }
    seen = replay(recorded_scores(run), shape, rules, settle)
    ticket = ticket_from(seen, shape, rules, recipe.search.score, provenance)

    loader = PretrainLoader(reader, recipe.objective, recipe.seed, PROOF_ROWS, PROOF_ROWS)
    batch = loader.micro_batch(0, 0)
    targets = {"masked_positions", "labels", "sentence_targets"}
    inputs = {name: tensor for name, tensor in batch.items() if name not in targets}
    difference = check_surgery(load_file(run.folder.search / INIT), shape, ticket, inputs)
    ticket.write(run.folder.ticket)
    slim = ticket.slim_shape()
    heads, neurons = [layer.heads for layer in slim.layers], [layer.ffn for layer in slim.layers]
    print(
        f"ticket after step {ticket.step} ({drawn_because(settle.rule, ticket.settled)}): "
        f"heads {heads} of {recipe.model.heads}, neurons {neurons} of {recipe.model.ffn}; "
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
