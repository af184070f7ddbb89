"""The objectives, by their name in a recipe."""

from collections.abc import Callable

from pipeline.families.head import Objective as Name
from pipeline.objectives import causal_lm, classification, masked_lm
from pipeline.objectives.objective import Objective, ShapeFor
from pipeline.runs.run import Run
from pipeline.training.ranks import Ranks

OBJECTIVES: dict[Name, Callable[[Run, Ranks, ShapeFor], Objective]] = {
    "masked-lm": masked_lm.prepare,
    "causal-lm": causal_lm.prepare,
    "classification": classification.prepare,
}
