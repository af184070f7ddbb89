"""The arguments of one template call, split into those with and without a name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NAME = re.compile(r"[\w .-]{1,40}")


@dataclass(frozen=True)
class Arguments:
    """The arguments of one template: those without a name, in order, and the others by name in lower case."""

    listed: list[str]
    named: dict[str, str]

    def __getitem__(self, index: int) -> str:
        """The index-th unnamed argument, "" where there is none."""
        return self.listed[index] if -len(self.listed) <= index < len(self.listed) else ""

    def any_of(self, *names: str) -> str:
        """The first of these named arguments that says something, "" where none does."""
        return next((self.named[name] for name in names if self.named.get(name)), "")


def split_arguments(parts: Sequence[str]) -> Arguments:
    """Arguments from the parts of a template's body behind its name; `1=text` counts as unnamed."""
    listed: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not _NAME.fullmatch(name):
            listed.append(part.strip())
        elif name == str(len(listed) + 1):
            listed.append(value.strip())
        else:
            named[name] = value.strip()
    return Arguments(listed, named)
