"""Validation loss of masked language modelling: the same rows and masks at every call, on any number of ranks."""

import numpy as np
import torch

from pipeline.artifacts import UserError
from pipeline.data import VALIDATION_EPOCH, PretrainLoader, ShardReader
from pipeline.engine import Engine
from pipeline.sections import Objective


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
                if "sentence_labels" in batch:
                    totals[1] += _sums(output.sentence_logits, batch["sentence_labels"], counted)
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
