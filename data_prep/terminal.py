"""Printing text of unknown origin: nothing in it may steer the terminal, or end the command.

Knows nothing of what is printed.
"""

import os
import re
import sys
import unicodedata
from typing import TextIO

# What would move the cursor or turn the direction of writing round, and bytes of file names that are not UTF-8.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def wants_color(stream: TextIO) -> bool:
    """Whether to colour what goes to `stream`: a terminal that can, and a user who has not set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def visible(text: str) -> str:
    """Text with what would steer a terminal as escapes such as \\x1b; line ends stay."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    """The same, with line ends as \\n."""
    return _STEERING.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    # How Python writes bytes of names that are not UTF-8 (PEP 383).
    return (
        f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number < 0xDD00 else found[0].encode("unicode_escape").decode("ascii")
    )


def columns_of(text: str) -> int:
    """Columns that a text without steering characters takes in a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def show(text: str) -> None:
    """Print to standard output, with escapes for characters that its encoding does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
