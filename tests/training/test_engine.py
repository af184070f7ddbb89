"""DeepSpeed for real: one and two ranks, ZeRO 1 to 3, both optimisers, against plain PyTorch and each other."""

import json
from typing import Any

import pytest
import torch

from pipeline.families.hf import build_model
from tests import ranks
from tests.training import engine_case

CASE = ["-m", engine_case.__name__]
# (ranks, ZeRO stage, precision, optimiser)
CASES = [
    (1, 1, "fp32", "adamw"),
    (2, 1, "bf16", "adamw"),
    (2, 1, "fp32", "muon"),
    (2, 2, "bf16", "muon"),
    (2, 2, "fp32", "adamw"),
    (2, 3, "bf16", "muon"),
    (2, 3, "fp32", "adamw"),
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int, str, str], list[dict[str, Any]]]:
    """What came of CASES, on every rank: a start for each number of ranks."""
    folder = tmp_path_factory.mktemp("cases")
    found: dict[tuple[int, int, str, str], list[dict[str, Any]]] = {case: [] for case in CASES}
    for world in (1, 2):
        cases = [case for case in CASES if case[0] == world]
        ranks.run([*CASE, json.dumps([case[1:] for case in cases])], world, folder, seconds=400)
        for rank in range(world):
            of_rank = json.loads((folder / f"reports-{world}-{rank}.json").read_text(encoding="utf-8"))
            for case, report in zip(cases, of_rank, strict=True):
                found[case].append(report)
    return found


@pytest.fixture(scope="module")
def plain() -> tuple[list[float], list[float], list[float]]:
    """The same three steps in plain PyTorch, AdamW, fp32, one process, whole batches."""
    model = build_model(engine_case.SHAPE, seed=0)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6)
    gates = engine_case.GateSet(engine_case.SHAPE)
    alone = engine_case.Ranks(0, 0, 1, torch.device("cpu"))
    losses, norms, weight_norms = [], [], []
    for step in range(3):
        loss = model(**engine_case.batch(step, 0, alone, engine_case.GLOBAL_ROWS), gates=gates.tensors).loss
        loss.backward()
        weight_norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        grads = gates.collect(1.0)
        adamw.step()
        adamw.zero_grad()
        losses.append(float(loss.detach()))
        norms.append(float(torch.cat([*grads.heads, *grads.neurons]).norm()))
    return losses, norms, weight_norms


@pytest.mark.dist
@pytest.mark.parametrize("case", CASES, ids=["-".join(map(str, case)) for case in CASES])
def test_engine(
    case: tuple[int, int, str, str],
    plain: tuple[list[float], list[float], list[float]],
    reports: dict[tuple[int, int, str, str], list[dict[str, Any]]],
) -> None:
    _, _, precision, optimizer = case
    first = reports[case][0]
    assert all(other["losses"] == first["losses"] for other in reports[case])
    assert all(other["gate_norms"] == first["gate_norms"] for other in reports[case])
    assert all(other["weight_norms"] == first["weight_norms"] for other in reports[case])

    losses, norms, weight_norms = plain
    tolerance = 1e-4 if precision == "fp32" else 0.03
    assert first["losses"][0] == pytest.approx(losses[0], rel=tolerance)
    assert first["gate_norms"][0] == pytest.approx(norms[0], rel=10 * tolerance)
    assert first["weight_norms"][0] == pytest.approx(weight_norms[0], rel=tolerance)
    assert first["later_norm"][0] == pytest.approx(first["later_norm"][1], rel=tolerance)
    if optimizer == "adamw":
        assert first["losses"] == pytest.approx(losses, rel=tolerance)
        assert first["gate_norms"] == pytest.approx(norms, rel=10 * tolerance)
        assert first["weight_norms"] == pytest.approx(weight_norms, rel=10 * tolerance)
        assert first["muon"] == []
    else:
        assert first["losses"][2] < first["losses"][0]
        assert all(".layers." in name and name.endswith(".weight") for name in first["muon"])
        assert len(first["muon"]) == 4 * len(engine_case.SHAPE.layers)
        assert set(first["blocks"].values()) == {3}
        assert all(name.endswith("qkv.weight") for name in first["blocks"])

    assert first["resumed_equal"]
    assert first["inherited_equal"]
    assert (first["step"], first["values"], first["tensors"]) == (3, {"note": "three"}, {"gates": [1.0, 1.0]})
    assert first["left"] == ["newest.json", "step-00000003"]
    assert first["recomputed"][0] == pytest.approx(first["losses"], rel=tolerance)
    assert first["recomputed"][1] == pytest.approx(first["gate_norms"], rel=10 * tolerance)
