"""Schedules against their formulas, draws against chance and against a hash written in plain integers."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.layer_drop import schedule
from pipeline.layer_drop.schedule import DropSchedule, LayerDraw, LayerDrop

REPOSITORY = Path(__file__).parents[2]
TIMES = ["constant", "pld", "decreasing", "stages"]
DEPTHS = ["uniform", "pld", "linear", "alternate", "inner"]
SCALINGS = ["block", "sublayer", "none"]
RATES = st.floats(0.01, 1.0)


@st.composite
def schedules(draw: Callable[..., Any], max_steps: int = 40) -> DropSchedule:
    time, depth = draw(st.sampled_from(TIMES)), draw(st.sampled_from(DEPTHS))
    stage = RATES if depth in ("uniform", "pld") else st.just(0.0) | RATES
    dense_start = draw(st.floats(0, 0.9))
    return DropSchedule(
        total_steps=draw(st.integers(1, max_steps)),
        num_layers=draw(st.integers(1, 9)),
        time=time,
        depth=depth,
        theta=None if time == "stages" else draw(RATES),
        gamma=draw(st.none() | st.floats(0.001, 5)) if time == "pld" else None,
        stages=tuple(draw(st.lists(stage, min_size=1, max_size=5))) if time == "stages" else (),
        dense_start=dense_start,
        dense_end=draw(st.floats(0, 0.99 - dense_start)),
        first_step=draw(st.integers(0, 50)),
    )


def steps_of(schedule: DropSchedule) -> np.ndarray:
    return schedule.first_step + np.arange(schedule.total_steps)


def window_of(schedule: DropSchedule) -> tuple[int, int]:
    """First step and end of what lies between the dense phases."""
    total = schedule.total_steps
    begin = schedule.first_step + round(schedule.dense_start * total)
    return begin, schedule.first_step + total - round(schedule.dense_end * total)


def plain(draws: Iterable[LayerDraw]) -> list[tuple[bool, float, list[int] | None, bool]]:
    return [(d.runs, d.scale, None if d.rows is None else d.rows.tolist(), d.each) for d in draws]


def uniform_drop(theta: float, unit: str = "layer", layers: int = 4, seed: int = 0, **rest: Any) -> LayerDrop:
    schedule = DropSchedule(10_000, layers, time="constant", depth="uniform", theta=theta)
    return LayerDrop(schedule, seed, unit, **rest)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unit": "layers"}, "unit is 'layers', wanted one of layer, sample"),
        ({"scaling": "sub-layer"}, "scaling is 'sub-layer', wanted one of block, sublayer, none"),
    ],
)
def test_a_way_to_skip_that_there_is_not_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with refused(f"layer dropping: {message}"):
        LayerDrop(DropSchedule(10, 4), 0, **values)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("draws", [1, 50, 333])
def test_what_ran_does_not_depend_on_how_many_draws_are_made_at_a_time(
    once: bool, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, steps = uniform_drop(0.5, once_a_step=once), np.arange(3, 40)
    expected = [[[d.runs for d in drop.draws(int(step), micro, 4)] for micro in range(7)] for step in steps]
    monkeypatch.setattr(schedule, "_CACHED_DRAWS", draws)
    found = drop.executed(steps, 7, 4)
    np.testing.assert_allclose(found, np.mean(expected, 1), rtol=1e-12)
    assert drop.executed(steps[:0], 7, 4).shape == (0, 4)


# Schedules over time


def test_constant_is_theta_at_every_step_of_the_schedule_and_1_outside() -> None:
    schedule = DropSchedule(4, 1, time="constant", theta=0.3, first_step=2)
    assert schedule.theta_at(np.arange(8)).tolist() == [1, 1, 0.3, 0.3, 0.3, 0.3, 1, 1]


def test_pld_falls_as_its_equation_says() -> None:
    schedule = DropSchedule(10_000, 12, time="pld", depth="pld", theta=0.5, gamma=0.001)
    found = schedule.theta_at(np.array([0, 1, 2000, 4600, 9999]))
    assert found.tolist() == pytest.approx([0.5 * math.exp(-0.001 * t) + 0.5 for t in (0, 1, 2000, 4600, 9999)])
    assert found[0] == 1.0
    assert found[2:4].tolist() == pytest.approx([0.568, 0.505], abs=5e-4)


def test_pld_without_gamma_falls_by_100_over_the_steps_between_the_dense_phases() -> None:
    rest = {"time": "pld", "theta": 0.4, "dense_start": 0.1, "dense_end": 0.3, "first_step": 7}
    schedule = DropSchedule(1000, 3, **rest)
    steps = np.arange(7, 1007)
    assert np.array_equal(schedule.theta_at(steps), DropSchedule(1000, 3, gamma=100 / 600, **rest).theta_at(steps))
    found = schedule.theta_at(np.array([106, 107, 108, 706, 707]))
    assert found.tolist() == pytest.approx(
        [1, 1, 0.6 * math.exp(-1 / 6) + 0.4, 0.6 * math.exp(-599 / 6) + 0.4, 1], abs=1e-15
    )


def test_decreasing_goes_in_equal_steps_from_theta_to_1() -> None:
    schedule = DropSchedule(5, 1, time="decreasing", theta=0.2)
    assert schedule.theta_at(np.arange(6)).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert DropSchedule(1, 1, time="decreasing", theta=0.2).theta_at(0)[0] == pytest.approx(0.2)


@given(st.floats(1e-3, 1), st.integers(2, 10**6))
def test_decreasing_begins_at_theta_and_ends_at_exactly_1(theta: float, steps: int) -> None:
    schedule = DropSchedule(steps, 1, time="decreasing", theta=theta)
    assert schedule.theta_at(np.array([0, steps - 1])).tolist() == [theta, 1.0]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (8, [0.2, 0.2, 0.4, 0.4, 0.9, 0.9, 1, 1]),
        (10, [0.2, 0.2, 0.2, 0.4, 0.4, 0.9, 0.9, 0.9, 1, 1]),
        (2, [0.2, 0.9]),
    ],
)
def test_stages_are_equally_long(steps: int, wanted: list[float]) -> None:
    schedule = DropSchedule(steps, 1, time="stages", stages=(0.2, 0.4, 0.9, 1.0))
    assert schedule.theta_at(np.arange(steps)).tolist() == wanted


@pytest.mark.parametrize(
    ("time", "rest", "wanted"),
    [
        ("constant", {}, [0.5] * 5),
        ("pld", {"gamma": math.log(2)}, [1, 0.75, 0.625, 0.5625, 0.53125]),
        ("decreasing", {}, [0.5, 0.625, 0.75, 0.875, 1]),
        ("stages", {"stages": (0.1, 0.6)}, [0.1, 0.1, 0.1, 0.6, 0.6]),
    ],
)
def test_time_is_counted_between_the_dense_phases_from_the_first_step_on(
    time: str, rest: dict[str, Any], wanted: list[float]
) -> None:
    schedule = DropSchedule(10, 1, time=time, dense_start=0.2, dense_end=0.3, first_step=100, **rest)
    found = schedule.theta_at(np.arange(95, 115))
    assert found.tolist() == pytest.approx([1] * 7 + wanted + [1] * 8)
    assert [schedule.theta_at(step).tolist() for step in range(95, 115)] == [[value] for value in found]


# Distributions over depth


@pytest.mark.parametrize(
    ("depth", "wanted"),
    [
        ("uniform", [0.6, 0.6, 0.6, 0.6, 0.6]),
        ("pld", [0.92, 0.84, 0.76, 0.68, 0.6]),
        ("linear", [1, 0.9, 0.8, 0.7, 0.6]),
        ("alternate", [1, 0.6, 1, 0.6, 1]),
        ("inner", [1, 0.6, 0.6, 0.6, 1]),
    ],
)
def test_keep_probabilities_of_five_layers(depth: str, wanted: list[float]) -> None:
    schedule = DropSchedule(10, 5, time="constant", depth=depth, theta=0.6)
    assert schedule.keep(3).tolist() == [pytest.approx(wanted)]
    assert schedule.keep(np.arange(4)).shape == (4, 5)
    assert schedule.expected_depth(3).tolist() == pytest.approx([sum(wanted)])


@pytest.mark.parametrize(
    ("depth", "one", "two"),
    [
        ("uniform", [0.6], [0.6, 0.6]),
        ("pld", [0.6], [0.8, 0.6]),
        ("linear", [1], [1, 0.6]),
        ("alternate", [1], [1, 0.6]),
        ("inner", [1], [1, 1]),
    ],
)
@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_models_of_one_and_two_layers_work_at_every_depth(
    depth: str, one: list[float], two: list[float], unit: str
) -> None:
    for wanted in (one, two):
        schedule = DropSchedule(10, len(wanted), time="constant", depth=depth, theta=0.6)
        assert schedule.keep(0).tolist() == [pytest.approx(wanted)]
        draws = LayerDrop(schedule, 0, unit).draws(0, 0, 5)
        assert len(draws) == len(wanted)
        if unit == "sample":
            assert [5 if d.rows is None else len(d.rows) for d in draws] == [round(5 * keep) for keep in wanted]


@pytest.mark.parametrize("layers", [1, 6, 12, 24])
def test_expected_depth_of_pld_at_theta_a_half_tends_to_3l_minus_1_quarters(layers: int) -> None:
    schedule = DropSchedule(10_000, layers, time="pld", depth="pld", theta=0.5)
    assert schedule.expected_depth(0)[0] == layers
    assert schedule.expected_depth(9999)[0] == pytest.approx((3 * layers - 1) / 4, abs=1e-12)


def test_pld_of_the_paper_keeps_8_75_of_12_layers_and_73_percent_over_its_run() -> None:
    schedule = DropSchedule(200_000, 12, time="pld", depth="pld", theta=0.5, gamma=0.001)
    assert schedule.expected_depth(199_999)[0] == pytest.approx(8.75)
    # Geometric sum of exp(-gamma t) over the steps.
    fallen = (1 - math.exp(-200)) / (1 - math.exp(-0.001)) / 200_000
    wanted = 1 - 13 / 24 * 0.5 * (1 - fallen)
    assert schedule.expected_depth(np.arange(200_000)).mean() / 12 == pytest.approx(wanted, rel=1e-9)
    assert wanted == pytest.approx(0.731, abs=1e-3)


@given(RATES, st.integers(2, 200), st.integers(2, 24))
def test_decreasing_linear_saves_a_quarter_of_the_largest_drop_rate(theta: float, steps: int, layers: int) -> None:
    schedule = DropSchedule(steps, layers, time="decreasing", depth="linear", theta=theta)
    saved = 1 - schedule.expected_depth(np.arange(steps)).mean() / layers
    assert saved == pytest.approx((1 - theta) / 4, abs=1e-12)


@given(schedules())
@settings(deadline=None)
def test_keep_is_a_probability_that_follows_the_rules_of_time_and_depth(schedule: DropSchedule) -> None:
    steps = steps_of(schedule)
    keep, theta = schedule.keep(steps), schedule.theta_at(steps)
    least = min(schedule.stages) if schedule.time == "stages" else schedule.theta
    assert keep.shape == (schedule.total_steps, schedule.num_layers)
    assert ((keep >= 0) & (keep <= 1)).all()
    assert (keep[:, 0] > 0).all()
    assert (keep[np.broadcast_to(theta[:, None] > 0, keep.shape)] > 0).all()
    assert (keep >= least - 1e-12).all()
    assert (keep >= theta[:, None] - 1e-12).all()
    assert np.array_equal(schedule.expected_depth(steps), keep.sum(1))

    begin, end = window_of(schedule)
    dense = (steps < begin) | (steps >= end)
    assert (keep[dense] == 1).all()
    outside = np.array([schedule.first_step - 1, schedule.first_step + schedule.total_steps])
    assert (schedule.keep(outside) == 1).all()

    inside = theta[~dense]
    if schedule.time == "constant":
        assert (inside == schedule.theta).all()
    elif schedule.time == "pld":
        assert (np.diff(inside) <= 0).all()
    elif schedule.time == "decreasing":
        assert (np.diff(inside) >= 0).all()
    else:
        assert set(inside.tolist()) <= set(schedule.stages)

    depth, layers = schedule.depth, schedule.num_layers
    if depth in ("linear", "alternate", "inner"):
        assert (keep[:, 0] == 1).all()
    if depth == "inner":
        assert (keep[:, -1] == 1).all()
        np.testing.assert_allclose(keep[:, 1:-1], np.repeat(theta[:, None], max(0, layers - 2), 1), atol=1e-15)
    if depth == "uniform":
        np.testing.assert_allclose(keep, np.repeat(theta[:, None], layers, 1), atol=1e-15)
    if depth == "alternate":
        assert (keep[:, ::2] == 1).all()
        np.testing.assert_allclose(keep[:, 1::2], np.repeat(theta[:, None], layers // 2, 1), atol=1e-15)
    if depth in ("uniform", "pld", "linear"):
        assert (np.diff(keep, axis=1) <= 1e-15).all()
    if depth == "pld" or (depth == "linear" and layers > 1):
        np.testing.assert_allclose(keep[:, -1], theta, atol=1e-15)
        np.testing.assert_allclose(np.diff(keep, n=2, axis=1), 0, atol=1e-14)


# Draws


@given(schedules(), st.sampled_from(["layer", "sample"]), st.integers(0, 2**40), st.integers(1, 12))
@settings(deadline=None)
def test_draws_are_a_pure_function_of_their_arguments(schedule: DropSchedule, unit: str, seed: int, rows: int) -> None:
    drop = LayerDrop(schedule, seed, unit)
    assume(_keeps_rows(drop, rows))
    steps = steps_of(schedule)[-3:]
    places = [(int(step), micro) for step in steps for micro in range(3)]
    first = {place: plain(drop.draws(*place, rows)) for place in places}
    again = LayerDrop(schedule, seed, unit)
    assert {place: plain(again.draws(*place, rows)) for place in reversed(places)} == first


def _keeps_rows(drop: LayerDrop, rows: int) -> bool:
    keep = drop.schedule.keep(steps_of(drop.schedule))
    return drop.unit == "layer" or bool((keep[keep > 0] * rows > 0.5001).all())


def _hash(*parts: int) -> int:
    """SplitMix64's output function over a running sum, in plain integers."""
    state = 0
    for part in parts:
        state = (state + 0x9E3779B97F4A7C15 + part) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state


