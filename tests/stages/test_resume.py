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


def run_stage(root: Path, run: Run, stage: str, kill_at: list[int]) -> tuple[int, str]:
    """Run a stage to its end on two ranks, killing all ranks once at every step of `kill_at`.

    Returns how often that was in time, and what the first rank printed in the end.
    """
    arguments = ["-m", "pipeline", stage, "--root", str(root), "--run", run.folder.root.name]
    folder, killed = run.folder.root / stage, 0
    for step in kill_at:
        processes = ranks.start(arguments, 2, root)
        deadline = time.monotonic() + 120
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
    for stage in ("search", "pretrain"):
        _, printed = run_stage(root, untouched, stage, [])
        drops = stage == "pretrain" or untouched.recipe.layer_drop.during_search
        assert drops == bool(re.search(r"saved \d+%, theta [\d.]+, depth [\d.]+ \([\d.]+ expected\)", printed)), printed
        moments = sorted(pick.sample(range(1, STEPS[stage] - 3), KILLS))
        assert run_stage(root, killed, stage, moments)[0] == KILLS
        if stage == "search":
            for run in (untouched, killed):
                ranks.run(["-m", "pipeline", "draw", "--root", str(root), "--run", run.folder.root.name], 1, root)
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
