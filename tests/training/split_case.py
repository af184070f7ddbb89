"""The training loop on some ranks, for test_split.py: every case in one and in two micro-batches a step and rank.

What came of a case goes to CASE-RANKSxMICROS.safetensors: the losses of the log, the gates' scores, the weights.
"""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

from data_prep.rows.shards import ShardReader
from pipeline.families.hf import build_model
from pipeline.families.modeling_slim_bert import SlimBertForMaskedLM
from pipeline.families.modeling_slim_bert_heads import SlimBertForSequenceClassification
from pipeline.objectives.classification import ClassificationLoader, Encoded, Inputs
from pipeline.objectives.masked_lm import MaskedRows
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import Recipe, parse_recipe
from pipeline.stages.search import EarlyBird
from pipeline.training import optimizers
from pipeline.training.batches import Loader
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.engine import Engine
from pipeline.training.loop import Plan, train
from pipeline.training.metrics import Metrics
from pipeline.training.ranks import Ranks, started_ranks
from pipeline.training.tracking import NoTracker

GLOBAL_ROWS, LENGTH, VOCAB, STEPS = 8, 32, 200, 4


@dataclass(frozen=True)
class Case:
    """`packing` "texts" and "scores" are fine-tuning, "unknown" rows of nothing that could be masked."""

    packing: str
    stage: int
    unit: str = "token"
    sentence: str = "none"
    score: str = "taylor"

    @property
    def name(self) -> str:
        return f"{self.packing}-{self.sentence}"

    @property
    def is_finetuning(self) -> bool:
        return self.packing in ("texts", "scores")


CASES = (
    Case("documents", 1),
    Case("sentences", 2, unit="span", score="l1"),
    Case("pairs", 3, unit="word", sentence="nsp"),
    Case("pairs", 1, unit="span", sentence="sop"),
    Case("unknown", 1),
    Case("texts", 2),
    Case("scores", 2),
)


def recipe_of(case: Case, micro_rows: int) -> Recipe:
    """A small model without dropout. AdamW's large epsilon keeps its steps in proportion to gradients near 0."""
    return parse_recipe(
        {
            "seed": 5,
            "model": {"layers": 2, "hidden_size": 16, "heads": 4, "ffn": 24, "token_types": 2},
            "corpus": {"packing": "pairs" if case.sentence != "none" else "documents", "row_length": LENGTH},
            "objective": {"mask_rate": 0.3, "mask_unit": case.unit, "sentence": case.sentence},
            "batch": {"global_rows": GLOBAL_ROWS, "micro_rows": micro_rows},
            "optimizer": {"lr": 0.02, "eps": 0.1, "weight_decay": 0.0, "gradient_clipping": 0.5},
            "schedule": {"warmup_fraction": 0.0, "decay": "constant"},
            "search": {
                "score": case.score,
                "max_steps": STEPS,
                "guard_steps": 0,
                "draw": "fixed",
                "l1_heads": 0.01,
                "l1_neurons": 0.01,
            },
            "pretrain": {"steps": STEPS},
        },
        "test",
    )


def texts_of(case: Case) -> Encoded:
    """29 texts of unequal length, so that the last batch of an epoch takes rows of the next; of 15 the class is not
    known."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(4, LENGTH, 29)
    ids = draw.integers(5, VOCAB, lengths.sum()).astype(np.int32)
    labels = draw.integers(0, 3, 29) if case.packing == "texts" else draw.random(29, np.float32)
    if case.packing == "texts":
        labels[draw.permutation(29)[:15]] = -100
    return Encoded(ids, np.zeros(len(ids), np.uint8), np.cumsum([0, *lengths]), labels)


def loader_of(case: Case, shards: Path, micro_rows: int, rank: int = 0, world_size: int = 1) -> Loader:
    share = GLOBAL_ROWS, micro_rows, rank, world_size
    if case.is_finetuning:
        return ClassificationLoader(texts_of(case), Inputs(0, LENGTH, True), 5, *share)
    reader = ShardReader(shards / case.packing, "train")
    # A corpus of nothing but unknown tokens is refused; a step of them may happen.
    with patch("pipeline.objectives.packed_rows._check_words") if case.packing == "unknown" else nullcontext():
        return MaskedRows(reader, recipe_of(case, micro_rows).objective, 5, *share)


def model_of(case: Case, recipe: Recipe) -> SlimBertForMaskedLM | SlimBertForSequenceClassification:
    shape = recipe.dense_shape(VOCAB, 0)
    if case.is_finetuning:
        labels = 3 if case.packing == "texts" else 1
        return build_model(shape, SlimBertForSequenceClassification, seed=5, num_labels=labels)
    return build_model(shape, seed=5)


def run(case: Case, shards: Path, folder: Path, micros: int, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Train as the stages do. Returns the logged losses (STEPS,), the search's state and the weights."""
    micro_rows = GLOBAL_ROWS // ranks.world_size // micros
    recipe = recipe_of(case, micro_rows)
    model = model_of(case, recipe)
    config: dict[str, Any] = {"zero_optimization": {"stage": case.stage}, "steps_per_print": 10**9}
    groups = optimizers.parameter_groups(model, recipe.optimizer.weight_decay)
    engine = Engine(model, engine_config.join(config, recipe, ranks.world_size), groups, ranks)
    assert engine.accumulation == micros
    search = None if case.is_finetuning else EarlyBird(recipe, recipe.dense_shape(VOCAB, 0), folder / "scores", ranks)
    plan = Plan(STEPS, STEPS, recipe.optimizer, recipe.schedule, 5, 10**9, 10**9, log_every=1)
    loader = loader_of(case, shards, micro_rows, ranks.rank, ranks.world_size)
    never = cast(Checkpoints, SimpleNamespace(restore=lambda engine: None))
    with Metrics(folder, "split", STEPS, NoTracker(), ranks.is_main) as metrics:
        train(engine, loader, plan, metrics, never, lambda engine: {}, search)
    found = {f"weights/{name}": value for name, value in engine.weights().items()}
    found |= search.state()[1] if search else {}
    if ranks.is_main:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        found["losses"] = torch.tensor(losses, dtype=torch.float64)
    return found


def main() -> None:
    shards = Path(sys.argv[1])
    with started_ranks() as ranks:
        for case in CASES:
            for micros in (1, 2):
                folder = Path(f"{case.name}-{ranks.world_size}x{micros}")
                folder.mkdir(exist_ok=True)
                found = run(case, shards, folder, micros, ranks)
                if ranks.is_main:
                    save_file(found, folder.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
    # As the program itself leaves, see pipeline/__main__.py: without the destructors that sometimes abort.
    sys.stdout.flush()
    os._exit(0)