@pytest.mark.parametrize("seed", [0, 42, 2**40 + 1])
def test_draws_are_those_of_the_hash(seed: int) -> None:
    """Another hash or stream would give a run that is resumed, or made again, other layers."""
    schedule = DropSchedule(100, 5, time="constant", depth="pld", theta=0.3)
    for step, micro in [(0, 0), (17, 0), (17, 3), (99, 1)]:
        keep = schedule.keep(step)[0]
        found = LayerDrop(schedule, seed, "layer").draws(step, micro, 8)
        wanted = [(_hash(seed, 21, step, micro, layer) >> 11) * 2.0**-53 < keep[layer] for layer in range(5)]
        assert [d.runs for d in found] == wanted
        for layer, draw in enumerate(LayerDrop(schedule, seed, "sample").draws(step, micro, 8)):
            count = math.floor(keep[layer] * 8 + 0.5)
            order = sorted(range(8), key=lambda row: _hash(seed, 22, step, micro, layer, row))
            assert draw.rows is not None
            assert draw.rows.tolist() == sorted(order[:count])


_ELSEWHERE = """
import json
from pipeline.layer_drop.schedule import DropSchedule, LayerDrop
schedule = DropSchedule(60, 6, time="pld", depth="pld", theta=0.3)
found = [
    [d.runs, d.scale, None if d.rows is None else d.rows.tolist(), d.each]
    for unit in ("layer", "sample")
    for step in (0, 1, 30, 59)
    for micro in (0, 1)
    for d in LayerDrop(schedule, 42, unit, "sublayer").draws(step, micro, 7)
]
print(json.dumps(found))
"""


