"""Costs against the FLOPs of a shape, and against a sum over every draw."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.layer_drop.schedule import DropSchedule, LayerDrop
from pipeline.recipes.phases import Phase
from pipeline.training import costs
from pipeline.training.costs import StepCosts

SHAPE = EncoderShape(
    vocab_size=50,
    hidden_size=16,
    head_size=4,
    layers=(LayerShape(3, 24), LayerShape(1, 8), LayerShape(4, 40), LayerShape(2, 100)),
    max_positions=64,
    sentence_head=True,
)
UNIFORM = EncoderShape.uniform(num_layers=6, num_heads=2, ffn=64, hidden_size=16, vocab_size=50, max_positions=64)
# Two ranks with three micro-batches each; in the second phase rows are twice as long and half as many.
PHASES = [Phase(13, 16, 48, 8), Phase(6, 32, 24, 4)]
RANKS, MICRO_STEPS, STEPS, RATE = 2, 3, 19, 0.15


def drop_of(unit: str, layers: int = 4, **rest: Any) -> LayerDrop:
    values = {"time": "pld", "depth": "pld", "theta": 0.3, "dense_end": 0.2} | rest
    once = values.pop("once_a_step", False)
    return LayerDrop(DropSchedule(STEPS, layers, **values), 11, unit, once_a_step=once)


def layer_flops(shape: EncoderShape, index: int, row_length: int) -> float:
    """Training FLOPs a token of one layer: what the model without it saves."""
    rest = replace(shape, layers=shape.layers[:index] + shape.layers[index + 1 :])
    return shape.train_flops_per_token(row_length, RATE) - rest.train_flops_per_token(row_length, RATE)


def summed(shape: EncoderShape, drop: LayerDrop, first_step: int) -> tuple[list[float], list[float], list[float]]:
    """FLOPs, FLOPs without dropping and layers run, of every step: micro-batch by micro-batch, layer by layer."""
    flops, dense, depth = [], [], []
    phase_of_step = [phase for phase in PHASES for _ in range(phase.steps)]
    for step, phase in enumerate(phase_of_step):
        assert phase.global_rows == phase.micro_rows * MICRO_STEPS * RANKS
        tokens = phase.global_rows * phase.row_length
        whole = tokens * shape.train_flops_per_token(phase.row_length, RATE)
        skipped, rows_run = 0.0, 0
        for micro in range(MICRO_STEPS):
            for index, draw in enumerate(drop.draws(step, micro, phase.micro_rows)):
                rows = 0 if not draw.runs else phase.micro_rows if draw.rows is None else len(draw.rows)
                if step < first_step:
                    rows = phase.micro_rows
                rows_run += RANKS * rows
                left_out = RANKS * (phase.micro_rows - rows) * phase.row_length
                skipped += left_out * layer_flops(shape, index, phase.row_length)
        flops.append(whole - skipped)
        dense.append(whole)
        depth.append(rows_run / phase.global_rows)
    return flops, dense, depth


@pytest.mark.parametrize("shape", [SHAPE, UNIFORM, replace(UNIFORM, norm="pre")])
@pytest.mark.parametrize("micro_steps", [1, 3])
def test_without_dropping_a_step_costs_what_the_shape_says(shape: EncoderShape, micro_steps: int) -> None:
    costs = StepCosts(shape, PHASES, RATE, micro_steps)
    per_step = [
        phase.global_rows * phase.row_length * shape.train_flops_per_token(phase.row_length, RATE)
        for phase in PHASES
        for _ in range(phase.steps)
    ]
    assert [costs.flops(n) for n in range(STEPS + 1)] == pytest.approx([sum(per_step[:n]) for n in range(STEPS + 1)])
    assert [costs.depth(n, n + 1) for n in range(STEPS)] == [len(shape.layers)] * STEPS
    assert not costs.saved_by_step().any()
    assert costs.saved(0, STEPS) == costs.saved(3, 8) == 0.0


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize("first_step", [0, 5, 13, 16, STEPS])
@pytest.mark.parametrize("once_a_step", [False, True])
def test_costs_are_the_sum_over_all_draws(unit: str, first_step: int, once_a_step: bool) -> None:
    drop = drop_of(unit, once_a_step=once_a_step)
    costs = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop, first_step)
    flops, dense, depth = summed(SHAPE, drop, first_step)
    for n in range(STEPS + 1):
        assert costs.flops(n) == pytest.approx(sum(flops[:n]), rel=1e-12)
    for first, last in [(0, 1), (0, STEPS), (4, 7), (11, 15), (13, STEPS), (STEPS - 1, STEPS)]:
        assert costs.depth(first, last) == pytest.approx(np.mean(depth[first:last]), rel=1e-12)
        saved = 1 - sum(flops[first:last]) / sum(dense[first:last])
        assert costs.saved(first, last) == pytest.approx(saved, abs=1e-12)
    assert (costs.saved(0, STEPS) > 0) == (first_step < 15)  # the last 4 steps are dense


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize("first_step", [0, 5])
def test_a_skipped_layer_that_is_touched_costs_a_row(unit: str, first_step: int) -> None:
    stages = {"time": "stages", "depth": "alternate", "stages": (0.0, 0.5, 1.0), "theta": None, "dense_end": 0.0}
    drop = drop_of(unit, **stages)
    apart = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop, first_step)
    touched = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop, first_step, touch=True)
    added, extra = 0.0, []
    for step, phase in enumerate(PHASES[:1] * PHASES[0].steps + PHASES[1:] * PHASES[1].steps):
        for micro in range(MICRO_STEPS if step >= first_step else 0):
            for index, draw in enumerate(drop.draws(step, micro, phase.micro_rows)):
                added += 0 if draw.runs else RANKS * phase.row_length * layer_flops(SHAPE, index, phase.row_length)
        extra.append(added)
    assert extra[-1] > 0
    found = [touched.flops(n) - apart.flops(n) for n in range(1, STEPS + 1)]
    np.testing.assert_allclose(found, extra, rtol=1e-9, atol=1e-3)
    assert touched.depth(0, STEPS) == apart.depth(0, STEPS)


@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_one_row_a_micro_batch_saves_nothing_where_it_is_touched(unit: str) -> None:
    phases = [Phase(STEPS, 16, 6, 1)]
    drop = drop_of(unit, time="stages", depth="inner", stages=(0.0, 1.0), theta=None)
    assert StepCosts(SHAPE, phases, RATE, MICRO_STEPS, drop).saved(0, STEPS) > 0.1
    touched = StepCosts(SHAPE, phases, RATE, MICRO_STEPS, drop, touch=True)
    assert touched.saved(0, STEPS) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_a_schedule_that_begins_anew_is_counted_from_its_first_step(unit: str) -> None:
    schedule = DropSchedule(STEPS - 6, 4, time="decreasing", depth="uniform", theta=0.3, first_step=6)
    drop = LayerDrop(schedule, 11, unit)
    costs = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop, 6)
    flops, _, depth = summed(SHAPE, drop, 6)
    assert costs.flops(STEPS) == pytest.approx(sum(flops), rel=1e-12)
    assert costs.depth(6, 12) == pytest.approx(np.mean(depth[6:12]))
    assert costs.depth(0, 6) == 4
    assert costs.saved(0, 6) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize("first_step", [0, 7])
def test_the_numbers_do_not_depend_on_how_many_steps_are_worked_on_at_a_time(
    unit: str, first_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop_of(unit), first_step)
    for chunk in (1, 4, 13):
        monkeypatch.setattr(costs, "_CHUNK_STEPS", chunk)
        parts = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop_of(unit), first_step)
        np.testing.assert_allclose(parts.saved_by_step(), whole.saved_by_step(), atol=1e-12)
        for n in range(STEPS + 1):
            assert parts.flops(n) == pytest.approx(whole.flops(n), rel=1e-12)
            assert parts.depth(0, n) == pytest.approx(whole.depth(0, n), rel=1e-12)


@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_savings_by_step_and_over_stretches_agree(unit: str) -> None:
    costs = StepCosts(SHAPE, PHASES, RATE, MICRO_STEPS, drop_of(unit), 3)
    dense = StepCosts(SHAPE, PHASES, RATE)
    by_step = costs.saved_by_step()
    assert by_step.shape == (STEPS,)
    for n in range(1, STEPS + 1):
        assert by_step[n - 1] == costs.saved(0, n)
        assert costs.flops(n) == pytest.approx(dense.flops(n) * (1 - by_step[n - 1]), rel=1e-12)
        assert costs.depth(0, n) == pytest.approx(np.mean([costs.depth(m, m + 1) for m in range(n)]))
        for first in range(n):
            real = costs.flops(n) - costs.flops(first)
            whole = dense.flops(n) - dense.flops(first)
            assert costs.saved(first, n) == pytest.approx(1 - real / whole, abs=1e-12)
    assert costs.flops(0) == 0.0
    assert costs.saved(5, 5) == 0.0
    assert costs.depth(5, 5) == 0.0


@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_equal_layers_save_as_the_depth_does(unit: str) -> None:
    """The heads are never saved: only the encoder's share of the FLOPs is."""
    drop = drop_of(unit, layers=6)
    costs = StepCosts(UNIFORM, PHASES[:1], RATE, MICRO_STEPS, drop)
    encoder = 3 * UNIFORM.encoder_flops_per_token(16) / UNIFORM.train_flops_per_token(16, RATE)
    for first, last in [(0, 13), (2, 3), (5, 11)]:
        assert costs.saved(first, last) == pytest.approx(encoder * (1 - costs.depth(first, last) / 6), abs=1e-12)


