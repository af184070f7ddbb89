"""The steps of a run on rows of one length."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """So many steps on rows of one length, in micro-batches of `micro_rows` rows."""

    steps: int
    row_length: int
    global_rows: int
    micro_rows: int
