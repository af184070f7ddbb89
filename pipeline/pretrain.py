"""Stage `pretrain`: train the slim model (or, without a search, the dense one) and write its fp32 weights."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline import dsconfig, optim, plots
from pipeline.artifacts import UserError, sha256_file
from pipeline.checkpoint import Checkpoints
from pipeline.config import Recipe
from pipeline.data import Loader, PretrainLoader, ShardReader, TwoLengths
from pipeline.dist import Ranks
from pipeline.engine import Engine
from pipeline.evaluate import MlmValidation
from pipeline.metrics import Metrics
from pipeline.model.hf import build_model, load_state
from pipeline.model.modeling_slim_bert import SlimBertForMaskedLM, SlimBertForSequenceClassification
from pipeline.model.shape import EncoderShape
from pipeline.model.switch import compile_layers
from pipeline.run import Run
from pipeline.step_costs import Phase, StepCosts
from pipeline.tickets.surgery import slice_state
from pipeline.tickets.ticket import Ticket
from pipeline.tracking import NoTracker, Tracker
from pipeline.train import Plan, train

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


def build_engine(
    model: SlimBertForMaskedLM | SlimBertForSequenceClassification,
    engine: dict[str, Any],
    recipe: Recipe,
    ranks: Ranks,
) -> Engine:
    """The model in a DeepSpeed engine of this config, its layers recomputed or compiled as the config says.

    Raises UserError where it says something that these ranks cannot do.
    """
    model.encoder.activation_checkpointing = "activation_checkpointing" in engine
    if engine.get("compile", {}).get("layers"):
        if ranks.device.type == "cpu":
            raise UserError("compile.layers of the DeepSpeed config needs a GPU and there is none: take it out")
        compile_layers(model.encoder.layers)
    config = dsconfig.join(engine, recipe, ranks.world_size)
    return Engine(model, config, optim.parameter_groups(model, recipe.optimizer.weight_decay), ranks)


def build_data(run: Run, ranks: Ranks) -> tuple[ShardReader, Loader, MlmValidation]:
    """The training reader and loader of this rank, and validation on the held-out split.

    Validation rows are the short ones where the recipe has two lengths.
    """
    recipe, verify = run.recipe, run.recipe.corpus.verify if ranks.is_main else "size"
    batch = recipe.batch
    micro_rows, _ = dsconfig.accumulation_steps(batch.global_rows, batch.micro_rows, ranks.world_size)

    def loader_of(reader: ShardReader, phase: Phase) -> PretrainLoader:
        rows = phase.global_rows, phase.micro_rows
        return PretrainLoader(reader, recipe.objective, recipe.seed, *rows, ranks.rank, ranks.world_size)

    short, *long = recipe.phases(micro_rows)
    train_rows = ShardReader(run.shards, "train", verify)
    val_rows = ShardReader(run.shards, "val", verify)
    loader: Loader = loader_of(train_rows, short)
    if run.long_shards is not None:
        long_rows = ShardReader(run.long_shards, "train", verify)
        loader = TwoLengths(loader, loader_of(long_rows, *long), short.steps)
    return (
        train_rows,
        loader,
        MlmValidation(val_rows, recipe.objective, recipe.seed, recipe.evaluation.rows, micro_rows),
    )


def build_plan(
    run: Run, shape: EncoderShape, ranks: Ranks, stop_step: int, first_step: int = 0, searching: bool = False
) -> Plan:
    """What the recipe says about steps, for a model of this shape on these ranks.

    Raises UserError where its layer dropping cannot be had with these ranks' micro-batches.
    """
    recipe = run.recipe
    micro_rows, accumulation = dsconfig.accumulation_steps(
        recipe.batch.global_rows, recipe.batch.micro_rows, ranks.world_size
    )
    drop = recipe.dropping(len(shape.layers), first_step, searching)
    phases = recipe.phases(micro_rows)
    recipe.check_rows(micro_rows)
    return Plan(
        total_steps=recipe.pretrain.steps,
        stop_step=stop_step,
        first_step=first_step,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        seed=recipe.seed,
        checkpoint_every=recipe.checkpoint.every_steps,
        validate_every=recipe.evaluation.every_steps,
        log_every=recipe.tracking.log_every_steps,
        drop=drop,
        costs=StepCosts(
            shape,
            phases,
            recipe.objective.mask_rate,
            accumulation,
            drop,
            first_step,
            touch=dsconfig.needs_every_gradient(run.engine),
        ),
    )


def tracker_for(run: Run, stage: str, folder: Path, ranks: Ranks) -> Tracker:
    """W&B for rank 0 of a stage, as the recipe says; nothing on the other ranks."""
    if not ranks.is_main:
        return NoTracker()
    config = {"recipe": run.recipe.model_dump(mode="json"), "engine": run.engine, "world_size": ranks.world_size}
    return Tracker.start(folder, stage, run.folder.root.name, run.recipe.tracking, config)


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
    if ticket:
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
