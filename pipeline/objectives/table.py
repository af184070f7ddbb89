"""The objectives, by their name in a recipe: the module of this room whose `prepare` makes one of a run."""

from importlib import import_module

from pipeline.families.head import Objective as Name
from pipeline.objectives.objective import Objective, ShapeFor
from pipeline.runs.run import Run
from pipeline.training.ranks import Ranks

OBJECTIVES: dict[Name, str] = {
    "masked-lm": "masked_lm",
    "causal-lm": "causal_lm",
    "classification": "classification",
}


def prepare(run: Run, ranks: Ranks, shape_for: ShapeFor) -> Objective:
    """The objective of the run's recipe, for this rank. Raises UserError for whatever it cannot use."""
    # Imported by name: scikit-learn takes a second, which runs without labels need not wait for.
    module = import_module(f"pipeline.objectives.{OBJECTIVES[run.recipe.objective.name]}")
    found: Objective = module.prepare(run, ranks, shape_for)
    return found
