"""One look for all pictures, and how they get into a page. Knows nothing of what is drawn.

Figures are made without pyplot, so that no global state is left in a training process. Colours are those of Okabe
and Ito (safe for colour-blind readers), told apart in grey print by markers and line styles as well. Every colour
is one of the constants below, so that `svg_of` can swap them for the CSS variables of a light or dark page.
"""

import io
import re
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from data_prep.formatting import short

INK, MUTED, GRID, PAPER = "#1b1f24", "#6a737d", "#dfe3e8", "#fdfdfe"
KEPT, CUT = "#0b6fae", "#e6e9ed"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P")
LINES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)), (0, (4, 1)))
CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    KEPT: "--kept",
    CUT: "--cut",
} | {color: f"--series-{index}" for index, color in enumerate(SERIES)}

WIDTH = 7.6
SMALL, TEXT = 8.5, 9.5
LABEL_LETTERS = 48
_LEGEND_LETTERS = 100


def canvas(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure, sizes in inches; `compressed` suits plots of fixed aspect."""
    figure = Figure(figsize=(width, height), layout=layout, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def plot(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one dressed plot, sizes in inches."""
    figure = canvas(width, height)
    axes = figure.subplots()
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """Quiet spines, a faint grid, readable labels."""
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=SMALL, length=3, width=0.7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=INK, fontsize=TEXT)


def strip_frame(axes: Axes) -> None:
    """No grid, spines and tick marks: for pictures whose cells are their own grid."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def legend(axes: Axes, columns: int) -> None:
    """The legend above the plot, where it hides nothing, in so many columns or fewer if they are too wide."""
    longest = max(len(label) for label in axes.get_legend_handles_labels()[1])
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=max(1, min(columns, _LEGEND_LETTERS // (longest + 6))),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        borderaxespad=0.3,
        columnspacing=1.8,
    )


def label_of(name: str, letters: int = LABEL_LETTERS) -> str:
    """A name as a label: the end of one with more letters, and nothing that matplotlib would read as mathematics."""
    if len(name) > letters:
        name = "..." + name[3 - letters :]
    # Labels that begin with an underscore are left out by matplotlib.
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def short_numbers(axes: Axes) -> None:
    """x labels such as 12 k instead of 12000."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def every_few(count: int) -> list[int]:
    """Tick positions 0, k, 2k .. below `count`, at most two dozen."""
    return list(range(0, count, max(1, -(-count // 24))))


def with_gaps(values: Sequence[float | None]) -> np.ndarray:
    """None as NaN, where a line breaks."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def svg_of(figure: Figure, prefix: str, description: str) -> Markup:
    """The figure as an <svg> element to stand inside a page; `description` is read to those who cannot see it.

    Text stays text in the page's own font, the background is the page's, colours are the page's CSS variables (see
    CSS_VARIABLES), and every id begins with `prefix`, so that several figures can share one page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for color, variable in CSS_VARIABLES.items():
        text = text.replace(f": {color}", f": var({variable})")
    # The page scales it to the width at hand; --natural is the width it was drawn for.
    opening, rest = text.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    opening += f' style="--natural: {figure.get_figwidth():.2f}in"'
    # Our own drawing; labels inside of it were escaped by the SVG writer.
    return Markup(f'{opening} role="img" aria-label="{escape(description)}">{rest}')
