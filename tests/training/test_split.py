"""A step's loss does not depend on how its rows were split over ranks and micro-batches: against plain PyTorch."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pipeline.tickets.gates import GateSet
from tests import ranks
from tests.shard_files import SPECIAL, random_rows, write_shards
from tests.training import split_case
from tests.training.split_case import CASES, GLOBAL_ROWS, LENGTH, STEPS, VOCAB, Case

CASE = ["-m", split_case.__name__]
SPLITS = ["1x1", "1x2", "2x1", "2x2"]  # ranks x micro-batches
pytestmark = pytest.mark.dist


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with much padding, more than half of them (with "unknown" all) of nothing but unknown tokens."""
    folder = tmp_path_factory.mktemp("shards")
    for packing in ("documents", "sentences", "pairs", "unknown"):
        kind = "documents" if packing == "unknown" else packing
        rows = random_rows(45, LENGTH, kind, VOCAB, seed=3, padded=0.7)
        for number in range(45):
            if packing == "unknown" or number % 5 in (0, 2, 3):
                rows.ids[number][rows.ids[number] > SPECIAL["mask"]] = SPECIAL["unk"]
        write_shards(folder / packing, {"train": [rows]}, kind, VOCAB, continuation_ids=range(120, 200))
    return folder


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which split_case left what came of every case and split."""
    folder = tmp_path_factory.mktemp("trained")
    started = [(world, ranks.start([*CASE, str(shards)], world, folder)) for world in (1, 2)]
    ended = [(world, ranks.finish(processes, 400)) for world, processes in started]
    for world, results in ended:
        for rank, (code, output) in enumerate(results):
            assert code == 0, f"rank {rank} of {world} ended with {code}:\n{output[-4000:]}"
    return folder


def plain(case: Case, shards: Path) -> dict[str, torch.Tensor]:
    """What split_case.run returns, by plain PyTorch on whole batches."""
    recipe = split_case.recipe_of(case, GLOBAL_ROWS)
    model, loader = split_case.model_of(case, recipe).train(), split_case.loader_of(case, shards, GLOBAL_ROWS)
    gates = GateSet(recipe.dense_shape(VOCAB, 0))
    adamw = torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.98), eps=0.1, weight_decay=0.0)
    adam = torch.optim.Adam(gates.named().values(), lr=1e-3)
    losses, sums = [], {name: torch.zeros_like(gate) for name, gate in gates.named().items()}
    for step in range(STEPS):
        batch = loader.micro_batch(step, 0)
        labels, sentences = batch.pop("labels"), batch.pop("sentence_targets", None)
        output = model(**batch, gates=gates.tensors)
        if case.packing == "scores":
            loss = F.mse_loss(output.logits[:, 0], labels)
        elif case.packing == "unknown":
            loss = output.logits.sum()
        else:
            loss = F.cross_entropy(output.logits, labels)
        if sentences is not None:
            loss = loss + F.cross_entropy(output.sentence_logits, sentences)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adamw.step()
        for name, gate in gates.named().items():
            sums[name] += gate.grad.abs() / STEPS
            gate.grad += 0.01 * gate.detach().sign()
        if case.score == "l1":
            adam.step()
        adamw.zero_grad()
        adam.zero_grad()
        losses.append(float(loss.detach()))
    found = {f"weights/{name}": weight.detach() for name, weight in model.named_parameters()}
    if case.score == "l1":
        found |= {f"gates/{name}": gate.detach() for name, gate in gates.named().items()}
        found |= {f"score/{name}.exp_avg": adam.state[gate]["exp_avg"] for name, gate in gates.named().items()}
    elif not case.is_finetuning:
        found |= {f"score/{name}": mean for name, mean in sums.items()}
    return found | {"losses": torch.tensor(losses, dtype=torch.float64)}


def counts(case: Case, shards: Path, world: int, micros: int) -> list[int]:
    """The labels that count in every micro-batch of a split, on every rank, step after step."""
    rows = GLOBAL_ROWS // world // micros
    loaders = [split_case.loader_of(case, shards, rows, rank, world) for rank in range(world)]
    where = itertools.product(range(STEPS), loaders, range(micros))
    return [int((loader.micro_batch(step, micro)["labels"] != -100).sum()) for step, loader, micro in where]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_split_trains_what_plain_pytorch_does_on_whole_batches(case: Case, shards: Path, trained: Path) -> None:
    wanted = plain(case, shards)
    for split in SPLITS:
        found = load_file(trained / f"{case.name}-{split}.safetensors")
        for name, value in wanted.items():
            # Weights near 0 are differences of larger numbers; so are some gates' gradients.
            atol = {"weights": 1e-8, "gates": 1e-8, "score": 1e-6 * float(value.abs().max()), "losses": 0.0}
            torch.testing.assert_close(
                found[name], value, rtol=1e-6, atol=atol[name.partition("/")[0]],
                msg=lambda text, name=name, split=split: f"{split} {name}: {text}",
            )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_splits_are_unequal(case: Case, shards: Path) -> None:
    """What the test above stands on: micro-batches with many labels, with few and with none."""
    found = counts(case, shards, 2, 2)
    if case.packing == "unknown":
        assert max(found) == 0
    elif case.packing == "scores":
        assert set(found) == {2}
    else:
        assert min(found) == 0
        assert len(set(found)) > 2
        assert all(sum(found[4 * step : 4 * step + 4]) for step in range(STEPS))
