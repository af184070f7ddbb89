"""What the training stages of a run are set up from, as the recipe says: objective, dense model, engine, plan of steps,
tracker."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from data_prep.errors import UserError
from pipeline.families.checkpoint import Checkpoint, build_from, read_checkpoint, shape_of
from pipeline.families.head import Head
from pipeline.families.model_files import fetch
from pipeline.families.models import build, recompute_layers
from pipeline.families.shape import Shape
from pipeline.families.stock import random_shape
from pipeline.layer_drop.switch import compile_layers
from pipeline.objectives.objective import Objective, Vocabulary
from pipeline.objectives.table import prepare
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import Recipe
from pipeline.runs.run import Run
from pipeline.training import optimizers
from pipeline.training.costs import StepCosts
from pipeline.training.engine import Engine
from pipeline.training.loop import Plan
from pipeline.training.ranks import Ranks
from pipeline.training.tracking import NoTracker, Tracker


@dataclass(frozen=True)
class Setting:
    """A run as its training stages find it: what is learned, and the dense model they start from."""

    run: Run
    ranks: Ranks
    checkpoint: Checkpoint | None
    objective: Objective

    @property
    def recipe(self) -> Recipe:
        """The run's recipe, with its epochs as steps."""
        return self.objective.recipe

    @property
    def dense(self) -> Shape:
        """The shape of the model before any cut."""
        return self.objective.shape

    def build_dense(self) -> tuple[nn.Module, list[str]]:
        """The dense model as training finds it, and what there is to say about it. Raises UserError as `build_from`."""
        if self.checkpoint is None:
            return build(self.dense, seed=self.recipe.seed), []
        return build_from(self.checkpoint, self.dense, self.objective.head, self.recipe.seed)


def read_setting(run: Run, ranks: Ranks) -> Setting:
    """Read all that a run's training needs, and write nothing. Raises UserError for whatever cannot be used."""
    check_engine(run.engine, ranks)
    chosen = run.recipe.model
    checkpoint = None
    if chosen.checkpoint is not None:
        checkpoint = read_checkpoint(fetch(chosen.checkpoint, chosen.revision))

    def shape_for(head: Head, vocabulary: Vocabulary | None) -> Shape:
        if checkpoint is not None:
            shape = shape_of(checkpoint, head, chosen.dropout, chosen.attention_dropout)
            try:
                run.recipe.check_family(shape.family)
            except ValueError as error:
                raise UserError(f"{checkpoint.folder}: {error}") from None
            return shape
        assert vocabulary is not None  # the recipe has looked: only texts with labels come without one
        special = vocabulary.special_tokens
        if chosen.family == "slim_bert":
            return run.recipe.dense_shape(vocabulary.size, special["pad"])
        sizes = run.recipe.stock_sizes(vocabulary.size, special)
        return random_shape(chosen.family, sizes, head, chosen.dropout, chosen.attention_dropout)

    return Setting(run, ranks, checkpoint, prepare(run, ranks, shape_for))


def build_engine(model: nn.Module, engine: dict[str, Any], recipe: Recipe, ranks: Ranks) -> Engine:
    """The model in a DeepSpeed engine of this config, its layers recomputed or compiled as the config says.

    Raises UserError where it says something that this model or these ranks cannot do.
    """
    check_engine(engine, ranks)
    recompute_layers(model, "activation_checkpointing" in engine)
    if engine.get("compile", {}).get("layers"):
        layers = getattr(getattr(model, "encoder", None), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise UserError("compile.layers of the DeepSpeed config knows the layers of slim_bert only: take it out")
        compile_layers(layers)
    config = engine_config.join(engine, recipe, ranks.world_size)
    return Engine(model, config, optimizers.parameter_groups(model, recipe.optimizer.weight_decay), ranks)


def check_engine(engine: dict[str, Any], ranks: Ranks) -> None:
    """Raise UserError where an engine config says something that these ranks cannot do."""
    if engine.get("compile", {}).get("layers") and ranks.device.type == "cpu":
        raise UserError("compile.layers of the DeepSpeed config needs a GPU and there is none: take it out")


def build_plan(setting: Setting, shape: Shape, stop_step: int, first_step: int = 0, searching: bool = False) -> Plan:
    """What the recipe says about steps, for a model of this shape on these ranks.

    Raises UserError where its layer dropping cannot be had with these ranks' micro-batches.
    """
    recipe = setting.recipe
    micro_rows, accumulation = engine_config.accumulation_steps(
        recipe.batch.global_rows, recipe.batch.micro_rows, setting.ranks.world_size
    )
    drop = recipe.dropping(len(shape.layers), first_step, searching)
    recipe.check_rows(micro_rows)
    costs = None
    if not shape.is_classifier:  # its rows are as long as their texts
        costs = StepCosts(
            shape,
            recipe.phases(micro_rows),
            recipe.predicted_share,
            accumulation,
            drop,
            first_step,
            touch=engine_config.needs_every_gradient(setting.run.engine),
        )
    optimizer = recipe.optimizer
    if searching and recipe.search.lr is not None:
        optimizer = optimizer.model_copy(update={"lr": recipe.search.lr})
    return Plan(
        total_steps=recipe.pretrain.steps,
        stop_step=stop_step,
        first_step=first_step,
        optimizer=optimizer,
        schedule=recipe.schedule,
        seed=recipe.seed,
        checkpoint_every=recipe.checkpoint.every_steps,
        validate_every=recipe.evaluation.every_steps,
        log_every=recipe.tracking.log_every_steps,
        drop=drop,
        costs=costs,
        # A classifier's head is new, and says nothing before it is trained.
        validate_first=setting.checkpoint is not None and not shape.is_classifier and not searching,
    )


def tracker_for(run: Run, stage: str, folder: Path, ranks: Ranks) -> Tracker:
    """W&B for rank 0 of a stage, as the recipe says; nothing on the other ranks."""
    if not ranks.is_main:
        return NoTracker()
    config = {"recipe": run.recipe.model_dump(mode="json"), "engine": run.engine, "world_size": ranks.world_size}
    return Tracker.start(folder, stage, run.folder.name, run.recipe.tracking, config)
