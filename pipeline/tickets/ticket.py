"""The ticket: which heads and neurons of a dense model stay, as a readable file with its provenance.

Numpy only, no torch. Knows nothing of scores over time (`draw`) or of weights (`surgery`).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import write_atomically
from pipeline.families.shape import LayerShape, Shape
from pipeline.families.stock_shape import read_shape
from pipeline.tickets.select import GROUPS, TicketRules

FORMAT = 1
_KEYS = {"format", "dense_shape", "layers", "step", "score", "settled", "distances", "rules", "provenance"}
# What may differ between the model a ticket was drawn from and the one it is applied to.
_FREE_KEYS = {"dropout", "attention_dropout", "layer_norm_eps", "initializer_range"}
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?", re.ASCII)


@dataclass(frozen=True)
class Ticket:
    """Kept units of every layer of `dense_shape`, and how they were chosen.

    `heads` and `neurons` hold sorted indices a layer; `distances` the mask distances at the draw, a group.
    """

    dense_shape: Shape
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]
    step: int
    score: str
    settled: bool
    rules: TicketRules
    distances: dict[str, list[float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kept, widths in (
            ("heads", self.heads, [layer.heads for layer in self.dense_shape.layers]),
            ("neurons", self.neurons, [layer.ffn for layer in self.dense_shape.layers]),
        ):
            if len(kept) != len(widths):
                raise UserError(f"{name}: {len(kept)} layers, but dense_shape has {len(widths)}")
            for layer, (units, width) in enumerate(zip(kept, widths, strict=True)):
                _check_units(units, width, f"layers[{layer}].{name}")

    def slim_shape(self) -> Shape:
        """The shape of the model that is left."""
        layers = zip(self.heads, self.neurons, strict=True)
        return self.dense_shape.with_layers(tuple(LayerShape(len(h), len(n)) for h, n in layers))

    def check_fits(self, shape: Shape) -> None:
        """Raise UserError unless `shape` is the one the ticket was drawn from, dropout and the like aside."""
        ours, theirs = self.dense_shape.to_dict(), shape.to_dict()
        keys = [key for key in ours if key not in _FREE_KEYS and ours[key] != theirs.get(key)]
        if keys:
            ours, theirs = ({key: _brief(values.get(key)) for key in keys} for values in (ours, theirs))
            raise UserError(
                f"a ticket for another model: it was drawn from a model with {_listed(ours)}, this one "
                f"has {_listed(theirs)}; draw a ticket from this model or use the model of the ticket"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; kept units as text such as "0-7 12 16-23"."""
        layers = zip(self.heads, self.neurons, strict=True)
        return {
            "format": FORMAT,
            "score": self.score,
            "step": self.step,
            "settled": self.settled,
            "distances": self.distances,
            "rules": asdict(self.rules),
            "dense_shape": self.dense_shape.to_dict(),
            "layers": [{"heads": _to_ranges(h), "neurons": _to_ranges(n)} for h, n in layers],
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, values: Any) -> "Ticket":
        """The ticket `to_json` wrote. Raises UserError naming the field that is wrong."""
        if not isinstance(values, dict):
            raise UserError(f"a ticket is a JSON object, got {_brief(values)}")
        if values.get("format") != FORMAT:
            raise UserError(f"format: this version reads {FORMAT}, got {values.get('format')!r}")
        _check_keys(values, _KEYS, "the ticket")
        return cls(
            dense_shape=_shape(values["dense_shape"]),
            heads=_units(values["layers"], "heads"),
            neurons=_units(values["layers"], "neurons"),
            step=_typed(values, "step", int, lambda step: step >= 0, "a step counted from 0"),
            score=_typed(values, "score", str, bool, "the name of a score"),
            settled=_typed(values, "settled", bool, None, "true or false"),
            distances=_distances(values["distances"]),
            rules=_rules(values["rules"]),
            provenance=_typed(values, "provenance", dict, None, "an object"),
        )

    def write(self, path: Path) -> None:
        """Write the ticket's JSON; a crash leaves the old file or the whole new one."""
        write_atomically(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Ticket":
        """Read and check a ticket. Raises UserError naming the file and the field that is wrong."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"there is no ticket at {path}; run the draw stage first") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid JSON ({error}); draw the ticket again") from error
        except UserError as error:
            raise UserError(f"{path} is not a ticket this version can use: {error}; draw it again") from error


def _check_units(units: Sequence[int], width: int, where: str) -> None:
    if not units:
        raise UserError(f"{where}: no unit is kept; every layer keeps at least one")
    for before, after in pairwise(units):
        if after <= before:
            raise UserError(f"{where}: indices must rise without repeats, got {after} after {before}")
    if units[0] < 0 or units[-1] >= width:
        wrong = units[0] if units[0] < 0 else units[-1]
        raise UserError(f"{where}: index {wrong} is outside 0..{width - 1}, the units of that layer")


def _to_ranges(units: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for unit in units:
        if runs and unit == runs[-1][1] + 1:
            runs[-1][1] = unit
        else:
            runs.append([unit, unit])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _from_ranges(text: str, where: str) -> tuple[int, ...]:
    units: list[int] = []
    for part in text.split():
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UserError(f"{where}: {part!r} is neither an index nor a range such as 8-15")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise UserError(f"{where}: the range {part!r} ends before it starts")
        if last - first > 1 << 24:
            raise UserError(f"{where}: the range {part!r} is wider than any layer")
        units += range(first, last + 1)
    return tuple(units)


def _units(layers: Any, group: str) -> tuple[tuple[int, ...], ...]:
    if not isinstance(layers, list):
        raise UserError(f"layers: expected a list with one object a layer, got {_brief(layers)}")
    kept = []
    for index, layer in enumerate(layers):
        where = f"layers[{index}]"
        if not isinstance(layer, dict):
            raise UserError(f"{where}: expected an object with heads and neurons, got {_brief(layer)}")
        _check_keys(layer, set(GROUPS), where)
        units = layer[group]
        if isinstance(units, str):
            kept.append(_from_ranges(units, f"{where}.{group}"))
        elif isinstance(units, list) and all(type(unit) is int for unit in units):
            kept.append(tuple(units))
        else:
            raise UserError(f"{where}.{group}: expected ranges as text or a list of indices, got {_brief(units)}")
    return tuple(kept)


def _shape(values: Any) -> Shape:
    if not isinstance(values, dict):
        raise UserError(f"dense_shape: expected an object, got {_brief(values)}")
    try:
        return read_shape(values)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"dense_shape: {error}") from error


def _rules(values: Any) -> TicketRules:
    if not isinstance(values, dict):
        raise UserError(f"rules: expected an object, got {_brief(values)}")
    _check_keys(values, {item.name for item in fields(TicketRules)}, "rules")
    try:
        return TicketRules(**values)
    except (UserError, TypeError) as error:
        raise UserError(f"rules: {error}") from error


def _distances(values: Any) -> dict[str, list[float]]:
    if not isinstance(values, dict):
        raise UserError(f"distances: expected an object with a list a group, got {_brief(values)}")
    for group, numbers in values.items():
        good = isinstance(numbers, list) and all(
            type(number) in (int, float) and math.isfinite(number) and 0 <= number <= 1 for number in numbers
        )
        if group not in GROUPS or not good:
            raise UserError(f"distances.{group}: expected a list of numbers in 0..1, got {_brief(numbers)}")
    return values


def _typed(values: Mapping[str, Any], key: str, kind: type, good: Any, wanted: str) -> Any:
    value = values[key]
    if type(value) is not kind or (good is not None and not good(value)):
        raise UserError(f"{key}: expected {wanted}, got {_brief(value)}")
    return value


def _check_keys(values: Mapping[str, Any], known: set[str], where: str) -> None:
    missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    if unknown:
        raise UserError(f"{where} has unknown keys: {', '.join(unknown)}")


def _brief(value: Any) -> Any:
    """A value short enough for one line of a message."""
    if isinstance(value, list) and value and all(item == value[0] for item in value) and len(value) > 1:
        return f"{len(value)} x {value[0]}"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
