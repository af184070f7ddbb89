"""The keys of an old DeepSpeed config that belong to the engine: what DeepSpeed 0.19.8 still takes of them.

Does not import DeepSpeed, which needs torch: its keys are listed here, and the tests compare the lists with it.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.migration.ledger import Block, Ledger
from pipeline.recipes.engine_config import (
    ENGINE_KEYS,
    FORMER_OFFLOADS,
    REMOVED_KEYS,
    REMOVED_ZERO_KEYS,
    ds_config_problems,
)

# The blocks DeepSpeed 0.19.8 checks: an unknown key in one of them stops it.
BLOCK_KEYS = {
    "fp16": frozenset(
        {
            "auto_cast", "consecutive_hysteresis", "enabled", "fp16_master_weights_and_grads", "hysteresis",
            "initial_scale_power", "loss_scale", "loss_scale_window", "min_loss_scale",
        }
    ),
    "bf16": frozenset(
        {
            "bf16_master_weights_and_grads", "bf16_optimizer_states", "check_grad_overflow", "enabled",
            "immediate_grad_update",
        }
    ),
    "zero_optimization": frozenset(
        {
            "allgather_bucket_size", "allgather_partitions", "allgather_sequential", "compute_grad_norm",
            "contiguous_gradients", "cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory",
            "elastic_checkpoint", "enable_sanity_checks", "gather_16bit_weights_on_model_save",
            "ignore_unused_parameters", "leaf_module", "legacy_stage1", "load_from_fp32_weights",
            "log_trace_cache_warnings", "max_live_parameters", "max_reuse_distance", "memory_efficient_linear",
            "model_persistence_threshold", "module_granularity_threshold", "offload_optimizer", "offload_param",
            "overlap_comm", "override_module_apply", "param_persistence_threshold", "parameter_alignment",
            "pipeline_loading_checkpoint", "prefetch_bucket_size", "reduce_bucket_size", "reduce_scatter",
            "round_robin_gradients", "save_muon_momentum_buffer_in_memory", "stage", "stage3_allgather_sequential",
            "stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save",
            "stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_model_persistence_threshold",
            "stage3_module_granularity_threshold", "stage3_param_persistence_threshold",
            "stage3_prefetch_bucket_size", "stage3_use_all_reduce_for_fetch_params", "sub_group_size",
            "use_all_reduce_for_fetch_params", "use_multi_rank_bucket_allreduce", "zenflow",
            "zero_hpz_partition_size", "zero_quantized_gradients", "zero_quantized_nontrainable_weights",
            "zero_quantized_weights",
        }
    ),
    "zero_optimization.offload_optimizer": frozenset(
        {
            "buffer_count", "cpuadam_cores_perc", "device", "fast_init", "nvme_path", "pin_memory", "pipeline_read",
            "pipeline_write", "ratio", "super_offload",
        }
    ),
    "zero_optimization.offload_param": frozenset(
        {"buffer_count", "buffer_size", "device", "max_in_cpu", "nvme_path", "pin_memory"}
    ),
}  # fmt: skip
# What to do instead of a key that DeepSpeed 0.19.8 has removed.
INSTEAD = {
    "amp": "take bf16 or fp16, DeepSpeed's own blocks",
    "compression_training": "the ticket search cuts heads and neurons instead",
    "curriculum_learning": "corpus.long_row_length trains the last steps on longer rows",
    "eigenvalue": "it served quantize_training only",
    "elasticity": "batch.global_rows is the same on any number of ranks anyhow",
    "graph_harvesting": "nothing takes its place",
    "nebula": "checkpoints are written to the run folder",
    "quantize_training": "nothing takes its place",
    "sparse_attention": "attention here is torch's own, dense",
    "sparse_gradients": "embedding gradients are reduced dense",
}
TRACKERS = ("wandb", "tensorboard", "csv_monitor", "comet")


def take_engine(done: Ledger, old: Mapping[str, Any]) -> None:
    """Every key of `old`, which holds no key of the recipe's side."""
    for key, value in old.items():
        if key in REMOVED_KEYS:
            done.drop(key, f"removed from DeepSpeed 0.19.8; {INSTEAD[key]}")
        elif key in TRACKERS:
            _take_tracker(done, key, value)
        elif key == "zero_optimization":
            _take_zero(done, value, old.get("allgather_size"))
        elif key in ("fp16", "bf16", "bfloat16"):
            _take_precision(done, old, key, value)
        elif key == "activation_checkpointing":
            done.leave_open(
                key,
                "left out: in DeepSpeed the model decided, here the block alone recomputes every layer. Add it, empty, "
                "if the old model did: that saves memory and changes no result",
            )
        elif key == "compile" and ds_config_problems({key: value}):
            done.leave_open(
                key,
                "left out: DeepSpeed's own block has no effect here. To compile every layer by itself, on GPUs only, "
                'write "compile": {"layers": true} into the engine config',
            )
        elif key == "fp32_allreduce" and value is True and "communication_data_type" not in old:
            done.keep(key, "fp32", "communication_data_type")
        elif key in ("fp32_allreduce", "allgather_size"):
            now = "communication_data_type" if key == "fp32_allreduce" else "zero_optimization.allgather_bucket_size"
            done.drop(key, f"{now} took its place")
        elif key in ENGINE_KEYS:
            done.keep(key, value)
        else:
            done.unknown(key, ENGINE_KEYS)
    bf16, zero = done.engine.get("bf16", {}), done.engine.get("zero_optimization", {})
    if bf16.get("enabled") is True and zero.get("stage", 0) == 0:
        why = "stage 1, because bf16 at stage 0 trains wrong numbers in DeepSpeed 0.19.8"
        done.keep("zero_optimization.stage", {**zero, "stage": 1}, "zero_optimization", why)


