"""Stage `pretrain`: train the slim model (or, without a search, the dense one) and write its fp32 weights."""

import json
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from data_prep.files import sha256_file
from pipeline.families.hf import build_model, load_state
from pipeline.families.shape import EncoderShape
from pipeline.runs.run import Run
from pipeline.stages.setup import build_data, build_engine, build_plan, tracker_for
from pipeline.tickets.surgery import slice_state
from pipeline.tickets.ticket import Ticket
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import train
from pipeline.training.metrics import Metrics
from pipeline.training.ranks import Ranks
from pipeline.training.tracking import NoTracker

WEIGHTS = "weights.safetensors"
FINAL, MOMENTS = "final.safetensors", "moments.safetensors"


def slim_start(run: Run, dense: EncoderShape, ticket: Ticket) -> tuple[EncoderShape, dict[str, torch.Tensor] | None]:
    """The slim shape and the weights it starts from, as the recipe's rewind says; None means freshly drawn ones."""
    ticket.check_fits(dense)
    rewind = run.recipe.pretrain.rewind
    if rewind == "reinit":
        return ticket.slim_shape(), None
    source = run.folder.search / ("init.safetensors" if rewind == "init" else FINAL)
    return ticket.slim_shape(), slice_state(load_file(source), dense, ticket)


def pretrain(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Train to the end of the schedule. Returns the results for the manifest. Collective."""
    recipe, folder = run.recipe, run.folder.pretrain
    reader, loader, validate = build_data(run, ranks)
    dense = recipe.dense_shape(reader.vocab_size, reader.special_tokens["pad"])
    ticket = Ticket.read(run.folder.ticket) if recipe.search.enabled else None
    shape, state = slim_start(run, dense, ticket) if ticket else (dense, None)
    model = build_model(shape, seed=recipe.seed)
    if state is not None:
        load_state(model, state)
    engine = build_engine(model, run.engine, recipe, ranks)

    first_step = 0
    if ticket and recipe.pretrain.rewind == "inherit":
        assert state is not None
        first_step = ticket.step
        flat = load_file(run.folder.search / MOMENTS)
        kinds: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in flat.items():
            kind, name = key.split("/", 1)
            kinds.setdefault(kind, {})[name] = value
        # Muon keeps momenta for the matrices it moves, AdamW its two moments for all other parameters.
        moments = {kind: slice_state(values, dense, ticket, partial=True) for kind, values in kinds.items()}
        engine.inherit(state, moments, ticket.step, loader.micro_batch(0, 0))

    plan = build_plan(run, shape, ranks, recipe.pretrain.steps, first_step)
    checkpoints = Checkpoints(folder / "checkpoints", recipe.checkpoint.keep)
    tracker = tracker_for(run, "pretrain", folder, ranks)
    if ticket and not isinstance(tracker, NoTracker):
        # Imported here: matplotlib takes a second, on ranks and in runs that show nothing too.
        from pipeline.reports import plots

        tracker.picture("kept heads", plots.kept_heads(ticket), step=first_step)
        tracker.picture("kept neurons", plots.kept_neurons(ticket), step=first_step)
    with Metrics(folder, "pretrain", plan.total_steps, tracker, ranks.is_main) as metrics:
        outcome = train(engine, loader, plan, metrics, checkpoints, validate)

    weights = engine.weights()
    results: dict[str, Any] = {
        "steps": outcome.step,
        "tokens": outcome.tokens,
        "world_size": ranks.world_size,
        "validation_loss": outcome.validation["loss"],
        "validation_accuracy": outcome.validation["accuracy"],
        "parameters": shape.num_parameters(),
        "parameters_dense": dense.num_parameters(),
        "encoder_flops_kept": shape.encoder_flops_per_token(recipe.corpus.row_length)
        / dense.encoder_flops_per_token(recipe.corpus.row_length),
        "seconds_training": outcome.seconds,
        "tokens_per_second": outcome.tokens / outcome.seconds,
    }
    if ranks.is_main:
        save_file(weights, folder / WEIGHTS, metadata={"shape": json.dumps(shape.to_dict())})
        results["weights_sha256"] = sha256_file(folder / WEIGHTS)
        tracker.summary(results)
    tracker.finish()
    return results
