"""Pictures of training: losses, learning rate, dropped layers, time. Knows numbers and labels, nothing of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from data_prep.formatting import duration
from data_prep.plots import (
    INK,
    LINES,
    MARKERS,
    MUTED,
    SERIES,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    dress,
    label_of,
    legend,
    plot,
    short_numbers,
)

_MOST_POINTS = 800


@dataclass(frozen=True)
class Curve:
    """One run's losses in nats a masked token; x in the unit of the axis."""

    label: str
    train_x: Sequence[float] = ()
    train_loss: Sequence[float] = ()
    validation_x: Sequence[float] = ()
    validation_loss: Sequence[float] = ()


@dataclass(frozen=True)
class DropCurve:
    """One run's layer dropping in one stage; `series` is the run's colour, depths are counted in layers."""

    label: str
    series: int
    steps: Sequence[int]
    theta: Sequence[float]
    expected_depth: Sequence[float]
    depth: Sequence[float]
    flops_saved: Sequence[float]


def loss_curves(curves: Sequence[Curve], x_label: str) -> Figure:
    """Training loss (thin, smoothed) and validation loss (thick, with markers), a colour a run."""
    figure, axes = plot(WIDTH, 3.6)
    for index, curve in enumerate(curves):
        color, name = SERIES[index % len(SERIES)], label_of(curve.label)
        if len(curve.train_x):
            thin = slice(None, None, -(-len(curve.train_x) // _MOST_POINTS))
            axes.plot(
                np.asarray(curve.train_x)[thin],
                smoothed(curve.train_loss)[thin],
                color=color,
                linewidth=1.0,
                alpha=0.55,
                label=f"{name}: training, smoothed",
            )
        if len(curve.validation_x):
            axes.plot(
                curve.validation_x,
                curve.validation_loss,
                color=color,
                linewidth=1.9,
                linestyle=LINES[index % len(LINES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                markevery=max(1, len(curve.validation_x) // 25),
                label=f"{name}: validation",
            )
    axes.set(xlabel=x_label, ylabel="loss (nats a masked token)")
    axes.set_xlim(left=0)
    short_numbers(axes)
    legend(axes, columns=2)
    return figure


def learning_rates(rates: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Learning rate over steps, `{run: (steps, rates)}`."""
    figure, axes = plot(WIDTH, 2.0)
    for index, (label, (steps, values)) in enumerate(rates.items()):
        color, line = SERIES[index % len(SERIES)], LINES[index % len(LINES)]
        axes.plot(steps, values, color=color, linewidth=1.7, linestyle=line, label=label_of(label))
    axes.set(xlabel="step", ylabel="learning rate")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    short_numbers(axes)
    if len(rates) > 1:
        legend(axes, columns=4)
    return figure


def layer_dropping(stages: Mapping[str, Sequence[DropCurve]]) -> Figure:
    """theta, depth and the share of FLOPs saved over steps: a column a stage, a colour a run.

    Markers: the depth that was run; the line through them: the depth that was to be expected.
    """
    lasts = [max(curve.steps[-1] for curve in curves) for curves in stages.values()]
    figure = canvas(WIDTH, 5.4)
    panels = figure.subplots(
        3,
        len(stages),
        sharex="col",
        sharey="row",
        squeeze=False,
        # A short search keeps room for its ticks.
        width_ratios=[max(last, 0.36 * max(lasts)) for last in lasts],
        height_ratios=[1, 1.5, 1],
    )
    runs: dict[int, tuple[str, Artist, Artist]] = {}
    for column, (stage, curves) in enumerate(stages.items()):
        theta, depth, saved = panels[:, column]
        for axes in (theta, depth, saved):
            dress(axes)
            axes.set_xlim(0, 1.02 * lasts[column])
        if len(stages) > 1:
            theta.set_title(stage, fontsize=TEXT + 0.5, color=INK, loc="left")
        for curve in curves:
            color, line = SERIES[curve.series % len(SERIES)], LINES[curve.series % len(LINES)]
            thin = slice(None, None, -(-len(curve.steps) // _MOST_POINTS))
            steps = np.asarray(curve.steps)[thin]
            marker = MARKERS[curve.series % len(MARKERS)]
            look: dict[str, Any] = {"color": color, "linestyle": line, "linewidth": 1.7}
            if len(steps) == 1:
                look |= {"marker": "_", "markersize": 9}  # a line of one point would not be seen
            theta.plot(steps, np.asarray(curve.theta)[thin], **look)
            depth.plot(
                steps,
                np.asarray(curve.depth)[thin],
                color=color,
                alpha=0.45,
                linewidth=0,
                marker=marker,
                markersize=3.2,
                markeredgewidth=0,
            )
            (expected,) = depth.plot(steps, np.asarray(curve.expected_depth)[thin], **look)
            saved.plot(steps, np.asarray(curve.flops_saved)[thin], **look)
            real = Line2D([], [], color=color, linewidth=0, marker=marker, markersize=4)
            runs[curve.series] = (label_of(curve.label), expected, real)
        saved.set_xlabel("step")
        short_numbers(saved)
    theta, depth, saved = panels[:, 0]
    theta.set_ylabel("theta")
    depth.set_ylabel("depth (layers)")
    saved.set_ylabel("FLOPs saved\nso far")
    saved.set_ylim(bottom=0)
    saved.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.align_ylabels()
    handles: list[Any] = []
    labels: list[str] = []
    if len(runs) > 1:
        expected = Line2D([], [], color=INK, linewidth=1.7)
        real = Line2D([], [], color=INK, linewidth=0, marker=MARKERS[0], markersize=4)
        for label, *both in runs.values():
            labels.append(label)
            handles.append(tuple(both))
    labels += ["expected depth", "real depth"]
    # Of the figure, not of one plot: that would take its width from a narrow column.
    figure.legend(
        [*handles, expected, real],
        labels,
        loc="outside upper left",
        ncols=max(1, min(len(labels), 100 // (max(map(len, labels)) + 6))),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        columnspacing=1.8,
    )
    return figure


def stage_times(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """Seconds by stage as horizontal bars, a colour a run: `{run: {stage: seconds}}`, with each run's shares."""
    stages = list(dict.fromkeys(stage for times in seconds.values() for stage in times))
    height = 0.8 / len(seconds)
    figure, axes = plot(WIDTH, 0.28 * len(stages) * (1 + 0.5 * (len(seconds) - 1)) + 0.8)
    longest = max(value for times in seconds.values() for value in times.values()) or 1.0
    for index, (label, times) in enumerate(seconds.items()):
        total = sum(times.values()) or 1.0
        rows = [stages.index(stage) + (index - (len(seconds) - 1) / 2) * height for stage in times]
        color = SERIES[index % len(SERIES)]
        axes.barh(rows, list(times.values()), height=height * 0.88, color=color, label=label_of(label))
        for row, value in zip(rows, times.values(), strict=True):
            note = f"{duration(value)}, {value / total:.0%}"
            axes.text(value + 0.01 * longest, row, note, va="center", fontsize=SMALL, color=MUTED)
    axes.set(xlim=(0, longest * 1.22), ylim=(len(stages) - 0.4, -0.6), xlabel="time (seconds)")
    axes.set_yticks(range(len(stages)), stages)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=TEXT, labelcolor=INK, length=0)
    short_numbers(axes)
    if len(seconds) > 1:
        legend(axes, columns=4)
    return figure


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Centred running mean over about a fiftieth of the points, at the ends over fewer; same length.

    Values that are not finite (a run that diverged) are left out; NaN where nothing is left.
    """
    numbers = np.asarray(values, dtype=float)
    finite = np.isfinite(numbers)
    half, at = len(numbers) // 100, np.arange(len(numbers))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(numbers))
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, numbers, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    counted = counts[last] - counts[first]
    return np.where(counted > 0, (sums[last] - sums[first]) / np.maximum(counted, 1), np.nan)
