"""The search inside the training loop where layers are dropped: no score suffers, no look comes too early."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.recipes.recipe import load_recipe
from pipeline.stages.search import EarlyBird
from pipeline.training.ranks import Ranks

DROPPED = ["layer_drop.enabled=true", "layer_drop.time=constant", "layer_drop.depth=linear", "layer_drop.theta=0.25",
           "layer_drop.during_search=true"]  # fmt: skip
# All that a search takes from the engine between backward and the optimiser's step.
ENGINE = SimpleNamespace(loss_scale=4.0)


def early_bird(folder: Path, *overrides: str) -> EarlyBird:
    recipe = load_recipe("sample", [*DROPPED, *overrides])
    return EarlyBird(recipe, recipe.dense_shape(64, 0), folder / "scores", Ranks(0, 0, 1, torch.device("cpu")))


def backward(search: EarlyBird, step: int, value: float = 1.0) -> list[bool]:
    """Leave the gradients that a loss would leave in which every gate weighs `value`; which layers ran."""
    assert search._drop is not None
    draws = search._drop.draws(step, 0, rows=1)
    for index, draw in enumerate(draws):
        if draw.runs:
            for gates in search._gates.tensors:
                gates[index].grad = torch.full_like(gates[index], value * draw.scale * ENGINE.loss_scale)
    search.after_backward(step, ENGINE)
    return [draw.runs for draw in draws]


def test_units_that_weigh_the_same_score_the_same_however_often_their_layer_was_left_out(tmp_path: Path) -> None:
    search = early_bird(tmp_path)
    ran = np.array([backward(search, step) for step in range(200)])
    assert (ran.mean(0)[1:] < ran.mean(0)[:-1]).all()
    for layers in search._score.scores().values():
        for scores in layers:
            np.testing.assert_allclose(scores, 1, rtol=1e-5)


def test_heads_and_neurons_have_penalties_of_their_own_and_gates_a_schedule(tmp_path: Path) -> None:
    l1 = ["search.score=l1", "search.l1_lr=1e-2", "search.l1_decay=linear"]
    l1 += ["search.max_steps=50", "search.guard_steps=0"]
    search = early_bird(tmp_path, *l1, "search.l1_heads=0.5", "search.l1_neurons=0", "layer_drop.enabled=false")
    for step in range(50):
        for gates in (*search._gates.tensors.heads, *search._gates.tensors.neurons):
            gates.grad = torch.zeros_like(gates)
        search.after_backward(step, ENGINE)
    scores = search._score.scores()
    # Steps as long as the rate each: 1e-2 (1 + 0.98 + ... + 0.02).
    np.testing.assert_allclose(np.concatenate(scores["heads"]), 1 - 0.255, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate(scores["neurons"]), 1)


def test_l1_steps_as_far_in_a_layer_that_was_left_out(tmp_path: Path) -> None:
    search = early_bird(tmp_path, "search.score=l1", "search.l1_lr=1e-4")
    ran = np.array([backward(search, step) for step in range(600)])
    assert ran.mean(0)[-1] < 0.4
    moved = np.array([1 - float(scores[0]) for scores in search._score.scores()["heads"]])
    # Adam moves by its rate where the gradient stays the same: 1 / keep as far where the layer runs in that share.
    np.testing.assert_allclose(moved, 600 * 1e-4 * (ran / (1 - np.arange(4) / 4)).mean(0), rtol=0.02)


@pytest.mark.parametrize("score", ["taylor", "l1"])
def test_masks_are_not_looked_at_before_every_layer_was_scored(score: str, tmp_path: Path) -> None:
    search = early_bird(tmp_path, f"search.score={score}", "search.every_steps=1", "search.guard_steps=0")
    scored = np.zeros(4, bool)
    looked = []
    for step in range(30):
        overflow = step < 8
        ran = backward(search, step, float("inf") if overflow else 1.0)
        scored |= np.array(ran) & (not overflow)
        looked.append((search.after_step(step + 1, ENGINE) is not None, bool(scored.all())))
    assert all(look == complete for look, complete in looked)
    assert [look for look, _ in looked].count(False) >= 8
    assert len(list((tmp_path / "scores").iterdir())) == [look for look, _ in looked].count(True)
