"""`plan` says what a run will do: numbers in closed form, draws counted one by one, and nothing of torch."""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.formatting import duration
from data_prep.write_shards import VOCAB_MULTIPLE as SHARDS_VOCAB_MULTIPLE
from pipeline.__main__ import main
from pipeline.recipes.recipe import Recipe, load_recipe
from pipeline.reports.plan import VOCAB_MULTIPLE, draw, look_ahead, report
from pipeline.runs.run import Run
from pipeline.stages import table
from pipeline.training.optimizers import rate_factor
from tests.ranks import REPOSITORY

ON = "layer_drop.enabled=true"
FALLING = [ON, "layer_drop.time=decreasing", "layer_drop.depth=linear"]
BY_SAMPLE = "layer_drop.unit=sample"
DENSE = "search.enabled=false"
# Multiplications and additions of the sample recipe's dense model for one token: 4 layers of width 128, heads that
# fill it, 512 neurons, rows of 64; the vocabulary's 2,048 entries at 0.3 of the positions.
LAYER_FLOPS = 2 * 128 * 128 * 4 + 2 * 64 * 128 * 2 + 2 * 128 * 512 * 2
HEAD_FLOPS = 0.3 * 2 * 128 * (128 + 2048)


def lines_of(*overrides: str, ranks: int = 1, recipe: str = "sample") -> list[str]:
    return report(look_ahead(load_recipe(recipe, list(overrides)), recipe, ranks))


def line_of(start: str, *overrides: str, ranks: int = 1) -> str:
    (line,) = [line for line in lines_of(*overrides, ranks=ranks) if line.strip().startswith(start)]
    return line.strip()


def table_of(lines: list[str]) -> list[tuple[int, int, float, float, float, float]]:
    """(percent, step, theta, expected depth, real depth, percent of FLOPs saved so far) of every row."""
    found = [re.fullmatch(r" +(\d+)% +([\d,]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)%", line) for line in lines]
    return [
        (int(m[1]), int(m[2].replace(",", "")), float(m[3]), float(m[4]), float(m[5]), float(m[6])) for m in found if m
    ]


# What it says without layer dropping


