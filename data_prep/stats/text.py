"""Tables as lines of text, and numbers as a reader says them. Knows nothing of what they are about."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells are text; the first `labels` columns stand to the left, numbers behind them to the right."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    labels: int = 1
    note: str = ""


def text_of(table: Table) -> str:
    """A table as lines for a terminal."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    text = [table.title]
    for line in lines:
        cells = [
            cell.ljust(width) if column < table.labels else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  " + "  ".join(cells).rstrip())
    return "\n".join(text + ([f"  {table.note}"] if table.note else []))


def share_of(part: float, whole: float) -> str:
    """A part in percent; "-" where there is no whole."""
    return f"{part / whole:.2%}" if whole else "-"


def size(number: float) -> str:
    """Bytes as a reader says them."""
    return f"{short(number)}B" if number >= 1000 else f"{number:.0f} B"


def short(value: float) -> str:
    """A number in three or four digits: 950, 12.3 k, 4.5 M."""
    for one, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        # What rounds to 1000 k is 1 M.
        if abs(value) >= one * 0.9995:
            return f"{float(f'{value / one:.3g}'):g}{unit}"
    return f"{float(f'{value:.3g}'):g}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 8.2 s, 12 min 05 s, 3 h 20 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
