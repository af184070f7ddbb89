"""Old DeepSpeed configs: every key accounted for, the result accepted by us and by DeepSpeed, PLD's formula kept.

The files of old_ds_configs/ have the keys and values of configs that are or were public; FORMS says where.
"""

import inspect
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import deepspeed.runtime.config as deepspeed_config
import numpy as np
import pytest
import torch
from deepspeed.ops.adam import FusedAdam
from deepspeed.runtime.lr_schedules import WarmupCosineLR, WarmupDecayLR, WarmupLR
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import (
    DeepSpeedZeroOffloadOptimizerConfig,
    DeepSpeedZeroOffloadParamConfig,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.__main__ import main
from pipeline.layer_drop.old_block import OLD_LAYER_DROP
from pipeline.layer_drop.schedule import DropSchedule, LayerDraw
from pipeline.layer_drop.switch import run_layer
from pipeline.migration import engine_side, ledger, recipe_side, whole
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import Recipe, load_recipe, parse_recipe
from pipeline.runs.run import Run
from pipeline.stages import table
from pipeline.training.optimizers import rate_factor
from tests.corpus import sentences
from tests.ranks import REPOSITORY, environment, free_port

OLD = Path(__file__).parent / "old_ds_configs"
PAGE = REPOSITORY / "docs" / "from-deepspeed-pld.md"
FORMS = {
    "bing_bert_pld": "DeepSpeed's PLD tutorial and DeepSpeedExamples bing_bert, seq128 with progressive layer drop",
    "bing_bert_adam_norm": "bing_bert of 2020: Adam with max_grad_norm among its parameters; the block added to it",
    "bing_bert_lamb_sparse": "bing_bert, 64k Lamb seq128 with sparse_attention; the block added to it",
    "bing_bert_onebit_per_gpu": "bing_bert, 1-bit Adam of 2020: only the batch of one GPU",
    "bing_bert_onebit_lamb": "bing_bert, 32k 1-bit Lamb seq512 over NCCL",
    "zero_true": "DeepSpeed's first README: zero_optimization a bool; with other keys of then, and the block",
    "unit_test_bf16": "DeepSpeed's own test of PLD, where the accelerator has bf16: no ZeRO, theta 0.1",
    "stoke_disabled": "what the wrapper Stoke passed on when nobody asked for PLD: disabled blocks",
    "warmup_decay_offload": "Hugging Face's ZeRO-2 example of 2021 with cpu_offload and a scheduler; the block added",
    "trainer_auto": "a ZeRO-3 file for Hugging Face's Trainer, values left to it; sparse_attention and the block added",
    "cifar_warmup": "DeepSpeedExamples cifar: WarmupLR, fp16 with all its keys, ZeRO 0",
}
BLOCK = {"enabled": True, "theta": 0.5, "gamma": 0.001}

every_form = pytest.mark.parametrize("name", FORMS)


def old(name: str) -> dict[str, Any]:
    return engine_config.read_json_object(OLD / f"{name}.json")


def leaves(config: dict[str, Any]) -> set[str]:
    """The keys that have to have a line each: those of blocks that are taken apart, else the blocks themselves."""
    found = set(config)
    for key in ("optimizer", "scheduler"):
        if isinstance(config.get(key), dict):
            found = found - {key} | {f"{key}.type"} | {f"{key}.params.{name}" for name in config[key]["params"]}
    if OLD_LAYER_DROP in config:
        found = found - {OLD_LAYER_DROP} | {f"{OLD_LAYER_DROP}.{name}" for name in config[OLD_LAYER_DROP]}
    return found


def check(config: dict[str, Any], done: ledger.Ledger) -> Recipe:
    """What holds of every migration; the recipe."""
    for key in leaves(config):
        assert len([line for line in done.lines if line.key == key]) == 1, key
    recipe = parse_recipe(done.recipe, "test")
    for line in done.lines:
        if line.to is not None:
            section, name = line.to.split(".")
            assert f"{line.to} = {json.dumps(done.recipe[section][name])}" in line.text
    assert {f"{section}.{name}" for section, values in done.recipe.items() for name in values} - {
        line.to for line in done.lines
    } <= {"optimizer.name"}
    assert engine_config.ds_config_problems(done.engine) == []
    for key, value in done.engine.items():
        assert any(key in (line.key, *re.findall(r"-> (\w+)", line.text)) for line in done.lines if line.kind == "kept")
        assert not (isinstance(value, dict) and "auto" in value.values())
    return recipe


def test_every_file_has_an_origin() -> None:
    assert {path.stem for path in OLD.glob("*")} == set(FORMS)


@every_form
def test_a_whole_file_becomes_a_recipe_and_an_engine_config(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", str(OLD / f"{name}.json"), "--out", str(tmp_path / "new")]) == 0
    shown = capsys.readouterr()
    done = whole.migrate(old(name))
    recipe = load_recipe(str(tmp_path / "new.toml"))
    assert check(old(name), done) == recipe
    engine = engine_config.load_ds_config(str(tmp_path / "new.json"))
    assert engine == done.engine == json.loads((tmp_path / "new.json").read_text())
    joined = deepspeed_config.DeepSpeedConfig(engine_config.join(engine, recipe, world_size=1))
    assert joined.train_batch_size == recipe.batch.global_rows
    *lines, wrote, command = [line for line in shown.out.split("\n") if line]
    assert lines == [str(line) for line in done.lines]
    assert wrote == f"wrote {tmp_path / 'new.toml'} and {tmp_path / 'new.json'}; next:"
    assert command.endswith(f"--recipe {tmp_path / 'new.toml'} --run new --ds {tmp_path / 'new.json'}")
    assert ("DeepSpeed was one step late" in shown.err) == bool(old(name).get(OLD_LAYER_DROP, {}).get("enabled"))
    for line in done.lines:
        assert (f"# {line}" in (tmp_path / "new.toml").read_text()) == (line.kind == "open")


@every_form
def test_the_block_alone_is_accepted_with_an_engine_config(name: str, tmp_path: Path) -> None:
    block = old(name).get(OLD_LAYER_DROP)
    done = whole.migrate(old(name))
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(done.engine | ({OLD_LAYER_DROP: block} if block else {})))
    engine, recipe, notes = engine_config.load_with_recipe(str(path), Recipe())
    assert engine == done.engine
    assert recipe.layer_drop == parse_recipe({"layer_drop": done.recipe.get("layer_drop", {})}, "test").layer_drop
    assert recipe.model_copy(update={"layer_drop": Recipe().layer_drop}) == Recipe()
    assert len(notes) == (0 if block is None else 4 if block["enabled"] else 1)
    assert all(note.startswith(str(path)) for note in notes)


@every_form
def test_a_whole_file_as_engine_config_is_sent_to_migrate(name: str) -> None:
    path = OLD / f"{name}.json"
    with pytest.raises(UserError) as caught:
        engine_config.load_ds_config(str(path))
    assert f"python -m pipeline migrate {path}" in str(caught.value)
    assert OLD_LAYER_DROP not in str(caught.value)


def test_bing_bert_exactly() -> None:
    done = whole.migrate(old("bing_bert_pld"), steps=200_000)
    assert done.recipe == {
        "batch": {"global_rows": 4096, "micro_rows": 16},
        "optimizer": {
            "name": "adamw", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01,
            "gradient_clipping": 1.0,
        },
        "pretrain": {"steps": 200_000},
        "layer_drop": {
            "enabled": True, "time": "pld", "depth": "pld", "unit": "layer", "scaling": "sublayer",
            "theta": 0.5, "gamma": 0.001,
        },
        "search": {"enabled": False},
    }  # fmt: skip
    assert done.engine == {
        "prescale_gradients": True, "gradient_predivide_factor": 8, "steps_per_print": 1000,
        "wall_clock_breakdown": False, "fp16": {"enabled": True, "loss_scale": 0},
    }  # fmt: skip
    assert {line.key for line in done.lines if line.kind == "open"} == {
        "optimizer.params.bias_correction", "scheduler", "corpus, model, objective",
    }  # fmt: skip


def test_a_scheduler_and_offload_exactly() -> None:
    done = whole.migrate(old("warmup_decay_offload"))
    assert done.recipe["optimizer"]["lr"] == 1e-4
    assert [str(line) for line in done.lines if line.key == "optimizer.params.lr"] == [
        "dropped  optimizer.params.lr: scheduler.params.warmup_max_lr overrules it"
    ]
    assert done.recipe["pretrain"] == {"steps": 20_000}
    assert done.recipe["schedule"] == {"decay": "linear", "warmup_fraction": 500 / 20_000}
    assert done.engine["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert not {"cpu_offload", "cpu_offload_use_pin_memory"} & set(done.engine["zero_optimization"])
    assert "offload_optimizer" not in whole.migrate(old("cifar_warmup")).engine["zero_optimization"]
    named = {"stage": 2, "cpu_offload": True, "offload_optimizer": {"device": "nvme", "nvme_path": "/fast"}}
    assert whole.migrate({"zero_optimization": named}).engine["zero_optimization"] == {
        "stage": 2, "offload_optimizer": {"device": "nvme", "nvme_path": "/fast"},
    }  # fmt: skip
    assert "activation_checkpointing" not in done.engine
    assert "torch_adam" not in engine_config.join(done.engine, Recipe(), 1)["optimizer"]["params"]


def test_the_form_before_there_were_stages() -> None:
    done = whole.migrate(old("zero_true"))
    assert done.engine["zero_optimization"] == {"stage": 1, "allgather_bucket_size": 500_000_000}
    assert done.engine["communication_data_type"] == "fp32"
    assert done.recipe["optimizer"]["gradient_clipping"] == 1.0
    assert done.recipe["batch"] == {"global_rows": 8, "micro_rows": 8}
    without = {"zero_optimization": False, "allgather_size": 5}
    assert whole.migrate(without).engine == {"zero_optimization": {"stage": 0}}


@pytest.mark.parametrize("name", ["bing_bert_lamb_sparse", "bing_bert_onebit_lamb"])
def test_lamb_has_no_counterpart(name: str) -> None:
    done = whole.migrate(old(name))
    assert done.recipe["optimizer"] == {"name": "adamw", "gradient_clipping": 1.0}
    (line,) = [line for line in done.lines if line.key == "optimizer.type"]
    assert line.kind == "open"
    assert all(word in line.text for word in ("Lamb", "adamw", "muon", "lr = 0.001", "optimizer.lr"))


@pytest.mark.parametrize(
    "block", [{"deepcompile": True, "passes": ["z1"]}, {"enabled": True, "backend": "inductor"}, {"enabled": False}, {}]
)
def test_deepspeeds_own_compile_block_is_left_out(block: dict[str, Any]) -> None:
    config = {"compile": block, "zero_optimization": {"stage": 1}}
    done = whole.migrate(config)
    check(config, done)
    assert done.engine == {"zero_optimization": {"stage": 1}}
    (line,) = [line for line in done.lines if line.key == "compile"]
    assert line.kind == "open"
    (instead,) = re.findall(r'"compile": (\{.*?\})', line.text)
    assert engine_config.ds_config_problems({"compile": json.loads(instead)}) == []


@pytest.mark.parametrize("layers", [True, False])
def test_the_pipelines_own_compile_block_stays(layers: bool) -> None:
    config = {"compile": {"layers": layers}}
    done = whole.migrate(config)
    check(config, done)
    assert done.engine == config


def test_bf16_without_zero_gets_stage_1() -> None:
    assert whole.migrate(old("unit_test_bf16")).engine["zero_optimization"] == {"stage": 1}
    done = whole.migrate({"bfloat16": {"enabled": True}, "zero_optimization": {"stage": 2}})
    assert done.engine == {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("config", "ranks", "batch"),
    [
        ({"train_micro_batch_size_per_gpu": 16}, 64, {"global_rows": 1024, "micro_rows": 16}),
        (
            {"train_micro_batch_size_per_gpu": 16, "gradient_accumulation_steps": 4},
            64,
            {"global_rows": 4096, "micro_rows": 16},
        ),
        ({"train_batch_size": 4096, "gradient_accumulation_steps": 4}, 64, {"global_rows": 4096, "micro_rows": 16}),
        ({"train_batch_size": 4096}, 64, {"global_rows": 4096, "micro_rows": 64}),
        ({"train_batch_size": 4096}, None, {"global_rows": 4096, "micro_rows": 4096}),
        ({"train_batch_size": 96, "train_micro_batch_size_per_gpu": 3}, None, {"global_rows": 96, "micro_rows": 3}),
    ],
)
def test_rows_follow_deepspeeds_rule(config: dict[str, int], ranks: int | None, batch: dict[str, int]) -> None:
    done = whole.migrate(config, ranks=ranks)
    assert done.recipe["batch"] == batch
    # The old number of GPUs gives DeepSpeed's own micro-batch and accumulation back.
    micro, accumulation = engine_config.accumulation_steps(batch["global_rows"], batch["micro_rows"], ranks or 1)
    assert micro == config.get("train_micro_batch_size_per_gpu", micro)
    assert accumulation == config.get("gradient_accumulation_steps", accumulation)
    told = "train_batch_size" in config or ranks is not None
    assert told == (not any("--ranks" in line.text for line in done.lines if line.kind == "open"))


@pytest.mark.parametrize(
    ("config", "clipping"),
    [
        ({}, 0.0),
        ({"gradient_clipping": 0.5}, 0.5),
        ({"fp16": {"enabled": True}}, 2.0),
        ({"fp16": {"enabled": True}, "gradient_clipping": 0.5}, 2.0),
        ({"fp16": {"enabled": False}, "gradient_clipping": 0.5}, 0.5),
    ],
)
def test_max_grad_norm_counted_with_fp16_only(config: dict[str, Any], clipping: float) -> None:
    config = config | {"optimizer": {"type": "Adam", "params": {"max_grad_norm": 2.0}}}
    done = whole.migrate(config)
    assert done.recipe["optimizer"]["gradient_clipping"] == clipping
    check(config, done)


def test_muon_is_never_clipped() -> None:
    params = {"lr": 0.1, "muon_lr": 0.02, "adam_lr": 3e-4, "momentum": 0.9, "ns_method": "gram"}
    config = {"optimizer": {"type": "Muon", "params": params}, "gradient_clipping": 1.0}
    optimizer = parse_recipe(whole.migrate(config).recipe, "test").optimizer
    assert (optimizer.name, optimizer.lr, optimizer.adamw_lr, optimizer.momentum) == ("muon", 0.02, 3e-4, 0.9)
    assert optimizer.gradient_clipping == 0


def test_the_defaults_written_out_are_deepspeeds() -> None:
    known = inspect.signature(FusedAdam).parameters
    assert {
        key: list(known[key].default) if key == "betas" else known[key].default for key in recipe_side.ADAM_DEFAULTS
    } == recipe_side.ADAM_DEFAULTS


def test_torchs_own_adamw_decays_by_default() -> None:
    default = inspect.signature(torch.optim.AdamW).parameters["weight_decay"].default
    for kind, params, decay in (
        ("AdamW", {"torch_adam": True}, default),
        ("Adam", {"torch_adam": True, "adam_w_mode": False}, 0.0),
        ("Adam", {}, 0.0),
    ):
        done = whole.migrate({"optimizer": {"type": kind, "params": params}})
        assert done.recipe["optimizer"]["weight_decay"] == decay


@pytest.mark.parametrize("kind", [WarmupLR, WarmupDecayLR, WarmupCosineLR])
def test_a_schedule_is_deepspeeds(kind: type) -> None:
    total, warmup, peak = 200, 20, 0.01
    params: dict[str, Any] = {"warmup_num_steps": warmup, "warmup_type": "linear"}
    params |= {} if kind is WarmupLR else {"total_num_steps": total}
    params |= {"cos_min_ratio": 0.1} if kind is WarmupCosineLR else {"warmup_max_lr": peak}
    adam = {"type": "Adam", "params": {"lr": peak}}
    done = whole.migrate({"optimizer": adam, "scheduler": {"type": kind.__name__, "params": params}}, steps=total)
    recipe = parse_recipe(done.recipe, "test")
    theirs = kind(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak), **params)
    shift = 1 if kind is WarmupCosineLR else 0  # their cosine is a step ahead of their linear decay
    for step in range(total):
        theirs.step(step - shift if step > warmup else step)
        mine = recipe.optimizer.lr * rate_factor(recipe.schedule, step, recipe.pretrain.steps)
        # Their warm-up begins at 0, ours one step later.
        assert theirs.get_last_lr()[0] == pytest.approx(mine, abs=peak / warmup if step <= warmup else 1e-12), step


def test_a_schedule_without_the_number_of_steps() -> None:
    scheduler = {"type": "WarmupLR", "params": {"warmup_num_steps": 100, "warmup_type": "linear"}}
    done = whole.migrate({"scheduler": scheduler})
    assert done.recipe["schedule"] == {"decay": "constant"}
    opened = {line.key: line.text for line in done.lines if line.kind == "open"}
    assert "--steps" in opened["pretrain.steps"]
    assert "100 / the number of steps" in opened["scheduler.params.warmup_num_steps"]
    assert whole.migrate({"scheduler": scheduler}, steps=400).recipe["schedule"]["warmup_fraction"] == 0.25


@pytest.mark.parametrize(
    ("config", "steps", "words"),
    [
        ({"train_batch_size": "4096"}, None, ["train_batch_size", '"4096"', "whole number"]),
        ({"train_batch_size": 100, "train_micro_batch_size_per_gpu": 16}, None, ["100", "16", "multiple"]),
        ({"optimizer": "Adam"}, None, ["optimizer", '"Adam"', "block"]),
        ({"optimizer": {"type": "Adam", "params": {"lr": -1}}}, None, ["optimizer.lr", "-1"]),
        ({"optimizer": {"type": "Adam", "params": {"betas": [0.9, math.inf]}}}, None, ["params.betas", "finite"]),
        (
            {"optimizer": {"type": "Muon", "params": {"lr": 0.01, "adam_lr": None}}},
            None,
            ["optimizer.params.adam_lr is null, wanted a value"],
        ),
        ({"scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 10}}}, 20, ["two owners", "10", "20"]),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, None, ["choose one"]),
        ({"fp16": True}, None, ["fp16 is true", "block"]),
        ({"zero_optimization": 2}, None, ["zero_optimization is 2", "block"]),
        ({OLD_LAYER_DROP: {"enabled": True, "theta": 0.5}}, None, [f"{OLD_LAYER_DROP}.gamma is missing"]),
        ({"gradient_clipping": "1.0", OLD_LAYER_DROP: None}, None, ["2 problems", "gradient_clipping", "is null"]),
    ],
)
def test_what_cannot_have_worked_is_refused(config: dict[str, Any], steps: int | None, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        whole.migrate(config, steps=steps)
    assert all(word in str(caught.value) for word in words)


def test_the_lists_of_keys_are_deepspeeds() -> None:
    models = {
        "fp16": DeepSpeedFP16Config,
        "bf16": DeepSpeedBF16Config,
        "zero_optimization": DeepSpeedZeroConfig,
        "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
        "zero_optimization.offload_param": DeepSpeedZeroOffloadParamConfig,
    }
    taken = {
        name: {name for key, info in model.model_fields.items() for name in (key, info.alias) if name}
        for name, model in models.items()
    }
    assert taken == engine_side.BLOCK_KEYS
    assert set(engine_side.INSTEAD) == engine_config.REMOVED_KEYS


def block_of(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=known)


AUTO = st.just("auto")
RATES = st.floats(1e-6, 1.0)
CONFIGS = block_of(
    {
        "train_batch_size": st.sampled_from([64, 128, 4096]) | AUTO,
        "train_micro_batch_size_per_gpu": st.sampled_from([1, 16]) | AUTO,
        "gradient_accumulation_steps": st.sampled_from([1, 4]) | AUTO,
        "gradient_clipping": st.sampled_from([0.0, 1.0]) | AUTO,
        "steps_per_print": st.just(10),
        "wall_clock_breakdown": st.booleans(),
        "prescale_gradients": st.booleans(),
        "amp": st.just({"enabled": True, "opt_level": "O1"}),
        "sparse_attention": st.just({"mode": "fixed"}),
        "elasticity": st.just({"enabled": False}),
        "vocabulary_size": st.just(30528),
        "zero_optimisation": st.just({"stage": 1}),
        "wandb": st.just({"enabled": True, "team": "us", "project": 'b\U0001f40dert \\ "q"'}),
        "tensorboard": st.just({"enabled": True}),
        "fp32_allreduce": st.booleans(),
        "allgather_size": st.just(1000),
        "activation_checkpointing": st.just({"partition_activations": False}),
        "compile": st.sampled_from([{"deepcompile": True}, {"enabled": True, "backend": "inductor"}, {"layers": True}]),
        "optimizer": st.fixed_dictionaries(
            {
                "type": st.sampled_from(["Adam", "adamw", "OneBitAdam", "ZeroOneAdam", "Lamb", "Lion", "Muon", "SGD"]),
                "params": block_of(
                    {
                        "lr": RATES | AUTO,
                        "betas": st.just([0.9, 0.95]) | AUTO,
                        "eps": RATES | AUTO,
                        "weight_decay": RATES | AUTO,
                        "bias_correction": st.booleans(),
                        "max_grad_norm": st.sampled_from([0.0, 1.0]),
                        "torch_adam": st.booleans(),
                        "adam_w_mode": st.booleans(),
                        "freeze_step": st.just(23000),
                    }
                ),
            }
        ),
        "scheduler": st.fixed_dictionaries(
            {
                "type": st.sampled_from(["WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle", "LRRangeTest"]),
                "params": block_of(
                    {
                        "total_num_steps": st.sampled_from([10, 20_000]) | AUTO,
                        "warmup_num_steps": st.sampled_from([0, 10, 1000]) | AUTO,
                        "warmup_min_lr": st.sampled_from([0, 1e-6]) | AUTO,
                        "warmup_max_lr": RATES | AUTO,
                        "warmup_type": st.sampled_from(["log", "linear"]),
                        "last_batch_iteration": st.just(-1),
                    }
                ),
            }
        ),
        "fp16": block_of({"enabled": st.booleans() | AUTO, "loss_scale": st.just(0), "opt_level": st.just("O1")}),
        "zero_optimization": st.booleans()
        | block_of(
            {
                "stage": st.integers(0, 3),
                "cpu_offload": st.booleans(),
                "cpu_offload_params": st.booleans(),
                "offload_optimizer": st.just({"device": "nvme", "nvme_path": "/tmp", "max_in_cpu": 5}),
                "reduce_bucket_size": st.just(1000) | AUTO,
                "stage3_gather_fp16_weights_on_model_save": st.booleans(),
                "mics_shard_size": st.just(8),
            }
        ),
        OLD_LAYER_DROP: st.just({"enabled": False}) | st.builds(lambda t: BLOCK | {"theta": t}, st.floats(0.01, 1.0)),
    }
)


@settings(deadline=None, max_examples=200)
@given(CONFIGS, st.sampled_from([None, 20_000]))
def test_any_mixture_of_old_keys_loads_and_loses_nothing(config: dict[str, Any], steps: int | None) -> None:
    total = config.get("scheduler", {}).get("params", {}).get("total_num_steps")
    before = json.dumps(config)
    done = whole.migrate(config, None if total == 10 else steps)
    recipe = check(config, done)
    assert json.dumps(config) == before
    text = whole._toml(done, Path("old.json"))
    assert parse_recipe(tomllib.loads(text), "test") == recipe
    DeepSpeedZeroConfig(**done.engine.get("zero_optimization", {}))
    DeepSpeedFP16Config(**done.engine.get("fp16", {}))


def test_files_are_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "mine.json"
    source.write_text(json.dumps({"train_batch_size": 8, OLD_LAYER_DROP: BLOCK}))
    before = source.read_bytes()
    _, recipe, engine = whole.write_migrated(source)
    assert (recipe.name, engine.name) == ("mine-migrated.toml", "mine-migrated.json")
    first = recipe.read_bytes()
    with pytest.raises(UserError, match=r"mine-migrated\.toml and mine-migrated\.json exist already"):
        whole.write_migrated(source, steps=7)
    assert recipe.read_bytes() == first
    whole.write_migrated(source, steps=7, force=True)
    assert load_recipe(str(recipe)).pretrain.steps == 7
    for force in (False, True):
        with pytest.raises(UserError, match="the old file itself"):
            whole.write_migrated(source, "mine", force=force)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"fp16": {"enabled": true, "enabled": false}}', ["enabled twice"]),
        ("[1, 2]", ["[1, 2]", "JSON object"]),
        ("{'a': 1}", ["not valid JSON"]),
        ('{"train_batch_size": 0}', ["not migrated", "train_batch_size is 0"]),
    ],
)
def test_bad_files_end_in_one_error_and_write_nothing(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "bad.json"
    source.write_text(text)
    assert main(["migrate", str(source), "--out", str(tmp_path / "new")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert all(word in shown for word in [*words, str(source)])
    assert list(tmp_path.iterdir()) == [source]
    assert main(["migrate", str(tmp_path / "none.json")]) == 2
    assert main(["migrate", str(source), "--steps", "0"]) == 2
    assert "--steps is 0" in capsys.readouterr().err


def test_run_records_the_engine_without_the_block_and_the_recipe_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[Run] = []
    monkeypatch.setattr(table, "run_all", lambda run, *_: runs.append(run.save()) or 1)
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"steps_per_print": 7, OLD_LAYER_DROP: BLOCK}))
    command = ["run", "--root", str(tmp_path), "--ds", str(path), "layer_drop.during_search=false"]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert shown.err.count(str(path)) == 4
    saved = json.loads((tmp_path / "runs" / "sample" / "recipe.json").read_text())
    assert saved["engine"] == {"steps_per_print": 7}
    layer_drop = saved["recipe"]["layer_drop"]
    assert (layer_drop["enabled"], layer_drop["scaling"], layer_drop["during_search"]) == (True, "sublayer", False)
    assert Run.open(tmp_path, "sample").recipe == runs[0].recipe


@pytest.mark.parametrize(
    ("block", "overrides", "words"),
    [
        (
            BLOCK,
            ["layer_drop.enabled=true", "layer_drop.time=pld", "layer_drop.theta=0.7"],
            ["theta is 0.5 there and 0.7 in the recipe"],
        ),
        (BLOCK, ["layer_drop.enabled=false"], ["enabled is true there and false"]),
        (BLOCK, ["layer_drop.unit=sample"], ['unit is "layer" there and "sample"']),
        ({"enabled": False}, ["layer_drop.enabled=true"], ["enabled is false there and true"]),
    ],
)
def test_layer_dropping_has_one_owner(
    block: dict[str, Any], overrides: list[str], words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({OLD_LAYER_DROP: block}))
    with pytest.raises(UserError) as caught:
        engine_config.load_with_recipe(str(path), load_recipe("sample", overrides))
    assert all(word in str(caught.value) for word in [*words, "two owners", str(path), "[layer_drop]"])


def test_stages_beside_an_old_block_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({OLD_LAYER_DROP: BLOCK}))
    with pytest.raises(UserError) as caught:
        engine_config.load_with_recipe(str(path), load_recipe("sample", ["layer_drop.stages=[0.5,1.0]"]))
    assert str(caught.value) == (
        f"1 problem in recipe with {OLD_LAYER_DROP} of {path}:\n  layer_drop: stages is [0.5, 1.0], wanted empty: they "
        "belong to time \"stages\", not 'pld'"
    )