def test_a_recipe_without_dropping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    assert main(["plan", "--recipe", "sample", "--nproc", "2", "--out", str(out), DENSE, "batch.micro_rows=4"]) == 0
    assert capsys.readouterr().out.split("\n") == [
        "sample: 2,800 steps of 32 rows of 64 tokens; 5,734,400 tokens",
        "ranks: 2 ranks, each with 4 micro-batches of 4 rows a step",
        "dense model: 4 layers, 1,082,752 parameters with a vocabulary of 2,048",
        "work: 3.22e+13 FLOPs for the dense model, 1.15e+10 in the first step; in all 0.3 s of one GPU that achieves "
        "100 TFLOP/s",
        "learning rate: rises to 0.008 for matrices inside the layers (Muon) and 0.004 for all else (AdamW) over the "
        "first 56 steps, then falls in a straight line to 0",
        "layer dropping: off, all layers run in every step (layer_drop.enabled is false)",
        f"picture: {out}",
        "",
    ]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_recipe_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[pretrain]\nsteps = 1000\n")
    path = str(tmp_path / "mine.toml")
    assert main(["plan", "--recipe", path, "--out", str(tmp_path / "p.svg")]) == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert report(look_ahead(load_recipe(path), "mine", 1))[0].startswith("mine: 1,000 steps")


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ([], "rises to 0.001 over the first 20 steps, then falls in a straight line to 0"),
        (["schedule.decay=cosine", "schedule.final_fraction=0.1"], "then falls along a cosine to 0.1 of that"),
        (["schedule.decay=constant"], "rises to 0.001 over the first 20 steps, then stays there"),
        (["schedule.final_fraction=1.0"], "then stays there"),
        (["schedule.warmup_fraction=0.0"], "begins at 0.001, then falls in a straight line to 0"),
        (["schedule.warmup_fraction=0.001"], "over the first 1 step, then"),
    ],
)
def test_the_learning_rate_in_words(schedule: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text("[pretrain]\nsteps = 1000\n")
    lines = report(look_ahead(load_recipe(str(tmp_path / "plain.toml"), schedule), "plain", 1))
    (line,) = [line for line in lines if line.startswith("learning rate: ")]
    assert words in line


def test_the_vocabulary_is_rounded_up_as_shards_round_it() -> None:
    assert VOCAB_MULTIPLE == SHARDS_VOCAB_MULTIPLE
    assert line_of("dense model", "corpus.vocab_size=2049") == (
        f"dense model: 4 layers, {1_082_752 + 64 * 129:,} parameters with a vocabulary of 2,112"
    )


@pytest.mark.parametrize("loaded", ["vocab.txt", "folder"])
def test_the_vocabulary_of_others_is_counted_where_it_is_here(tmp_path: Path, loaded: str) -> None:
    path = tmp_path / "vocab.txt"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(300))]
    path.write_text("\n".join(entries) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    given = f"corpus.tokenizer={path if loaded == 'vocab.txt' else tmp_path}"
    trained = lines_of("corpus.vocab_size=305", ON)
    assert lines_of(given, ON) == trained
    assert any(f"{1_082_752 - (2048 - 320) * 129:,} parameters with a vocabulary of 320" in line for line in trained)
    assert "of the whole step" in trained[-1]


def test_a_vocabulary_that_is_not_here_is_unknown() -> None:
    lines = lines_of("corpus.tokenizer=bert.txt", ON, BY_SAMPLE, "layer_drop.time=constant", "layer_drop.depth=uniform")
    (model,) = [line for line in lines if line.startswith("dense model")]
    assert f"{1_082_752 - 2048 * 129:,} parameters and 129 more for every entry" in model
    assert "corpus.tokenizer (bert.txt) brings it and is not here" in model
    assert any("layers' FLOPs saved so far" in line for line in lines)
    assert lines[-1] == (
        "over the run: 2.00 of 4 layers on average; FLOPs saved: 50.0% of the layers alone, "
        "of the whole step unknown without the vocabulary"
    )


def test_a_search_is_announced() -> None:
    words = [line for line in lines_of() if line.startswith(("search", "  "))]
    assert words[0] == "search: at most 240 steps"
    assert words[1] == "  parameters are the dense model's; those of the slim one depend on its ticket"
    assert "  parameters, and the FLOPs below, are the dense model's" in "\n".join(lines_of(ON))
    assert not any("below" in line for line in lines_of())
    assert line_of("search", "search.draw=fixed") == "search: exactly 240 steps"
    assert line_of("search", ON).endswith("no layers dropped")
    drawn = line_of("search", *FALLING, "layer_drop.during_search=true")
    assert drawn.endswith("whole layers dropped with one draw a step")
    inherit = line_of("pre-training goes on", ON, "pretrain.rewind=inherit", "layer_drop.after_search=restart")
    assert "begins anew" in inherit
    assert "anew" not in line_of("pre-training goes on", ON, "pretrain.rewind=inherit")


# Schedules in closed form


def test_constant_dropping_of_all_layers() -> None:
    everywhere = ["layer_drop.time=constant", "layer_drop.depth=uniform", "layer_drop.theta=0.75"]
    lines = lines_of(ON, DENSE, BY_SAMPLE, *everywhere)
    assert "  over time: theta stays at 0.75" in lines
    assert "  over depth: keep = theta for every layer" in lines
    assert "  keep: smallest 0.750 (layers 1 to 4, first at step 0), largest 0.750" in lines
    assert "  rows: layers 1 to 4 run on 24 of 32 rows of 64 tokens at step 0, dropped most there" in lines
    whole = 25 * 4 * LAYER_FLOPS / (4 * LAYER_FLOPS + HEAD_FLOPS)
    steps = {0: 0, 10: 280, 25: 700, 50: 1400, 75: 2100, 90: 2520, 100: 2800}
    assert table_of(lines) == [
        (percent, step, 0.75, 3.0, 3.0, round(whole, 1) if step else 0.0) for percent, step in steps.items()
    ]
    assert lines[-1] == (
        f"over the run: 3.00 of 4 layers on average; FLOPs saved: {whole:.1f}% of the whole step, "
        "25.0% of the layers alone"
    )


def test_the_default_is_a_network_that_grows_at_half_of_the_steps() -> None:
    lines = lines_of(ON, DENSE, "model.layers=6", "pretrain.steps=400")
    assert "  over time: theta = 0, 1, each for 200 steps" in lines
    assert "  keep: smallest 0.000 (layers 2, 4, 6, first at step 0), largest 1.000" in lines
    assert lines[-1].startswith("over the run: 4.50 of 6 layers on average")


def test_a_schedule_counts_rows_as_the_run_will() -> None:
    lines = lines_of(*FALLING, BY_SAMPLE, DENSE, "model.layers=6", "pretrain.steps=400", "batch.micro_rows=8")
    assert (
        "  over time: theta(t) = 0.5 + 0.5 t / 399 for t = 0 to 399: drops most at first, nothing at the end" in lines
    )
    assert "  keep: smallest 0.500 (layer 6, first at step 0), largest 1.000" in lines
    assert "  rows: layer 6 runs on 4 of 8 rows of 64 tokens at step 0, dropped most there" in lines
    theta = [0.5 + 0.5 * step / 399 for step in range(400)]
    keep = [[1 - layer / 5 * (1 - t) for layer in range(6)] for t in theta]
    ran = [sum(math.floor(8 * share + 0.5) for share in row) / 8 for row in keep]
    head = HEAD_FLOPS / LAYER_FLOPS
    rows = table_of(lines)
    assert [row[1] for row in rows] == [0, 40, 100, 200, 300, 360, 400]
    for percent, done, shown_theta, expected, real, saved in rows:
        near = range(done, done + 4) if percent < 100 else range(396, 400)
        assert shown_theta == pytest.approx(theta[min(done, 399)], abs=5.1e-4)
        assert expected == pytest.approx(sum(sum(keep[step]) for step in near) / 4, abs=5.1e-3)
        assert real == pytest.approx(sum(ran[step] for step in near) / 4, abs=5.1e-3)
        so_far = 1 - (sum(ran[:done]) + done * head) / (done * (6 + head)) if done else 0.0
        assert saved == pytest.approx(100 * so_far, abs=0.051)
    of_layers = 100 * (1 - sum(ran) / (6 * 400))
    assert lines[-1].endswith(f"% of the whole step, {of_layers:.1f}% of the layers alone")


@pytest.mark.parametrize(("unit", "ranks", "micro_steps"), [("layer", 1, 4), ("layer", 4, 1), ("sample", 2, 2)])
def test_the_real_depth_is_that_of_the_draws(unit: str, ranks: int, micro_steps: int) -> None:
    overrides = [*FALLING, DENSE, f"layer_drop.unit={unit}", "pretrain.steps=30", "batch.micro_rows=8", "seed=7"]
    outlook = look_ahead(load_recipe("sample", overrides), "sample", ranks)
    assert (outlook.micro_rows, outlook.micro_steps) == (8, micro_steps)
    drop = outlook.drop
    assert drop is not None
    ran = 0.0
    for step in range(30):
        for micro in range(micro_steps):
            draws = drop.draws(step, micro, 8)
            ran += sum(d.runs * (1 if d.rows is None else len(d.rows) / 8) for d in draws) / micro_steps
    assert report(outlook)[-1].startswith(f"over the run: {ran / 30:.2f} of 4 layers on average")


def test_pld_in_words() -> None:
    pld = [ON, DENSE, "model.layers=12", "layer_drop.time=pld", "layer_drop.depth=pld"]
    lines = lines_of(*pld, "pretrain.steps=2000", "layer_drop.scaling=sublayer")
    assert "layer dropping: pld over time, pld over depth, by layer" in lines
    assert "  over time: theta(t) = 0.5 exp(-0.05 t) + 0.5 for t = 0 to 1,999: drops ever more" in lines
    assert "  over depth: keep = 1 - l / 12 (1 - theta) for layer l = 1 to 12: the deepest are dropped most" in lines
    # theta(t) reads 0.500 from 0.5 exp(-0.05 t) < 0.0005 on.
    first = math.ceil(math.log(1000) / 0.05)
    assert f"  keep: smallest 0.500 (layer 12, first at step {first}), largest 1.000" in lines
    assert "  dense phases: none of 2,000 steps" in lines
    assert "  skipped: a layer for a whole micro-batch, with probability 1 - keep" in lines
    assert "  scaling: what each sub-layer adds counts 1 / keep times (PLD)" in lines
    assert not any(line.startswith("  rows:") for line in lines)
    assert table_of(lines)[0][2] == 1.0
    # The paper's expected depth at theta 0.5: (3 L - 1) / 4.
    assert {row[3] for row in table_of(lines)[2:]} == {(3 * 12 - 1) / 4}
    assert "exp(-0.001 t)" in line_of("over time", *pld, "layer_drop.gamma=0.001")


def test_growing_stages() -> None:
    stages_ = [ON, DENSE, "layer_drop.time=stages", "layer_drop.stages=[0.25, 0.5, 1.0]", "layer_drop.depth=inner"]
    lines = lines_of(*stages_, BY_SAMPLE, "model.layers=5", "pretrain.steps=300")
    assert "  over time: theta = 0.25, 0.5, 1, each for 100 steps" in lines
    assert "  over depth: keep = theta for all but the first and the last layer, which always run" in lines
    assert "  keep: smallest 0.250 (layers 2 to 4, first at step 0), largest 1.000" in lines
    assert "  rows: layers 2 to 4 run on 8 of 32 rows of 64 tokens at step 0, dropped most there" in lines
    by_percent = {row[0]: row[2:5] for row in table_of(lines)}
    assert by_percent[25] == (0.25, 2.75, 2.75)
    assert by_percent[50] == (0.5, 3.5, 3.5)
    assert by_percent[75] == by_percent[100] == (1.0, 5.0, 5.0)
    assert lines[-1].endswith(f"{100 * (2.25 + 1.5) / 15:.1f}% of the layers alone")


@pytest.mark.parametrize(
    ("layers", "named"),
    [(2, "layer 2"), (5, "layers 2, 4"), (24, "layers 2, 4, 6 ... 24")],
)
def test_layers_dropped_most_are_named(layers: int, named: str) -> None:
    keep = line_of("keep: smallest", ON, "layer_drop.depth=alternate", f"model.layers={layers}")
    assert f"({named}, first at step 0)" in keep


def test_rows_of_two_lengths() -> None:
    two = ["corpus.long_row_length=256", "corpus.long_fraction=0.25", "batch.micro_rows=16"]
    drop = [ON, DENSE, BY_SAMPLE, "layer_drop.time=constant", "layer_drop.depth=uniform", "layer_drop.theta=0.6"]
    lines = lines_of(*two, *drop)
    assert lines[0] == (
        "sample: 2,100 steps of 32 rows of 64 tokens, then 700 steps of 8 rows of 256 tokens; "
        "2,800 steps, 5,734,400 tokens"
    )
    rows = [line.strip() for line in lines if line.startswith("  rows:")]
    # 0.6 of 16 rows are 9.6, of 4 rows 2.4.
    assert rows == [
        "rows: layers 1 to 4 run on 10 of 16 rows of 64 tokens at step 0, dropped most there",
        "rows: layers 1 to 4 run on 2 of 4 rows of 256 tokens at step 2,100, dropped most there",
    ]
    long_layer = LAYER_FLOPS + 2 * (256 - 64) * 128 * 2
    short, long = 3 * LAYER_FLOPS, long_layer
    saved = 100 * (short * 6 / 16 + long * 2 / 4) / (short + long)
    assert lines[-1].endswith(f"{saved:.1f}% of the layers alone")
    ends_dense = lines_of(*two, *drop, "layer_drop.dense_end=0.25")
    assert len([line for line in ends_dense if line.startswith("  rows:")]) == 1


def test_nothing_to_drop_is_said() -> None:
    for overrides in (["model.layers=2", "layer_drop.depth=inner"], ["layer_drop.stages=[1.0]"]):
        lines = lines_of(ON, DENSE, *overrides)
        assert "  nothing is ever dropped: these values keep every layer at every step" in lines
        assert lines[-1].endswith("FLOPs saved: 0.0% of the whole step, 0.0% of the layers alone")


def test_a_run_of_a_few_steps_has_a_row_a_step() -> None:
    rows = table_of(lines_of(*FALLING, DENSE, "pretrain.steps=2"))
    assert [row[1] for row in rows] == [0, 1, 2]
    assert [row[2] for row in rows] == [0.5, 1.0, 1.0]
    assert draw(look_ahead(load_recipe("sample", [*FALLING, DENSE, "pretrain.steps=1"]), "sample", 1)).axes


def test_the_engine_counts_the_row_that_a_skipped_layer_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = {}
    for ds in ("zero1_bf16", "zero3_bf16"):
        assert main(["plan", "--ds", ds, ON, DENSE, "batch.micro_rows=2"]) == 0
        found = re.search(r"([\d.]+)% of the layers alone", capsys.readouterr().out)
        assert found
        saved[ds] = float(found[1])
    # Half of the layers wait for half of the steps; one of two rows of theirs is run.
    assert saved == {"zero1_bf16": 25.0, "zero3_bf16": 12.5}


def test_an_old_block_in_the_engine_config_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block = {"enabled": True, "theta": 0.5, "gamma": 0.001}
    Path("old.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, "progressive_layer_drop": block}))
    assert main(["plan", "--ds", "old.json", DENSE]) == 0
    shown = capsys.readouterr()
    assert "layer dropping: pld over time, pld over depth, by layer" in shown.out
    assert all(line.startswith("old.json: ") for line in shown.err.splitlines())
    assert shown.err


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "nonesuch"], ["no recipe 'nonesuch'"]),
        (["--nproc", "0"], ["--nproc", "is 0"]),
        (["--nproc", "64"], ["more ranks than rows", "64", "32"]),
        (["--nproc", "3"], ["32", "3"]),
        (["--ds", "nonesuch"], ["no DeepSpeed config 'nonesuch'"]),
        (["--out", "plan.bmp"], ["plan.bmp", "'.bmp'", ".png"]),
        (["--out", "missing/plan.png"], ["missing/plan.png", "cannot be written", "No such file"]),
        (["pretrain.steps"], ["section.key=value"]),
        ([*FALLING, BY_SAMPLE, "layer_drop.theta=0.01"], ["without a row", "layer 4", "0.010"]),
        (["--nproc", "16", "corpus.long_row_length=256"], ["2 rows of 64", "256", "start fewer ranks"]),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert all(word in shown.err for word in words), shown.err
    assert not list(tmp_path.iterdir())