def test_other_processes_draw_the_same() -> None:
    here: list[Any] = []
    schedule = DropSchedule(60, 6, time="pld", depth="pld", theta=0.3)
    for unit in ("layer", "sample"):
        drop = LayerDrop(schedule, 42, unit, "sublayer")
        here += [list(d) for step in (0, 1, 30, 59) for micro in (0, 1) for d in plain(drop.draws(step, micro, 7))]
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        process = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        assert json.loads(process.stdout) == here


def test_layers_run_as_often_as_the_schedule_keeps_them() -> None:
    schedule = DropSchedule(2000, 6, time="constant", depth="pld", theta=0.3)
    drop, micros = LayerDrop(schedule, 5, "layer"), 10
    share = drop.executed(np.arange(2000), micros, 1).mean(0)
    keep = schedule.keep(0)[0]
    sigma = np.sqrt(keep * (1 - keep) / (2000 * micros))
    assert (np.abs(share - keep) < 4 * sigma).all()


def test_frequencies_follow_the_schedule_through_time() -> None:
    schedule = DropSchedule(20, 4, time="decreasing", depth="linear", theta=0.2)
    for step in (0, 6, 13, 19):
        keep = schedule.keep(step)[0]
        share = LayerDrop(schedule, 3, "layer").executed(np.array([step]), 20_000, 1)[0]
        assert (np.abs(share - keep) <= 4 * np.sqrt(keep * (1 - keep) / 20_000)).all()


