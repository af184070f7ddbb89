"""Shards to micro-batches. The order is a pure function of (seed, position), so any step is reached in O(1)
on any number of ranks. Knows nothing of models, engines or recipes as a whole."""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from data_prep.shards import ShardReader
from pipeline.config import Objective
from pipeline.masking import IntArray, hash_chain, mask_rows

__all__ = [
    "Batch",
    "Loader",
    "PretrainLoader",
    "ShardReader",
    "epoch_rows",
    "packed_batch",
    "permuted",
    "prefetched",
]

Batch = dict[str, torch.Tensor]
VALIDATION_EPOCH = 2**31 - 1
_FEISTEL_ROUNDS = 6


class Loader(Protocol):
    """What the training loop needs: any micro-batch of any step, for this rank."""

    def micro_batch(self, step: int, micro: int) -> Batch: ...

    def tokens(self, steps: int) -> int: ...


def permuted(seed: int, epochs: IntArray, offsets: IntArray, size: int) -> IntArray:
    """The row at `offsets` of the shuffled epoch, for every entry: a keyed bijection of 0..size-1 an epoch.

    A Feistel network over the smallest even number of bits that holds `size`, walked until the value is in range
    (Black and Rogaway, CT-RSA 2002): random access without a permutation table, so memory does not grow with the
    corpus. epochs, offsets: (n,) with 0 <= offsets < size.
    """
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.int64((1 << half_bits) - 1)
    values = offsets.astype(np.int64).copy()
    pending = np.ones(len(values), bool)
    while pending.any():
        left, right = values[pending] >> half_bits, values[pending] & mask
        epoch = epochs[pending]
        for feistel_round in range(_FEISTEL_ROUNDS):
            keyed = hash_chain(seed, epoch, feistel_round, right)
            left, right = right, left ^ (keyed & np.uint64(mask)).astype(np.int64)
        values[pending] = (left << half_bits) | right
        pending = values >= size
    return values


def epoch_rows(seed: int, start: int, count: int, size: int) -> tuple[IntArray, IntArray]:
    """(epochs, rows) of the `count` samples that begin at global position `start` of the endless shuffled stream."""
    positions = np.arange(start, start + count, dtype=np.int64)
    epochs, offsets = np.divmod(positions, size)
    return epochs, permuted(seed, epochs, offsets, size)


def packed_batch(lengths: np.ndarray, row_length: int) -> tuple[IntArray, IntArray]:
    """(document_ids, position_ids), each (n, L), of rows packed from pieces of `lengths` (n, max_pieces).

    document_ids count 1, 2, ... along a row and are 0 on padding; positions restart with every piece.
    """
    ends = np.cumsum(lengths, axis=1)
    columns = np.arange(row_length)[None, :]
    piece = (columns[:, :, None] >= ends[:, None, :]).sum(2)
    real = columns < ends[:, -1:]
    starts = np.concatenate([np.zeros((len(lengths), 1), ends.dtype), ends], axis=1)
    position_ids = np.where(real, columns - np.take_along_axis(starts, piece, axis=1), 0)
    return np.where(real, piece + 1, 0).astype(np.int64), position_ids.astype(np.int64)


class PretrainLoader:
    """Masked micro-batches of one split for one rank.

    Every global batch is the same set of rows whatever the number of ranks: rank r takes rows
    [r * micro_rows, (r + 1) * micro_rows) of each micro-step's share.
    """

    def __init__(
        self,
        reader: ShardReader,
        objective: Objective,
        seed: int,
        global_rows: int,
        micro_rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._reader, self._objective, self._seed = reader, objective, seed
        self._global_rows, self._micro_rows = global_rows, micro_rows
        self._rank, self._world_size = rank, world_size

    def tokens(self, steps: int) -> int:
        """Tokens of so many steps, padding included (rows are packed, padding is rare)."""
        return steps * self._global_rows * self._reader.row_length

    def micro_batch(self, step: int, micro: int) -> Batch:
        start = step * self._global_rows + (micro * self._world_size + self._rank) * self._micro_rows
        epochs, rows = epoch_rows(self._seed, start, self._micro_rows, self._reader.num_rows)
        return self.rows_batch(epochs, rows)

    def rows_batch(self, epochs: IntArray, rows: IntArray) -> Batch:
        """Keyword arguments of the model for these rows, masked as in these epochs."""
        input_ids, lengths = self._reader.rows(rows)
        document_ids, position_ids = packed_batch(lengths, self._reader.row_length)
        masked = mask_rows(
            input_ids,
            rows,
            epochs,
            self._seed,
            self._objective,
            self._reader.special_tokens,
            self._reader.index["tokenizer_vocab_size"],
        )
        batch = {
            "input_ids": masked.input_ids,
            "position_ids": position_ids,
            "masked_positions": masked.positions,
            "labels": masked.labels,
        }
        if (document_ids != 1).any():
            batch["document_ids"] = document_ids
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def prefetched(loader: Loader, start_step: int, steps: int, accumulation: int, depth: int = 2) -> Generator[Batch]:
    """The micro-batches of steps [start_step, steps) in order, prepared ahead by one thread."""
    wanted = ((step, micro) for step in range(start_step, steps) for micro in range(accumulation))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        queue: list[Future[Batch]] = []
        for step, micro in wanted:
            queue.append(pool.submit(loader.micro_batch, step, micro))
            if len(queue) > depth:
                yield queue.pop(0).result()
        while queue:
            yield queue.pop(0).result()