def test_the_same_said_twice_is_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({OLD_LAYER_DROP: BLOCK}))
    once = engine_config.load_with_recipe(str(path), load_recipe("sample"))[1]
    same = ["layer_drop.enabled=true", "layer_drop.time=pld", "layer_drop.theta=0.5", "layer_drop.gamma=0.001"]
    assert engine_config.load_with_recipe(str(path), load_recipe("sample", same))[1] == once
    early = engine_config.load_with_recipe(str(path), load_recipe("sample", ["layer_drop.dense_start=0.1"]))[1]
    assert early.layer_drop == once.layer_drop.model_copy(update={"dense_start": 0.1})


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 1.0), st.floats(1e-6, 1.0), st.integers(1, 24))
def test_a_translated_block_is_plds_schedule(theta: float, gamma: float, layers: int) -> None:
    _, values, _ = engine_config.take_old_layer_drop(
        {OLD_LAYER_DROP: {"enabled": True, "theta": theta, "gamma": gamma}}
    )
    assert values is not None
    drop = parse_recipe({"layer_drop": values, "pretrain": {"steps": 5000}}, "test").dropping(layers)
    assert drop is not None
    steps = np.arange(0, 5000, 499)
    expected = [(1 - theta) * math.exp(-gamma * step) + theta for step in steps]
    np.testing.assert_allclose(drop.schedule.theta_at(steps), expected, rtol=1e-13)
    for layer in range(1, layers + 1):
        np.testing.assert_allclose(
            drop.schedule.keep(steps)[:, layer - 1], 1 - layer / layers * (1 - np.array(expected)), rtol=1e-12
        )
    assert (drop.unit, drop.scaling, drop.once_a_step) == ("layer", "sublayer", False)


