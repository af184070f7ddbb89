"""Schedules in closed form; parameter groups as DeepSpeed's optimisers want them."""

import math

import pytest

from pipeline.families.hf import build_model
from pipeline.families.shape import EncoderShape
from pipeline.recipes.sections import Optimizer, Schedule
from pipeline.training.optimizers import parameter_groups, peak_rate, rate_factor


def test_linear_schedule() -> None:
    schedule = Schedule(warmup_fraction=0.1, decay="linear", final_fraction=0.0)
    values = [rate_factor(schedule, step, 100) for step in range(100)]
    assert values[0] == pytest.approx(1 / 11)
    assert values[9] == pytest.approx(10 / 11)
    assert values[10] == 1.0
    assert values[55] == pytest.approx(0.5)
    assert values[99] == pytest.approx(1 / 90)
    assert rate_factor(schedule, 100, 100) == 0.0


def test_cosine_schedule_and_floor() -> None:
    schedule = Schedule(warmup_fraction=0.0, decay="cosine", final_fraction=0.2)
    assert rate_factor(schedule, 0, 50) == 1.0
    assert rate_factor(schedule, 25, 50) == pytest.approx(0.6)
    assert rate_factor(schedule, 10, 50) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 5)))
    assert rate_factor(schedule, 50, 50) == pytest.approx(0.2)


def test_constant_schedule() -> None:
    schedule = Schedule(warmup_fraction=0.0, decay="constant")
    assert {rate_factor(schedule, step, 10) for step in range(10)} == {1.0}


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_schedules_rise_then_fall(decay: str) -> None:
    schedule = Schedule(warmup_fraction=0.2, decay=decay)
    values = [rate_factor(schedule, step, 50) for step in range(50)]
    top = values.index(max(values))
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_groups_split_by_decay_and_miss_nothing() -> None:
    shape = EncoderShape.uniform(num_layers=2, num_heads=2, ffn=16, hidden_size=8, vocab_size=64, max_positions=8)
    model = build_model(shape, seed=0)
    decayed, bare = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert bare["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in bare["params"])
    assert {id(p) for p in [*decayed["params"], *bare["params"]]} == {id(p) for p in model.parameters()}


def test_peak_rates_of_muons_two_halves() -> None:
    muon = Optimizer(name="muon", lr=0.02, adamw_lr=0.001, gradient_clipping=0)
    assert peak_rate({"use_muon": True}, muon) == 0.02
    assert peak_rate({"use_muon": False}, muon) == 0.001
    assert peak_rate({}, Optimizer(name="adamw", lr=0.003)) == 0.003
