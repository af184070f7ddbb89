"""Join a recipe and a DeepSpeed JSON into the config the engine gets. Knows nothing of torch.

The recipe owns batch sizes, optimiser and clipping; the JSON owns the engine's mechanics: ZeRO stage, precision,
offload, buckets, activation checkpointing, communication. DeepSpeed itself ignores misspelt top-level keys, so
they are refused here. One removed key is still understood: `progressive_layer_drop` becomes the recipe's [layer_drop].
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from pipeline.layer_drop.old_block import OLD_LAYER_DROP, old_layer_drop_problems, take_old_layer_drop
from pipeline.recipes.recipe import Recipe, parse_recipe

DS_CONFIGS = Path(__file__).parents[2] / "ds_configs"

ENGINE_KEYS = frozenset(
    {
        "activation_checkpointing", "aio", "bf16", "check_grad_overflow", "checkpoint", "comms_logger",
        "communication_data_type", "compile", "data_types", "disable_allgather", "dump_state", "flops_profiler",
        "fp16", "gradient_allreduce_op", "gradient_predivide_factor", "log_level", "memory_breakdown",
        "prescale_gradients", "seq_parallel_communication_data_type", "steps_per_print", "timers",
        "torch_autocast", "wall_clock_breakdown", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
        "zero_optimization", "disable_python_gc",
    }
)  # fmt: skip
RECIPE_KEYS = {
    "train_batch_size": "batch.global_rows",
    "train_micro_batch_size_per_gpu": "batch.micro_rows",
    "gradient_accumulation_steps": "batch.global_rows and batch.micro_rows",
    "optimizer": "[optimizer]",
    "scheduler": "[schedule]",
    "gradient_clipping": "optimizer.gradient_clipping",
    "wandb": "[tracking]",
    "tensorboard": "[tracking]",
    "csv_monitor": "[tracking]",
    "comet": "[tracking]",
}
REMOVED_KEYS = frozenset(
    {
        "amp", "compression_training", "curriculum_learning", "eigenvalue", "elasticity", "graph_harvesting",
        "nebula", "quantize_training", "sparse_attention", "sparse_gradients",
    }
)  # fmt: skip
REMOVED_ZERO_KEYS = frozenset({"mics_shard_size", "mics_hierarchical_params_gather", "zeropp_loco_param"})
FORMER_OFFLOADS = {
    "cpu_offload": "offload_optimizer",
    "cpu_offload_param": "offload_param",
    "cpu_offload_params": "offload_param",
}
# By these the client file of DeepSpeedExamples' bing_bert is known, which stood beside the DeepSpeed config.
CLIENT_KEYS = ("bert_model_config", "mixed_seq_training", "bert_token_file", "bert_model_file")
_FIRST_KEYS = {"zero_optimization": "stage", "bf16": "enabled", "fp16": "enabled"}


def load_ds_config(name_or_path: str) -> dict[str, Any]:
    """Read ds_configs/NAME.json or a path. Raises UserError listing every problem found in it.

    A `progressive_layer_drop` block is one: it needs a recipe to go to (`load_with_recipe`).
    """
    path = _path_of(name_or_path)
    engine = _checked(path)
    if OLD_LAYER_DROP in engine:
        raise UserError(f"{path} has a {OLD_LAYER_DROP} block, and layer dropping is decided elsewhere: delete it")
    return engine


def load_with_recipe(name_or_path: str, recipe: Recipe) -> tuple[dict[str, Any], Recipe, list[str]]:
    """The engine config, the recipe with the layer dropping of an old file, and what was translated, a line each.

    Raises UserError where the file has problems, or where it and the recipe say different things about dropping.
    """
    path = _path_of(name_or_path)
    engine, values, notes = take_old_layer_drop(_checked(path))
    if values is not None:
        recipe = _with_layer_drop(recipe, values, path)
    return engine, recipe, [f"{path}: {note}" for note in notes]


def _with_layer_drop(recipe: Recipe, values: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe with the keys of [layer_drop] that the block in the file `path` decides.

    Raises UserError naming both where the recipe itself sets one of them to something else, or another key that does
    not go with them.
    """
    mine = recipe.layer_drop
    clashes = [
        f"{key} is {json.dumps(value)} there and {json.dumps(getattr(mine, key))} in the recipe"
        for key, value in values.items()
        if key in mine.model_fields_set and getattr(mine, key) != value
    ]
    if clashes:
        raise UserError(
            f"layer dropping has two owners, {OLD_LAYER_DROP} of {path} and [layer_drop] of the recipe: "
            f"{'; '.join(clashes)}. Delete the block from the file, or these keys from the recipe"
        )
    together = mine.model_dump(exclude_unset=True) | dict(values)
    origin = f"with {OLD_LAYER_DROP} of {path}"
    return parse_recipe(recipe.model_dump(exclude_unset=True) | {"layer_drop": together}, origin)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError where it is none, or names a key twice, as DeepSpeed does."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        if twice:
            raise UserError(f"{path} has {', '.join(twice)} twice: a key may stand once in a block")
        return dict(pairs)

    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds {json.dumps(config)[:60]}, wanted a JSON object with DeepSpeed's keys")
    return config