def blocks_of_the_page() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_the_pages_encoder_drops_as_it_says() -> None:
    encoder, loop, _, block = blocks_of_the_page()
    assert len(encoder.splitlines()) < 25
    space: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(encoder + loop, PAGE.name, "exec"), space)  # noqa: S102, it is our own page
    model, drop, layers = space["model"], space["drop"], space["LAYERS"]
    x = torch.randn(3, 5, 32)

    model.eval()
    whole_pass = x
    for layer in model.layers:
        whole_pass = layer(whole_pass)
    assert torch.equal(model(x, 3, 1), whole_pass)

    model.train()
    skipped = 0
    for step in range(space["STEPS"]):
        draws = drop.draws(step, 1, len(x))
        model.zero_grad()
        out = model(x, step, 1)
        out.square().sum().backward()
        expected = x
        for layer, draw in zip(model.layers, draws, strict=True):
            assert (next(layer.parameters()).grad is not None) == draw.runs
            expected = expected + draw.runs * draw.scale * (layer(expected) - expected)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
        skipped += sum(not draw.runs for draw in draws)
    assert 0 < skipped < space["STEPS"] * layers
    assert isinstance(space["schedule"], DropSchedule)

    exec(compile(block, PAGE.name, "exec"), space)  # noqa: S102
    layer = space["Block"](32, 4)
    assert torch.equal(run_layer(layer, x, LayerDraw(True, 2.0, None, True)), layer(x, scale=2.0))
    assert torch.equal(run_layer(layer, x, LayerDraw(False, 2.0, None, True)), x)
    scaled = layer(x, scale=2.0)
    with torch.no_grad():  # the same factor in the weights of the two last linear maps
        for last in (layer.attention.out_proj, layer.ffn[2]):
            last.weight.mul_(2)
            last.bias.mul_(2)
    torch.testing.assert_close(layer(x), scaled, rtol=1e-5, atol=1e-5)


