"""Reads shards: random rows of token ids by index, from Arrow files checked against index.json.

Rows are read from their places in the files when they are asked for and nothing is kept, so memory does not grow with
the corpus or with the rows read. Knows nothing of torch, `datasets`, or of how the rows were made. Safe to use from
several threads.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_prep.corpus import check_file
from data_prep.errors import UserError
from data_prep.rows.columns import REMEDY, Columns, Files, locate_columns

INDEX_NAME = "index.json"
INDEX_FORMAT = 2
_MAX_ROW_LENGTH = 1 << 16
_ROLES = ("pad", "unk", "cls", "sep", "mask")

Count = Annotated[int, Field(ge=0, lt=1 << 62)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 24)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Strict):
    name: Annotated[str, Field(pattern=r"^(train|val)/[A-Za-z0-9][A-Za-z0-9._-]*$")]
    rows: Annotated[Count, Field(ge=1)]
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Split(_Strict):
    rows: Annotated[Count, Field(ge=1)]
    tokens: Count
    documents: Count
    max_pieces: Annotated[int, Field(ge=1, le=_MAX_ROW_LENGTH)]
    longest_document: Annotated[Count, Field(ge=1)]
    files: list[_File]


class _Index(_Strict):
    """index.json, as far as it can be told wrong without looking at the files."""

    format: Literal[2]
    packing: Literal["documents", "sentences", "pairs"]
    row_length: Annotated[int, Field(ge=1, le=_MAX_ROW_LENGTH)]
    vocab_size: TokenId
    tokenizer_vocab_size: TokenId
    special_tokens: dict[str, TokenId]
    tokenizer_sha256: str
    continuation_ids: list[TokenId]
    splits: dict[Literal["train", "val"], _Split]

    @model_validator(mode="after")
    def ids_fit(self) -> Self:
        size = self.tokenizer_vocab_size
        missing = [role for role in _ROLES if role not in self.special_tokens]
        if missing:
            raise ValueError(f"special_tokens lacks {', '.join(missing)}")
        names = [file.name for split in self.splits.values() for file in split.files]
        if len(set(names)) < len(names):
            raise ValueError("a file is named twice")
        if not max([*self.special_tokens.values(), *self.continuation_ids]) < size <= self.vocab_size:
            raise ValueError(f"an id is not below tokenizer_vocab_size ({size}), or that exceeds {self.vocab_size}")
        return self


def read_index(shards_dir: Path) -> dict[str, Any]:
    """The parsed `index.json` of a shards folder; UserError where it is missing, broken or of another format."""
    path = shards_dir / INDEX_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run `python -m data_prep shard` for this corpus first") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    try:
        return _Index.model_validate_json(content).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise UserError(f"{path} is not valid JSON ({first['msg']}); {REMEDY}") from error
        if first["loc"] == ("format",):
            found = first["input"] if first["type"] == "literal_error" else None
            raise UserError(
                f"{path} has format {found!r}, this version reads {INDEX_FORMAT}; "
                "run `python -m data_prep shard` with --force to make the shards again"
            ) from error
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{path} is no index of shards: {where}: {first['msg']}; {REMEDY}") from error


class ShardReader:
    """The rows of one split.

    Attributes: `index` (the whole index.json), `num_rows`, `row_length`, `packing`, `vocab_size` (padded),
    `special_tokens` (ids of pad, unk, cls, sep, mask), `continues` (tokenizer_vocab_size,) (the ids that continue a
    word), `max_pieces` (the most pieces in any row of the split), `longest_document` (the most consecutive rows that
    one document takes part in).

    `verify="full"` hashes every file on opening, `"size"` compares sizes only. Raises UserError where a file
    is missing or is not what the index says, naming it and both hashes (or sizes).
    """

    def __init__(self, shards_dir: Path, split: str, verify: Literal["full", "size"] = "full") -> None:
        self.index = read_index(shards_dir)
        if split not in self.index["splits"]:
            raise UserError(f"{shards_dir} has no split {split!r}, only {', '.join(self.index['splits'])}")
        figures = self.index["splits"][split]
        self.folder, self.split = shards_dir, split
        self.row_length: int = self.index["row_length"]
        self.packing: Literal["documents", "sentences", "pairs"] = self.index["packing"]
        self.vocab_size: int = self.index["vocab_size"]
        self.special_tokens: dict[str, int] = self.index["special_tokens"]
        self.num_rows: int = figures["rows"]
        self.max_pieces: int = figures["max_pieces"]
        self.longest_document: int = figures["longest_document"]
        self.continues = np.zeros(self.index["tokenizer_vocab_size"], np.bool_)
        self.continues[self.index["continuation_ids"]] = True
        self._files = [self._open_file(entry, verify) for entry in figures["files"]]
        self._starts = np.cumsum([0] + [file.rows for file in self._files])
        if self._starts[-1] != self.num_rows:
            raise UserError(f"{shards_dir}: {split} files hold {self._starts[-1]} rows, not {self.num_rows}; {REMEDY}")
        if len({file.dtype for file in self._files}) > 1:
            raise UserError(f"{shards_dir}: {split} files hold token ids of different types; {REMEDY}")
        self._bytes = Files([file.path for file in self._files])

    def rows(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Token ids (n, row_length) and piece lengths (n, max_pieces), zero-padded, of n rows in any order.

        Raises IndexError for an index outside 0 .. num_rows - 1, and UserError where a file cannot be read or holds
        what no row can: an id beyond the tokenizer's, or pieces that do not fit.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1 or (len(indices) and not 0 <= indices.min() <= indices.max() < self.num_rows):
            raise IndexError(f"row indices must be a flat array within 0 .. {self.num_rows - 1}")
        # Neighbours that are asked for together are read together.
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        breaks = np.flatnonzero((np.diff(indices) != 1) | (np.diff(numbers) != 0)) + 1
        begins = np.concatenate([[0], breaks]) if len(indices) else breaks
        sizes = np.diff(np.append(begins, len(indices)))
        locals_ = indices - self._starts[numbers]
        runs = list(zip(numbers[begins].tolist(), locals_[begins].tolist(), sizes.tolist(), strict=True))
        return self._read_ids(runs, indices), self._read_lengths(runs, sizes, begins, indices)

    def _read_ids(self, runs: list[tuple[int, int, int]], indices: NDArray[np.int64]) -> NDArray[np.int64]:
        itemsize = self._files[0].dtype.itemsize
        width = self.row_length * itemsize
        parts = [
            self._bytes.read(number, self._files[number].ids_at + width * row, width * n) for number, row, n in runs
        ]
        # Read as unsigned numbers, a negative one is too large as well.
        ids = np.frombuffer(b"".join(parts), f"u{itemsize}").reshape(len(indices), self.row_length)
        if ids.max(initial=0) >= len(self.continues):
            self._refuse(indices, ids.max(1) >= len(self.continues), "a token id that the tokenizer does not have")
        return ids.astype(np.int64)

    def _read_lengths(
        self,
        runs: list[tuple[int, int, int]],
        sizes: NDArray[np.int64],
        begins: NDArray[np.int64],
        indices: NDArray[np.int64],
    ) -> NDArray[np.int32]:
        parts = [
            self._bytes.read(number, self._files[number].offsets_at + 4 * row, 4 * n + 4) for number, row, n in runs
        ]
        bounds = np.frombuffer(b"".join(parts), np.int32)
        # A run of n rows has n + 1 bounds: all but its last are the first piece of a row, all but its first the end.
        lasts = np.cumsum(sizes + 1) - 1
        firsts, ends = np.delete(bounds, lasts), np.delete(bounds, lasts - sizes)
        counts = ends.astype(np.int64) - firsts
        pieces = np.repeat([self._files[number].pieces for number, _, _ in runs], sizes)
        wrong = (firsts < 0) | (counts < 1) | (counts > self.max_pieces) | (ends > pieces)
        if wrong.any():
            self._refuse(indices, wrong, f"another number of pieces than 1 to {self.max_pieces}")
        run_counts = np.add.reduceat(counts, begins).tolist() if runs else []
        flat = np.frombuffer(
            b"".join(
                self._bytes.read(number, self._files[number].lengths_at + 4 * first, 4 * count)
                for (number, _, _), first, count in zip(runs, firsts[begins].tolist(), run_counts, strict=True)
            ),
            np.int32,
        )
        lengths = np.zeros((len(indices), self.max_pieces), np.int32)
        taken = np.arange(self.max_pieces) < counts[:, None]
        lengths[taken] = flat
        wrong = lengths.sum(1, dtype=np.int64) > self.row_length
        wrong |= ((lengths < 1) & taken).any(1)
        if wrong.any():
            self._refuse(indices, wrong, "pieces that do not fit into it")
        return lengths

    def _refuse(self, indices: NDArray[np.int64], wrong: NDArray[np.bool_], what: str) -> NoReturn:
        row = int(indices[wrong.argmax()])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        raise UserError(
            f"{self._files[number].path}: row {row - self._starts[number]} holds {what}, so the file is damaged "
            f'(corpus.verify = "full" would have told on opening); {REMEDY}'
        )

    def _open_file(self, entry: dict[str, Any], verify: str) -> Columns:
        path = self.folder / entry["name"]
        try:
            if verify == "full":
                check_file(path, entry["sha256"], REMEDY)
            found = path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
        if found != entry["bytes"]:
            is_now = "missing" if found is None else f"{found} bytes"
            raise UserError(f"{path} is {is_now}, index.json says {entry['bytes']} bytes; {REMEDY}")
        file = locate_columns(path, self.row_length)
        if file.rows != entry["rows"]:
            raise UserError(f"{path} holds {file.rows} rows, index.json says {entry['rows']}; {REMEDY}")
        return file
