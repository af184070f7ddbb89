"""Pictures of a corpus as matplotlib figures. Knows nothing of files or of the page's words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from data_prep.cleaning.tally import DROPS
from data_prep.formatting import short
from data_prep.plots import (
    INK,
    LABEL_LETTERS,
    LINES,
    MUTED,
    SERIES,
    SMALL,
    WIDTH,
    canvas,
    dress,
    label_of,
    plot,
    short_numbers,
)
from data_prep.stats.figures import Counts, Figures, ShardSet
from data_prep.stats.row_tables import ordinary_counts
from data_prep.stats.tables import labels

_MOST_BARS, _CURVE_POINTS = 24, 300


def source_bars(figures: Figures) -> Figure:
    kept = figures.clean["results"]["tally"]["kept"]
    sizes = sorted(((entry["characters"], name) for name, entry in kept.items()), reverse=True)
    shown = {name: count for count, name in sizes[:_MOST_BARS]}
    if len(sizes) > _MOST_BARS:
        shown[f"{len(sizes) - _MOST_BARS} others"] = sum(count for count, _ in sizes[_MOST_BARS:])
    total = sum(count for count, _ in sizes)
    return _bars(shown, {name: f"{short(count)}, {count / total:.1%}" for name, count in shown.items()}, False)


def drop_bars(figures: Figures) -> Figure | None:
    tally = figures.clean["results"]["tally"]
    dropped = {label: tally["dropped"][r]["characters"] for r, label in labels(tally["dropped"], DROPS).items()}
    if not any(dropped.values()):
        return None
    shown = dropped | {"kept": sum(entry["characters"] for entry in tally["kept"].values())}
    total = sum(shown.values())
    notes = {name: f"{short(count)}, {count / total:.2%}" for name, count in shown.items()}
    return _bars(shown, notes, True, {"kept": SERIES[2]}, letters=max(map(len, shown)))


def _bars(
    values: Mapping[str, float],
    notes: Mapping[str, str],
    is_log: bool,
    colors: Mapping[str, str] | None = None,
    letters: int = LABEL_LETTERS,
) -> Figure:
    figure, axes = plot(WIDTH, 0.27 * len(values) + 0.75)
    names = list(values)
    longest = max(values.values()) or 1
    least = max(1, min((value for value in values.values() if value), default=1)) / 4 if is_log else 0
    axes.barh(names, list(values.values()), height=0.72, color=[(colors or {}).get(name, SERIES[0]) for name in names])
    if is_log:
        axes.set_xscale("log")
    span = np.log10(longest / least) if is_log else 0
    for row, name in enumerate(names):
        axes.annotate(
            notes[name], (max(values[name], least), row), (5, 0), textcoords="offset points", va="center",
            fontsize=SMALL, color=MUTED,
        )  # fmt: skip
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="characters")
    axes.set_xlim((least, longest * 10 ** (0.3 * max(span, 1))) if is_log else (0, longest * 1.2))
    axes.set_yticks(range(len(names)), [label_of(name, letters) for name in names])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.minorticks_off()
    short_numbers(axes)
    return figure


def length_histogram(figures: Figures) -> Figure:
    sample = figures.lengths
    figure = canvas(WIDTH, 2.9)
    units = [("characters", sample.characters)] + ([] if sample.tokens is None else [("tokens", sample.tokens)])
    for axes, (unit, values) in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
        dress(axes)
        edges = np.geomspace(max(1, values.min()) * 0.95, max(2, values.max()) * 1.05, 48)
        for number, (name, mine) in enumerate(_by_source(sample.sources, sample.source, values)):
            shares = np.histogram(np.maximum(mine, 1), edges)[0] / len(mine)
            style: dict[str, Any] = {"color": SERIES[number], "linestyle": LINES[number]}
            axes.stairs(shares, edges, linewidth=1.6, label=label_of(name), **style)
            axes.stairs(shares, edges, fill=True, alpha=0.12, color=SERIES[number])
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set(xlabel=f"length in {unit}", ylabel="of a source's documents")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        short_numbers(axes)
    if len(sample.sources) > 1:
        _legend(figure)
    return figure


def _by_source(names: Sequence[str], source: Counts, values: Counts) -> list[tuple[str, Counts]]:
    """The values of every source; where there are too many for the colours, the least of them together."""
    order = np.argsort(-np.bincount(source, minlength=len(names)), kind="stable")
    single = order if len(names) <= len(SERIES) else order[: len(SERIES) - 1]
    parts = [(names[number], values[source == number]) for number in single]
    if len(single) < len(names):
        parts.append((f"{len(names) - len(single)} others", values[~np.isin(source, single)]))
    return parts


def fill_histograms(sets: Sequence[ShardSet]) -> Figure:
    figure = canvas(WIDTH, 2.9)
    left, right = figure.subplots(1, 2)
    for number, one in enumerate(sets[: len(SERIES)]):
        style: dict[str, Any] = {"color": SERIES[number], "linestyle": LINES[number]}
        length, rows = one.index["row_length"], one.sample.rows
        filled = np.arange(length + 1) / length
        fewer = np.concatenate([[0], np.cumsum(one.sample.by_tokens)[:-1]]) / rows
        left.plot(filled, fewer, linewidth=1.6, label=label_of(one.name), **style)
        pieces = one.sample.by_pieces / rows
        last = int(np.flatnonzero(pieces)[-1])
        edges = np.arange(last + 2) - 0.5
        right.stairs(pieces[: last + 1], edges, linewidth=1.6, **style)
        right.stairs(pieces[: last + 1], edges, fill=True, alpha=0.12, color=SERIES[number])
    for axes in (left, right):
        dress(axes)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    left.set(xlabel="of a row filled with tokens", ylabel="rows with fewer", xlim=(0, 1))
    left.xaxis.set_major_formatter(PercentFormatter(1))
    left.set_ylim(0, max(0.02, *(_not_full(one) for one in sets)))
    right.set(xlabel="pieces in a row", ylabel="rows")
    right.set_xlim(left=0.5)
    right.xaxis.get_major_locator().set_params(integer=True)
    if len(sets) > 1:
        _legend(figure)
    return figure


def _not_full(one: ShardSet) -> float:
    """A little over the share of rows that are not full."""
    return min(1.0, 1.15 * float(one.sample.by_tokens[:-1].sum()) / one.sample.rows)


def rank_curve(sets: Sequence[ShardSet]) -> Figure | None:
    """None where no set has a token that is an entry."""
    if not sets:
        return None
    figure, axes = plot(WIDTH, 3.2)
    for number, one in enumerate(sets[: len(SERIES)]):
        counts = ordinary_counts(one)
        ranked = np.sort(counts)[::-1]
        ranked = ranked[ranked > 0]
        ranks = np.unique(np.geomspace(1, len(ranked), _CURVE_POINTS).astype(int))
        occur = f"{len(ranked):,} of {len(counts):,} entries occur, {len(ranked) / len(counts):.1%}"
        axes.plot(
            ranks, ranked[ranks - 1] / ranked.sum(), linewidth=1.8, label=f"{label_of(one.name)}: {occur}",
            color=SERIES[number], linestyle=LINES[number],
        )  # fmt: skip
    axes.axvline(len(ordinary_counts(sets[0])), color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    axes.set(
        xscale="log", yscale="log", xlabel="rank of the token (dotted: the whole vocabulary)", ylabel="share of text"
    )
    axes.minorticks_off()
    short_numbers(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.12f}".rstrip("0").rstrip(".") + " %"))
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = max(1, min(4, 100 // (max(map(len, names)) + 6)))
    figure.legend(
        handles, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=SMALL, labelcolor=INK
    )
