"""Shards to micro-batches. The order is a pure function of (seed, position), so any step is reached in O(1)
on any number of ranks. Knows nothing of models, engines or recipes as a whole."""

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from data_prep.rows.masking import IntArray, MaskRules, extend_chain, hash_chain, mask_rows
from data_prep.rows.sentence_pairs import check_task, sentence_pairs
from data_prep.rows.shards import ShardReader
from pipeline.artifacts import UserError
from pipeline.sections import Objective

__all__ = [
    "Batch",
    "Loader",
    "PretrainLoader",
    "ShardReader",
    "TwoLengths",
    "epoch_rows",
    "label_counts",
    "mask_rules",
    "packed_batch",
    "permuted",
    "prefetched",
]

Batch = dict[str, torch.Tensor]
VALIDATION_EPOCH = 2**31 - 1
# Labels of a batch, and the model's argument for how many of them a mean is over (transformers' name for the first).
_COUNTED = {"labels": "num_items_in_batch", "sentence_labels": "num_sentences_in_batch"}
_IGNORED_LABEL = -100
_FEISTEL_ROUNDS = 6
_ORDER_BLOCK = 4096
_CHECKED_ROWS = 256


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
    return _rows_at(seed, np.arange(start, start + count, dtype=np.int64), size)


def _rows_at(seed: int, positions: IntArray, size: int) -> tuple[IntArray, IntArray]:
    epochs, offsets = np.divmod(positions, size)
    return epochs, permuted(seed, epochs, offsets, size)


def packed_batch(lengths: np.ndarray, row_length: int) -> tuple[IntArray, IntArray]:
    """(document_ids, position_ids), each (n, L), of rows packed from pieces of `lengths` (n, max_pieces).

    document_ids count 1, 2, ... along a row and are 0 on padding; positions restart with every piece.
    """
    columns = np.arange(row_length)
    ends = np.cumsum(lengths, axis=1, dtype=np.int64)
    # The column behind the row takes the marks of pieces that are not there.
    begins = np.zeros((len(lengths), row_length + 1), np.int64)
    np.put_along_axis(begins, ends[:, :-1], 1, axis=1)
    begins = begins[:, :-1]
    real = columns < ends[:, -1:]
    document_ids = (np.cumsum(begins, axis=1) + 1) * real
    position_ids = (columns - np.maximum.accumulate(begins * columns, axis=1)) * real
    return document_ids, position_ids


def mask_rules(objective: Objective) -> MaskRules:
    """The objective's masking in the terms of data_prep."""
    return MaskRules(objective.mask_rate, objective.mask_unit, objective.mask_token, objective.random_token)


class PretrainLoader:
    """Masked micro-batches of one split for one rank.

    Every global batch is the same set of rows whatever the number of ranks: rank r takes rows
    [r * micro_rows, (r + 1) * micro_rows) of each micro-step's share. Raises UserError where the objective's
    sentence task cannot be had from the reader's rows, and where these have nothing to learn.
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
        self._reader, self._seed, self._rules = reader, seed, mask_rules(objective)
        self._global_rows, self._micro_rows = global_rows, micro_rows
        self._rank, self._world_size = rank, world_size
        self._sentence = None if objective.sentence == "none" else objective.sentence
        if self._sentence:
            check_task(reader, self._sentence)
        _check_words(reader)
        self._accumulation = max(1, global_rows // (micro_rows * world_size))
        self._block_steps = max(1, _ORDER_BLOCK // (self._accumulation * micro_rows))
        self._block: tuple[int, IntArray, IntArray] | None = None

    def tokens(self, steps: int) -> int:
        """Tokens of so many steps, padding included (rows are packed, padding is rare)."""
        return steps * self._global_rows * self._reader.row_length

    def micro_batch(self, step: int, micro: int) -> Batch:
        number, within = divmod(step, self._block_steps)
        block = self._block
        if block is None or block[0] != number:
            self._block = block = (number, *self._order(number * self._block_steps))
        _, epochs, rows = block
        return self.rows_batch(epochs[within, micro], rows[within, micro])

    def _order(self, first_step: int) -> tuple[IntArray, IntArray]:
        """(epochs, rows), each (steps, micro-steps, micro_rows), of a block of steps: one at a time costs more."""
        steps = np.arange(first_step, first_step + self._block_steps, dtype=np.int64)
        shares = np.arange(self._accumulation) * self._world_size + self._rank
        starts = steps[:, None] * self._global_rows + shares * self._micro_rows
        positions = starts[:, :, None] + np.arange(self._micro_rows)
        epochs, rows = _rows_at(self._seed, positions.reshape(-1), self._reader.num_rows)
        return epochs.reshape(positions.shape), rows.reshape(positions.shape)

    def rows_batch(self, epochs: IntArray, rows: IntArray) -> Batch:
        """Keyword arguments of the model for these rows, masked as in these epochs."""
        reader = self._reader
        sentences: dict[str, IntArray] = {}
        if self._sentence:
            pairs = sentence_pairs(reader, rows, epochs, self._seed, self._sentence)
            input_ids, lengths = pairs.input_ids, pairs.lengths
            sentences = {"token_type_ids": pairs.token_types(), "sentence_labels": pairs.labels}
        else:
            input_ids, lengths = reader.rows(rows)
        # Only packed documents are kept apart: sentences and pairs see the whole row.
        pieces = lengths if reader.packing == "documents" else lengths.sum(1, keepdims=True)
        document_ids, position_ids = packed_batch(pieces, reader.row_length)
        masked = mask_rows(
            input_ids,
            rows,
            epochs,
            self._seed,
            self._rules,
            reader.special_tokens,
            len(reader.continues),
            reader.continues,
        )
        batch = {
            "input_ids": masked.input_ids,
            "position_ids": position_ids,
            "masked_positions": masked.positions,
            "labels": masked.labels,
            **sentences,
        }
        if (document_ids != 1).any():
            batch["document_ids"] = document_ids
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def _check_words(reader: ShardReader) -> None:
    """UserError where rows spread over the split hold special and unknown tokens only: none of these is ever masked."""
    picked = np.unique(np.linspace(0, reader.num_rows - 1, _CHECKED_ROWS).astype(np.int64))
    ids, _ = reader.rows(picked)
    if np.isin(ids, list(reader.special_tokens.values())).all():
        raise UserError(
            f"{reader.folder / reader.split}: all tokens in {len(picked)} rows spread over it are special or unknown, "
            "so there is nothing to predict; make the corpus with another tokenizer (corpus.tokenizer_kind, "
            "corpus.tokenizer)"
        )


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