def is_client_file(config: Mapping[str, Any]) -> bool:
    """Whether this is bing_bert's client file rather than a DeepSpeed config."""
    return not config.keys().isdisjoint(CLIENT_KEYS)


def client_refusal(path: Path) -> str:
    """What to say of a client file in the place of a DeepSpeed config."""
    return (
        f"{path} is the client file of bing_bert, not its DeepSpeed config: name that one, and this with it, "
        f"`python -m pipeline migrate DEEPSPEED.json --client {path}`"
    )


def ds_config_problems(config: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with an engine config, one line each."""
    problems = []
    for key, value in config.items():
        if key == OLD_LAYER_DROP:
            problems += old_layer_drop_problems(value)
        elif key in REMOVED_KEYS:
            problems.append(f"{key}: removed from DeepSpeed 0.19.8, delete it")
        elif key in RECIPE_KEYS:
            if value != "auto":
                problems.append(f"{key}: belongs to the recipe ({RECIPE_KEYS[key]}), delete it here")
        elif key not in ENGINE_KEYS:
            close = difflib.get_close_matches(key, ENGINE_KEYS, n=1)
            hint = f", did you mean {close[0]}?" if close else ""
            problems.append(f"{key}: DeepSpeed has no such key and would ignore it silently{hint}")
        elif key == "compile" and json.dumps(value) not in ('{"layers": true}', '{"layers": false}'):
            problems.append(
                f'compile is {json.dumps(value)}, wanted {{"layers": true}}, which compiles each layer by itself: '
                "DeepSpeed's own block has no effect here"
            )
        elif key in _FIRST_KEYS and not isinstance(value, dict):
            problems.append(f'{key} is {json.dumps(value)}, wanted a block such as {{"{_FIRST_KEYS[key]}": ...}}')
    blocks = {key: config[key] for key in _FIRST_KEYS if isinstance(config.get(key), dict)}
    zero = blocks.get("zero_optimization", {})
    problems += [
        f"zero_optimization.{key}: removed from DeepSpeed 0.19.8, delete it" for key in zero if key in REMOVED_ZERO_KEYS
    ]
    for key in ("offload_optimizer", "offload_param"):
        if not isinstance(zero.get(key), dict | None):
            problems.append(
                f'zero_optimization.{key} is {json.dumps(zero[key])}, wanted a block such as {{"device": "cpu"}}'
            )
    for former, now in FORMER_OFFLOADS.items():
        if former in zero:
            problems.append(
                f"zero_optimization.{former}: the former name, delete it; to offload write "
                f'"{now}": {{"device": "cpu"}} in its place'
            )
    for key in ("bf16", "fp16"):
        enabled = blocks.get(key, {}).get("enabled", False)
        if not isinstance(enabled, bool):
            problems.append(f"{key}.enabled is {json.dumps(enabled)}, wanted true or false")
    stage = zero.get("stage", 0)
    if precision(blocks) == "bf16" and stage == 0:
        problems.append(
            "bf16 with ZeRO stage 0 trains wrong numbers in DeepSpeed 0.19.8: set zero_optimization.stage to 1"
        )
    if all(blocks.get(key, {}).get("enabled") for key in ("bf16", "fp16")):
        problems.append("bf16.enabled and fp16.enabled are both true: choose one")
    return problems


def _path_of(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix != ".json":
        path = DS_CONFIGS / f"{name_or_path}.json"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in DS_CONFIGS.glob("*.json")))
        raise UserError(f"there is no DeepSpeed config {name_or_path!r}; known are {known}, or give a .json path")
    return path


def _checked(path: Path) -> dict[str, Any]:
    config = read_json_object(path)
    if is_client_file(config):
        raise UserError(client_refusal(path))
    problems = ds_config_problems(config)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        zero = config.get("zero_optimization")
        keys = {*config, *(zero if isinstance(zero, dict) else ())}
        whole = not keys.isdisjoint({*RECIPE_KEYS, *REMOVED_KEYS, *FORMER_OFFLOADS})
        way_out = f"\n`python -m pipeline migrate {path}` makes a recipe and an engine config of it" if whole else ""
        raise UserError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in DeepSpeed config {path}:{listed}{way_out}"
        )
    return config


def offloads_optimizer(config: Mapping[str, Any]) -> bool:
    """Whether the engine config keeps the optimiser on the CPU or on a disk."""
    offload = config.get("zero_optimization", {}).get("offload_optimizer") or {}
    return bool(offload.get("device", "none") != "none")


def needs_every_gradient(config: Mapping[str, Any]) -> bool:
    """Whether every parameter needs a gradient in every micro-batch with this engine config.

    Offloading keeps the gradients of the step before for parameters that the last micro-batch did not use. ZeRO 3
    adds to them where the first did not, and loses its plan of what to gather when a layer is left out.
    """
    return config.get("zero_optimization", {}).get("stage") == 3 or offloads_optimizer(config)


def precision(config: Mapping[str, Any]) -> str:
    """The parameter precision the engine config asks for: "bf16", "fp16" or "fp32"."""
    for name in ("bf16", "fp16"):
        if config.get(name, {}).get("enabled"):
            return name
    return "fp32"


def accumulation_steps(global_rows: int, micro_rows: int, world_size: int) -> tuple[int, int]:
    """(rows a rank and micro-batch, gradient accumulation steps) for this many ranks.

    The global batch never changes with the number of ranks. Raises UserError where it cannot be shared equally.
    """
    if world_size < 1:
        raise UserError(f"the number of ranks (--nproc) is {world_size}, wanted 1 or more")
    if global_rows < world_size:
        raise UserError(
            f"more ranks than rows: batch.global_rows is {global_rows} but {world_size} ranks were started; "
            f"start at most {global_rows} ranks or raise batch.global_rows"
        )
    if global_rows % world_size:
        raise UserError(f"batch.global_rows ({global_rows}) is not a multiple of the number of ranks ({world_size})")
    rank_rows = global_rows // world_size
    micro_rows = min(micro_rows, rank_rows)
    if rank_rows % micro_rows:
        raise UserError(
            f"the {rank_rows} rows a rank (batch.global_rows {global_rows} / {world_size} ranks) "
            f"are not a multiple of batch.micro_rows ({micro_rows})"
        )
    return micro_rows, rank_rows // micro_rows


def join(engine: dict[str, Any], recipe: Recipe, world_size: int) -> dict[str, Any]:
    """The final DeepSpeed config: the engine's mechanics plus what the recipe owns."""
    micro_rows, accumulation = accumulation_steps(recipe.batch.global_rows, recipe.batch.micro_rows, world_size)
    optimizer = recipe.optimizer
    params: dict[str, Any] = {"lr": optimizer.lr, "betas": list(optimizer.betas), "eps": optimizer.eps,
                              "weight_decay": optimizer.weight_decay}  # fmt: skip
    if not offloads_optimizer(engine):
        params["torch_adam"] = True
    if optimizer.name == "muon":
        params |= {
            "momentum": optimizer.momentum,
            "muon_lr": optimizer.lr,
            "adam_lr": optimizer.adamw_lr or optimizer.lr,
        }
    ours = {*RECIPE_KEYS, "activation_checkpointing", "compile"}
    joined = {key: value for key, value in engine.items() if key not in ours}
    joined |= {
        "train_batch_size": recipe.batch.global_rows,
        "train_micro_batch_size_per_gpu": micro_rows,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": optimizer.gradient_clipping,
        "optimizer": {"type": {"adamw": "AdamW", "muon": "Muon"}[optimizer.name], "params": params},
    }
    if optimizer.name == "muon":
        joined["zero_optimization"] = {**joined.get("zero_optimization", {}), "reduce_scatter": False}
    return joined
