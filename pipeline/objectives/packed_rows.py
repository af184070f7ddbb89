"""Packed rows of a corpus as micro-batches of a language model, and the loss on held-out ones.

What is to be predicted where is the objective's matter: a subclass makes the batch of some rows. Rows come in the same
order, with the same masks, on any number of ranks. Knows nothing of models.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch

from data_prep.errors import UserError
from data_prep.rows.masking import IntArray
from data_prep.rows.shards import ShardReader
from pipeline.families.head import Head
from pipeline.families.shape import Shape
from pipeline.objectives.objective import Objective, ShapeFor, Vocabulary
from pipeline.recipes import engine_config, sections
from pipeline.recipes.phases import Phase
from pipeline.runs.run import Run
from pipeline.training.batches import Batch, Loader, TwoLengths, rows_at
from pipeline.training.engine import Engine
from pipeline.training.ranks import Ranks

VALIDATION_EPOCH = 2**31 - 1
PROBE_ROWS = 4
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


class PackedRows(ABC):
    """Micro-batches of one split for one rank.

    Every global batch is the same set of rows whatever the number of ranks: rank r takes rows
    [r * micro_rows, (r + 1) * micro_rows) of each micro-step's share. Raises UserError where the rows have nothing to
    learn.
    """

    def __init__(
        self,
        reader: ShardReader,
        objective: sections.Objective,
        seed: int,
        global_rows: int,
        micro_rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._reader, self._objective, self._seed = reader, objective, seed
        self._global_rows, self._micro_rows = global_rows, micro_rows
        self._rank, self._world_size = rank, world_size
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

    @abstractmethod
    def rows_batch(self, epochs: IntArray, rows: IntArray) -> Batch:
        """Keyword arguments of the model for these rows, as they are in these epochs."""

    def places(self, lengths: np.ndarray) -> dict[str, IntArray]:
        """position_ids and, where a row has more than one document, document_ids, each (n, L), of rows packed from
        pieces of `lengths` (n, max_pieces)."""
        # Only packed documents are kept apart: sentences and pairs see the whole row.
        pieces = lengths if self._reader.packing == "documents" else lengths.sum(1, keepdims=True)
        document_ids, position_ids = packed_batch(pieces, self._reader.row_length)
        found = {"position_ids": position_ids}
        if (document_ids != 1).any():
            found["document_ids"] = document_ids
        return found


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


class TokenValidation:
    """Call with an engine: {"loss": mean cross entropy a predicted token, "accuracy": fraction guessed right}.

    With a sentence task also "sentence_loss" and "sentence_accuracy", the same a row; "loss" is without it. Raises
    UserError where the rows have no token to predict.
    """

    def __init__(self, loader: PackedRows, reader: ShardReader, rows: int, batch_rows: int) -> None:
        self._loader, self._folder = loader, reader.folder
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


LoaderOf = Callable[..., PackedRows]


def prepare_rows(run: Run, ranks: Ranks, head: Head, shape_for: ShapeFor, loader_of: LoaderOf) -> Objective:
    """A language-model objective over the run's rows; `loader_of` takes what `PackedRows` does.

    Validation rows are the short ones where the recipe has two lengths. Raises UserError where rows and model do not
    fit each other.
    """
    verify = run.recipe.corpus.verify if ranks.is_main else "size"
    train_rows, val_rows = ShardReader(run.shards, "train", verify), ShardReader(run.shards, "val", verify)
    recipe = run.recipe.counted(max(1, train_rows.num_rows // run.recipe.batch.global_rows))
    batch, seed = recipe.batch, recipe.seed
    micro_rows, _ = engine_config.accumulation_steps(batch.global_rows, batch.micro_rows, ranks.world_size)

    def loader(reader: ShardReader, phase: Phase) -> PackedRows:
        rows = phase.global_rows, phase.micro_rows
        return loader_of(reader, recipe.objective, seed, *rows, ranks.rank, ranks.world_size)

    short, *long = recipe.phases(micro_rows)
    rows: Loader = loader(train_rows, short)
    if run.long_shards is not None:
        rows = TwoLengths(rows, loader(ShardReader(run.long_shards, "train", verify), *long), short.steps)
    held_out = loader_of(val_rows, recipe.objective, seed, micro_rows, micro_rows)

    def probe() -> Batch:
        batch = loader_of(val_rows, recipe.objective, seed, PROBE_ROWS, PROBE_ROWS).micro_batch(0, 0)
        return {name: x for name, x in batch.items() if name not in ("masked_positions", "labels", "sentence_targets")}

    shape = shape_for(head, Vocabulary(train_rows.vocab_size, train_rows.special_tokens))
    _check_fit(train_rows, shape, max(recipe.corpus.row_lengths))
    validation = TokenValidation(held_out, val_rows, recipe.evaluation.rows, micro_rows)
    return Objective(
        recipe, head, shape, rows, validation, probe, lambda _, figures: {"validation_accuracy": figures["accuracy"]}
    )


def _check_fit(reader: ShardReader, shape: Shape, longest: int) -> None:
    size = reader.index["tokenizer_vocab_size"]
    if size > shape.vocab_size:
        raise UserError(
            f"{reader.folder} has token ids up to {size - 1}, the model embeddings for "
            f"{shape.vocab_size}: make the corpus with the model's own tokenizer (corpus.tokenizer)"
        )
    if shape.row_limit is not None and longest > shape.row_limit:
        raise UserError(
            f"rows have {longest} tokens (corpus.row_length, corpus.long_row_length), the model has positions for "
            f"{shape.row_limit}"
        )


def _sums(logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(3,): cross entropy, right guesses and number of the counted labels (n,), for logits (n, classes)."""
    logits, labels, counted = logits.float(), labels.to(logits.device), counted.to(logits.device)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    right = logits.argmax(-1) == labels
    return torch.stack([(losses * counted).sum(), (right & counted).sum(), counted.sum()]).double()
