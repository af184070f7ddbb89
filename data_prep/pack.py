"""Packing: token ids of documents into rows of one length, several pieces to a row, no token lost.

Knows nothing of files or tokenizers.

A piece is [CLS] tokens [SEP], all of one document. Rows are filled greedily in document order; a document that
does not fit is cut, and goes on in the next row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Shorter pieces teach nothing: none has fewer tokens, [CLS] and [SEP] counted, unless its document is so short.
MIN_PIECE_TOKENS = 8
MIN_ROW_LENGTH = 2 * MIN_PIECE_TOKENS
_MIN_CONTENT = MIN_PIECE_TOKENS - 2


@dataclass(frozen=True)
class PackedRows:
    """A block of rows: `ids` (n, row_length); `lengths`, the pieces' token counts, flat; row i holds
    `lengths[offsets[i]:offsets[i + 1]]`."""

    ids: NDArray[np.integer]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]


def next_piece(remaining: int, used: int, row_length: int) -> int:
    """How many of a document's `remaining` > 0 tokens go behind the `used` tokens of a row.

    0 means that the row is padded, and the question asked again for an empty one, where it is never 0.
    """
    space = row_length - used - 2
    if remaining <= space:
        return remaining
    piece = min(space, remaining - _MIN_CONTENT)
    return piece if piece >= _MIN_CONTENT else 0


def pack_rows(
    documents: Iterable[NDArray[np.integer]],
    row_length: int,
    special_tokens: dict[str, int],
    dtype: DTypeLike,
    rows_per_block: int,
) -> Iterator[PackedRows]:
    """Rows of all documents' ids (1-D arrays; empty ones are passed over), in blocks of `rows_per_block`.

    Only the last block may be shorter. `row_length` is at least MIN_ROW_LENGTH.
    """
    assert row_length >= MIN_ROW_LENGTH
    cls, sep, pad = (special_tokens[name] for name in ("cls", "sep", "pad"))
    ids = np.full((rows_per_block, row_length), pad, dtype)
    lengths: list[int] = []
    offsets = [0]
    row = used = 0
    for document in documents:
        start = 0
        while start < len(document):
            size = next_piece(len(document) - start, used, row_length)
            if size:
                ids[row, used] = cls
                ids[row, used + 1 : used + 1 + size] = document[start : start + size]
                ids[row, used + 1 + size] = sep
                lengths.append(size + 2)
                start += size
                used += size + 2
            if not size or used == row_length:
                offsets.append(len(lengths))
                row, used = row + 1, 0
            if row == rows_per_block:
                yield PackedRows(ids, np.array(lengths, np.int32), np.array(offsets, np.int32))
                ids = np.full((rows_per_block, row_length), pad, dtype)
                lengths, offsets, row = [], [0], 0
    if used:
        offsets.append(len(lengths))
        row += 1
    if row:
        yield PackedRows(ids[:row], np.array(lengths, np.int32), np.array(offsets, np.int32))
