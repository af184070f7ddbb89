"""A whole DeepSpeed config of former years becomes a recipe and an engine config, with a line for every key.

Nothing is guessed silently: what this pipeline cannot say, and what the file does not tell, are lines of kind "open".
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import write_atomically
from pipeline.layer_drop.old_block import OLD_LAYER_DROP, old_layer_drop_problems, take_old_layer_drop
from pipeline.migration.client_side import take_client
from pipeline.migration.engine_side import take_engine
from pipeline.migration.ledger import Ledger
from pipeline.migration.recipe_side import take_batch, take_optimizer, take_schedule
from pipeline.recipes.engine_config import (
    CLIENT_KEYS,
    client_refusal,
    ds_config_problems,
    is_client_file,
    read_json_object,
)
from pipeline.recipes.recipe import Recipe, parse_recipe

RECIPE_SIDE = (
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "optimizer", "scheduler",
    "gradient_clipping", OLD_LAYER_DROP,
)  # fmt: skip


def migrate(
    old: Mapping[str, Any],
    steps: int | None = None,
    ranks: int | None = None,
    client: Mapping[str, Any] | None = None,
) -> Ledger:
    """Take a whole DeepSpeed config apart, with the `client` file of bing_bert that stood beside it.

    `steps`: optimiser steps of the run, where the files do not tell. `ranks`: GPUs of the old run, needed where it
    gives the batch of one GPU only. Raises UserError listing every value that cannot have worked.
    """
    done = Ledger()
    take_batch(done, old, ranks)
    take_optimizer(done, old)
    has_schedule = client is not None and take_client(done, client, steps)
    if not has_schedule:
        take_schedule(done, old, steps)
    elif "scheduler" in old:
        done.problems.append("the schedule has two owners, scheduler and the training of the client file: delete one")
    if OLD_LAYER_DROP in old:
        _take_layer_drop(done, old[OLD_LAYER_DROP])
    take_engine(done, {key: value for key, value in old.items() if key not in RECIPE_SIDE})
    done.move("search", "search.enabled", False, "DeepSpeed searched no ticket; true searches one")
    if client is None:
        why = "not in a DeepSpeed file: a small model on the bundled text; set them"
        done.leave_open("corpus, model, objective", why)
    else:
        why = "in neither file: single texts, the bundled ones, where bing_bert had pairs and their labels; set them"
        done.leave_open("corpus, objective", why)
    try:
        parse_recipe(done.recipe, origin="")
    except UserError as error:
        done.problems += [problem.strip() for problem in str(error).split("\n")[1:]]
    done.problems += ds_config_problems(done.engine)
    if done.problems:
        listed = "".join(f"\n  {problem}" for problem in done.problems)
        raise UserError(f"{len(done.problems)} problem{'s' * (len(done.problems) > 1)}:{listed}")
    return done


def write_migrated(
    old: Path,
    out: str | None = None,
    force: bool = False,
    steps: int | None = None,
    ranks: int | None = None,
    client: Path | None = None,
) -> tuple[Ledger, Path, Path]:
    """Migrate the file `old`, and `client` with it, into OUT.toml and OUT.json; what became of it, and the two paths.

    Without `out` they stand in the working folder and are named after `old`. Raises UserError where `old` cannot be
    read or migrated, or where files are there already and `force` is false. `old` itself is never overwritten.
    """
    if not old.is_file():
        raise UserError(f"there is no DeepSpeed config {str(old)!r} to migrate")
    config = read_json_object(old)
    if is_client_file(config):
        raise UserError(client_refusal(old))
    try:
        done = migrate(config, steps, ranks, None if client is None else _read_client(client))
    except UserError as error:
        raise UserError(f"{old} is not migrated, {error}") from error
    name = (out or f"{old.stem}-migrated").removesuffix(".toml").removesuffix(".json")
    recipe, engine = Path(f"{name}.toml"), Path(f"{name}.json")
    if engine.resolve() in [path.resolve() for path in (old, client) if path is not None]:
        raise UserError(f"{engine} is the old file itself: choose another name with --out")
    there = [str(path) for path in (recipe, engine) if path.exists()]
    if there and not force:
        raise UserError(f"{' and '.join(there)} exist already: choose another name with --out, or pass --force")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(recipe, _toml(done, " and ".join(path.name for path in (old, client) if path is not None)))
    write_atomically(engine, json.dumps(done.engine, indent=2) + "\n")
    return done, recipe, engine


def _take_layer_drop(done: Ledger, block: Any) -> None:
    problems = old_layer_drop_problems(block)
    if problems:
        done.problems += problems
        return
    _, values, done.notes = take_old_layer_drop({OLD_LAYER_DROP: block})
    for key, value in (values or {}).items():
        done.move(f"{OLD_LAYER_DROP}.{key}" if key in block else OLD_LAYER_DROP, f"layer_drop.{key}", value)


def _read_client(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no client file {str(path)!r}")
    client = read_json_object(path)
    if not is_client_file(client):
        raise UserError(
            f"{path} is not a client file of bing_bert, which has {', '.join(CLIENT_KEYS)}; a DeepSpeed config goes "
            "without --client"
        )
    return client


def _toml(done: Ledger, origin: str) -> str:
    lines = [f"# Made of {origin} by `python -m pipeline migrate`. Keys that are not here have their defaults."]
    lines += [f"# {line}" for line in done.lines if line.kind == "open"]
    for section in Recipe.model_fields:
        values = done.recipe.get(section)
        if values:
            # Numbers, texts, lists, true and false are written alike in JSON and TOML.
            lines += ["", f"[{section}]", *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in values.items())]
    return "\n".join(lines) + "\n"
