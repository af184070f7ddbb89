"""Micro-batches: in which order rows come, and how the loop gets those of every step.

The order is a pure function of (seed, position), so any step is reached in O(1) on any number of ranks. Knows nothing
of what is in a batch, of models, engines or recipes.
"""

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from data_prep.rows.masking import IntArray, extend_chain, hash_chain

Batch = dict[str, torch.Tensor]
# Labels of a batch, and the model's argument for how many of them a mean is over (transformers' name for the first).
_COUNTED = {"labels": "num_items_in_batch", "sentence_targets": "num_sentences_in_batch"}
_IGNORED_LABEL = -100
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
    known_epochs, epoch_numbers = np.unique(epochs, return_inverse=True)
    round_keys = hash_chain(seed, known_epochs[None, :], np.arange(_FEISTEL_ROUNDS)[:, None])
    values = offsets.astype(np.int64)
    pending = np.arange(len(values))
    while len(pending):
        left, right = values[pending] >> half_bits, values[pending] & mask
        for keys in round_keys[:, epoch_numbers[pending]]:
            keyed = extend_chain(keys, right)
            left, right = right, left ^ (keyed & np.uint64(mask)).astype(np.int64)
        values[pending] = (left << half_bits) | right
        pending = pending[values[pending] >= size]
    return values


def epoch_rows(seed: int, start: int, count: int, size: int) -> tuple[IntArray, IntArray]:
    """(epochs, rows) of the `count` samples that begin at global position `start` of the endless shuffled stream."""
    return rows_at(seed, np.arange(start, start + count, dtype=np.int64), size)


def rows_at(seed: int, positions: IntArray, size: int) -> tuple[IntArray, IntArray]:
    epochs, offsets = np.divmod(positions, size)
    return epochs, permuted(seed, epochs, offsets, size)


class TwoLengths:
    """Short rows up to `switch_step`, then long ones, as many tokens a step: the order of the long rows begins at
    its start where they do."""

    def __init__(self, short: Loader, long: Loader, switch_step: int) -> None:
        assert short.tokens(1) == long.tokens(1), "a step of long rows has other tokens than one of short rows"
        self._short, self._long, self._switch_step = short, long, switch_step

    def tokens(self, steps: int) -> int:
        short_steps = min(steps, self._switch_step)
        return self._short.tokens(short_steps) + self._long.tokens(steps - short_steps)

    def micro_batch(self, step: int, micro: int) -> Batch:
        if step < self._switch_step:
            return self._short.micro_batch(step, micro)
        return self._long.micro_batch(step - self._switch_step, micro)


def label_counts(batches: Iterable[Batch]) -> dict[str, int]:
    """How many labels of these micro-batches count, those that are not -100, by the model's argument for the number."""
    counts: dict[str, int] = {}
    for batch in batches:
        for name, argument in _COUNTED.items():
            if name in batch:
                counts[argument] = counts.get(argument, 0) + int((batch[name] != _IGNORED_LABEL).sum())
    return counts


def prefetched(loader: Loader, start_step: int, steps: int, accumulation: int) -> Generator[list[Batch]]:
    """The micro-batches of each of the steps [start_step, steps), in order, prepared ahead by one thread.

    While a step trains, the next one is made; or the next two, where a step is one micro-batch.
    """
    ahead = 2 if accumulation == 1 else 1
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        queue: list[list[Future[Batch]]] = []
        for step in range(start_step, steps):
            queue.append([pool.submit(loader.micro_batch, step, micro) for micro in range(accumulation)])
            if len(queue) > ahead:
                yield [batch.result() for batch in queue.pop(0)]
        while queue:
            yield [batch.result() for batch in queue.pop(0)]
