"""Layer dropping in the engine, for test_engine_drop.py: some steps a case on every rank, to reports-RANK.json."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.files import write_atomically
from pipeline.families.hf import build_model
from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.layer_drop.schedule import DropSchedule, LayerDrop, Unit
from pipeline.layer_drop.switch import Switch
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import parse_recipe
from pipeline.training import optimizers
from pipeline.training.batches import label_counts
from pipeline.training.engine import Engine
from pipeline.training.ranks import Ranks, started_ranks

WIDTHS = (LayerShape(4, 24), LayerShape(2, 16), LayerShape(1, 8), LayerShape(3, 32))
SHAPE = EncoderShape(
    vocab_size=64, hidden_size=16, head_size=4, layers=WIDTHS, max_positions=16, norm="pre", dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip
GLOBAL_ROWS, MICRO_ROWS, LENGTH, STEPS = 16, 4, 16, 4


def layer_drop(unit: Unit, growing: bool, seed: int = 3) -> LayerDrop:
    """Half of the layers at random, or for the first half of the steps every second layer."""
    if growing:
        schedule = DropSchedule(STEPS, len(WIDTHS), time="stages", depth="alternate", stages=(0.0, 1.0))
    else:
        schedule = DropSchedule(STEPS, len(WIDTHS), time="constant", depth="uniform", theta=0.5)
    return LayerDrop(schedule, seed, unit)


def batch(step: int, micro: int, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Packed rows: two documents each. The micro-batches have unequal numbers of labels that count."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, 64, (GLOBAL_ROWS, LENGTH), generator=generator)
    start = (micro * ranks.world_size + ranks.rank) * MICRO_ROWS
    mine = ids[start : start + MICRO_ROWS]
    positions = torch.arange(0, MICRO_ROWS * LENGTH, 4)
    labels = mine.reshape(-1)[positions]
    labels[: 5 * ranks.rank + 3 * micro] = -100
    return {
        "input_ids": mine,
        "document_ids": torch.arange(LENGTH).ge(9).long().repeat(MICRO_ROWS, 1) + 1,
        "masked_positions": positions,
        "labels": labels,
    }


def train(case: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Losses and gradient norms of every step, every weight's absolute sum at the end, how far skipped matrices moved.

    `strayed`: of every matrix in a layer that was skipped in a whole step after it had run in an earlier one, the
    largest distance from what weight decay alone makes of it.
    """
    optimizer = {"name": case["optimizer"], "lr": 0.01, "gradient_clipping": 0.5 * (case["optimizer"] == "adamw")}
    recipe = parse_recipe(
        {"batch": {"global_rows": GLOBAL_ROWS, "micro_rows": MICRO_ROWS}, "optimizer": optimizer}, "t"
    )
    config: dict[str, Any] = {"zero_optimization": {"stage": case["stage"]}, "steps_per_print": 10**9}
    if case["offload"]:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if case["precision"] == "bf16":
        config["bf16"] = {"enabled": True}
    model = build_model(SHAPE, seed=0)
    model.encoder.activation_checkpointing = case["recompute"]
    groups = optimizers.parameter_groups(model, 0.01)
    joined = engine_config.join(config, recipe, ranks.world_size)
    # DeepSpeed's own CPU Adam is compiled for minutes in every new environment; what is offloaded is the same.
    joined["optimizer"]["params"]["torch_adam"] = "EARLYBIRD_CPU_ADAM" not in os.environ
    engine = Engine(model, joined, groups, ranks)
    drop = layer_drop(case["unit"], case["growing"], seed=3 + ranks.rank * case["different"])
    losses, norms, strayed, ran_before = [], [], [], np.zeros(len(WIDTHS), bool)
    for step in range(STEPS):
        for group in engine.groups:
            group["lr"] = 0.01
        total = torch.zeros(())
        before, ran = engine.weights(), np.zeros(len(WIDTHS), bool)
        batches = [batch(step, micro, ranks) for micro in range(engine.accumulation)]
        counts = engine.mean_counts(label_counts(batches))
        for micro in range(engine.accumulation):
            draws = drop.draws(step, micro, MICRO_ROWS)
            ran |= [draw.runs for draw in draws]
            switch = Switch(draws, touch=engine.needs_every_gradient if case["touch"] is None else case["touch"])
            loss = engine.forward(batches[micro], switch=switch, **counts).loss
            engine.backward(loss)
            total += loss.detach().float() / engine.accumulation
            engine.micro_step()
        losses.append(float(ranks.sum(total)) / ranks.world_size)
        norms.append(engine.grad_norm())
        after = engine.weights()
        for layer in np.flatnonzero(ran_before & ~ran):
            for name in (n for n in after if f".layers.{layer}." in n and after[n].ndim == 2):
                strayed.append(float((after[name] - before[name] * (1 - 0.01 * 0.01)).abs().max()))
        ran_before |= ran
    sums = {name: float(weight.double().abs().sum()) for name, weight in engine.weights().items()}
    return {"losses": losses, "grad_norms": norms, "sums": sums, "strayed": strayed}


def main() -> None:
    found: list[dict[str, Any]] = []
    with started_ranks() as ranks:
        for case in json.loads(sys.argv[1]):
            found.append(train(case, ranks))
            # More than a pipe holds that nobody reads before the end.
            write_atomically(Path(f"reports-{ranks.rank}.json"), json.dumps(found))


if __name__ == "__main__":
    main()
    # As the program itself leaves, see pipeline/__main__.py: without the destructors that sometimes abort.
    sys.stdout.flush()
    os._exit(0)
