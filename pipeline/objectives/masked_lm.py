"""Masked language modelling: packed rows to masked micro-batches, and the loss on held-out ones.

Those are the same rows with the same masks at every call, on any number of ranks. Knows nothing of models.
"""

import numpy as np
import torch

from data_prep.errors import UserError
from data_prep.rows.masking import IntArray, MaskRules, mask_rows
from data_prep.rows.sentence_pairs import check_task, sentence_pairs
from data_prep.rows.shards import ShardReader
from pipeline.recipes.sections import Objective
from pipeline.training.batches import Batch, rows_at
from pipeline.training.engine import Engine

VALIDATION_EPOCH = 2**31 - 1
_CHECKED_ROWS = 256
# Steps whose rows are put in order at once: one at a time costs more.
_ORDER_BLOCK = 4096


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
        epochs, rows = rows_at(self._seed, positions.reshape(-1), self._reader.num_rows)
        return epochs.reshape(positions.shape), rows.reshape(positions.shape)

    def rows_batch(self, epochs: IntArray, rows: IntArray) -> Batch:
        """Keyword arguments of the model for these rows, masked as in these epochs."""
        reader = self._reader
        sentences: dict[str, IntArray] = {}
        if self._sentence:
            pairs = sentence_pairs(reader, rows, epochs, self._seed, self._sentence)
            input_ids, lengths = pairs.input_ids, pairs.lengths
            sentences = {"token_type_ids": pairs.token_types(), "sentence_targets": pairs.labels}
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


class MlmValidation:
    """Call with an engine: {"loss": mean cross entropy a masked token, "accuracy": fraction guessed right}.

    With a sentence task also "sentence_loss" and "sentence_accuracy", the same a row; "loss" is without it. Raises
    UserError where the rows have no token to predict.
    """

    def __init__(self, reader: ShardReader, objective: Objective, seed: int, rows: int, batch_rows: int) -> None:
        self._loader = PretrainLoader(reader, objective, seed, batch_rows, batch_rows)
        self._folder = reader.folder
        self._rows, self._batch_rows = min(rows, reader.num_rows), batch_rows

    def __call__(self, engine: Engine) -> dict[str, float]:
        ranks = engine.ranks
        totals = torch.zeros(2, 3, dtype=torch.float64, device=ranks.device)
        stride = self._batch_rows * ranks.world_size
        with engine.evaluating():
            for start in range(0, self._rows, stride):
                wanted = np.arange(self._batch_rows, dtype=np.int64) + start + ranks.rank * self._batch_rows
                # Every rank runs every batch (ZeRO 3 gathers parameters in step); rows past the end count nothing.
                rows = np.minimum(wanted, self._rows - 1)
                batch = self._loader.rows_batch(np.full_like(rows, VALIDATION_EPOCH), rows)
                batch_row = batch["masked_positions"] // batch["input_ids"].shape[1]
                counted = torch.from_numpy(wanted < self._rows)
                output = engine.forward(batch)
                totals[0] += _sums(output.logits, batch["labels"], counted[batch_row])
                if "sentence_targets" in batch:
                    totals[1] += _sums(output.sentence_logits, batch["sentence_targets"], counted)
        (loss, right, count), (sentence_loss, sentence_right, sentences) = ranks.sum(totals).tolist()
        if not count:
            raise UserError(
                f"nothing to predict in {self._rows} validation rows of {self._folder}: all their tokens "
                "are special or unknown; make the corpus with another tokenizer (corpus.tokenizer_kind, "
                "corpus.tokenizer)"
            )
        figures = {"loss": loss / count, "accuracy": right / count}
        if sentences:
            figures |= {"sentence_loss": sentence_loss / sentences, "sentence_accuracy": sentence_right / sentences}
        return figures


def _sums(logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(3,): cross entropy, right guesses and number of the counted labels (n,), for logits (n, classes)."""
    logits, labels, counted = logits.float(), labels.to(logits.device), counted.to(logits.device)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    right = logits.argmax(-1) == labels
    return torch.stack([(losses * counted).sum(), (right & counted).sum(), counted.sum()]).double()
