"""Pictures of a corpus as matplotlib figures, and how they get into a page.

Knows nothing of files or of the page's words. Colours are those of Okabe and Ito (safe for colour-blind readers), told
apart by line styles as well; every colour is one of the constants below, which the page's CSS variables replace.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from data_prep.cleaning.tally import DROPS
from data_prep.stats.figures import Counts, Figures, ShardSet
from data_prep.stats.row_tables import ordinary_counts
from data_prep.stats.tables import labels
from data_prep.stats.text import short

INK, MUTED, GRID = "#1b1f24", "#6a737d", "#dfe3e8"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)), (0, (4, 1)))
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--series-{n}" for n, c in enumerate(SERIES)}
_WIDTH, _SMALL, _TEXT = 7.6, 8.5, 9.5
_MOST_BARS, _LABEL_LETTERS, _CURVE_POINTS = 24, 44, 300


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
    return _bars(shown, notes, True, {"kept": SERIES[2]})


def _bars(
    values: Mapping[str, float], notes: Mapping[str, str], is_log: bool, colors: Mapping[str, str] | None = None
) -> Figure:
    figure, axes = _plot(_WIDTH, 0.27 * len(values) + 0.75)
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
            fontsize=_SMALL, color=MUTED,
        )  # fmt: skip
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="characters")
    axes.set_xlim((least, longest * 10 ** (0.3 * max(span, 1))) if is_log else (0, longest * 1.2))
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.minorticks_off()
    _short_numbers(axes)
    return figure


def length_histogram(figures: Figures) -> Figure:
    sample = figures.lengths
    figure = _canvas(_WIDTH, 2.9)
    units = [("characters", sample.characters)] + ([] if sample.tokens is None else [("tokens", sample.tokens)])
    for axes, (unit, values) in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
        _dress(axes)
        edges = np.geomspace(max(1, values.min()) * 0.95, max(2, values.max()) * 1.05, 48)
        for number, (name, mine) in enumerate(_by_source(sample.sources, sample.source, values)):
            shares = np.histogram(np.maximum(mine, 1), edges)[0] / len(mine)
            style: dict[str, Any] = {"color": SERIES[number], "linestyle": LINES[number]}
            axes.stairs(shares, edges, linewidth=1.6, label=_label(name), **style)
            axes.stairs(shares, edges, fill=True, alpha=0.12, color=SERIES[number])
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set(xlabel=f"length in {unit}", ylabel="of a source's documents")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        _short_numbers(axes)
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
    figure = _canvas(_WIDTH, 2.9)
    left, right = figure.subplots(1, 2)
    for number, one in enumerate(sets[: len(SERIES)]):
        style: dict[str, Any] = {"color": SERIES[number], "linestyle": LINES[number]}
        length, rows = one.index["row_length"], one.sample.rows
        filled = np.arange(length + 1) / length
        fewer = np.concatenate([[0], np.cumsum(one.sample.by_tokens)[:-1]]) / rows
        left.plot(filled, fewer, linewidth=1.6, label=_label(one.name), **style)
        pieces = one.sample.by_pieces / rows
        last = int(np.flatnonzero(pieces)[-1])
        edges = np.arange(last + 2) - 0.5
        right.stairs(pieces[: last + 1], edges, linewidth=1.6, **style)
        right.stairs(pieces[: last + 1], edges, fill=True, alpha=0.12, color=SERIES[number])
    for axes in (left, right):
        _dress(axes)
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


def rank_curve(sets: Sequence[ShardSet]) -> Figure:
    figure, axes = _plot(_WIDTH, 3.2)
    for number, one in enumerate(sets[: len(SERIES)]):
        counts = ordinary_counts(one)
        ranked = np.sort(counts)[::-1]
        ranked = ranked[ranked > 0]
        if not len(ranked):
            continue
        ranks = np.unique(np.geomspace(1, len(ranked), _CURVE_POINTS).astype(int))
        label = f"{one.name}: {len(ranked):,} of {len(counts):,} entries occur, {len(ranked) / len(counts):.1%}"
        axes.plot(
            ranks, ranked[ranks - 1] / ranked.sum(), linewidth=1.8, label=_label(label), color=SERIES[number],
            linestyle=LINES[number],
        )  # fmt: skip
    axes.axvline(len(ordinary_counts(sets[0])), color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    axes.set(
        xscale="log", yscale="log", xlabel="rank of the token (dotted: the whole vocabulary)", ylabel="share of text"
    )
    axes.minorticks_off()
    _short_numbers(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.12f}".rstrip("0").rstrip(".") + " %"))
    _legend(figure)
    return figure


def _canvas(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches; without pyplot, so that no global state is left behind."""
    return Figure(figsize=(width, height), layout="constrained")


def _plot(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _canvas(width, height)
    axes = figure.subplots()
    _dress(axes)
    return figure, axes


def _dress(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=_SMALL, length=3, width=0.7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=INK, fontsize=_TEXT)


def _legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = max(1, min(4, 100 // (max(map(len, names)) + 6)))
    figure.legend(
        handles, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=_SMALL, labelcolor=INK
    )


def _short_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _label(name: str) -> str:
    """The end of a long name, and nothing that matplotlib would read as mathematics or leave out of a legend."""
    if len(name) > _LABEL_LETTERS and " " not in name:
        name = "..." + name[3 - _LABEL_LETTERS :]
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def svg_of(figure: Figure, prefix: str, description: str) -> Markup:
    """The figure as an <svg> element whose text is the page's and whose colours are its CSS variables."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(f": {color}", f": var({variable})")
    opening, rest = text.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    # Our own drawing; labels inside of it were escaped by the SVG writer.
    return Markup(f'{opening} role="img" aria-label="{description}">{rest}')
