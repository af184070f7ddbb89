"""Validation loss of masked language modelling: the same rows and masks at every call, on any number of ranks."""

import numpy as np
import torch

from pipeline.config import Objective
from pipeline.data import VALIDATION_EPOCH, PretrainLoader, ShardReader
from pipeline.engine import Engine


class MlmValidation:
    """Call with an engine: {"loss": mean cross entropy a masked token, "accuracy": fraction guessed right}."""

    def __init__(self, reader: ShardReader, objective: Objective, seed: int, rows: int, batch_rows: int) -> None:
        self._loader = PretrainLoader(reader, objective, seed, batch_rows, batch_rows)
        self._rows, self._batch_rows = min(rows, reader.num_rows), batch_rows

    def __call__(self, engine: Engine) -> dict[str, float]:
        ranks = engine.ranks
        totals = torch.zeros(3, dtype=torch.float64, device=ranks.device)
        stride = self._batch_rows * ranks.world_size
        with engine.evaluating():
            for start in range(0, self._rows, stride):
                wanted = np.arange(self._batch_rows, dtype=np.int64) + start + ranks.rank * self._batch_rows
                # Every rank runs every batch (ZeRO 3 gathers parameters in step); rows past the end count nothing.
                rows = np.minimum(wanted, self._rows - 1)
                batch = self._loader.rows_batch(np.full_like(rows, VALIDATION_EPOCH), rows)
                batch_row = batch["masked_positions"] // batch["input_ids"].shape[1]
                counted = torch.from_numpy(wanted < self._rows)[batch_row].to(ranks.device)
                labels = batch["labels"].to(ranks.device)
                logits = engine.forward(batch).logits.float()
                losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
                right = logits.argmax(-1) == labels
                totals += torch.stack(
                    [
                        (losses * counted).sum().double(),
                        (right & counted).sum().double(),
                        counted.sum().double(),
                    ]
                )
        loss, right_count, count = ranks.sum(totals).tolist()
        return {"loss": loss / count, "accuracy": right_count / count}