def _take_tracker(done: Ledger, key: str, value: Any) -> None:
    if key == "wandb" and isinstance(value, dict):
        for name, to in (("project", "tracking.project"), ("team", "tracking.entity")):
            if isinstance(value.get(name), str):
                done.move(f"{key}.{name}", to, value[name])
    done.drop(key, "[tracking] of the recipe writes to W&B, and every run keeps its own metrics.jsonl")


def _take_precision(done: Ledger, old: Mapping[str, Any], key: str, value: Any) -> None:
    name = "bf16" if key == "bfloat16" else key
    if not isinstance(value, dict):
        done.problems.append(f'{key} is {json.dumps(value)}, wanted a block such as {{"enabled": true}}')
    elif key != name and name in old:
        done.drop(key, f"DeepSpeed reads {name} where both stand")
    else:
        done.keep(key, _known(done, name, value), name if key != name else "")


def _take_zero(done: Ledger, value: Any, allgather_size: Any) -> None:
    key = "zero_optimization"
    if isinstance(value, bool):
        zero: Block = {"stage": int(value)}
        if value and allgather_size is not None:
            zero["allgather_bucket_size"] = allgather_size
        done.keep(key, zero, why=f"{json.dumps(value)} is the form of before there were stages")
        return
    if not isinstance(value, dict):
        done.problems.append(f'{key} is {json.dumps(value)}, wanted a block such as {{"stage": 1}}')
        return
    zero = dict(value)
    for former, now in FORMER_OFFLOADS.items():
        if former in zero:
            if zero.pop(former) is True and now not in zero:
                zero[now] = {"device": "cpu"}
            done.drop(f"{key}.{former}", f"{key}.{now} says it")
    if zero.pop("cpu_offload_use_pin_memory", None) is not None:
        done.drop(f"{key}.cpu_offload_use_pin_memory", "pin_memory in the offload blocks says it")
    former, now = (f"stage3_gather_{name}_weights_on_model_save" for name in ("fp16", "16bit"))
    if former in zero:
        zero[now] = zero.pop(former)
        done.drop(f"{key}.{former}", f"{key}.{now} says it")
    for name in sorted(REMOVED_ZERO_KEYS & set(zero)):
        del zero[name]
        done.drop(f"{key}.{name}", "removed from DeepSpeed 0.19.8")
    done.keep(key, _known(done, key, zero))


def _known(done: Ledger, where: str, block: Block) -> Block:
    """What DeepSpeed 0.19.8 takes of a block that it checks."""
    taken: Block = {}
    for key, value in block.items():
        path = f"{where}.{key}"
        if key not in BLOCK_KEYS[where]:
            done.unknown(path, BLOCK_KEYS[where])
        elif value == "auto":
            now = "false, DeepSpeed's default" if key == "enabled" else "DeepSpeed's default"
            done.leave_open(path, f'"auto" was left to Hugging Face\'s Trainer: it is {now}')
        else:
            taken[key] = _known(done, path, value) if path in BLOCK_KEYS and isinstance(value, dict) else value
    return taken
