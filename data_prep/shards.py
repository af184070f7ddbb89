"""Reads shards: random rows of token ids by index, from memory-mapped Arrow files checked against index.json.

Knows nothing of torch, `datasets`, or of how the rows were made. Safe to use from several threads.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.arrow_files import map_file
from data_prep.corpus import check_file
from data_prep.manifest import UserError

INDEX_NAME = "index.json"
INDEX_FORMAT = 1
_REMEDY = "copy the corpus again or run `python -m data_prep shard` with --force"


def read_index(shards_dir: Path) -> dict[str, Any]:
    """The parsed `index.json` of a shards folder; UserError where it is missing, broken or of another format."""
    path = shards_dir / INDEX_NAME
    if not path.is_file():
        raise UserError(f"{path} does not exist; run `python -m data_prep shard` for this corpus first")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {_REMEDY}") from error
    if index.get("format") != INDEX_FORMAT:
        raise UserError(f"{path} has format {index.get('format')!r}, this version reads {INDEX_FORMAT}; {_REMEDY}")
    return index


class ShardReader:
    """The rows of one split.

    Attributes: `index` (the whole index.json), `num_rows`, `row_length`, `vocab_size` (padded), `special_tokens`
    (ids of pad, unk, cls, sep, mask), `max_pieces` (the most pieces in any row of the split).

    `verify="full"` hashes every file on opening, `"size"` compares sizes only. Raises UserError where a file
    is missing or is not what the index says, naming it and both hashes (or sizes).
    """

    def __init__(self, shards_dir: Path, split: str, verify: Literal["full", "size"] = "full") -> None:
        self.index = read_index(shards_dir)
        if split not in self.index["splits"]:
            raise UserError(f"{shards_dir} has no split {split!r}, only {', '.join(self.index['splits'])}")
        self.row_length: int = self.index["row_length"]
        self.vocab_size: int = self.index["vocab_size"]
        self.special_tokens: dict[str, int] = self.index["special_tokens"]
        self.num_rows: int = self.index["splits"][split]["rows"]
        self._files = []
        for entry in self.index["splits"][split]["files"]:
            path = shards_dir / entry["name"]
            if verify == "full":
                check_file(path, entry["sha256"], _REMEDY)
            else:
                _check_size(path, entry["bytes"])
            mapped = map_file(path, self.row_length)
            if len(mapped.ids) != entry["rows"]:
                raise UserError(f"{path} holds {len(mapped.ids)} rows, index.json says {entry['rows']}; {_REMEDY}")
            self._files.append(mapped)
        self._starts = np.cumsum([0] + [len(file.ids) for file in self._files])
        if self._starts[-1] != self.num_rows:
            raise UserError(f"{shards_dir}: {split} files hold {self._starts[-1]} rows, not {self.num_rows}; {_REMEDY}")
        self.max_pieces = max((int(np.diff(file.offsets).max()) for file in self._files), default=0)

    def rows(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Token ids (n, row_length) and piece lengths (n, max_pieces), zero-padded, of n rows in any order.

        Raises IndexError for an index outside 0 .. num_rows - 1.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1 or (len(indices) and not 0 <= indices.min() <= indices.max() < self.num_rows):
            raise IndexError(f"row indices must be a flat array within 0 .. {self.num_rows - 1}")
        ids = np.empty((len(indices), self.row_length), np.int64)
        lengths = np.zeros((len(indices), self.max_pieces), np.int32)
        file_numbers = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(file_numbers):
            file = self._files[number]
            here = np.flatnonzero(file_numbers == number)
            local = indices[here] - self._starts[number]
            ids[here] = file.ids[local]
            first, behind = file.offsets[local], file.offsets[local + 1]
            slots = first[:, None] + np.arange(self.max_pieces, dtype=np.int32)
            taken = slots < behind[:, None]
            lengths[here] = np.where(taken, file.lengths[np.minimum(slots, len(file.lengths) - 1)], 0)
        return ids, lengths


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise UserError(
            f"{path} is {'missing' if found is None else f'{found} bytes'}, index.json says {size} bytes; {_REMEDY}"
        )
