"""kill -9 of all ranks at random moments, started again each time: the same bits as the run nobody touched.

EARLYBIRD_KILLS=3 kills each stage three times instead of once.
"""

import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.recipes import engine_config
from pipeline.recipes.recipe import load_recipe
from pipeline.runs.run import Run
from pipeline.stages import table
from tests import ranks
from tests.corpus import tiny_corpus
from tests.test_cli import RECIPE

KILLS = int(os.environ.get("EARLYBIRD_KILLS", "1"))
STEPS = {"search": 24, "pretrain": 40}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    tiny_corpus(folder)
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


FALLING = ["unit=layer", "time=decreasing", "depth=linear", "theta=0.4", "during_search=true"]
# Layers wait, then run on some rows, then on all.
GROWING = ["unit=sample", "time=stages", "depth=alternate", "stages=[0.0,0.5,1.0]"]


def begin_run(root: Path, name: str, engine: str, dropping: list[str]) -> Run:
    overrides = ["search.max_steps=24", "search.guard_steps=22", "pretrain.steps=40", "checkpoint.every_steps=3",
                 "model.dropout=0.1", "evaluation.every_steps=10", "layer_drop.enabled=true",
                 *(f"layer_drop.{value}" for value in dropping)]  # fmt: skip
    recipe = load_recipe(str(root / "tiny.toml"), overrides)
    return Run.of(root, name, recipe, engine_config.load_ds_config(engine)).save()


def steps_done(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def run_to_its_end(root: Path, run: Run, kill_at: list[tuple[str, int]]) -> tuple[int, str]:
    """Run all stages up to the weights on two ranks, killing all ranks once at every (stage, step) of `kill_at`.

    Returns how often that was in time, and what the first rank printed in the end.
    """
    arguments, killed = ["-m", "tests.run_stages", str(root), run.folder.root.name], 0
    for stage, step in kill_at:
        processes = ranks.start(arguments, 2, root)
        folder, deadline = run.folder.root / stage, time.monotonic() + 120
        while steps_done(folder) < step and all(p.poll() is None for p in processes) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(random.Random(step).random() * 0.1)
        killed += any(process.poll() is None for process in processes)
        ranks.kill(processes)
    return killed, ranks.run(arguments, 2, root)[0]


@pytest.mark.dist
@pytest.mark.parametrize(
    ("engine", "dropping"), [("zero1_bf16", FALLING), ("zero2_bf16", GROWING)], ids=["falling", "growing"]
)
def test_killed_and_restarted_equals_untouched(root: Path, engine: str, dropping: list[str]) -> None:
    untouched, killed = (begin_run(root, f"{name}-{engine}", engine, dropping) for name in ("untouched", "killed"))
    pick = random.Random(engine)
    moments = [(stage, step) for stage in STEPS for step in sorted(pick.sample(range(1, STEPS[stage] - 3), KILLS))]
    _, printed = run_to_its_end(root, untouched, [])
    for stage in STEPS:
        drops = stage == "pretrain" or untouched.recipe.layer_drop.during_search
        words = rf"{stage} .*saved \d+%, theta [\d.]+, depth [\d.]+ \([\d.]+ expected\)"
        assert drops == bool(re.search(words, printed)), printed
    assert run_to_its_end(root, killed, moments)[0] == 2 * KILLS
    assert untouched.folder.ticket.read_bytes() == killed.folder.ticket.read_bytes()
    ours, theirs = (load_file(run.folder.pretrain / "weights.safetensors") for run in (killed, untouched))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)

    rows = [steps_rows(run.folder.root / stage) for run in (untouched, killed) for stage in ("search", "pretrain")]
    assert rows[0] == rows[2]
    assert rows[1] == rows[3]
    assert {state for _, state, _ in table.statuses(killed)[3:6]} == {"done"}


def steps_rows(folder: Path) -> list[tuple[str, int, float]]:
    """What was logged, without the times: every step once, in order."""
    lines = (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    return [(row["kind"], row["step"], row.get("loss", 0.0)) for row in rows]