def _layer_bits(seed: int, steps: range, micro: int) -> np.ndarray:
    """(steps, layers): whether the layer runs, each with probability 1/2."""
    drop = uniform_drop(0.5, layers=8, seed=seed)
    return np.array([[d.runs for d in drop.draws(step, micro, 1)] for step in steps])


def test_draws_of_layers_are_independent_of_seed_step_micro_step_and_layer() -> None:
    base = _layer_bits(1, range(600), 0)
    others = {
        "seed": _layer_bits(2, range(600), 0),
        "step": _layer_bits(1, range(1, 601), 0),
        "micro": _layer_bits(1, range(600), 1),
        "layer": np.roll(base, 1, axis=1),
    }
    sigma = 0.5 / math.sqrt(base.size)
    assert abs(base.mean() - 0.5) < 4 * sigma
    for name, other in others.items():
        assert abs((base == other).mean() - 0.5) < 4 * sigma, name
    # How many of 8 layers run is binomial: a draw for all layers at once would not be.
    assert base.sum(1).var() == pytest.approx(2, abs=4 * 2 * math.sqrt(2 / 600))


def _row_bits(seed: int, steps: range, micro: int) -> np.ndarray:
    """(steps, layers, 10): whether the layer runs on the row, 4 rows each."""
    drop = uniform_drop(0.4, "sample", layers=3, seed=seed)
    found = np.zeros((len(steps), 3, 10), np.bool_)
    for at, step in enumerate(steps):
        for layer, draw in enumerate(drop.draws(step, micro, 10)):
            found[at, layer, draw.rows] = True
    return found


