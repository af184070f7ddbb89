"""The DeepSpeed config: one owner a number, no key DeepSpeed would ignore or refuse."""

import json
from pathlib import Path

import deepspeed.runtime.config as deepspeed_config
import pytest

from data_prep.errors import UserError
from pipeline.layer_drop.old_block import OLD_LAYER_DROP, old_layer_drop_problems
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import load_recipe


@pytest.mark.parametrize("path", sorted(engine_config.DS_CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_configs_are_accepted_by_us_and_by_deepspeed(path: Path) -> None:
    engine = engine_config.load_ds_config(path.stem)
    for name in ("sample", "mini"):
        joined = engine_config.join(engine, load_recipe(name), world_size=1)
        parsed = deepspeed_config.DeepSpeedConfig(joined)
        assert parsed.zero_optimization_stage == engine["zero_optimization"]["stage"]
        assert parsed.train_batch_size == load_recipe(name).batch.global_rows


def test_the_removed_keys_are_deepspeeds() -> None:
    assert set(deepspeed_config._REMOVED_TOP_LEVEL_CONFIG_KEYS) == engine_config.REMOVED_KEYS | {OLD_LAYER_DROP}
    assert set(deepspeed_config._REMOVED_ZERO_CONFIG_KEYS) == engine_config.REMOVED_ZERO_KEYS


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sparse_attention": {"mode": "fixed"}}, ["sparse_attention", "removed", "python -m pipeline migrate"]),
        ({"zero_optimisation": {"stage": 1}}, ["zero_optimisation", "did you mean zero_optimization"]),
        ({"gradient_clipping": 1.0}, ["gradient_clipping", "recipe", "optimizer.gradient_clipping"]),
        ({"optimizer": {"type": "Adam"}}, ["optimizer", "[optimizer]"]),
        ({"bf16": {"enabled": True}}, ["stage 0"]),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}, "zero_optimization": {"stage": 1}}, ["choose one"]),
        ({"zero_optimization": {"stage": 3, "mics_shard_size": 2}}, ["zero_optimization.mics_shard_size"]),
        ({"zero_optimization": True}, ["zero_optimization is true", "stage"]),
        ({"fp16": {"enabled": "auto"}}, ['fp16.enabled is "auto"', "true or false"]),
        (
            {"zero_optimization": {"stage": 2, "cpu_offload": True}},
            [
                'zero_optimization.cpu_offload: the former name, delete it; to offload write "offload_optimizer"',
                "migrate",
            ],
        ),
        ({"zero_optimization": {"stage": 3, "cpu_offload_param": False}}, ["cpu_offload_param", '"offload_param"']),
        (
            {"zero_optimization": {"stage": 3, "offload_param": True}},
            ["zero_optimization.offload_param is true", "block"],
        ),
    ],
)
def test_bad_keys_are_named(config: dict, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        engine_config.load_ds_config(str(path))
    assert all(word in str(caught.value) for word in [*words, str(path)])


@pytest.mark.parametrize(
    "value",
    [
        {}, {"layers": 1}, {"layers": 0}, {"layers": "true"}, {"layers": None}, {"layers": True, "backend": "inductor"},
        {"deepcompile": True}, {"enabled": True, "backend": "inductor"}, True, None, "auto", [],
    ],
    ids=str,
)  # fmt: skip
def test_compile_compiles_layers_or_nothing(value: object) -> None:
    (problem,) = engine_config.ds_config_problems({"compile": value, "zero_optimization": {"stage": 1}})
    assert problem.startswith(f"compile is {json.dumps(value)}, wanted ")
    assert '{"layers": true}' in problem
    assert "\n" not in problem


@pytest.mark.parametrize("layers", [True, False])
def test_the_pipelines_own_blocks_do_not_reach_deepspeed(layers: bool) -> None:
    plain = {"zero_optimization": {"stage": 1}, "steps_per_print": 1}
    own = {"compile": {"layers": layers}, "activation_checkpointing": {"partition_activations": True}}
    assert engine_config.ds_config_problems(plain | own) == []
    recipe = load_recipe("sample")
    assert engine_config.join(plain | own, recipe, world_size=1) == engine_config.join(plain, recipe, world_size=1)


def test_all_problems_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"amp": {}, "optimizer": {}, "zero_optimisation": {}, "train_batch_size": 8}))
    with pytest.raises(UserError, match="4 problems"):
        engine_config.load_ds_config(str(path))