@pytest.mark.dist
def test_the_pages_loop_with_deepspeed_runs(tmp_path: Path) -> None:
    encoder, _, with_deepspeed, _ = blocks_of_the_page()
    tail = "\nimport os, sys\nassert engine.global_steps == STEPS\nprint('steps', engine.global_steps, flush=True)\n"
    # As the engine does: without a C++ extension that DeepSpeed would compile for a minute and not call.
    head = "import deepspeed\ndeepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False\n"
    (tmp_path / "page.py").write_text(head + encoder + with_deepspeed + tail + "os._exit(0)\n")
    done = subprocess.run(
        [sys.executable, "page.py"], env=environment(0, 1, free_port()), cwd=tmp_path, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "steps 20" in done.stdout


@pytest.mark.dist
def test_bing_bert_shrunk_really_runs(tmp_path: Path) -> None:
    """Its form with fp16 off, as on a CPU, and gamma as much larger as the run is shorter."""
    gamma = 0.4
    config = old("bing_bert_pld") | {"fp16": {"enabled": False}, OLD_LAYER_DROP: BLOCK | {"gamma": gamma}}
    (tmp_path / "old.json").write_text(json.dumps(config))
    (tmp_path / "text").mkdir()
    for number in range(12):
        (tmp_path / "text" / f"{number}.txt").write_text(sentences(12, seed=number) + "\n")
    assert main(["migrate", str(tmp_path / "old.json"), "--out", str(tmp_path / "new"), "--steps", "6"]) == 0
    done = subprocess.run(
        [
            sys.executable, "-m", "pipeline", "run", "--recipe", "new.toml", "--ds", "new.json", "--run", "new",
            "--data", "text", "corpus.name=tiny", "corpus.filters=none", "corpus.vocab_size=256",
            "corpus.row_length=32", "corpus.val_fraction=0.2", "model.layers=3", "model.hidden_size=32", "model.ffn=64",
            "batch.global_rows=8", "batch.micro_rows=4", "tracking.wandb=disabled", "tracking.log_every_steps=1",
            "evaluation.rows=16",
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "runs" / "new" / "pretrain" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        # The row after n steps tells of step n - 1, counted from 0.
        assert row["theta"] == pytest.approx((1 - 0.5) * math.exp(-gamma * (row["step"] - 1)) + 0.5, rel=1e-12)
        assert row["expected_depth"] == pytest.approx(3 - 2 * (1 - row["theta"]), rel=1e-12)
        assert math.isfinite(row["loss"])
    assert min(row["depth"] for row in rows) < 3