def test_rows_are_drawn_equally_often_alone_and_in_pairs() -> None:
    bits = _row_bits(1, range(1500), 0)
    sets = len(bits)
    for layer in range(3):
        share = bits[:, layer].mean(0)
        assert (np.abs(share - 0.4) < 4 * math.sqrt(0.4 * 0.6 / sets)).all()
        together = 4 * 3 / (10 * 9)
        for a, b in combinations(range(10), 2):
            both = (bits[:, layer, a] & bits[:, layer, b]).mean()
            assert abs(both - together) < 4.5 * math.sqrt(together * (1 - together) / sets)


def test_drawn_rows_are_independent_of_seed_step_micro_step_and_layer() -> None:
    base = _row_bits(1, range(800), 0)
    others = {
        "seed": _row_bits(2, range(800), 0),
        "step": _row_bits(1, range(1, 801), 0),
        "micro": _row_bits(1, range(800), 1),
        "layer": np.roll(base, 1, axis=1),
    }
    # Rows two sets of 4 out of 10 share: hypergeometric.
    variance = 4 * 0.4 * 0.6 * 6 / 9
    sigma = math.sqrt(variance / (base.shape[0] * base.shape[1]))
    for name, other in others.items():
        assert abs((base & other).sum(2).mean() - 1.6) < 4 * sigma, name