# Warnings


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize("time", ["constant", "decreasing"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("enabled", ["true", "false"])
def test_dropping_layers_of_a_post_ln_model_is_warned_of(unit: str, time: str, norm: str, enabled: str) -> None:
    overrides = [f"layer_drop.unit={unit}", f"layer_drop.time={time}", f"model.norm={norm}"]
    overrides.append(f"layer_drop.enabled={enabled}")
    warnings = load_recipe("sample", overrides).warnings()
    expected = enabled == "true" and norm == "post"
    assert len(warnings) == expected
    assert all("post-LN" in line and 'model.norm = "pre"' in line and "\n" not in line for line in warnings)
    assert [line for line in lines_of(*overrides) if line.startswith("warning")] == [f"warning: {w}" for w in warnings]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 0),
        (["layer_drop.stages=[0.0,0.0,0.5,1.0]"], 0),
        (["layer_drop.stages=[0.5,1.0]", "pretrain.rewind=inherit"], 0),
        (["pretrain.rewind=inherit"], 1),
        (["layer_drop.dense_start=0.1"], 1),
        (["layer_drop.stages=[0.0,1.0,0.0,1.0]"], 1),
    ],
    ids=str,
)
def test_layers_that_wait_after_they_were_trained_are_warned_of(overrides: list[str], expected: int) -> None:
    warnings = load_recipe("sample", [ON, *overrides]).warnings()
    assert len(warnings) == expected
    assert all("leaves layers out after they were trained" in line and "\n" not in line for line in warnings)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_run_begins_with_the_warnings(
    norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe: Recipe = load_recipe("sample", [ON, f"model.norm={norm}"])
    monkeypatch.setattr(table, "make_corpus", lambda *_: 7)
    assert table.run_all(Run.of(tmp_path, "one", recipe, {}), tmp_path, "none", 1, force=False) == 7
    assert capsys.readouterr().out.splitlines() == [f"warning: {line}" for line in recipe.warnings()]


# The picture


@pytest.mark.parametrize("steps", [150, 5000])
def test_the_picture_shows_the_schedule_and_the_draws(steps: int) -> None:
    drop = [*FALLING, DENSE, "layer_drop.dense_end=0.2", "model.layers=6"]
    outlook = look_ahead(load_recipe("sample", [*drop, f"pretrain.steps={steps}"]), "sample", 1)
    assert outlook.drop is not None
    assert outlook.costs is not None
    schedule = outlook.drop.schedule
    figure = draw(outlook)
    keep, depth, rate, saved = figure.axes
    labels = [keep.get_ylabel(), depth.get_ylabel(), rate.get_ylabel(), saved.get_ylabel()]
    assert labels == ["layer", "theta", "learning rate", "FLOPs saved\nso far (%)"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "", "step"]
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, float(steps))}
    (bar,) = keep.child_axes
    assert bar.get_ylabel() == "keep probability"
    (right,) = depth.child_axes
    assert right.get_ylabel() == "depth (layers)"

    (image,) = keep.images
    columns = min(steps, 600)
    shown = np.arange(steps) if columns == steps else np.floor((np.arange(600) + 0.5) * steps / 600).astype(int)
    np.testing.assert_array_equal(np.asarray(image.get_array()), schedule.keep(shown).T)
    assert image.get_extent() == [0, steps, 0.5, 6.5]
    assert image.origin == "lower"
    assert image.get_clim() == (0.5, 1.0)
    assert keep.get_yticks().tolist() == [1, 2, 3, 4, 5, 6]

    theta, expected, real = depth.lines
    assert [line.get_label() for line in depth.lines] == ["theta", "expected depth", "real depth, as drawn"]
    at = np.asarray(theta.get_xdata(), int)
    assert (at[0], at[-1], len(at)) == (0, steps - 1, min(steps, 1000))
    np.testing.assert_array_equal(theta.get_ydata(), schedule.theta_at(at))
    np.testing.assert_allclose(6 * np.asarray(expected.get_ydata()), schedule.expected_depth(at))
    edges = np.linspace(0, steps, 121).astype(int)
    dots = [outlook.costs.depth(first, last) for first, last in itertools.pairwise(edges)]
    np.testing.assert_allclose(6 * np.asarray(real.get_ydata(), float), dots)

    recipe = outlook.recipe
    for line, peak in zip(rate.lines, (recipe.optimizer.lr, recipe.optimizer.adamw_lr), strict=True):
        assert peak is not None
        wanted = [peak * rate_factor(recipe.schedule, int(step), steps) for step in np.asarray(line.get_xdata())]
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), wanted, rtol=1e-12)

    (curve,) = saved.lines
    x, y = np.asarray(curve.get_xdata(), int), np.asarray(curve.get_ydata(), float)
    assert (x[0], x[-1]) == (1, steps)
    np.testing.assert_allclose(y, [100 * outlook.costs.saved(0, int(done)) for done in x])


