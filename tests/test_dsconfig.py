"""The DeepSpeed config: one owner a number, no key DeepSpeed would ignore or refuse."""

import json
from pathlib import Path

import deepspeed.runtime.config as deepspeed_config
import pytest

from data_prep.manifest import UserError
from pipeline import dsconfig
from pipeline.config import load_recipe


@pytest.mark.parametrize("path", sorted(dsconfig.DS_CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_configs_are_accepted_by_us_and_by_deepspeed(path: Path) -> None:
    engine = dsconfig.load_ds_config(path.stem)
    for name in ("sample", "mini"):
        joined = dsconfig.join(engine, load_recipe(name), world_size=1)
        parsed = deepspeed_config.DeepSpeedConfig(joined)
        assert parsed.zero_optimization_stage == engine["zero_optimization"]["stage"]
        assert parsed.train_batch_size == load_recipe(name).batch.global_rows


def test_the_removed_keys_are_deepspeeds() -> None:
    assert set(deepspeed_config._REMOVED_TOP_LEVEL_CONFIG_KEYS) == dsconfig.REMOVED_KEYS
    assert set(deepspeed_config._REMOVED_ZERO_CONFIG_KEYS) == dsconfig.REMOVED_ZERO_KEYS


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"progressive_layer_drop": {"enabled": False}}, ["progressive_layer_drop", "removed"]),
        ({"zero_optimisation": {"stage": 1}}, ["zero_optimisation", "did you mean zero_optimization"]),
        ({"gradient_clipping": 1.0}, ["gradient_clipping", "recipe", "optimizer.gradient_clipping"]),
        ({"optimizer": {"type": "Adam"}}, ["optimizer", "[optimizer]"]),
        ({"bf16": {"enabled": True}}, ["stage 0"]),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}, "zero_optimization": {"stage": 1}}, ["choose one"]),
        ({"zero_optimization": {"stage": 3, "mics_shard_size": 2}}, ["zero_optimization.mics_shard_size"]),
    ],
)
def test_bad_keys_are_named(config: dict, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        dsconfig.load_ds_config(str(path))
    assert all(word in str(caught.value) for word in [*words, str(path)])


def test_all_problems_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"amp": {}, "optimizer": {}, "zero_optimisation": {}, "train_batch_size": 8}))
    with pytest.raises(UserError, match="4 problems"):
        dsconfig.load_ds_config(str(path))


def test_auto_values_are_left_to_the_recipe() -> None:
    assert dsconfig.ds_config_problems({"train_batch_size": "auto", "zero_optimization": {"stage": 1}}) == []


@pytest.mark.parametrize(
    ("rows", "micro", "ranks", "expected"),
    [(32, 32, 1, (32, 1)), (32, 16, 1, (16, 2)), (32, 32, 2, (16, 1)), (32, 4, 2, (4, 4)), (6, 3, 2, (3, 1))],
)
def test_the_global_batch_is_shared_out(rows: int, micro: int, ranks: int, expected: tuple[int, int]) -> None:
    assert dsconfig.accumulation_steps(rows, micro, ranks) == expected
    per_rank, accumulation = expected
    assert per_rank * accumulation * ranks == rows


@pytest.mark.parametrize(("rows", "micro", "ranks"), [(1, 1, 2), (3, 3, 2), (32, 5, 1)])
def test_batches_that_cannot_be_shared(rows: int, micro: int, ranks: int) -> None:
    with pytest.raises(UserError) as caught:
        dsconfig.accumulation_steps(rows, micro, ranks)
    assert str(rows) in str(caught.value)


def test_more_ranks_than_rows_says_so() -> None:
    with pytest.raises(UserError, match="more ranks than rows"):
        dsconfig.accumulation_steps(2, 2, 4)
