"""DeepSpeed's old `progressive_layer_drop` block, as this pipeline's [layer_drop]. Knows nothing of files or engines.

DeepSpeed took `{"enabled": ..., "theta": ..., "gamma": ...}` until 0.19.7 (Zhang and He, NeurIPS 2020) and refuses it
since. The block moved a scalar theta only: what it did to layers was the matter of each model.
"""

import json
from collections.abc import Mapping
from typing import Any

from data_prep.errors import UserError
from pipeline.layer_drop.schedule import schedule_problems

OLD_LAYER_DROP = "progressive_layer_drop"
KEYS = ("enabled", "theta", "gamma")


def take_old_layer_drop(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """(config without `progressive_layer_drop`, the keys of [layer_drop] it decides or None, what to tell the user).

    Raises UserError for a block that `old_layer_drop_problems` finds wrong.
    """
    rest = {key: value for key, value in config.items() if key != OLD_LAYER_DROP}
    if OLD_LAYER_DROP not in config:
        return rest, None, []
    block = config[OLD_LAYER_DROP]
    problems = old_layer_drop_problems(block)
    if problems:
        raise UserError("; ".join(problems))
    if not block["enabled"]:
        return rest, {"enabled": False}, [f"{OLD_LAYER_DROP}.enabled is false: no layer is dropped"]
    theta, gamma = float(block["theta"]), float(block["gamma"])
    values = {"enabled": True, "time": "pld", "depth": "pld", "unit": "layer", "scaling": "sublayer",
              "theta": theta, "gamma": gamma}  # fmt: skip
    listed = ", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())
    return rest, values, [
        f"{OLD_LAYER_DROP}, which DeepSpeed 0.19.8 refuses, became the recipe's [layer_drop]: {listed}",
        f"theta of step t, from 0, is (1 - {theta:g}) exp(-{gamma:g} t) + {theta:g}: it follows from the step, so it "
        "survives a restart; DeepSpeed was one step late and began again at 1",
        "all ranks make the same decision, from seed, step, micro-batch and layer; DeepSpeed left it to the model",
        "layer l of L, from 1, is kept with p = 1 - l / L (1 - theta), and its sub-layers are scaled by 1 / p of that "
        "same p; DeepSpeed's example counted from 0 and scaled by the next layer's p",
    ]  # fmt: skip


def old_layer_drop_problems(block: Any) -> list[str]:
    """Everything that is wrong with a `progressive_layer_drop` block, one line each."""
    name = OLD_LAYER_DROP
    if not isinstance(block, dict):
        wanted = '{"enabled": true, "theta": 0.5, "gamma": 0.001}'
        return [f"{name} is {json.dumps(block)}, wanted a block such as {wanted}; without dropping delete it"]
    problems = [f"{name}.{key}: unknown key, the block has {', '.join(KEYS)}" for key in block if key not in KEYS]
    enabled = block.get("enabled")
    if not isinstance(enabled, bool):
        found = f"is {json.dumps(enabled)}" if "enabled" in block else "is missing, where DeepSpeed raised KeyError"
        problems.append(f"{name}.enabled {found}: write true or false")
    if enabled is False:
        return problems
    numbers: dict[str, float] = {}
    for key, tutorial in (("theta", "0.5"), ("gamma", "0.001")):
        value = block.get(key)
        if key not in block:
            problems.append(
                f"{name}.{key} is missing: DeepSpeed never applied the default it documented, it raised KeyError; "
                f"write the value ({tutorial} in DeepSpeed's tutorial)"
            )
        elif isinstance(value, bool) or not isinstance(value, int | float):
            problems.append(f"{name}.{key} is {json.dumps(value)}, wanted a number")
        else:
            numbers[key] = value
    found_wrong = schedule_problems("pld", "pld", numbers.get("theta", 1.0), numbers.get("gamma"), (), 0.0, 0.0)
    return problems + [f"{name}.{problem}" for problem in found_wrong]
