"""A source as the user named it, and a raw file as it was found there.

Knows nothing of how files are found or read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from data_prep.raw.archives import Inside, open_member
from data_prep.raw.compression import Compression
from data_prep.raw.recognise import Format
from data_prep.raw.tables import Hub


@dataclass(frozen=True)
class Source:
    """A source as the user named it. `format` None: recognised by content; `text`: the column, "text" if None.

    `format` "lines" on parquet and hub sources says that every row is one line of a running text.
    """

    location: str
    name: str
    is_hub: bool = False
    format: Format | None = None
    text: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None


@dataclass(frozen=True)
class RawFile:
    """A raw file of a known format, or a hub's data set as if it were one.

    `name` is its path below its source as it can be printed; `rank` the position of its source; `parts` the row
    groups of a parquet file or the shards of a data set; `rows_are_lines`: the rows of a table are lines of a running
    text. `fingerprint` stands for the hash of a data set, which has no bytes here. `inside`: it is a member of an
    archive, and `path` names both. `problem`: why there is nothing to be read, as one line. `is_empty`: that is as it
    should be. `hint`: what else the file may be.
    """

    path: str
    name: str
    source: str
    rank: int
    format: Format
    compression: Compression
    size: int
    text: str = "text"
    parts: int = 0
    rows_are_lines: bool = False
    hub: Hub | None = None
    fingerprint: str = ""
    inside: Inside | None = None
    problem: str = ""
    is_empty: bool = False
    hint: str = ""

    @property
    def on_disk(self) -> str:
        """The file that holds its bytes."""
        return self.inside.archive if self.inside else self.path

    @property
    def opened(self) -> Callable[[], BinaryIO] | None:
        """What opens a member of an archive, None for a file of its own."""
        return partial(open_member, self.inside) if self.inside else None
