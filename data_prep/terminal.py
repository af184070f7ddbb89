"""Printing text of unknown origin: nothing in it may steer the terminal, or end the command.

Knows nothing of what is printed.
"""

import os
import re
import sys
import unicodedata
from typing import TextIO

# What would move the cursor or turn the direction of writing round.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def wants_color(stream: TextIO) -> bool:
    """Whether to colour what goes to `stream`: a terminal that can, and a user who has not set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def visible(text: str) -> str:
    """Text with what would steer a terminal as escapes such as \\x1b; line ends stay."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    """The same, with line ends as \\n."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def columns_of(text: str) -> int:
    """Columns that a text without steering characters takes in a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def show(text: str) -> None:
    """Print to standard output, with escapes for characters that its encoding does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