def test_without_dropping_only_the_learning_rate_is_drawn() -> None:
    (axes,) = draw(look_ahead(load_recipe("sample"), "sample", 1)).axes
    assert axes.get_ylabel() == "learning rate"
    assert len(axes.lines) == 2


@pytest.mark.parametrize("layers", [1, 12, 48])
def test_labels_of_the_picture_stand_apart(layers: int) -> None:
    overrides = [*FALLING, DENSE, f"model.layers={layers}", "layer_drop.depth=pld", "pretrain.steps=100000"]
    figure = draw(look_ahead(load_recipe("sample", overrides), "sample", 1))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    page = figure.bbox
    boxes = []
    children = [child for panel in figure.axes for child in panel.child_axes]
    for axes in [*figure.axes, *children]:
        texts = [axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels(), *axes.get_xticklabels()]
        legend = axes.get_legend()
        texts += legend.get_texts() if legend else []
        low, high = sorted(axes.get_ylim())
        shown = [t for t in texts if t.get_text() and t.get_visible()]
        within = [t for t in shown if t not in axes.get_yticklabels() or low <= t.get_position()[1] <= high]
        boxes += [t.get_window_extent(renderer) for t in within]
    assert len(boxes) > 20
    for index, box in enumerate(boxes):
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert not any(box.overlaps(other) for other in boxes[:index] if box.width and other.width)


