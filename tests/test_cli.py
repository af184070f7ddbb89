"""The command line: one clear line and exit code 2 for every mistake, nothing lost, done stages skipped."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.__main__ import main
from pipeline.recipes.engine_config import load_ds_config
from pipeline.recipes.recipe import load_recipe
from pipeline.runs.run import Run
from pipeline.tickets.ticket import Ticket
from tests import ranks
from tests.corpus import tiny_corpus
from tests.ranks import REPOSITORY

RECIPE = """
seed = 1
[corpus]
name = "tiny"
vocab_size = 256
row_length = 32
filters = "none"
val_fraction = 0.2
[model]
layers = 2
hidden_size = 32
heads = 4
ffn = 64
[batch]
global_rows = 8
micro_rows = 4
[optimizer]
name = "muon"
lr = 1e-2
gradient_clipping = 0.0
[search]
max_steps = 8
guard_steps = 2
every_steps = 2
[pretrain]
steps = 12
[evaluation]
every_steps = 6
rows = 16
[checkpoint]
every_steps = 4
[tracking]
wandb = "disabled"
log_every_steps = 1
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with raw text, its recipe, and one finished run called `whole`."""
    root = tmp_path_factory.mktemp("home")
    tiny_corpus(root / "text")
    (root / "tiny.toml").write_text(RECIPE)
    done = pipeline(root, "run", "--recipe", "tiny.toml", "--run", "whole", "--data", "text/raw", "--nproc", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def pipeline(root: Path, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False, **more
    )  # type: ignore[call-overload]


def trained(root: Path, wanted: dict[str, tuple[str, ...]], num_ranks: int = 1, engine: str = "cpu") -> list[Run]:
    """Runs of the tiny recipe, by their overrides, on the corpus of `whole`, their stages up to the weights."""
    runs = []
    for name, overrides in wanted.items():
        recipe = load_recipe(str(root / "tiny.toml"), list(overrides))
        runs.append(Run.of(root, name, recipe, load_ds_config(engine)).save())
    ranks.run(["-m", "tests.run_stages", str(root), *wanted], num_ranks, root)
    return runs


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.split("\n") if line.startswith("error: ")]


@pytest.mark.dist
def test_a_whole_run_leaves_its_artifacts(home: Path) -> None:
    run = home / "runs" / "whole"
    for name in ("search", "draw", "pretrain", "export"):
        manifest = json.loads((run / name / "manifest.json").read_text())
        assert manifest["seconds"] > 0
        assert manifest["versions"]["deepspeed"]
    for name in ("ticket.json", "report.html", "model/model.safetensors", "model-expanded/model.safetensors"):
        assert (run / name).stat().st_size > 0
    results = json.loads((run / "pretrain" / "manifest.json").read_text())["results"]
    assert (results["steps"], results["tokens"], results["world_size"]) == (12, 12 * 8 * 32, 2)
    assert results["parameters"] < results["parameters_dense"]


@pytest.mark.dist
def test_again_everything_is_skipped(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "runs").rglob("manifest.json")}
    again = pipeline(home, "run", "--recipe", "tiny.toml", "--run", "whole", "--data", "text/raw", "--nproc", "2")
    assert again.returncode == 0
    assert again.stdout.count("skipped") == 7
    assert before == {path: path.stat().st_mtime_ns for path in (home / "runs").rglob("manifest.json")}


@pytest.mark.dist
def test_a_changed_recipe_stops_with_the_keys_and_the_ways_out(home: Path) -> None:
    changed = pipeline(
        home, "run", "--recipe", "tiny.toml", "--run", "whole", "--data", "text/raw", "--nproc", "2", "optimizer.lr=0.5"
    )
    (line,) = errors(changed)
    assert "optimizer.lr: 0.01 -> 0.5" in line
    assert "another run" in line
    assert "--force" in line


@pytest.mark.dist
def test_the_ticket_can_be_drawn_again_from_the_scores(home: Path) -> None:
    before = (home / "runs" / "whole" / "ticket.json").read_bytes()
    again = pipeline(home, "draw", "--run", "whole", "--force")
    assert again.returncode == 0, again.stderr
    assert (home / "runs" / "whole" / "ticket.json").read_bytes() == before


@pytest.mark.dist
def test_other_ways_to_search_and_rewind(home: Path) -> None:
    ways = {
        "l1": ("search.score=l1", "pretrain.rewind=inherit"),
        "magnitude": ("search.score=magnitude", "search.draw=fixed", "pretrain.rewind=reinit", "model.norm=post"),
        "random": ("search.score=random", "optimizer.name=adamw", "ticket.flops=0.7"),
        "borrowed": ("search.run=l1", "search.score=l1", "ticket.neurons=0.6"),
        "step": ("search.max_steps=4", "search.draw=fixed", "pretrain.rewind=step", "pretrain.rewind_step=2"),
    }
    for name, run in zip(ways, trained(home, ways), strict=True):
        results = json.loads((run.folder.pretrain / "manifest.json").read_text())["results"]
        assert results["steps"] == 12
        assert results["encoder_flops_kept"] < 1
        if name == "random":
            assert results["encoder_flops_kept"] <= 0.7
    assert not (home / "runs" / "borrowed" / "search").exists()
    tickets = [Ticket.read(home / "runs" / name / "ticket.json") for name in ("l1", "borrowed")]
    assert all(set(less) <= set(more) for more, less in zip(*(ticket.neurons for ticket in tickets), strict=True))
    rows = [json.loads(line) for line in (run.folder.pretrain / "metrics.jsonl").read_text().split("\n")[:-1]]
    assert min(row["step"] for row in rows) == 3  # its schedule goes on at the step it was rewound to
    init, rewound = (load_file(run.folder.search / f"{name}.safetensors") for name in ("init", "rewind"))
    assert init.keys() == rewound.keys()
    assert not all(init[name].equal(rewound[name]) for name in init)


@pytest.mark.dist
def test_a_search_of_another_recipe_is_not_borrowed(home: Path) -> None:
    (line,) = errors(pipeline(home, "run", "--recipe", "tiny.toml", "--run", "thief", "--data", "text/raw",
                              "search.run=whole", "seed=7"))  # fmt: skip
    assert "search.run (whole) was searched with other settings or inputs: settings.seed: 1 -> 7" in line


@pytest.mark.dist
def test_inheriting_from_a_search_that_cuts_nothing_is_plain_training(home: Path) -> None:
    whole = ("ticket.heads=0", "ticket.neurons=0", "pretrain.rewind=inherit")
    runs = trained(home, {"uncut": whole, "dense": ("search.enabled=false",)}, 2, "zero2_bf16")
    assert json.loads((runs[0].folder.draw / "manifest.json").read_text())["results"]["step"] == 8
    uncut, dense = (load_file(run.folder.pretrain / "weights.safetensors") for run in runs)
    assert uncut.keys() == dense.keys()
    assert all(uncut[name].equal(dense[name]) for name in dense)


@pytest.mark.dist
def test_status_names_every_stage(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(home), "--run", "whole"]) == 0
    shown = capsys.readouterr().out
    for name in ("ingest", "tokenizer", "shard", "search", "draw", "pretrain", "export"):
        (line,) = [line for line in shown.split("\n") if line.split()[:1] == [name]]
        assert "done" in line


@pytest.mark.dist
def test_a_flipped_bit_in_a_shard_is_named_with_both_hashes(home: Path) -> None:
    shards = home / "corpora" / "tiny" / "shards" / "documents-32"
    shard = shards / "train" / "train-00000.arrow"
    whole = shard.read_bytes()
    listed = json.loads((shards / "index.json").read_text())
    try:
        shard.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
        lines = errors(pipeline(home, "pretrain", "--run", "whole", "--force"))
    finally:
        shard.write_bytes(whole)
    assert str(shard.relative_to(home)) in lines[0]
    assert listed["splits"]["train"]["files"][0]["sha256"] in lines[0]
    assert lines[0].count(" ") > 5


@pytest.mark.dist
def test_a_ticket_for_another_model_is_refused(home: Path) -> None:
    run = home / "runs" / "other"
    started = pipeline(home, "search", "--run", "other")
    assert "there is no run 'other'" in errors(started)[0]
    for folder in ("draw",):
        (run / folder).mkdir(parents=True)
    source = home / "runs" / "whole"
    recipe = json.loads((source / "recipe.json").read_text())
    recipe["recipe"]["model"]["ffn"] = 96
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "ticket.json").write_bytes((source / "ticket.json").read_bytes())
    (run / "draw" / "manifest.json").write_bytes((source / "draw" / "manifest.json").read_bytes())
    (line,) = errors(pipeline(home, "pretrain", "--run", "other"))
    assert "ticket" in line
    assert "64" in line
    assert "96" in line


@pytest.mark.dist
def test_a_file_that_cannot_grow_ends_the_save_and_keeps_the_rest(home: Path) -> None:
    """The kernel's limit on file sizes stands for the full disk: the same failing write, on any machine."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    command = ["run", "--recipe", "tiny.toml", "--run", "full", "--data", "text/raw", "search.enabled=false"]
    stopped = pipeline(home, *command, preexec_fn=limited)
    (line,) = errors(stopped)
    assert "checkpoint after step 4 could not be written" in line
    assert "MiB free" in line
    assert not list((home / "runs" / "full" / "pretrain" / "checkpoints").glob("*"))
    resumed = pipeline(home, "pretrain", "--run", "full")
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--recipe", "nonesuch"], ["no recipe 'nonesuch'", "sample"]),
        (["run", "--ds", "zero9"], ["no DeepSpeed config 'zero9'", "zero1_bf16"]),
        (["run", "--data", "missing"], ["DATA=missing does not exist"]),
        (["run", "--nproc", "0"], ["number of ranks (--nproc) is 0, wanted 1 or more"]),
        (["run", "--nproc", "64"], ["more ranks than rows", "64", "32"]),
        (["status"], ["no runs"]),
        (["search", "--run", "none"], ["no run 'none'"]),
        (["run", "model.layers=0", "search.scoer=l1", "optimizer.lr=-1"], ["3 problems"]),
    ],
)
def test_mistakes_end_in_one_error(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *rest = arguments
    assert main([command, "--root", str(tmp_path), *rest]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert all(word in shown for word in words)
    assert not (tmp_path / "corpora").exists()


def test_compiled_layers_need_a_gpu() -> None:
    """Said before an engine is made, so DeepSpeed is not started for it."""
    import torch

    from data_prep.errors import UserError
    from pipeline.families.hf import build_model
    from pipeline.recipes.recipe import load_recipe
    from pipeline.stages.setup import build_engine
    from pipeline.training.ranks import Ranks

    recipe = load_recipe("sample")
    engine = {"compile": {"layers": True}, "zero_optimization": {"stage": 1}}
    model = build_model(recipe.dense_shape(vocab_size=64, pad_token_id=0), seed=0)
    with pytest.raises(UserError, match=r"^compile\.layers of the DeepSpeed config needs a GPU .*: take it out$"):
        build_engine(model, engine, recipe, Ranks(0, 0, 1, torch.device("cpu")))


def test_a_run_in_use_is_not_shared(tmp_path: Path) -> None:
    from data_prep.errors import UserError
    from pipeline.runs.folder import exclusive

    with exclusive(tmp_path), pytest.raises(UserError, match="in use by process"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_what_the_system_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = str(tmp_path / ("a\x1b" + "x" * 300))
    for words in (["status", "--root", long], ["data", "--recipe", f"{long}.toml"], ["run", "--data", long]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: cannot use {tmp_path}/a\\x1bxxx")
        assert said.endswith(": File name too long; mend that, or name another place\n")
        assert said.count("\n") == 1
