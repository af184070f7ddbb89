"""The rows that the training loop logs. The loop itself is tested where stages run: test_cli.py, test_resume.py."""

import pytest

from pipeline.recipes.recipe import load_recipe
from pipeline.training.costs import StepCosts
from pipeline.training.loop import Plan, _costs


@pytest.mark.parametrize(("first_step", "begin"), [(0, 400), (450, 450)])
def test_a_row_after_a_restart_tells_of_all_steps_since_the_row_before(first_step: int, begin: int) -> None:
    recipe = load_recipe("sample", ["layer_drop.enabled=true", "layer_drop.time=decreasing",
                                    "search.enabled=false", "pretrain.steps=1000"])  # fmt: skip
    drop, shape = recipe.dropping(4), recipe.dense_shape(64, 0)
    assert drop is not None
    costs = StepCosts(shape, recipe.phases(8), 0.3, 4, drop, first_step)
    plan = Plan(1000, 1000, recipe.optimizer, recipe.schedule, 0, 100, 100, 200, first_step, drop, costs)
    untouched, resumed = (_costs(plan, costs, since, 600, seconds=3.0) for since in (begin, 505))
    assert untouched.pop("flops_per_second") == pytest.approx((costs.flops(600) - costs.flops(begin)) / 3)
    assert resumed.pop("flops_per_second") == pytest.approx((costs.flops(600) - costs.flops(505)) / 3)
    assert resumed == untouched
    assert resumed["depth"] == pytest.approx(costs.depth(begin, 600))
    assert resumed["depth"] != pytest.approx(costs.depth(505, 600), abs=1e-3)
    # The last row of a run that does not end on a full window.
    assert _costs(plan, costs, 600, 700, 1.0)["depth"] == pytest.approx(costs.depth(600, 700))