# What it costs


@pytest.mark.parametrize("loads", [False, True])
def test_it_needs_neither_torch_nor_a_corpus(tmp_path: Path, loads: bool) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    more = "'corpus.tokenizer=bert'" if loads else ""
    code = (
        "import sys\n"
        "from pipeline.__main__ import main\n"
        f"assert main(['plan', '{ON}', 'corpus.sources=[\"nowhere\"]', 'pretrain.steps=1000000', {more}]) == 0\n"
        f"light = {{'tokenizers'}} if {loads} else set()\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'datasets', 'tokenizers', 'pyarrow', 'wandb'} - light\n"
        "print('imported:', sorted(heavy & sys.modules.keys()))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("picture: plan.png\nimported: []\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "plan.png"]


def test_the_work_of_a_run_is_told_in_flops_and_hours() -> None:
    """BERT-base, 250 M tokens a thousand steps: 6 FLOPs a weight of the layers and token, the head on masked tokens,
    attention, and three times the forward pass."""
    recipe = load_recipe("bert-base", ["pretrain.steps=1000", "corpus.long_row_length=", "objective.sentence=none"])
    (line,) = [line for line in report(look_ahead(recipe, "bert-base", 1)) if line.startswith("work: ")]
    tokens = 1000 * 256 * 128
    layers = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    head = 0.15 * (768 * 768 + 768 * 30528)
    attention = 12 * 2 * 128 * 768
    flops = 3 * 2 * tokens * (layers + head + attention)
    assert f"work: {flops:.3g} FLOPs for the dense model, {flops / 1000:.3g} in the first step" in line
    assert line.endswith(f"{duration(flops / 100e12)} of one GPU that achieves 100 TFLOP/s")
