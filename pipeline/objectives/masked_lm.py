"""Masked language modelling: packed rows to masked micro-batches."""

from typing import Any

import torch

from data_prep.rows.masking import IntArray, MaskRules, mask_rows
from data_prep.rows.sentence_pairs import check_task, sentence_pairs
from pipeline.families.head import Head
from pipeline.objectives.objective import Objective, ShapeFor
from pipeline.objectives.packed_rows import PackedRows, prepare_rows
from pipeline.recipes import sections
from pipeline.runs.run import Run
from pipeline.training.batches import Batch
from pipeline.training.ranks import Ranks


def mask_rules(objective: sections.Objective) -> MaskRules:
    """The objective's masking in the terms of data_prep."""
    return MaskRules(objective.mask_rate, objective.mask_unit, objective.mask_token, objective.random_token)


class MaskedRows(PackedRows):
    """Rows with some tokens masked, and those to be guessed; with a sentence task also its labels.

    Raises UserError where the objective's sentence task cannot be had from the reader's rows.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._rules = mask_rules(self._objective)
        self._sentence = None if self._objective.sentence == "none" else self._objective.sentence
        if self._sentence:
            check_task(self._reader, self._sentence)

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
            "masked_positions": masked.positions,
            "labels": masked.labels,
            **sentences,
            **self.places(lengths),
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def prepare(run: Run, ranks: Ranks, shape_for: ShapeFor) -> Objective:
    """Masked language modelling on the run's rows. Raises UserError as `prepare_rows`."""
    head = Head("masked-lm", sentence=run.recipe.objective.sentence != "none")
    return prepare_rows(run, ranks, head, shape_for, MaskedRows)