@given(schedules(), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from(SCALINGS))
@settings(deadline=None)
def test_a_sample_is_distinct_ascending_rows_of_the_rounded_number(
    schedule: DropSchedule, rows: int, seed: int, scaling: str
) -> None:
    drop = LayerDrop(schedule, seed, "sample", scaling)
    assume(_keeps_rows(drop, rows))
    step = int(steps_of(schedule)[len(steps_of(schedule)) // 2])
    for draw, keep in zip(drop.draws(step, 1, rows), schedule.keep(step)[0], strict=True):
        assert draw.runs == (keep > 0)
        if not draw.runs:
            assert draw == LayerDraw(runs=False, each=scaling == "sublayer")
            continue
        assert draw.each == (scaling == "sublayer")
        count = rows if draw.rows is None else len(draw.rows)
        assert abs(count - keep * rows) <= 0.5 + 1e-9
        assert draw.scale == (1.0 if scaling == "none" else rows / count)
        if draw.rows is None:
            continue
        assert count < rows
        assert draw.rows.dtype == np.int64
        assert (np.diff(draw.rows) > 0).all()
        assert draw.rows[0] >= 0
        assert draw.rows[-1] < rows


@pytest.mark.parametrize(
    ("theta", "rows", "count"),
    [
        (0.5, 1, 1), (0.5, 3, 2), (0.5, 5, 3), (0.25, 2, 1), (0.25, 6, 2), (0.25, 10, 3), (0.75, 6, 5), (0.75, 2, 2),
        (0.625, 4, 3), (0.375, 4, 2), (0.375, 8, 3), (0.34, 10, 3), (0.36, 10, 4), (0.99, 8, 8), (1.0, 7, 7),
        (0.1, 5, 1), (0.1, 25, 3), (0.41, 50, 21),
    ],
)  # fmt: skip
def test_halves_are_rounded_up(theta: float, rows: int, count: int) -> None:
    for draw in uniform_drop(theta, "sample").draws(0, 0, rows):
        assert (rows if draw.rows is None else len(draw.rows)) == count
    assert (uniform_drop(theta, "sample").executed(np.array([0]), 1, rows) == count / rows).all()


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize(("depth", "left_out"), [("linear", {4}), ("alternate", {1, 3}), ("inner", {1, 2, 3})])
def test_a_stage_of_0_leaves_the_same_layers_out_until_the_network_grows(
    unit: str, depth: str, left_out: set[int]
) -> None:
    drop = LayerDrop(DropSchedule(100, 5, time="stages", depth=depth, stages=(0.0, 1.0)), 0, unit)
    drop.check(4, 0, 100)
    for step in (0, 20, 49):
        skipped = {layer for layer, keep in enumerate(drop.schedule.keep(step)[0]) if keep == 0}
        assert skipped == left_out
        draws = drop.draws(step, 0, 4)
        assert all(draws[layer] == LayerDraw(runs=False) for layer in left_out)
        assert drop.executed(np.array([step]), 3, 4)[0, sorted(left_out)].tolist() == [0] * len(left_out)
    assert drop.draws(50, 0, 4) == [LayerDraw()] * 5


def test_unset_stages_are_nothing_and_then_all() -> None:
    unset, said = (DropSchedule(9, 4, time="stages", depth="inner", stages=stages) for stages in ((), (0.0, 1.0)))
    assert np.array_equal(unset.keep(np.arange(11)), said.keep(np.arange(11)))


@pytest.mark.parametrize(
    ("scaling", "scales", "each"),
    [("block", [1.0, 1 / 0.75, 2.0], False), ("sublayer", [1.0, 1 / 0.75, 2.0], True), ("none", [1.0] * 3, False)],
)
@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_what_runs_is_scaled_by_the_probability_that_drew_it(
    unit: str, scaling: str, scales: list[float], each: bool
) -> None:
    schedule = DropSchedule(100, 3, time="constant", depth="linear", theta=0.5)
    for step in range(5):
        draws = LayerDrop(schedule, 0, unit, scaling).draws(step, 0, 4)
        assert [d.scale for d in draws] == scales
        assert [d.each for d in draws] == [each] * 3


def test_a_sample_is_scaled_by_the_rows_it_really_has() -> None:
    """keep is 0.4, but of 4 rows 2 are taken."""
    assert {d.scale for d in uniform_drop(0.4, "sample").draws(0, 0, 4)} == {2.0}


@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_once_a_step_repeats_the_draw_of_the_first_micro_batch(unit: str) -> None:
    once, each = uniform_drop(0.5, unit, layers=6, once_a_step=True), uniform_drop(0.5, unit, layers=6)
    for step in range(20):
        first = plain(each.draws(step, 0, 6))
        assert all(plain(once.draws(step, micro, 6)) == first for micro in range(4))
    assert any(plain(each.draws(step, 1, 6)) != plain(each.draws(step, 0, 6)) for step in range(20))
    assert any(plain(once.draws(step, 0, 6)) != plain(once.draws(0, 0, 6)) for step in range(20))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_theta_of_1_runs_every_layer_plainly(depth: str, unit: str) -> None:
    for time in ("constant", "pld", "decreasing"):
        schedule = DropSchedule(30, 5, time=time, depth=depth, theta=1.0)
        for scaling in SCALINGS:
            drop = LayerDrop(schedule, 0, unit, scaling)
            wanted = [LayerDraw(each=scaling == "sublayer")] * 5
            assert all(drop.draws(step, 0, 6) == wanted for step in range(-1, 32))
            assert (drop.executed(np.arange(30), 2, 6) == 1).all()


@given(schedules(), st.sampled_from(["layer", "sample"]), st.booleans(), st.integers(1, 4), st.integers(1, 12))
@settings(deadline=None)
def test_executed_is_what_the_draws_do(
    schedule: DropSchedule, unit: str, once: bool, micro_steps: int, rows: int
) -> None:
    drop = LayerDrop(schedule, 7, unit, once_a_step=once)
    assume(_keeps_rows(drop, rows))
    steps = np.concatenate([steps_of(schedule)[::3], [schedule.first_step + schedule.total_steps]])
    wanted = np.zeros((len(steps), schedule.num_layers))
    for at, step in enumerate(steps.tolist()):
        for layer in range(schedule.num_layers):
            ran = 0
            for micro in range(micro_steps):
                draw = drop.draws(step, micro, rows)[layer]
                ran += 0 if not draw.runs else rows if draw.rows is None else len(draw.rows)
            wanted[at, layer] = ran / (micro_steps * rows)
    assert np.array_equal(drop.executed(steps, micro_steps, rows), wanted)
    assert drop.executed(steps[:0], micro_steps, rows).shape == (0, schedule.num_layers)


# What is refused


def refused(found: str) -> Any:
    return pytest.raises(UserError, match=f"^{re.escape(found)}$")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"time": "cosine"},
            "time is 'cosine', wanted one of constant, pld, decreasing, stages",
        ),
        ({"depth": "outer"}, "depth is 'outer', wanted one of uniform, pld, linear, alternate, inner"),
        *[
            (
                {"theta": theta},
                f"theta is {theta}, wanted above 0 and at most 1: it is the probability to keep a layer",
            )
            for theta in (0, 0.0, -0.5, 1.0001, 2, math.nan, math.inf)
        ],
        *[
            ({"time": "pld", "gamma": gamma}, f"gamma is {gamma}, wanted a number above 0")
            for gamma in (-0.1, 0.0, math.nan, math.inf)
        ],
        *[
            (
                {"time": time, "gamma": 0.1} | ({"stages": (0.5,)} if time == "stages" else {}),
                f"gamma is 0.1, wanted unset: it belongs to time \"pld\", not '{time}'",
            )
            for time in ("constant", "decreasing", "stages")
        ],
        *[
            (
                {"time": time, "stages": (0.5, 1.0)},
                f"stages is [0.5, 1.0], wanted empty: they belong to time \"stages\", not '{time}'",
            )
            for time in ("constant", "pld", "decreasing")
        ],
        *[
            (
                {"time": "stages", "depth": depth} | values,
                f"stages is {stages}, and 0 leaves out the first layer too with depth '{depth}': wanted above 0",
            )
            for depth in ("uniform", "pld")
            for values, stages in (({}, "[0.0, 1.0]"), ({"stages": (0.5, 0.0)}, "[0.5, 0.0]"))
        ],
        (
            {"time": "stages", "stages": (1.5, 1.0, -1.0)},
            "stages holds 1.5, wanted at least 0 and at most 1; stages holds -1.0, wanted at least 0 and at most 1",
        ),
        ({"theta": 0.3}, 'theta is 0.3, wanted unset: time "stages" goes by stages'),
        ({"time": "stages", "stages": (math.nan,)}, "stages holds nan, wanted at least 0 and at most 1"),
        *[
            (
                {"dense_start": start, "dense_end": end},
                f"dense_start and dense_end are {start} and {end}, wanted 0 or more and together below 1",
            )
            for start, end in [(-0.1, 0.0), (0.0, -0.1), (1.0, 0.0), (0.5, 0.5), (math.nan, 0.0), (0.0, math.nan)]
        ],
        ({"total_steps": 0}, "needs 1 step and 1 layer or more, got 0 and 4"),
        ({"num_layers": 0}, "needs 1 step and 1 layer or more, got 10 and 0"),
        (
            {"theta": 0.0, "dense_end": 1.0},
            "theta is 0.0, wanted above 0 and at most 1: it is the probability to keep a layer; "
            "dense_start and dense_end are 0.0 and 1.0, wanted 0 or more and together below 1",
        ),
    ],
)
def test_values_that_make_no_schedule_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with refused(f"layer dropping: {message}"):
        DropSchedule(**({"total_steps": 10, "num_layers": 4} | values))


