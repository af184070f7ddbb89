"""Stage `pretrain`: train the slim model (or, without a search, the dense one) and write its fp32 weights."""

import json
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from data_prep.errors import UserError
from data_prep.files import sha256_file
from pipeline.families.hf import load_state
from pipeline.families.models import build
from pipeline.families.shape import Shape
from pipeline.runs.run import Run
from pipeline.stages.search import FINAL, INIT, MOMENTS, REWIND
from pipeline.stages.setup import build_engine, build_plan, read_setting, tracker_for
from pipeline.tickets.surgery import slice_state
from pipeline.tickets.ticket import Ticket
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import train
from pipeline.training.metrics import Metrics
from pipeline.training.ranks import Ranks
from pipeline.training.tracking import NoTracker

WEIGHTS = "weights.safetensors"
_SOURCES = {"init": INIT, "step": REWIND, "inherit": FINAL}


def slim_start(run: Run, dense: Shape, ticket: Ticket) -> tuple[Shape, dict[str, torch.Tensor] | None]:
    """The slim shape and the weights it starts from, as the recipe's rewind says; None means freshly drawn ones."""
    ticket.check_fits(dense)
    rewind = run.recipe.pretrain.rewind
    if rewind == "reinit":
        return ticket.slim_shape(), None
    source = run.search.search / _SOURCES[rewind]
    if not source.exists():
        raise UserError(f"pretrain.rewind {rewind!r} needs {source}, which the search of that run did not leave")
    return ticket.slim_shape(), slice_state(load_file(source), dense, ticket)


def pretrain(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Train to the end of the schedule. Returns the results for the manifest. Collective."""
    folder, setting = run.folder.pretrain, read_setting(run, ranks)
    recipe, objective, dense = setting.recipe, setting.objective, setting.dense
    loader = objective.loader
    ticket = Ticket.read(run.folder.ticket) if recipe.search.enabled else None
    notes: list[str] = []
    state: dict[str, torch.Tensor] | None = None
    if ticket:
        shape, state = slim_start(run, dense, ticket)
        model = build(shape, seed=recipe.seed)
        if state is not None:
            load_state(model, state)
    else:
        shape = dense
        model, notes = setting.build_dense()
    engine = build_engine(model, run.engine, recipe, ranks)

    first_step = 0
    if ticket and recipe.pretrain.rewind == "step":
        first_step = recipe.pretrain.rewind_step or 0
    if ticket and recipe.pretrain.rewind == "inherit":
        assert state is not None
        first_step = ticket.step
        flat = load_file(run.search.search / MOMENTS)
        kinds: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in flat.items():
            kind, name = key.split("/", 1)
            kinds.setdefault(kind, {})[name] = value
        # Muon keeps momenta for the matrices it moves, AdamW its two moments for all other parameters.
        moments = {kind: slice_state(values, dense, ticket, partial=True) for kind, values in kinds.items()}
        engine.inherit(state, moments, ticket.step, loader.micro_batch(0, 0))

    plan = build_plan(setting, shape, recipe.pretrain.steps, first_step)
    checkpoints = Checkpoints(folder / "checkpoints", recipe.checkpoint.keep)
    tracker = tracker_for(run, "pretrain", folder, ranks)
    if ticket and not isinstance(tracker, NoTracker):
        # Imported here: matplotlib takes a second, on ranks and in runs that show nothing too.
        from pipeline.reports import plots

        tracker.picture("kept heads", plots.kept_heads(ticket), step=first_step)
        tracker.picture("kept neurons", plots.kept_neurons(ticket), step=first_step)
    with Metrics(folder, "pretrain", plan.total_steps, tracker, ranks.is_main) as metrics:
        for note in (*notes, *objective.notes):
            metrics.say(note)
        outcome = train(engine, loader, plan, metrics, checkpoints, objective.validate)

    weights = engine.weights()
    results: dict[str, Any] = {
        "steps": outcome.step,
        "tokens": outcome.tokens,
        "world_size": ranks.world_size,
        "validation_loss": outcome.validation["loss"],
        "parameters": shape.num_parameters(),
        "parameters_dense": dense.num_parameters(),
        "encoder_flops_kept": shape.encoder_flops_per_token(recipe.row_length)
        / dense.encoder_flops_per_token(recipe.row_length),
        "seconds_training": outcome.seconds,
        "tokens_per_second": outcome.tokens / outcome.seconds,
    }
    if ranks.is_main:
        said = {"shape": json.dumps(shape.to_dict()), "head": json.dumps(asdict(objective.head))}
        save_file(weights, folder / WEIGHTS, metadata=said)
        results["weights_sha256"] = sha256_file(folder / WEIGHTS)
        results |= objective.write(folder, outcome.validation)
        tracker.summary({name: value for name, value in results.items() if isinstance(value, (int, float))})
    tracker.finish()
    return results
