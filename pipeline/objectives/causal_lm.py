"""Causal language modelling: every token of a packed row but the last of a document predicts the next one."""

import numpy as np
import torch

from data_prep.rows.masking import IntArray
from pipeline.families.head import Head
from pipeline.objectives.objective import Objective, ShapeFor
from pipeline.objectives.packed_rows import PackedRows, prepare_rows
from pipeline.runs.run import Run
from pipeline.training.batches import Batch
from pipeline.training.ranks import Ranks


class CausalRows(PackedRows):
    """Rows, the positions that have a next token in the same document, and these tokens."""

    def rows_batch(self, epochs: IntArray, rows: IntArray) -> Batch:
        """Keyword arguments of the model for these rows; they are the same in every epoch."""
        input_ids, lengths = self._reader.rows(rows)
        places = self.places(lengths)
        # Without document_ids all rows are one document to their ends.
        documents = places.get("document_ids", np.ones_like(input_ids))
        goes_on = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] > 0)
        goes_on = np.pad(goes_on, ((0, 0), (0, 1)))
        positions = np.flatnonzero(goes_on)
        batch = {
            "input_ids": input_ids,
            "masked_positions": positions,
            "labels": input_ids.reshape(-1)[positions + 1],
            **places,
        }
        return {name: torch.from_numpy(array.astype(np.int64, copy=False)) for name, array in batch.items()}


def prepare(run: Run, ranks: Ranks, shape_for: ShapeFor) -> Objective:
    """Causal language modelling on the run's rows. Raises UserError as `prepare_rows`."""
    return prepare_rows(run, ranks, Head("causal-lm"), shape_for, CausalRows)
