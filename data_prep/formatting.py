"""Numbers, and kinds of values, as a reader says them."""

from collections.abc import Mapping
from typing import Any


def short(value: float) -> str:
    """A number in four digits at most: 950, 12.3 k, 4.5 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        # What rounds to 1000 k is 1 M.
        if abs(value) >= size * 0.99995:
            return f"{float(f'{value / size:.4g}'):g}{unit}"
    return f"{float(f'{value:.4g}'):g}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 8.2 s, 12 min 05 s, 3 h 20 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def share_of(part: float, whole: float) -> str:
    """A part in percent; "-" where there is no whole."""
    return f"{part / whole:.2%}" if whole else "-"


def size(number: float) -> str:
    """Bytes as a reader says them."""
    return f"{short(number)}B" if number >= 1000 else f"{number:.0f} B"


def kind_of(value: Any) -> str:
    """What a value of JSON or of a table is: null, a number, a list."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, bytes | bytearray):
        return "bytes"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else f"a value of kind {type(value).__name__}"
