"""The picture of a layer-dropping plan over the steps. Knows schedules and costs, nothing of files."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from data_prep.plots import (
    INK,
    KEPT,
    LINES,
    MUTED,
    SERIES,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    dress,
    label_of,
    legend,
    short_numbers,
    strip_frame,
)
from pipeline.layer_drop.schedule import DropSchedule
from pipeline.training.costs import StepCosts

_MAP_COLUMNS, _CURVE_POINTS, _DEPTH_BINS = 600, 1000, 120
_ROUND = [1, 2, 5, 10]
_LABEL_INCHES = 0.17


def dropping_plan(
    schedule: DropSchedule,
    costs: StepCosts,
    rates: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    whole_step: bool,
) -> Figure:
    """Four panels over the steps: every layer's keep probability, theta and depth, learning rate, FLOPs saved.

    `costs` are those of the run with this schedule; `rates`: `{what: (steps, rates)}`. `whole_step`: whether
    the FLOPs saved are a share of the whole step's or of the layers' alone.
    """
    layers = schedule.num_layers
    map_height = min(2.4, max(1.2, 0.2 * layers))
    heights = [map_height, 1.65, 1.25, 1.25]
    figure = canvas(WIDTH, sum(heights) + 1.0)
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    keep, depth, rate, saved = panels
    for axes in panels:
        dress(axes)

    image = _keep(keep, schedule, max(1, round(layers * _LABEL_INCHES / map_height + 0.499)))
    bar = figure.colorbar(image, cax=keep.inset_axes((1.013, 0, 0.019, 1)))
    bar.outline.set_visible(False)
    bar.set_label("keep probability", fontsize=TEXT, color=INK)
    bar.locator = MaxNLocator(6, steps=_ROUND)
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED, length=2)
    _depth(depth, schedule, costs)
    _rates(rate, rates)
    _saved(saved, costs, schedule.total_steps, whole_step)

    keep.set_xlim(0, schedule.total_steps)
    saved.set_xlabel("step")
    saved.xaxis.set_major_locator(MaxNLocator(8, steps=_ROUND, integer=True))
    short_numbers(saved)
    figure.align_ylabels(panels.tolist())
    return figure


def _keep(axes: Axes, schedule: DropSchedule, label_every: int) -> AxesImage:
    """The heat map (layers, columns): a column a step, or a step in the middle of each column where there are more."""
    total, layers = schedule.total_steps, schedule.num_layers
    columns = min(total, _MAP_COLUMNS)
    steps = ((np.arange(columns) + 0.5) * total / columns).astype(np.int64)
    values = schedule.keep(steps).T
    image = axes.imshow(
        values,
        cmap="cividis_r",
        vmin=min(0.9, np.floor(values.min() * 10) / 10),
        vmax=1,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, total, 0.5, layers + 0.5),
    )
    strip_frame(axes)
    axes.set_yticks(range(1, layers + 1, label_every))
    axes.set_ylabel("layer")
    return image


def _depth(axes: Axes, schedule: DropSchedule, costs: StepCosts) -> None:
    """theta on the left, depth on the right, on one scale: a depth of all layers stands where theta is 1."""
    total, layers = schedule.total_steps, schedule.num_layers
    steps = np.unique(np.linspace(0, total - 1, min(total, _CURVE_POINTS)).astype(np.int64))
    edges = np.unique(np.linspace(0, total, min(total, _DEPTH_BINS) + 1).astype(np.int64))
    real = [costs.depth(first, last) / layers for first, last in itertools.pairwise(edges.tolist())]
    theta = schedule.theta_at(steps)
    axes.plot(steps, theta, color=SERIES[1], linewidth=1.5, linestyle=LINES[1], label="theta")
    axes.plot(
        steps, schedule.expected_depth(steps) / layers, color=KEPT, linewidth=1.2, zorder=3, label="expected depth"
    )
    middles = (edges[:-1] + edges[1:] - 1) / 2
    axes.plot(middles, real, color=SERIES[2], linewidth=0, marker="o", markersize=3, label="real depth, as drawn")
    low = min(float(theta.min()), *real)
    axes.set_ylim(max(0.0, low - 0.08 * (1.05 - low) - 0.01), 1 + 0.06 * (1 - low) + 0.005)
    axes.set_ylabel("theta")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    functions = (lambda share: np.asarray(share) * layers, lambda depth: np.asarray(depth) / layers)
    right = axes.secondary_yaxis("right", functions=functions)
    right.spines["right"].set_color(MUTED)
    right.tick_params(colors=MUTED, labelsize=SMALL, length=3, width=0.7)
    right.set_ylabel("depth (layers)", fontsize=TEXT, color=INK)
    right.yaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    legend(axes, columns=3)


def _rates(axes: Axes, rates: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    for index, (label, (steps, values)) in enumerate(rates.items()):
        color, line = SERIES[index % len(SERIES)], LINES[index % len(LINES)]
        axes.plot(steps, values, color=color, linewidth=1.6, linestyle=line, label=label_of(label))
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
    if len(rates) > 1:
        legend(axes, columns=2)


def _saved(axes: Axes, costs: StepCosts, total: int, whole_step: bool) -> None:
    steps = np.unique(np.linspace(1, total, min(total, _CURVE_POINTS)).astype(np.int64))
    percents = 100 * costs.saved_by_step()[steps - 1]
    axes.plot(steps, percents, color=KEPT, linewidth=1.8)
    axes.set_ylabel("FLOPs saved\nso far (%)" if whole_step else "layers' FLOPs\nsaved so far (%)")
    axes.set_ylim(0, max(1.0, 1.1 * float(percents.max())))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
