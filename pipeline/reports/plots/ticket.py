"""Pictures of the search: what a ticket keeps, and how the masks settled. Knows tickets, nothing of files."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from data_prep.plots import (
    CUT,
    GRID,
    INK,
    KEPT,
    LINES,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    dress,
    every_few,
    legend,
    plot,
    strip_frame,
    with_gaps,
)
from pipeline.tickets.ticket import Ticket

_STRIP_COLUMNS, _MAP_PIXELS = 720, 600


def kept_heads(ticket: Ticket) -> Figure:
    """Attention heads: a row a layer, a square a head, filled where it stays."""
    totals = [layer.heads for layer in ticket.dense_shape.layers]
    layers, widest = len(totals), max(totals)
    figure, axes = plot(max(3.4, 0.3 * widest + 1.7), 0.3 * layers + 0.9)
    for layer, (units, total) in enumerate(zip(ticket.heads, totals, strict=True)):
        for head in range(total):
            stays = head in units
            axes.add_patch(
                Rectangle(
                    (head - 0.41, layer - 0.41),
                    0.82,
                    0.82,
                    facecolor=KEPT if stays else "none",
                    edgecolor=KEPT if stays else MUTED,
                    linewidth=0.9,
                    linestyle="-" if stays else (0, (2, 1.5)),
                )
            )
        note = f"{len(units)} of {total}"
        axes.text(widest - 0.3, layer, note, va="center", ha="left", fontsize=SMALL, color=MUTED)
    axes.set(xlim=(-0.6, widest + 1.4), ylim=(layers - 0.4, -0.6), aspect="equal", xlabel="head", ylabel="layer")
    axes.set_xticks(every_few(widest))
    axes.set_yticks(every_few(layers))
    strip_frame(axes)
    return figure


def kept_neurons(ticket: Ticket) -> Figure:
    """Feed-forward neurons: how many stay a layer (left) and which (right, a thin line a kept neuron)."""
    totals = [layer.ffn for layer in ticket.dense_shape.layers]
    layers, widest = len(totals), max(totals)
    figure = canvas(WIDTH, 0.32 * layers + 0.9)
    bars, strip = figure.subplots(1, 2, sharey=True, width_ratios=[1, 2.2])
    for axes in (bars, strip):
        dress(axes)
        axes.barh(range(layers), totals, height=0.68, color=CUT)
        axes.set_xlim(0, widest)
        strip_frame(axes)
    bars.barh(range(layers), [len(units) for units in ticket.neurons], height=0.68, color=KEPT)
    # One colour at more or less opacity over the grey bar: where neurons are finer than pixels, density shows.
    colors = LinearSegmentedColormap.from_list("kept", [to_rgba(KEPT, 0.0), to_rgba(KEPT, 1.0)])
    for row, (units, total) in enumerate(zip(ticket.neurons, totals, strict=True)):
        inside = len(units) > 0.5 * widest
        bars.text(
            len(units) + (-0.02 if inside else 0.02) * widest,
            row,
            f"{len(units):,} of {total:,}",
            va="center",
            ha="right" if inside else "left",
            fontsize=SMALL,
            color=PAPER if inside else INK,
        )
        mask = np.zeros(total)
        mask[list(units)] = 1.0
        strip.imshow(
            _binned(mask, _STRIP_COLUMNS)[None, :],
            cmap=colors,
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
            extent=(0, total, row + 0.34, row - 0.34),
            zorder=3,
        )
    strip.set(xlim=(0, widest), ylim=(layers - 0.5, -0.5), xlabel="neuron")
    strip.tick_params(labelleft=False)
    bars.set(xlabel="neurons kept", ylabel="layer")
    bars.set_yticks(every_few(layers))
    bars.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    strip.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def distance_curves(
    steps: Sequence[int],
    newest: Mapping[str, Sequence[float | None]],
    largest: Mapping[str, Sequence[float | None]],
    threshold: float,
    guard_step: int,
    draw_step: int | None,
) -> Figure:
    """Mask distances over steps, a colour a group.

    `newest` is the distance to the mask before, `largest` the largest in the queue, the one held against
    `threshold`; None where there was nothing to compare with. The steps before `guard_step`, in which nothing may
    settle, are shaded, and the step of the draw is marked.
    """
    figure, axes = plot(WIDTH, 3.1)
    last = max([*steps, draw_step or 0, 1])
    if guard_step > 0:
        axes.axvspan(0, min(guard_step, last), color=GRID, alpha=0.45, linewidth=0)
        _note(axes, "too early to draw", 0, 1, (5, -12), MUTED, ("data", "axes fraction"))
    axes.axhline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    _note(axes, f"threshold\n{threshold:g}", 1, threshold, (4, -7), INK, ("axes fraction", "data"))
    for index, group in enumerate(newest):
        color = SERIES[index]
        axes.plot(
            steps,
            with_gaps(largest[group]),
            color=color,
            linewidth=1.9,
            linestyle=LINES[index],
            label=f"{group}: largest in the queue",
        )
        axes.plot(
            steps,
            with_gaps(newest[group]),
            color=color,
            linewidth=0,
            marker=MARKERS[index],
            markersize=3.4,
            alpha=0.75,
            label=f"{group}: to the mask before",
        )
    if draw_step is not None:
        axes.axvline(draw_step, color=SERIES[2], linewidth=1.6)
        left = draw_step > 0.7 * last
        text, offset = f"ticket drawn, step {draw_step:,}", (-5 if left else 5, -12)
        _note(axes, text, draw_step, 1, offset, SERIES[2], ("data", "axes fraction"), "right" if left else "left")
    axes.set(xlim=(0, last * 1.02), xlabel="step", ylabel="mask distance\n(share of units that differ)")
    low, high = axes.get_ylim()
    axes.set_ylim(0, high + 0.12 * (high - low))
    legend(axes, columns=2)
    return figure


def distance_heat_map(steps: Sequence[int], distances: Mapping[str, np.ndarray], draw_step: int | None) -> Figure:
    """Distances between the masks of all observations, an (n, n) array a group, on one colour scale."""
    figure = canvas(WIDTH, 3.6, "compressed")
    panels = np.atleast_1d(figure.subplots(1, len(distances), sharey=True))
    top = max([0.01, *(float(matrix.max()) for matrix in distances.values())])
    edges = _edges(steps)
    for axes, (group, matrix) in zip(panels, distances.items(), strict=True):
        dress(axes)
        image = axes.imshow(
            _evenly(matrix, edges),
            cmap="cividis_r",
            vmin=0,
            vmax=top,
            origin="lower",
            extent=(edges[0], edges[-1], edges[0], edges[-1]),
            interpolation="nearest",
        )
        axes.set_title(group, fontsize=TEXT + 0.5, color=INK, loc="left")
        axes.set_xlabel("step")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
        if draw_step is not None:
            for line in (axes.axvline, axes.axhline):
                line(draw_step, color=SERIES[1], linewidth=1.3, linestyle=(0, (4, 2)))
            _note(axes, f"ticket: step {draw_step:,}", 1, 1, (0, 5), SERIES[1], "axes fraction", "right")
        strip_frame(axes)
    panels[0].set_ylabel("step")
    bar = figure.colorbar(image, ax=panels.tolist(), shrink=0.86, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("share of units that differ", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED, length=2)
    return figure


def _note(
    axes: Axes,
    text: str,
    x: float,
    y: float,
    offset: tuple[float, float],
    color: str,
    coordinates: Any,
    align: str = "left",
) -> None:
    axes.annotate(
        text,
        (x, y),
        xycoords=coordinates,
        xytext=offset,
        textcoords="offset points",
        ha=align,
        fontsize=SMALL,
        color=color,
    )


def _binned(row: np.ndarray, columns: int) -> np.ndarray:
    """Means of neighbours where there are more values than `columns`."""
    if row.size <= columns:
        return row
    starts = np.linspace(0, row.size, columns + 1).astype(int)
    return np.array([row[first:last].mean() for first, last in itertools.pairwise(starts)])


def _edges(steps: Sequence[int]) -> np.ndarray:
    """Cell borders half-way between observations."""
    middles = np.asarray(steps, dtype=float)
    if middles.size == 1:
        return np.array([middles[0] - 0.5, middles[0] + 0.5])
    between = (middles[1:] + middles[:-1]) / 2
    return np.concatenate([[2 * middles[0] - between[0]], between, [2 * middles[-1] - between[-1]]])


def _evenly(matrix: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The matrix on an even raster, so that observations at uneven steps get cells of their true size."""
    widths = np.diff(edges)
    if np.allclose(widths, widths[0]):
        return matrix
    at = edges[0] + (np.arange(_MAP_PIXELS) + 0.5) / _MAP_PIXELS * (edges[-1] - edges[0])
    cell = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(matrix) - 1)
    return matrix[np.ix_(cell, cell)]
