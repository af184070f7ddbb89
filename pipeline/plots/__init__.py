"""Pictures of a run as matplotlib figures: `style` dresses them, `ticket`, `training` and `plan` draw them."""

from pipeline.plots.plan import dropping_plan
from pipeline.plots.style import duration, short, svg_of
from pipeline.plots.ticket import distance_curves, distance_heat_map, kept_heads, kept_neurons
from pipeline.plots.training import Curve, DropCurve, layer_dropping, learning_rates, loss_curves, smoothed, stage_times

__all__ = [
    "Curve",
    "DropCurve",
    "distance_curves",
    "distance_heat_map",
    "dropping_plan",
    "duration",
    "kept_heads",
    "kept_neurons",
    "layer_dropping",
    "learning_rates",
    "loss_curves",
    "short",
    "smoothed",
    "stage_times",
    "svg_of",
]