@pytest.mark.parametrize(("unit", "within"), [("sample", 1e-9), ("layer", 5e-3)])
def test_decreasing_linear_saves_a_quarter_of_the_largest_drop_rate(unit: str, within: float) -> None:
    """Every keep probability is a multiple of 1/5000, so no number of the 5000 rows is rounded."""
    schedule = DropSchedule(501, 6, time="decreasing", depth="linear", theta=0.5)
    costs = StepCosts(UNIFORM, [Phase(501, 16, 20_000, 5_000)], RATE, 4, LayerDrop(schedule, 0, unit))
    assert 1 - costs.depth(0, 501) / 6 == pytest.approx(0.5 / 4, abs=within)


def test_phases_without_steps_count_nothing() -> None:
    drop = drop_of("sample")
    plain = StepCosts(SHAPE, PHASES[:1], RATE, MICRO_STEPS, drop)
    padded = StepCosts(SHAPE, [Phase(0, 32, 24, 4), PHASES[0], Phase(0, 32, 24, 4)], RATE, MICRO_STEPS, drop)
    assert padded.saved_by_step().tolist() == plain.saved_by_step().tolist()
    assert padded.flops(13) == plain.flops(13)
    none = StepCosts(SHAPE, [Phase(0, 16, 48, 8)], RATE)
    assert none.flops(0) == 0.0
    assert none.saved_by_step().shape == (0,)
