"""Pictures of a run as matplotlib figures."""

from pipeline.reports.plots.plan import dropping_plan
from pipeline.reports.plots.ticket import distance_curves, distance_heat_map, kept_heads, kept_neurons
from pipeline.reports.plots.training import (
    Curve,
    DropCurve,
    layer_dropping,
    learning_rates,
    loss_curves,
    smoothed,
    stage_times,
)

__all__ = [
    "Curve",
    "DropCurve",
    "distance_curves",
    "distance_heat_map",
    "dropping_plan",
    "kept_heads",
    "kept_neurons",
    "layer_dropping",
    "learning_rates",
    "loss_curves",
    "smoothed",
    "stage_times",
]
