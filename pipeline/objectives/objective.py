"""The contract of an objective: what is learned from which rows, and how well.

A new objective is one more file with a function that prepares it, and its line in `pipeline.objectives.table`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.families.head import Head
from pipeline.families.shape import Shape
from pipeline.recipes.recipe import Recipe
from pipeline.training.batches import Batch, Loader
from pipeline.training.engine import Engine


@dataclass(frozen=True)
class Vocabulary:
    """What a model has to know of the rows' tokens: how many there are, and the ids of pad, unk, cls, sep and mask."""

    size: int
    special_tokens: Mapping[str, int]


# The dense shape of the run's model under a head; the vocabulary where the objective brings one.
ShapeFor = Callable[[Head, Vocabulary | None], Shape]


@dataclass(frozen=True)
class Objective:
    """All of an objective that a stage uses, for this rank.

    `recipe`: with its epochs as steps. `loader`: micro-batches of the training rows, as keyword arguments of the model.
    `validate`: figures on held-out rows, "loss" among them, the same on any number of ranks. `probe`: a few rows
    without labels, to compare models on. `write`: whatever belongs beside the results of a finished training (rank 0),
    and what it has to add to them. `notes`: what a user should hear once.
    """

    recipe: Recipe
    head: Head
    shape: Shape
    loader: Loader
    validate: Callable[[Engine], dict[str, float]]
    probe: Callable[[], Batch]
    write: Callable[[Path, Mapping[str, float]], dict[str, Any]] = lambda folder, validation: {}
    notes: tuple[str, ...] = field(default=())
