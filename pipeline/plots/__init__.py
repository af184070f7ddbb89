"""Pictures of a run as matplotlib figures: `style` dresses them, `ticket` and `training` draw them."""

from pipeline.plots.style import duration, short, svg_of
from pipeline.plots.ticket import distance_curves, distance_heat_map, kept_heads, kept_neurons
from pipeline.plots.training import Curve, learning_rates, loss_curves, smoothed, stage_times

__all__ = [
    "Curve",
    "distance_curves",
    "distance_heat_map",
    "duration",
    "kept_heads",
    "kept_neurons",
    "learning_rates",
    "loss_curves",
    "short",
    "smoothed",
    "stage_times",
    "svg_of",
]
