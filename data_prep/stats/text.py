"""Tables as lines of text. Knows nothing of what they are about."""

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
