"""Sentence tasks on rows of packing "pairs", as pure functions of (seed, epoch, row). Knows nothing of torch.

Such a row is [CLS] A [SEP] B [SEP], and B follows A in the text. BERT's next sentence: in half of the rows B is taken
from another document. ALBERT's sentence order: in half of the rows A and B change places.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import UserError
from data_prep.rows.masking import IntArray, extend_chain, hash_chain
from data_prep.rows.shards import ShardReader

SentenceTask = Literal["nsp", "sop"]
_STREAM_COIN, _STREAM_OFFSET = 5, 6


@dataclass(frozen=True)
class SentencePairs:
    """Rows `input_ids` (n, L), the `lengths` (n, 2) of [CLS] A [SEP] and B [SEP], and `labels` (n,): 0 where B
    follows A as in the text, 1 where it does not."""

    input_ids: IntArray
    lengths: NDArray[np.int32]
    labels: IntArray

    def token_types(self) -> IntArray:
        """(n, L): 0 up to the first [SEP], 1 up to the second, 0 on padding."""
        columns = np.arange(self.input_ids.shape[1])
        ends = self.lengths.sum(1, keepdims=True)
        return ((columns >= self.lengths[:, :1]) & (columns < ends)).astype(np.int64)


def check_task(reader: ShardReader, task: SentenceTask) -> None:
    """Raise UserError where these rows cannot give this task."""
    if reader.packing != "pairs":
        raise UserError(
            f"objective.sentence is {task!r}, but {reader.folder} has packing {reader.packing!r}: "
            'set corpus.packing = "pairs", or objective.sentence = "none"'
        )
    if task == "nsp" and reader.num_rows < 2 * reader.longest_document:
        raise UserError(
            f"next sentences need rows of other documents, but one document takes {reader.longest_document} of the "
            f"{reader.num_rows} {reader.split} rows in {reader.folder}: give the corpus more documents"
            f'{" or a larger corpus.val_fraction" * (reader.split == "val")}, or set objective.sentence = "sop"'
        )


def sentence_pairs(
    reader: ShardReader, row_ids: IntArray, epochs: IntArray, seed: int, task: SentenceTask
) -> SentencePairs:
    """The rows `row_ids` (n,) as the task shows them in these epochs (n,); half of them are as in the text.

    With "nsp" the other B comes from a row that no document shares with this one, and is cut to fit. `check_task`
    has passed. Raises UserError where a row is no pair.
    """
    ids, lengths = _pairs(reader, row_ids)
    labels = (hash_chain(seed, _STREAM_COIN, epochs, row_ids) >> np.uint64(63)).astype(np.int64)
    changed = np.flatnonzero(labels)
    own, own_lengths = ids[changed], lengths[changed].astype(np.int64)
    size_a, size_b = own_lengths[:, 0] - 2, own_lengths[:, 1] - 1
    if task == "sop":
        parts = (own, size_a + 2, size_b), (own, np.ones_like(size_a), size_a)
    else:
        apart = reader.longest_document
        state = hash_chain(seed, _STREAM_OFFSET, epochs[changed])
        draws = extend_chain(state, row_ids[changed]) % np.uint64(reader.num_rows - 2 * apart + 1)
        others, other_lengths = _pairs(reader, (row_ids[changed] + apart + draws.astype(np.int64)) % reader.num_rows)
        begins, size_b = other_lengths[:, 0].astype(np.int64), other_lengths[:, 1].astype(np.int64) - 1
        size_b = np.minimum(size_b, reader.row_length - 3 - size_a)
        parts = (own, np.ones_like(size_a), size_a), (others, begins, size_b)
    ids[changed], lengths[changed] = _joined(*parts, reader.row_length, reader.special_tokens)
    return SentencePairs(ids, lengths, labels)


def _pairs(reader: ShardReader, row_ids: IntArray) -> tuple[IntArray, NDArray[np.int32]]:
    ids, lengths = reader.rows(row_ids)
    if lengths.shape[1] != 2 or (len(lengths) and (lengths[:, 0].min() < 3 or lengths[:, 1].min() < 2)):
        raise UserError(
            f"{reader.folder} has rows that are no pair of sentences although its packing is 'pairs'; "
            "run `python -m data_prep shard` with --force"
        )
    return ids, lengths


_Part = tuple[IntArray, IntArray, IntArray]


def _joined(
    first: _Part, second: _Part, row_length: int, special_tokens: dict[str, int]
) -> tuple[IntArray, NDArray[np.int32]]:
    """[CLS] first [SEP] second [SEP], padded. A part is (rows (n, L), where it begins (n,), its length (n,))."""
    columns = np.arange(row_length)
    (rows_1, begin_1, size_1), (rows_2, begin_2, size_2) = first, second
    middle, end = size_1[:, None] + 1, size_1[:, None] + size_2[:, None] + 2
    source_1 = np.clip(begin_1[:, None] + columns - 1, 0, row_length - 1)
    source_2 = np.clip(begin_2[:, None] + columns - middle - 1, 0, row_length - 1)
    ids = np.where(
        columns < middle, np.take_along_axis(rows_1, source_1, axis=1), np.take_along_axis(rows_2, source_2, axis=1)
    )
    ids[:, 0] = special_tokens["cls"]
    ids[(columns == middle) | (columns == end)] = special_tokens["sep"]
    ids[columns > end] = special_tokens["pad"]
    return ids, np.stack([size_1 + 2, size_2 + 1], axis=1).astype(np.int32)
