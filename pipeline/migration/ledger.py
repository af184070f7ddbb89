"""What becomes of an old config, key by key: the recipe's values, the engine's, and a line for each key."""

import difflib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.recipes.recipe import Recipe

Kind = Literal["kept", "moved", "dropped", "open"]
Block = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """What became of one key of the old file. "open": it cannot be said here, or the file does not tell."""

    kind: Kind
    key: str
    text: str
    to: str | None = None

    def __str__(self) -> str:
        return f"{self.kind:<8} {self.key}{'' if self.text.startswith(' ') else ': '}{self.text}"


@dataclass
class Ledger:
    """`recipe` by section, `engine`, the lines, what translated layer dropping changes, and what is wrong."""

    recipe: dict[str, Block] = field(default_factory=dict)
    engine: Block = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def move(self, key: str, to: str, value: Any, why: str = "") -> None:
        """Set the recipe's key `to`. What another key had put there is overruled, and its line says so."""
        if value is None or not _is_finite(value):
            wanted = "value" if value is None else "finite number"
            self.problems.append(f"{key} is {json.dumps(value)}, wanted a {wanted}")
            return
        for at, line in enumerate(self.lines):
            if line.to == to:
                self.lines[at] = Line("dropped", line.key, f"{key} overrules it")
        section, name = to.split(".")
        self.recipe.setdefault(section, {})[name] = value
        self.lines.append(Line("moved", key, f" -> {to} = {json.dumps(value)}{_because(why)}", to))

    def keep(self, key: str, value: Any, name: str = "", why: str = "") -> None:
        """Set a key of the engine config, under a new `name` where it has one."""
        self.engine[name or key] = value
        self.lines.append(Line("kept", key, f"{f' -> {name}' if name else ''} = {json.dumps(value)}{_because(why)}"))

    def drop(self, key: str, why: str) -> None:
        self.lines.append(Line("dropped", key, why))

    def leave_open(self, key: str, why: str) -> None:
        self.lines.append(Line("open", key, why))

    def auto(self, key: str, to: str) -> None:
        """A value "auto", which Hugging Face's Trainer filled in: the recipe's key `to` has its default."""
        section, name = to.split(".")
        value = json.dumps(getattr(getattr(Recipe(), section), name))
        self.leave_open(key, f'"auto" was left to Hugging Face\'s Trainer: {to} has its default, {value}')

    def unknown(self, key: str, known: Collection[str]) -> None:
        close = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        self.drop(key, f"not among the keys of DeepSpeed 0.19.8 that this pipeline takes{hint}")

    def is_number(self, key: str, value: Any, whole: bool = False, least: float = 0) -> bool:
        """Whether `value` is a number of `least` or more; if not, it is one more problem."""
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and value >= least
        if not good:
            wanted = f"a{' whole' if whole else ''} number of {least:g} or more"
            self.problems.append(f"{key} is {json.dumps(value)}, wanted {wanted}")
        return bool(good)

    def params(self, key: str, block: Any) -> Block | None:
        """The parameters of a block {"type": ..., "params": {...}}; None, and a problem, where it is not one."""
        if not isinstance(block, dict) or "type" not in block or not isinstance(block.get("params", {}), dict):
            wanted = '{"type": "...", "params": {...}}'
            self.problems.append(f"{key} is {json.dumps(block)}, wanted a block such as {wanted}")
            return None
        return dict(block.get("params", {}))


def _is_finite(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(math.isfinite(one) for one in values if isinstance(one, float))


def defaults(section: str, *without: str) -> str:
    """A section of the recipe as it is when nobody sets anything, in words."""
    values = getattr(Recipe(), section).model_dump(exclude_none=True, exclude={*without})
    return f"[{section}] has its defaults, " + ", ".join(f"{key} = {json.dumps(v)}" for key, v in values.items())


def _because(why: str) -> str:
    return f" ({why})" if why else ""