def test_an_old_layer_drop_block_needs_a_recipe_to_go_to(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    for block in ({"enabled": True, "theta": 0.5, "gamma": 0.001}, {"enabled": False}, {"enabled": False, "theta": 1}):
        path.write_text(json.dumps({"steps_per_print": 1, OLD_LAYER_DROP: block}))
        with pytest.raises(UserError, match=f"{path} has a {OLD_LAYER_DROP} block"):
            engine_config.load_ds_config(str(path))
        assert engine_config.load_with_recipe(str(path), load_recipe("sample"))[0] == {"steps_per_print": 1}


@pytest.mark.parametrize(
    ("zero", "offloads", "needs"),
    [
        (None, False, False),
        ({"stage": 2}, False, False),
        ({"stage": 2, "offload_optimizer": None}, False, False),
        ({"stage": 2, "offload_optimizer": {"device": "none"}}, False, False),
        ({"stage": 1, "offload_optimizer": {"device": "cpu"}}, True, True),
        ({"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "/fast"}}, True, True),
        ({"stage": 3}, False, True),
    ],
    ids=str,
)
def test_offload_and_zero_3_need_every_gradient(zero: dict | None, offloads: bool, needs: bool) -> None:
    config = {} if zero is None else {"zero_optimization": zero}
    assert engine_config.ds_config_problems(config) == []
    assert engine_config.offloads_optimizer(config) is offloads
    assert engine_config.needs_every_gradient(config) is needs
    joined = engine_config.join(config, load_recipe("sample"), world_size=1)
    assert ("torch_adam" in joined["optimizer"]["params"]) is not offloads
    assert engine_config.needs_every_gradient(joined) is needs


def test_taking_the_block_out_leaves_the_config_alone() -> None:
    config = {OLD_LAYER_DROP: {"enabled": True, "theta": 1, "gamma": 2}, "bf16": {"enabled": True}}
    rest, values, notes = engine_config.take_old_layer_drop(config)
    assert set(config) == {OLD_LAYER_DROP, "bf16"}
    assert rest == {"bf16": {"enabled": True}}
    assert values == {
        "enabled": True, "time": "pld", "depth": "pld", "unit": "layer", "scaling": "sublayer",
        "theta": 1.0, "gamma": 2.0,
    }  # fmt: skip
    assert "layer_drop" in notes[0]
    assert engine_config.take_old_layer_drop(rest) == (rest, None, [])


@pytest.mark.parametrize(
    ("block", "wrong"),
    [
        # DeepSpeed 0.19.8 refuses all of these alike, and an enabled block as well.
        (None, [["is null", '"theta": 0.5']]),
        (False, [["is false"]]),
        ("auto", [['is "auto"']]),
        ({}, [["enabled is missing", "KeyError"], ["theta is missing", "0.5"], ["gamma is missing", "0.001"]]),
        ({"enabled": True, "theta": 0.5}, [["gamma is missing", "KeyError"]]),
        ({"theta": 0.5, "gamma": 0.001}, [["enabled is missing", "true or false"]]),
        ({"enabled": 1, "theta": 0.5, "gamma": 0.001}, [["enabled is 1"]]),
        # DeepSpeed's own test had theta 0 too, on a model without layers to drop.
        ({"enabled": True, "theta": 0, "gamma": 0.001}, [["theta is 0", "above 0"]]),
        ({"enabled": True, "theta": 1.5, "gamma": 0.001}, [["theta is 1.5", "at most 1"]]),
        ({"enabled": True, "theta": 0.5, "gamma": 0}, [["gamma is 0", "above 0"]]),
        ({"enabled": True, "theta": float("nan"), "gamma": float("inf")}, [["theta is nan"], ["gamma is inf"]]),
        ({"enabled": True, "theta": "0.5", "gamma": True}, [['theta is "0.5"', "number"], ["gamma is true", "number"]]),
        ({"enabled": False, "theta": "0.5", "gama": 1}, [["gama: unknown key", "enabled, theta, gamma"]]),
    ],
)
def test_a_wrong_old_layer_drop_block_is_explained(block: object, wrong: list[list[str]], tmp_path: Path) -> None:
    problems = old_layer_drop_problems(block)
    assert len(problems) == len(wrong)
    for problem, words in zip(problems, wrong, strict=True):
        assert all(word in problem for word in [OLD_LAYER_DROP, *words])
        assert "\n" not in problem
    path = tmp_path / "old.json"
    path.write_text(json.dumps({OLD_LAYER_DROP: block}))
    with pytest.raises(UserError) as caught:
        engine_config.load_ds_config(str(path))
    assert all(problem in str(caught.value) for problem in problems)
    with pytest.raises(UserError):
        engine_config.take_old_layer_drop({OLD_LAYER_DROP: block})


@pytest.mark.parametrize("text", ["[]", "3", '{"bf16": {}, "bf16": {}}', "{"])
def test_what_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)):
        engine_config.load_ds_config(str(path))


def test_auto_values_are_left_to_the_recipe() -> None:
    assert engine_config.ds_config_problems({"train_batch_size": "auto", "zero_optimization": {"stage": 1}}) == []


@pytest.mark.parametrize(
    ("rows", "micro", "ranks", "expected"),
    [(32, 32, 1, (32, 1)), (32, 16, 1, (16, 2)), (32, 32, 2, (16, 1)), (32, 4, 2, (4, 4)), (6, 3, 2, (3, 1))],
)
def test_the_global_batch_is_shared_out(rows: int, micro: int, ranks: int, expected: tuple[int, int]) -> None:
    assert engine_config.accumulation_steps(rows, micro, ranks) == expected
    per_rank, accumulation = expected
    assert per_rank * accumulation * ranks == rows


@pytest.mark.parametrize(("rows", "micro", "ranks"), [(1, 1, 2), (3, 3, 2), (32, 5, 1)])
def test_batches_that_cannot_be_shared(rows: int, micro: int, ranks: int) -> None:
    with pytest.raises(UserError) as caught:
        engine_config.accumulation_steps(rows, micro, ranks)
    assert str(rows) in str(caught.value)


def test_more_ranks_than_rows_says_so() -> None:
    with pytest.raises(UserError, match="more ranks than rows"):
        engine_config.accumulation_steps(2, 2, 4)


@pytest.mark.parametrize("ranks", [0, -1])
def test_ranks_are_counted_from_1(ranks: int) -> None:
    with pytest.raises(UserError) as caught:
        engine_config.accumulation_steps(32, 8, ranks)
    assert str(caught.value) == f"the number of ranks (--nproc) is {ranks}, wanted 1 or more"
