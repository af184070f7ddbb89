"""Layer dropping in words: formulas on the page give the numbers of the schedule."""

import math
import re
from typing import Any

import numpy as np
import pytest

from pipeline.layer_drop.describe import drop_words
from pipeline.layer_drop.schedule import DepthKind, DropSchedule, LayerDrop, Scaling, Unit

STEPS, LAYERS = 201, 6


def words_of(schedule: DropSchedule, **draws: Any) -> dict[str, str]:
    return {aspect: words for aspect, (_, words) in drop_words(LayerDrop(schedule, seed=0, **draws)).items()}


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_every_aspect_has_its_key_and_words() -> None:
    schedule = DropSchedule(1800, 4, time="constant", depth="alternate", theta=0.8, dense_start=0.1, dense_end=0.05)
    assert drop_words(LayerDrop(schedule, 0, unit="sample", scaling="none")) == {
        "over time": ("constant", "theta stays at 0.8"),
        "over depth": ("alternate", "keep = theta for every second layer, from layer 2 on; the others always run"),
        "dense phases": ("", "the first 180 and the last 90 of 1,800 steps"),
        "skipped": ("sample", "a layer on a random share 1 - keep of the rows of a micro-batch"),
        "scaling": ("none", "nothing is scaled (LayerDrop)"),
    }
    assert np.flatnonzero(schedule.theta_at(np.arange(1800)) < 1).tolist() == list(range(180, 1710))


@pytest.mark.parametrize("first_step", [0, 1040])
@pytest.mark.parametrize(
    "values",
    [
        {"time": "constant", "theta": 0.25},
        {"time": "pld"},
        {"time": "pld", "gamma": 0.125, "theta": 0.75},
        {"time": "pld", "dense_start": 0.25, "dense_end": 0.1},
        {"time": "decreasing", "theta": 0.25},
        {"time": "decreasing", "dense_start": 0.25},
        {"time": "decreasing", "dense_end": 0.1},
        {"time": "stages", "stages": (0.25, 0.5, 1.0)},
        {"time": "stages", "stages": (0.4, 0.8), "dense_start": 0.005},
    ],
    ids=str,
)
def test_theta_as_said_is_theta_as_run(values: dict[str, Any], first_step: int) -> None:
    schedule = DropSchedule(STEPS, LAYERS, first_step=first_step, **values)
    words = words_of(schedule)
    dense = {end: int(steps) for end, steps in re.findall(r"the (first|last) (\d+)", words["dense phases"])}
    begin, length = dense.get("first", 0), STEPS - sum(dense.values())
    assert f"of {STEPS} steps" in words["dense phases"]
    assert ("counted from step 1,040" in words["dense phases"]) == (first_step > 0)

    said = words["over time"]
    if found := re.match(r"theta stays at ([\d.]+)$", said):
        theta = [float(found[1])] * length
    elif found := re.match(r"theta = (.+), each for ([\d.]+) steps$", said):
        stages = [float(stage) for stage in found[1].split(", ")]
        theta = [stages[min(int(t / float(found[2])), len(stages) - 1)] for t in range(length)]
    else:
        found = re.search(r" for t = 0 to (\d+)(?:, counted from step ([\d,]+))?: drops", said)
        assert found
        assert int(found[1]) == length - 1
        assert number(found[2] or "0") == first_step + begin
        if values["time"] == "pld":
            (parts,) = re.findall(r"theta\(t\) = ([\d.]+) exp\(-([\d.]+) t\) \+ ([\d.]+) for", said)
            fall, gamma, least = map(float, parts)
            theta = [fall * math.exp(-gamma * t) + least for t in range(length)]
        else:
            (parts,) = re.findall(r"theta\(t\) = ([\d.]+) \+ ([\d.]+) t / (\d+) for", said)
            least, fall, last = map(float, parts)
            theta = [least + fall * t / last for t in range(length)]
    wanted = np.ones(STEPS)
    wanted[begin : begin + length] = theta
    np.testing.assert_allclose(schedule.theta_at(first_step + np.arange(STEPS)), wanted, rtol=1e-3)


@pytest.mark.parametrize("layers", [1, 2, 6, 7])
@pytest.mark.parametrize("depth", ["uniform", "pld", "linear", "alternate", "inner"])
def test_keep_as_said_is_keep_as_run(depth: DepthKind, layers: int) -> None:
    theta = 0.3
    schedule = DropSchedule(10, layers, time="constant", depth=depth, theta=theta)
    said = words_of(schedule)["over depth"]
    if found := re.match(rf"keep = 1 - (l|\(l - 1\)) / (\d+) \(1 - theta\) for layer l = 1 to {layers}: ", said):
        ahead = 0 if found[1] == "l" else 1
        keep = [1 - (layer - ahead) / int(found[2]) * (1 - theta) for layer in range(1, layers + 1)]
    else:
        keep = {
            "keep = theta for every layer": [theta] * layers,
            "keep = theta for every second layer, from layer 2 on; the others always run": [
                1 if layer % 2 else theta for layer in range(1, layers + 1)
            ],
            "keep = theta for all but the first and the last layer, which always run": [
                1 if layer in (1, layers) else theta for layer in range(1, layers + 1)
            ],
        }[said]
    np.testing.assert_allclose(schedule.keep(0)[0], keep)


@pytest.mark.parametrize(
    ("unit", "once", "words"),
    [
        ("layer", False, "a layer for a whole micro-batch, with probability 1 - keep"),
        ("layer", True, "a layer for a whole step, with probability 1 - keep"),
        ("sample", False, "a layer on a random share 1 - keep of the rows of a micro-batch"),
        ("sample", True, "a layer on a random share 1 - keep of the rows of a micro-batch, the same in all of a step"),
    ],
)
def test_what_is_skipped(unit: Unit, once: bool, words: str) -> None:
    schedule = DropSchedule(10, 4, time="constant")
    assert words_of(schedule, unit=unit, once_a_step=once)["skipped"] == words


@pytest.mark.parametrize(("scaling", "times"), [("block", "1 / keep"), ("sublayer", "1 / keep"), ("none", "")])
def test_what_the_rest_counts(scaling: Scaling, times: str) -> None:
    drop = LayerDrop(DropSchedule(10, 4, time="constant", depth="uniform", theta=0.8), 0, "layer", scaling)
    said = drop_words(drop)["scaling"][1]
    factors = {draw.scale for draw in drop.draws(0, 0, 8)}
    assert factors == {1 / 0.8 if times else 1.0}
    assert f"counts {times} times" in said if times else "nothing is scaled" in said
    assert ("sub-layer" in said) == drop.draws(0, 0, 8)[0].each


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize(
    ("depth", "stages", "certain"),
    [("alternate", (0.0, 1.0), True), ("inner", (0.0, 0.0, 1.0), True), ("alternate", (0.5, 1.0), False),
     ("linear", (0.0, 1.0), False)],
)  # fmt: skip
def test_a_network_that_grows_draws_nothing(
    unit: Unit, depth: DepthKind, stages: tuple[float, ...], certain: bool
) -> None:
    drop = LayerDrop(DropSchedule(60, 6, time="stages", depth=depth, stages=stages), 0, unit)
    words = {aspect: said for aspect, (_, said) in drop_words(drop).items()}
    assert ("nothing is drawn" in words["skipped"]) == certain
    assert ("nothing is scaled" in words["scaling"]) == certain
    draws = [draw for step in range(60) for draw in drop.draws(step, 0, 8)]
    assert all(draw.rows is None and (draw.scale == 1 or not draw.runs) for draw in draws) == certain
