"""What the training stages are set up from: engine, data, plan of steps, tracker, as the recipe says."""

from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.rows.shards import ShardReader
from pipeline.families.modeling_slim_bert import SlimBertForMaskedLM, SlimBertForSequenceClassification
from pipeline.families.shape import EncoderShape
from pipeline.layer_drop.switch import compile_layers
from pipeline.objectives.masked_lm import MlmValidation, PretrainLoader
from pipeline.recipes import engine_config
from pipeline.recipes.phases import Phase
from pipeline.recipes.recipe import Recipe
from pipeline.runs.run import Run
from pipeline.training import optimizers
from pipeline.training.batches import Loader, TwoLengths
from pipeline.training.costs import StepCosts
from pipeline.training.engine import Engine
from pipeline.training.loop import Plan
from pipeline.training.ranks import Ranks
from pipeline.training.tracking import NoTracker, Tracker


def build_engine(
    model: SlimBertForMaskedLM | SlimBertForSequenceClassification,
    engine: dict[str, Any],
    recipe: Recipe,
    ranks: Ranks,
) -> Engine:
    """The model in a DeepSpeed engine of this config, its layers recomputed or compiled as the config says.

    Raises UserError where it says something that these ranks cannot do.
    """
    check_engine(engine, ranks)
    model.encoder.activation_checkpointing = "activation_checkpointing" in engine
    if engine.get("compile", {}).get("layers"):
        compile_layers(model.encoder.layers)
    config = engine_config.join(engine, recipe, ranks.world_size)
    return Engine(model, config, optimizers.parameter_groups(model, recipe.optimizer.weight_decay), ranks)


def check_engine(engine: dict[str, Any], ranks: Ranks) -> None:
    """Raise UserError where an engine config says something that these ranks cannot do."""
    if engine.get("compile", {}).get("layers") and ranks.device.type == "cpu":
        raise UserError("compile.layers of the DeepSpeed config needs a GPU and there is none: take it out")


def build_data(run: Run, ranks: Ranks) -> tuple[ShardReader, Loader, MlmValidation]:
    """The training reader and loader of this rank, and validation on the held-out split.

    Validation rows are the short ones where the recipe has two lengths.
    """
    recipe, verify = run.recipe, run.recipe.corpus.verify if ranks.is_main else "size"
    batch = recipe.batch
    micro_rows, _ = engine_config.accumulation_steps(batch.global_rows, batch.micro_rows, ranks.world_size)

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
    micro_rows, accumulation = engine_config.accumulation_steps(
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
            touch=engine_config.needs_every_gradient(run.engine),
        ),
    )


def tracker_for(run: Run, stage: str, folder: Path, ranks: Ranks) -> Tracker:
    """W&B for rank 0 of a stage, as the recipe says; nothing on the other ranks."""
    if not ranks.is_main:
        return NoTracker()
    config = {"recipe": run.recipe.model_dump(mode="json"), "engine": run.engine, "world_size": ranks.world_size}
    return Tracker.start(folder, stage, run.folder.root.name, run.recipe.tracking, config)
