"""Engine cases, run on every rank by test_engine.py: train, checkpoint, resume, inherit; to reports-WORLD-RANK.json."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline.families.hf import build_model, load_state
from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import parse_recipe
from pipeline.tickets.gates import GateSet
from pipeline.training import optimizers
from pipeline.training.batches import label_counts
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.engine import Engine
from pipeline.training.ranks import Ranks, started_ranks

SHAPE = EncoderShape(
    vocab_size=64, hidden_size=16, head_size=4, layers=(LayerShape(4, 24), LayerShape(2, 16)), max_positions=16,
    type_vocab_size=2, norm="pre", dropout=0.0, attention_dropout=0.0, sentence_head=True,
)  # fmt: skip
GLOBAL_ROWS, LENGTH = 8, 16


def recipe(optimizer: str):
    clipping = 0.0 if optimizer == "muon" else 0.5
    return parse_recipe(
        {
            "batch": {"global_rows": GLOBAL_ROWS, "micro_rows": 2},
            "optimizer": {"name": optimizer, "lr": 0.01, "gradient_clipping": clipping},
        },
        "test",
    )


def batch(step: int, micro: int, ranks: Ranks, rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, 64, (GLOBAL_ROWS, LENGTH), generator=generator)
    start = (micro * ranks.world_size + ranks.rank) * rows
    mine = ids[start : start + rows]
    positions = torch.arange(0, rows * LENGTH, 4)
    labels = mine.reshape(-1)[positions]
    # Unequally many count, of those of the last rows none.
    labels[positions // LENGTH + start > GLOBAL_ROWS - 3] = -100
    return {
        "input_ids": mine,
        "token_type_ids": torch.arange(LENGTH).ge(9).long().repeat(len(mine), 1),
        "masked_positions": positions,
        "labels": labels,
        "sentence_targets": torch.tensor([-100, 1, 0, -100, 1, 0, 0, 1])[start : start + rows],
    }


def steps(engine: Engine, first: int, last: int, gates: GateSet, rate: float = 0.01) -> tuple[list[float], ...]:
    """Of every step the loss, the norm of the gates' gradients and that of the weights'."""
    losses, norms, weight_norms = [], [], []
    rows = GLOBAL_ROWS // engine.ranks.world_size // engine.accumulation
    for step in range(first, last):
        for group in engine.groups:
            group["lr"] = rate
        total = torch.zeros(())
        batches = [batch(step, micro, engine.ranks, rows) for micro in range(engine.accumulation)]
        counts = engine.mean_counts(label_counts(batches))
        for micro in range(engine.accumulation):
            loss = engine.forward(batches[micro], gates=gates.tensors, **counts).loss
            engine.backward(loss)
            total += loss.detach().float() / engine.accumulation
            if micro == engine.accumulation - 1:
                grads = gates.collect(engine.loss_scale * engine.ranks.world_size, engine.ranks.sum)
            engine.micro_step()
        losses.append(float(engine.ranks.sum(total)) / engine.ranks.world_size)
        norms.append(float(torch.cat([*grads.heads, *grads.neurons]).norm()))
        weight_norms.append(engine.grad_norm())
    return losses, norms, weight_norms


def plain_norm(weights: dict[str, torch.Tensor], step: int) -> float:
    """The norm of the gradient of a step's whole batch, in plain PyTorch."""
    model = build_model(SHAPE, seed=0)
    load_state(model, weights)
    model(**batch(step, 0, Ranks(0, 0, 1, torch.device("cpu")), GLOBAL_ROWS)).loss.backward()
    return float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def build(stage: int, precision: str, optimizer: str, ranks: Ranks, checkpointing: bool = False) -> Engine:
    config = {"zero_optimization": {"stage": stage}, "steps_per_print": 10**9}
    if precision == "bf16":
        config["bf16"] = {"enabled": True}
    model = build_model(SHAPE, seed=0)
    model.encoder.activation_checkpointing = checkpointing
    joined = engine_config.join(config, recipe(optimizer), ranks.world_size)
    return Engine(model, joined, optimizers.parameter_groups(model, 0.01), ranks)


def report_of(stage: int, precision: str, optimizer: str, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Losses and norms of one case, and whether what should be equal was."""
    gates = GateSet(SHAPE)
    engine = build(stage, precision, optimizer, ranks)
    losses, norms, weight_norms = steps(engine, 0, 3, gates)
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    checkpoints.save(engine, 3, {"note": "three"}, {"gates": torch.ones(2)})
    weights, moments = engine.weights(), engine.moments()
    more, _, later_norms = steps(engine, 3, 5, gates)
    final = engine.weights()

    resumed = build(stage, precision, optimizer, ranks)
    restored = checkpoints.restore(resumed)
    assert restored is not None
    again, _, _ = steps(resumed, 3, 5, gates)
    resumed_final = resumed.weights()

    heir = build(stage, precision, optimizer, ranks)
    heir.inherit(weights, moments, 3, batch(0, 0, ranks, GLOBAL_ROWS // ranks.world_size // heir.accumulation))
    inherited, _, _ = steps(heir, 3, 5, gates)

    recomputing = build(stage, precision, optimizer, ranks, checkpointing=True)
    recomputed, recomputed_norms, _ = steps(recomputing, 0, 3, gates)
    return {
        "losses": losses,
        "gate_norms": norms,
        "weight_norms": weight_norms,
        "later_norm": [later_norms[0], plain_norm(weights, 3)],
        "values": restored.values,
        "step": restored.step,
        "tensors": {name: value.tolist() for name, value in restored.tensors.items()},
        "resumed_equal": more == again and all(torch.equal(final[n], resumed_final[n]) for n in final),
        "inherited_equal": more == inherited,
        "recomputed": [recomputed, recomputed_norms],
        "muon": sorted(n for n, p in engine.module.named_parameters() if getattr(p, "use_muon", False)),
        "blocks": {n: p.muon_num_heads for n, p in engine.module.named_parameters() if getattr(p, "muon_num_heads", 0)},
        "left": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }


def main() -> None:
    with started_ranks() as ranks:
        cases = enumerate(json.loads(sys.argv[1]))
        reports = [report_of(*case, Path(f"{ranks.world_size}-ranks-{number}"), ranks) for number, case in cases]
    Path(f"reports-{ranks.world_size}-{ranks.rank}.json").write_text(json.dumps(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
    # As the program itself leaves, see pipeline/__main__.py: without the destructors that sometimes abort.
    sys.stdout.flush()
    os._exit(0)
