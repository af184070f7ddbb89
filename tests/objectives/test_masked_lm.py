"""Validation: every row once, on any number of ranks, and the sentence task apart from the masked tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_prep.errors import UserError
from data_prep.rows.shards import ShardReader
from pipeline.objectives.masked_lm import MaskedRows
from pipeline.objectives.packed_rows import VALIDATION_EPOCH, TokenValidation
from pipeline.recipes.sections import Objective
from tests.shard_files import SPECIAL, random_rows, write_shards

LENGTH, VOCAB, ROWS = 32, 200, 21


class Model:
    """Stands in for an engine of one of several ranks: logits that depend on nothing but the batch."""

    def __init__(self, rank: int, world_size: int, others: list[torch.Tensor]) -> None:
        self.ranks = SimpleNamespace(rank=rank, world_size=world_size, device=torch.device("cpu"), sum=self.sum)
        self.others, self.partial = others, torch.zeros(0)

    def sum(self, totals: torch.Tensor) -> torch.Tensor:
        self.partial = totals
        return totals + sum(self.others, torch.zeros_like(totals))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        yield

    def forward(self, batch: dict[str, torch.Tensor]) -> SimpleNamespace:
        at = batch["masked_positions"]
        angles = at[:, None] % LENGTH + torch.arange(VOCAB) * 0.37 + batch["labels"][:, None]
        rows = batch["input_ids"].sum(1)
        return SimpleNamespace(logits=angles.sin() * 3, sentence_logits=torch.stack([rows.sin(), rows.cos()], 1))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    rows = random_rows(ROWS, LENGTH, "pairs", VOCAB)
    return ShardReader(write_shards(tmp_path_factory.mktemp("val") / "s", {"val": [rows]}, "pairs", VOCAB), "val")


def expected(reader: ShardReader, objective: Objective, rows: int) -> dict[str, float]:
    """One row at a time."""
    loader, model = MaskedRows(reader, objective, 3, 1, 1), Model(0, 1, [])
    parts: dict[str, list[torch.Tensor]] = {"loss": [], "accuracy": [], "sentence_loss": [], "sentence_accuracy": []}
    for row in range(rows):
        batch = loader.rows_batch(np.array([VALIDATION_EPOCH]), np.array([row]))
        output = model.forward(batch)
        pairs = [("", output.logits, batch["labels"])]
        if "sentence_targets" in batch:
            pairs.append(("sentence_", output.sentence_logits, batch["sentence_targets"]))
        for prefix, logits, labels in pairs:
            parts[f"{prefix}loss"].append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
            parts[f"{prefix}accuracy"].append((logits.argmax(1) == labels).float())
    return {name: float(torch.cat(values).mean()) for name, values in parts.items() if values}


@pytest.mark.parametrize("sentence", ["none", "nsp", "sop"])
@pytest.mark.parametrize("rows", [10, 16, 500])
def test_figures_are_means_over_the_rows(reader: ShardReader, sentence: str, rows: int) -> None:
    objective = Objective(sentence=sentence, mask_unit="word")
    found = TokenValidation(MaskedRows(reader, objective, 3, 4, 4), reader, rows, 4)(Model(0, 1, []))  # type: ignore[arg-type]
    wanted = expected(reader, objective, min(rows, ROWS))
    assert found.keys() == wanted.keys()
    assert len(found) == (2 if sentence == "none" else 4)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_any_number_of_ranks_gives_the_same(reader: ShardReader) -> None:
    objective = Objective(sentence="sop")
    alone = TokenValidation(MaskedRows(reader, objective, 3, 4, 4), reader, 500, 4)(Model(0, 1, []))  # type: ignore[arg-type]
    totals: list[torch.Tensor] = []
    for rank in range(3):
        model = Model(rank, 3, list(totals))
        found = TokenValidation(MaskedRows(reader, objective, 3, 4, 4), reader, 500, 4)(model)  # type: ignore[arg-type]
        totals.append(model.partial)
    assert found.keys() == alone.keys()
    assert all(found[name] == pytest.approx(alone[name], rel=1e-6) for name in alone)


def test_rows_without_anything_to_predict_are_no_figure(tmp_path: Path) -> None:
    rows = random_rows(ROWS, LENGTH, "documents", VOCAB)
    rows.ids[:8][rows.ids[:8] > max(SPECIAL.values())] = SPECIAL["unk"]
    folder = write_shards(tmp_path / "s", {"val": [rows]}, "documents", VOCAB)
    reader = ShardReader(folder, "val")
    assert TokenValidation(MaskedRows(reader, Objective(), 3, 4, 4), reader, ROWS, 4)(Model(0, 1, []))["loss"] > 0  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"nothing to predict in 8 validation rows of .*: all their tokens are special or"
    ):
        TokenValidation(MaskedRows(reader, Objective(), 3, 4, 4), reader, 8, 4)(Model(0, 1, []))  # type: ignore[arg-type]