def test_a_layer_without_a_row_is_refused_in_one_line() -> None:
    message = (
        "layer dropping by sample leaves layer {} without a row at step {}: it keeps {} of the {} rows of a "
        "micro-batch; raise theta or batch.micro_rows"
    )
    constant = LayerDrop(DropSchedule(10, 3, time="constant", depth="uniform", theta=0.12, first_step=7), 0, "sample")
    with refused(message.format(1, 7, "0.120", 4)):
        constant.check(4, 7, 17)
    with refused(message.format(1, 9, "0.120", 4)):
        constant.draws(9, 0, 4)
    with refused(message.format(1, 8, "0.120", 4)):
        constant.executed(np.array([3, 8, 9]), 1, 4)
    constant.check(5, 7, 17)
    linear = LayerDrop(DropSchedule(10, 3, time="decreasing", depth="linear", theta=0.2, dense_start=0.3), 0, "sample")
    with refused(message.format(3, 3, "0.200", 2)):
        linear.check(2, 0, 10)
    linear.check(2, 4, 10)
    assert len(linear.draws(4, 0, 2)[2].rows) == 1


@given(schedules(max_steps=200), st.integers(1, 8))
@settings(deadline=None)
def test_check_passes_just_where_every_step_can_be_drawn(schedule: DropSchedule, rows: int) -> None:
    drop = LayerDrop(schedule, 0, "sample")
    refusals = []
    first, end = schedule.first_step, schedule.first_step + schedule.total_steps
    for step in range(first, end):
        try:
            drop.draws(step, 0, rows)
        except UserError as error:
            refusals.append(str(error))
    if refusals:
        with refused(refusals[0]):
            drop.check(rows, first, end)
    else:
        drop.check(rows, first, end)
    LayerDrop(schedule, 0, "layer").check(rows, first, end)
