"""Layer dropping under DeepSpeed for real: two ranks, ZeRO 1 to 3, against plain PyTorch; and what hangs without it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.families.hf import build_model
from pipeline.layer_drop.schedule import Unit
from pipeline.layer_drop.switch import Switch
from tests import ranks
from tests.ranks import wait_until
from tests.training import drop_case

CASE = ["-m", drop_case.__name__]
pytestmark = pytest.mark.dist


def case(stage: int, **more: Any) -> dict[str, Any]:
    """One case of drop_case.py."""
    usual = {"unit": "layer", "growing": False, "precision": "fp32", "recompute": False, "offload": False}
    return {"stage": stage} | usual | {"optimizer": "adamw", "touch": None, "different": False} | more


def plain(unit: Unit, growing: bool) -> tuple[list[float], list[float], dict[str, float]]:
    """The same steps in plain PyTorch: one process, fp32, the micro-batches of all ranks one after another."""
    model = build_model(drop_case.SHAPE, seed=0)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6)
    drop, losses, norms = drop_case.layer_drop(unit, growing), [], []
    micros = drop_case.GLOBAL_ROWS // drop_case.MICRO_ROWS // 2
    for step in range(drop_case.STEPS):
        total = 0.0
        both = [drop_case.Ranks(rank, rank, 2, torch.device("cpu")) for rank in range(2)]
        batches = [[drop_case.batch(step, micro, rank) for micro in range(micros)] for rank in both]
        counted = sum(int((rows["labels"] != -100).sum()) for of_rank in batches for rows in of_rank)
        for micro in range(micros):
            switch = Switch(drop.draws(step, micro, drop_case.MICRO_ROWS))
            for rank in range(2):
                rows = batches[rank][micro]
                logits = model(**{**rows, "labels": None}, switch=switch).logits
                loss = torch.nn.functional.cross_entropy(logits, rows["labels"], reduction="sum") / counted
                loss.backward()
                total += float(loss.detach())
        for parameter in model.parameters():
            # A layer that was never run: ZeRO's flat gradients hold zeros for it.
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        adamw.step()
        adamw.zero_grad()
        losses.append(total)
    return losses, norms, {name: float(p.detach().double().abs().sum()) for name, p in model.named_parameters()}


CASES = [
    case(0),
    case(1),
    case(2, recompute=True),
    case(3, recompute=True),
    case(3, precision="bf16"),
    case(1, unit="sample"),
    case(3, unit="sample", recompute=True),
    case(1, growing=True),
    case(3, growing=True, recompute=True),
]
CASES += [case(1, offload=True), case(2, offload=True), case(3, offload=True), case(2, unit="sample", offload=True)]
CASES += [case(2, growing=True, offload=True)]
MUON = [case(stage, optimizer="muon", touch=touch) for stage in (1, 2) for touch in (False, True)]
MUON += [case(stage, optimizer="muon") for stage in (0, 3)]
MUON += [case(stage, optimizer="muon", offload=True) for stage in (2, 3)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of CASES and then MUON, alike on both ranks."""
    folder = tmp_path_factory.mktemp("cases")
    ranks.run([*CASE, json.dumps(CASES + MUON)], 2, folder, seconds=400)
    first, second = (json.loads((folder / f"reports-{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert first == second
    return first


@pytest.mark.parametrize("index", range(len(CASES)), ids=[str(list(case.values())[:6]) for case in CASES])
def test_two_ranks_train_what_one_process_does(index: int, reports: list[dict[str, Any]]) -> None:
    losses, norms, sums = plain(CASES[index]["unit"], CASES[index]["growing"])
    assert len({round(loss, 6) for loss in losses}) == drop_case.STEPS
    tolerance = 1e-4 if CASES[index]["precision"] == "fp32" else 0.03
    assert reports[index]["losses"] == pytest.approx(losses, rel=tolerance)
    assert reports[index]["grad_norms"] == pytest.approx(norms, rel=10 * tolerance)
    assert reports[index]["sums"] == pytest.approx(sums, rel=10 * tolerance)


@pytest.mark.parametrize("stage", [1, 2])
def test_muon_takes_a_skipped_layer_as_one_with_zero_gradients(stage: int, reports: list[dict[str, Any]]) -> None:
    skipped, touched = reports[len(CASES) + 2 * (stage - 1) :][:2]
    assert skipped["losses"] == pytest.approx(touched["losses"], rel=1e-6)
    assert skipped["sums"] == pytest.approx(touched["sums"], rel=1e-5)


def test_muon_leaves_a_skipped_layer_where_it_is(reports: list[dict[str, Any]]) -> None:
    for report in reports[len(CASES) :]:
        assert len(report["strayed"]) >= 4
        assert max(report["strayed"]) < 1e-6, report["strayed"]


def test_norms_under_muon_are_those_of_the_gradients(reports: list[dict[str, Any]]) -> None:
    _, norms, _ = plain("layer", False)
    for report in reports[len(CASES) :]:
        # In later steps the weights are not those of AdamW.
        assert report["grad_norms"][0] == pytest.approx(norms[0], rel=1e-4)


def test_different_decisions_hang_or_crash(tmp_path: Path) -> None:
    started = {}
    for stage in (1, 2, 3):
        (tmp_path / str(stage)).mkdir()
        # The same run with equal decisions comes first, twice: it ends, and the second time tells how long it takes.
        cases = [case(stage, touch=False)] * 2 + [case(stage, different=True, touch=False)]
        started[stage] = ranks.start([*CASE, json.dumps(cases)], 2, tmp_path / str(stage))

    def ended(stage: int) -> list[int]:
        """The number of cases that each rank has brought to their end."""
        paths = [tmp_path / str(stage) / f"reports-{rank}.json" for rank in range(2)]
        return [len(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0 for path in paths]

    try:
        moments = []
        for cases_done in (1, 2):
            wait_until(lambda n=cases_done: all(min(ended(s)) >= n for s in started), 180, f"{cases_done} equal cases")
            moments.append(time.monotonic())
        deadline = time.monotonic() + max(10, 5 * (moments[1] - moments[0]))
        while time.monotonic() < deadline and any(p.poll() is None for pair in started.values() for p in pair):
            time.sleep(0.1)
        codes = {stage: [process.poll() for process in pair] for stage, pair in started.items()}
        reports = {stage: ended(stage) for stage in started}
    finally:
        for pair in started.values():
            ranks.kill(pair)
    assert all(pair != [0, 0] for pair in codes.values()), codes
    assert all(min(pair) == 2 for pair in reports.values()), reports
