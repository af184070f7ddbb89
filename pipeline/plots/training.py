"""Pictures of training: losses, learning rate, time. Knows numbers and labels, nothing of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.plots.style import (
    INK,
    LINES,
    MARKERS,
    MUTED,
    SERIES,
    SMALL,
    TEXT,
    WIDTH,
    duration,
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
