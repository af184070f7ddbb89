"""The keys of an old DeepSpeed config that belong to the recipe: batch, optimiser, clipping, schedule."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.migration.ledger import Block, Ledger, defaults
from pipeline.recipes.recipe import Recipe

# Optimisers that move parameters as AdamW does; what is said of those that send compressed gradients.
ADAM_LIKE = {"adam": "", "adamw": "", "onebitadam": "1-bit Adam, removed from DeepSpeed, without its compression",
             "zerooneadam": "0/1 Adam, removed from DeepSpeed, without its compression"}  # fmt: skip
ADAM_DEFAULTS = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
MUON_KEYS = {"lr": "lr", "muon_lr": "lr", "adam_lr": "adamw_lr", "momentum": "momentum", "betas": "betas",
             "eps": "eps", "weight_decay": "weight_decay"}  # fmt: skip
APART = ("momentum", "gradient_clipping")  # Muon's, and told of by itself
DECAYS = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}


def take_batch(done: Ledger, old: Mapping[str, Any], ranks: int | None) -> None:
    """Rows of a step and of a micro-batch. DeepSpeed's rule: rows = micro-batch x accumulation x GPUs."""
    rows, micro, accumulation = (
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
    )  # fmt: skip
    given: dict[str, int] = {}
    for key, to in ((rows, "batch.global_rows"), (micro, "batch.micro_rows"), (accumulation, "")):
        if old.get(key) == "auto" and to:
            done.auto(key, to)
        elif old.get(key, "auto") != "auto" and done.is_number(key, old[key], whole=True, least=1):
            given[key] = old[key]
    if accumulation in old:
        done.drop(accumulation, "follows from batch.global_rows, batch.micro_rows and the number of ranks")
    if rows not in given and micro not in given:
        if not {rows, micro} & set(old):
            done.leave_open(rows, f"no batch size in the file: {defaults('batch')}")
        return
    gpus, steps = ranks or 1, given.get(accumulation, 1)
    if rows in given:
        done.move(rows, "batch.global_rows", given[rows])
    elif rows not in old:
        why = f"not in the file; {given[micro]} x {steps} x {gpus} GPU{'s' * (gpus > 1)}"
        done.move(rows, "batch.global_rows", given[micro] * steps * gpus, why)
        if ranks is None:
            done.leave_open(rows, "right for one GPU only: pass --ranks N, the GPUs of the old run")
    if micro in given:
        done.move(micro, "batch.micro_rows", given[micro])
        if given.get(rows, 0) % (given[micro] * gpus):
            done.problems.append(f"{rows} ({given[rows]}) is not a multiple of {micro} ({given[micro]}) x {gpus} GPUs")
    elif micro not in old:
        why = f"not in the file; {given[rows]} / {steps} / {gpus} GPU{'s' * (gpus > 1)}; a rank takes its share at most"
        done.move(micro, "batch.micro_rows", max(1, given[rows] // (steps * gpus)), why)


def take_optimizer(done: Ledger, old: Mapping[str, Any]) -> None:
    """Optimiser and clipping."""
    block = old.get("optimizer", "auto")
    if block == "auto":
        done.leave_open("optimizer", f"not in the file, the old script chose it: {defaults('optimizer', *APART)}")
        _take_clipping(done, old, {}, muon=False)
        return
    params = done.params("optimizer", block)
    if params is None:
        return
    for key in block.keys() - {"type", "params"}:
        done.drop(f"optimizer.{key}", "for optimisers that are not here")
    name = str(block["type"])
    if name.lower() in ADAM_LIKE:
        done.move("optimizer.type", "optimizer.name", "adamw", ADAM_LIKE[name.lower()])
        _take_adam(done, params, name.lower())
    elif name.lower() == "muon":
        done.move("optimizer.type", "optimizer.name", "muon")
        _take_muon(done, params)
    else:
        done.leave_open(
            "optimizer.type",
            f"{name} is not here, only adamw and muon, and neither takes its rate: {defaults('optimizer', *APART)}. "
            "Set optimizer.lr anew, and batch.global_rows with it (PLD was published with Adam, 1e-3 at 4096 rows)",
        )
        done.recipe.setdefault("optimizer", {})["name"] = "adamw"
        for key, value in params.items():
            if key != "max_grad_norm":
                done.leave_open(f"optimizer.params.{key}", f"{json.dumps(value)} belongs to {name}, not carried over")
    _take_clipping(done, old, params, muon=name.lower() == "muon")


def _take_adam(done: Ledger, params: Block, name: str) -> None:
    coupled = name == "adam" and params.get("adam_w_mode", True) is False
    defaults = dict(ADAM_DEFAULTS)
    if params.get("torch_adam") and not coupled:
        defaults["weight_decay"] = 0.01
    for key, default in defaults.items():
        where, to = f"optimizer.params.{key}", f"optimizer.{key}"
        if params.get(key) == "auto":
            done.auto(where, to)
        else:
            why = "" if key in params else "not in the file; DeepSpeed's default"
            done.move(where, to, params.get(key, default), why)
    for key, value in params.items():
        where = f"optimizer.params.{key}"
        if key in defaults or key == "max_grad_norm":
            continue
        if key == "bias_correction" and not value:
            done.leave_open(where, "false cannot be said: AdamW corrects the bias of its moments in the first steps")
        elif key == "adam_w_mode" and coupled:
            done.leave_open(where, "false cannot be said: AdamW here takes weight decay apart from the gradient")
        else:
            done.drop(where, "nothing to set: AdamW here is torch's own, or DeepSpeed's for the CPU with offload")


def _take_muon(done: Ledger, params: Block) -> None:
    for key, value in params.items():
        if key in MUON_KEYS and value == "auto":
            done.auto(f"optimizer.params.{key}", f"optimizer.{MUON_KEYS[key]}")
        elif key in MUON_KEYS:
            done.move(f"optimizer.params.{key}", f"optimizer.{MUON_KEYS[key]}", value)
        elif key != "max_grad_norm":
            done.drop(f"optimizer.params.{key}", "has no counterpart here")
    absent = [key for key in ("lr", "momentum", "betas", "eps", "weight_decay") if key not in params]
    if absent:
        done.leave_open("optimizer.params", f"{', '.join(absent)} not in the file: the recipe's defaults")


def _take_clipping(done: Ledger, old: Mapping[str, Any], params: Block, muon: bool) -> None:
    # DeepSpeed once took the optimiser's max_grad_norm, before gradient_clipping, with fp16; without it set it to 0.
    key, former, to = "gradient_clipping", "optimizer.params.max_grad_norm", "optimizer.gradient_clipping"
    norm = params.get("max_grad_norm", 0)
    half = isinstance(old.get("fp16"), dict) and old["fp16"].get("enabled") is True
    counts = not muon and half and done.is_number(former, norm) and norm > 0
    if muon:
        why = "muon is not clipped here: DeepSpeed would clip after the update is orthogonalised"
        done.move(key, to, 0.0, why)
    elif old.get(key) == "auto":
        done.auto(key, to)
    elif key in old and done.is_number(key, old[key]):
        done.move(key, to, old[key])
    elif key not in old and not counts:
        done.move(key, to, 0.0, "not in the file; DeepSpeed's default, no clipping")
    if counts:
        done.move(former, to, norm)
    elif "max_grad_norm" in params:
        done.drop(former, "DeepSpeed clipped by it with fp16 only, and never Muon")


def take_schedule(done: Ledger, old: Mapping[str, Any], steps: int | None) -> None:
    """Number of steps, warm-up and decay. `steps`: what the user says, for files that do not tell."""
    block = old.get("scheduler", "auto")
    params = {} if block == "auto" else done.params("scheduler", block)
    if params is None:
        return
    total = take_steps(done, "scheduler.params.total_num_steps", params.pop("total_num_steps", None), steps)
    if block == "auto":
        done.leave_open("scheduler", f"not in the file, the old script set the rate: {defaults('schedule')}")
        return
    name = str(block["type"])
    if name not in DECAYS:
        done.leave_open("scheduler.type", f"{name} cannot be said here: {defaults('schedule')}")
        for key, value in params.items():
            done.leave_open(f"scheduler.params.{key}", f"{json.dumps(value)} belongs to {name}, not carried over")
        return
    done.move("scheduler.type", "schedule.decay", DECAYS[name])
    if name == "WarmupCosineLR":
        least = params.pop("cos_min_ratio", 1e-4)
        done.move("scheduler.params.cos_min_ratio", "schedule.final_fraction", least)
    else:
        _take_peak(done, name, params.pop("warmup_max_lr", None))
    _take_warmup(done, params, total)


def take_steps(done: Ledger, key: str, total: Any, steps: int | None) -> int | None:
    """The number of steps: `total`, which the file has under `key`, else `steps`, which the user says."""
    to = "pretrain.steps"
    if total == "auto":
        done.auto(key, to)
    elif total is not None and done.is_number(key, total, whole=True, least=1):
        if steps not in (None, total):
            done.problems.append(f"the number of steps has two owners: {key} is {total}, --steps is {steps}")
        done.move(key, to, total)
        return int(total)
    if steps is None:
        done.leave_open(
            to,
            f"the file does not tell the number of steps, and a recipe needs it: {Recipe().pretrain.steps} is the "
            "default; set it or pass --steps N",
        )
    else:
        done.move("--steps", to, steps)
    return steps


def _take_peak(done: Ledger, name: str, peak: Any) -> None:
    """The scheduler's maximum, which overruled the optimiser's rate in DeepSpeed."""
    key, to = "scheduler.params.warmup_max_lr", "optimizer.lr"
    if peak == "auto":
        done.leave_open(key, f'"auto" was left to Hugging Face\'s Trainer; see {to}')
    elif peak is None and name == "WarmupLR":
        done.leave_open(key, f"not in the file: DeepSpeed took 0.001, its last versions the optimiser's rate; see {to}")
    elif not any(line.to == "optimizer.name" for line in done.lines):
        done.leave_open(key, "not carried over, as the optimiser is not")
    else:
        done.move(key, to, 1e-3 if peak is None else peak, "DeepSpeed's default" if peak is None else "")


def _take_warmup(done: Ledger, params: Block, total: int | None) -> None:
    prefix = "scheduler.params."
    key, to = f"{prefix}warmup_num_steps", "schedule.warmup_fraction"
    warmup = params.pop("warmup_num_steps", 1000)
    if warmup == "auto":
        done.auto(key, to)
    elif done.is_number(key, warmup, whole=True):
        if total is None:
            done.leave_open(key, f"{to} is {warmup} / the number of steps: set it or pass --steps N")
        elif warmup >= total:
            done.leave_open(key, f"{warmup} steps of warm-up are not fewer than {total} in all; {to} is the default")
        else:
            done.move(key, to, warmup / total, f"{warmup} of {total} steps")
    shape = params.pop("warmup_type", "log")
    if shape == "linear":
        done.drop(f"{prefix}warmup_type", "the warm-up is linear here")
    else:
        done.leave_open(f"{prefix}warmup_type", f"{json.dumps(shape)} cannot be said: the warm-up is linear here")
    for key, value in params.items():
        if key in ("warmup_min_lr", "warmup_min_ratio") and value != 0:
            done.leave_open(f"{prefix}{key}", f"{json.dumps(value)} cannot be said: the warm-up begins near 0 here")
        elif key in ("warmup_min_lr", "warmup_min_ratio"):
            done.drop(f"{prefix}{key}", "the warm-up begins near 0 here too")
        else:
            why = "the step is kept in checkpoints" if key == "last_batch_iteration" else "no such parameter"
            done.drop(f"{prefix}{key}", why)
