"""The page about runs: its numbers, that it stands alone, and that nothing missing or damaged stops it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from data_prep.errors import UserError
from data_prep.formatting import duration, short
from data_prep.plots import CSS_VARIABLES, KEPT, SERIES, svg_of
from pipeline.reports import plots
from pipeline.reports.page import build_report
from pipeline.reports.record import Dropped, Losses, Masks, read_run
from pipeline.reports.tables import (
    both_kept,
    change,
    comparison_table,
    dropping_kept,
    dropping_table,
    finetuning_table,
    mean_depth,
    parameters,
    ticket_kept,
)
from pipeline.tickets.settle import mask_distance
from pipeline.tickets.ticket import Ticket
from tests.reports.run_folders import DROPPING, FULL, RECIPE, add_finetuning, make_run, write_manifest, write_rows

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks nesting while reading; collects text, ids and every attribute that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._note(attributes)

    def _note(self, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.loads.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def page_of(*folders: Path) -> Page:
    out = folders[0] / "report.html"
    build_report(list(folders), out)
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A slim run and a dense one on the same corpus, both finished."""
    root = tmp_path_factory.mktemp("report")
    slim, dense = make_run(root, "slim"), make_run(root, "dense", {"search": {"enabled": False}})
    for seed, accuracy in enumerate((80.0, 81.0, 83.0)):
        add_finetuning(slim, "SST-2", seed, {"accuracy": accuracy})
    add_finetuning(dense, "SST-2", 0, {"accuracy": 82.5})
    return slim, dense


@pytest.fixture(scope="module")
def dropped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A slim run and a dense one that drop layers, and a dense one that does not."""
    root = tmp_path_factory.mktemp("dropped")
    growing = {"enabled": True}
    dense: dict[str, Any] = {"search": {"enabled": False}}
    return (
        make_run(root, "slim", DROPPING),
        make_run(root, "growing", dense | {"layer_drop": growing}),
        make_run(root, "dense", dense),
    )


def copy_of(run: Path, root: Path) -> Path:
    """A copy of a run with its corpus, to be damaged."""
    shutil.copytree(run.parent.parent / "corpora", root / "corpora", dirs_exist_ok=True)
    shutil.copytree(run, root / "runs" / run.name)
    return root / "runs" / run.name


def test_headline_and_tables(finished: tuple[Path, Path]) -> None:
    slim, dense = finished
    text = page_of(slim, dense).text
    assert not re.search(r"layer dropping|by dropping|layers run|Not everything could be read", text, re.IGNORECASE)
    ticket = Ticket.read(slim / "ticket.json")
    shape = ticket.slim_shape()
    neurons = sum(layer.ffn for layer in shape.layers)
    assert f"The masks settled after step {ticket.step}: 12 of 16 attention heads and {neurons:,} of 2,048" in text

    search_seconds = 0.09 * ticket.step
    assert f"{duration(search_seconds + 135)}, {1 - (search_seconds + 135) / 171:.1%} less than run dense" in text
    flops = shape.forward_flops_per_token(64, 0.3)
    dense_flops = ticket.dense_shape.forward_flops_per_token(64, 0.3)
    assert f"{short(flops)} of {short(dense_flops)} dense, {change(flops, dense_flops)}" in text

    rows = {row["label"]: row["cells"] for row in comparison_table([read_run(slim), read_run(dense)])}
    parameters = ticket.dense_shape.num_parameters()
    assert rows["Parameters"] == [
        (f"{parameters - 271_424:,}", ""),
        (f"{parameters:,}", change(parameters, parameters - 271_424)),
    ]
    assert rows["Time of pre-training"] == [("2 min 15 s", ""), ("2 min 51 s", "+26.7%")]
    assert rows["Time of the search"][1] == ("\N{EN DASH}", "")
    assert rows["Tokens in pre-training"] == [("2.52 M", ""), ("2.52 M", "the same")]
    assert "Validation loss after 2.52 M tokens of pre-training" in rows

    (row,) = finetuning_table([read_run(slim), read_run(dense)])
    assert row["cells"] == [("81.33", "\N{PLUS-MINUS SIGN} 1.53, 3 seeds"), ("82.50", "1 seed")]
    assert "ticket.heads 0.25" in text
    assert "0123456789ab node7 2026-01-02 03:04:05 UTC" in text
    assert "differ by at most 4.8e-07" in text


@pytest.mark.parametrize("runs", ["finished", "dropped"])
def test_page_stands_alone(runs: str, request: pytest.FixtureRequest) -> None:
    folders = request.getfixturevalue(runs)
    page = page_of(*folders)
    source = (folders[0] / "report.html").read_text(encoding="utf-8")
    assert len(page.ids) == len(set(page.ids))
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in page.loads)
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", source)) <= set(page.ids)
    assert "<script" not in source
    assert "@import" not in source
    addresses = set(re.findall(r'https?://[^"\s<>]+', source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    defined = set(re.findall(r"(--[a-z0-9-]+):", source))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", source)) <= defined
    assert set(CSS_VARIABLES.values()) <= defined


def test_report_is_reproducible(finished: tuple[Path, Path]) -> None:
    build_report(list(finished), finished[0] / "one.html")
    build_report(list(finished), finished[0] / "two.html")
    assert (finished[0] / "one.html").read_bytes() == (finished[0] / "two.html").read_bytes()


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ((), "The search has not finished, so that there is no ticket yet."),
        (("ingest", "tokenizer"), "tokenizer done 4.0 s 57.1%"),
        (("search",), "The search has finished, but no ticket has been drawn yet."),
        (("search", "draw"), "Pre-training of the slim model has no steps to show yet."),
        (FULL[:-1], "export not begun"),
    ],
)
def test_unfinished_runs(tmp_path: Path, stages: tuple[str, ...], words: str) -> None:
    text = page_of(make_run(tmp_path, "r", stages=stages)).text
    assert words in text
    assert "Nothing has been fine-tuned yet." in text


def test_a_run_under_way(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r")
    (run / "pretrain" / "manifest.json").unlink()
    (run / "pretrain" / "checkpoints" / "step-00000900").mkdir(parents=True)
    text = page_of(run).text
    assert "Pre-training of the slim model has not finished; it has seen 2.52 M tokens so far." in text
    assert "not finished, resumes from step-00000900" in text
    assert "pre-training 2 min 15 s" in text


def test_empty_folder_and_dense_run(tmp_path: Path) -> None:
    empty = tmp_path / "runs" / "empty"
    empty.mkdir(parents=True)
    assert "no readable recipe.json" in page_of(empty).text
    dense = make_run(tmp_path, "dense", {"search": {"enabled": False}}, stages=())
    text = page_of(dense).text
    assert "A dense run" in text
    assert "not both finished: compare with care" in page_of(dense, empty).text


def test_unsettled_and_fixed_draws(tmp_path: Path) -> None:
    late = {"max_steps": 10, "guard_steps": 5, "every_steps": 5}
    assert "The masks had not settled after step 10" in page_of(make_run(tmp_path, "a", {"search": late})).text
    fixed = make_run(tmp_path, "b", {"search": late | {"draw": "fixed"}})
    text = page_of(fixed).text
    assert "The ticket was drawn at the fixed step 10" in text
    assert "drawn at a fixed step, whatever the distances are" in text
    assert not re.search(r"(had not|masks) settled", text)
    assert "too early to draw" not in text


def test_a_fixed_draw_is_told_as_one_where_the_masks_had_settled_long_before(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"search": {"max_steps": 200, "guard_steps": 40, "every_steps": 5, "draw": "fixed"}})
    assert Ticket.read(run / "ticket.json").settled
    assert "The ticket was drawn at the fixed step 200" in page_of(run).text


def test_only_finetunings_that_differ_in_the_seed_alone_are_averaged(tmp_path: Path) -> None:
    run, other = make_run(tmp_path, "own"), make_run(tmp_path, "other")
    foreign = tmp_path / "bert"
    for seed, (accuracy, changes) in enumerate(
        [
            (80.0, {}), (82.0, {}), (60.0, {"model": foreign}), (70.0, {"lr": 5e-5}), (74.0, {"lr": 5e-5}),
            (50.0, {"train_rows": "others"}),
        ]
    ):  # fmt: skip
        add_finetuning(run, "SST-2", seed, {"accuracy": accuracy}, **changes)
    add_finetuning(other, "SST-2", 0, {"accuracy": 81.0})
    add_finetuning(other, "SST-2", 1, {"accuracy": 62.0}, model=foreign)
    rows = finetuning_table([read_run(run), read_run(other)])
    nothing = ("\N{EN DASH}", "")
    spread = "\N{PLUS-MINUS SIGN}"
    assert {(row["model"], row["settings"].partition(", data")[0]): row["cells"] for row in rows[:3]} == {
        ("the run's model", "optimizer.lr 0.0001"): [("81.00", f"{spread} 1.41, 2 seeds"), ("81.00", "1 seed")],
        (str(foreign), "optimizer.lr 0.0001"): [("60.00", "1 seed"), ("62.00", "1 seed")],
        ("the run's model", "optimizer.lr 5e-05"): [("72.00", f"{spread} 2.83, 2 seeds"), nothing],
    }
    assert rows[3]["cells"] == [("50.00", "1 seed"), nothing]
    assert rows[3]["settings"].partition(", data")[0] == "optimizer.lr 0.0001"
    assert rows[3]["settings"] != rows[0]["settings"]
    text = page_of(run, other).text
    assert f"SST-2 {foreign} optimizer.lr 0.0001, data" in text


def test_a_model_that_was_exported_again_is_another_model(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run")
    add_finetuning(run, "RTE", 0, {"accuracy": 50.0})
    (run / "model" / "model.safetensors").write_text("exported again")
    add_finetuning(run, "RTE", 1, {"accuracy": 60.0})
    assert [(row["model"], row["settings"], row["cells"][0][0]) for row in finetuning_table([read_run(run)])] == [
        (str(run / "model"), "", "50.00"),
        ("the run's model", "", "60.00"),
    ]


def test_losses_of_other_tasks_are_not_compared_without_a_word(tmp_path: Path) -> None:
    dense: dict[str, Any] = {"search": {"enabled": False}}
    objective = {"objective": {"mask_rate": 0.15, "mask_unit": "word"}}
    one, same = make_run(tmp_path, "one", dense), make_run(tmp_path, "same", dense | {"batch": {"global_rows": 64}})
    other = make_run(tmp_path, "other", dense | objective)
    assert "not compare" not in page_of(one, same).text
    text = page_of(one, other).text
    told = (
        "Losses of these runs do not compare, nor do their changes in percent: objective.mask_rate is 0.3 in one, "
        '0.15 in other; objective.mask_unit is "token" in one, "word" in other.'
    )
    assert text.count(told) == 2
    assert re.search(r"validation loss is [\d.]+ against [\d.]+, which do not compare, as said below\.", text)
    rows = make_run(tmp_path, "rows", dense | {"evaluation": {"every_steps": 300, "rows": 64}})
    assert "evaluation.rows is 512 in one, 64 in rows" in page_of(one, rows).text


def test_parameters_are_not_told_while_the_size_of_a_loaded_vocabulary_is_unknown(tmp_path: Path) -> None:
    loads = {"corpus": {"name": "tiny", "tokenizer": "bert.txt"}, "search": {"enabled": False}}
    run = read_run(make_run(tmp_path, "run", loads, ("ingest",)))
    assert run.dense_shape is None
    assert parameters(run) is None
    page_of(run.folder.root)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("recipe.json", _cut_off, "recipe.json is not valid JSON"),
        ("recipe.json", lambda path: path.write_text('{"recipe": {"sead": 1}, "engine": {}}'), "sead: unknown key"),
        ("recipe.json", Path.unlink, "There is no readable recipe."),
        ("ticket.json", _cut_off, "There is a ticket, but it cannot be read"),
        ("search/manifest.json", _cut_off, "its manifest cannot be read"),
        ("search/metrics.jsonl", _cut_off, "the last line, torn off, could not be read"),
        ("search/metrics.jsonl", Path.unlink, "No mask distances have been logged."),
        ("search/scores/step-00000010.safetensors", _cut_off, "cannot be read as scores of 4 layers"),
        ("search/scores", shutil.rmtree, "No scores have been recorded"),
        ("pretrain/metrics.jsonl", lambda path: path.write_text("[]\n{}\nnull\n"), "3 line(s) could not be read"),
        ("pretrain/metrics.jsonl", lambda path: write_rows(path, [drop_row(9, -1, 3, 3, 0)]), "1 line(s) could not be"),
        ("finetune/SST-2/seed-0/metrics.json", lambda path: path.write_text("[]"), 'holds no "metrics"'),
        ("finetune/SST-2/seed-0/metrics.json", _cut_off, "not valid JSON"),
        ("finetune/SST-2/seed-0/manifest.json", Path.unlink, "no manifest beside it says what it was made from"),
    ],
)
def test_damage_is_said_not_raised(
    finished: tuple[Path, Path], tmp_path: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    run = copy_of(finished[0], tmp_path)
    damage(run / name)
    assert words in page_of(run).text


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    name = "a<script>\"&'b"
    run = make_run(tmp_path, name, DROPPING)
    add_finetuning(run, "<img src=x>", 0, {"<b>f1</b>": 1.0})
    dense = make_run(tmp_path, "<i>dense</i>", DROPPING | {"search": {"enabled": False}})
    page = page_of(run, dense)
    source = (run / "report.html").read_text(encoding="utf-8")
    assert name in page.text
    assert "<img src=x>" in page.text
    assert "pre-training ran" in page.text
    assert not re.search(r"<(script|img|b|i)\b", source)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one run folder"):
        build_report([], tmp_path / "out.html")
    with pytest.raises(UserError, match=r"no run folder .*nowhere"):
        build_report([tmp_path / "nowhere"], tmp_path / "out.html")
    with pytest.raises(UserError, match="given twice"):
        build_report([tmp_path, tmp_path / "." / ""], tmp_path / "out.html")


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "a", "r"), make_run(tmp_path / "b", "r")
    text = page_of(one, two).text
    assert f"Compared with: {two}." in text


def test_losses_over_seconds(tmp_path: Path) -> None:
    """Rows by hand: the search took 10 s, steps of 0.5 s and then of 1 s; step 4 was written twice."""
    run = make_run(tmp_path, "r", stages=())
    write_manifest(run / "search", "search", 12.0, {"seconds_training": 10.0})

    def row(kind: str, step: int, loss: float, seconds: float = 0.0) -> dict[str, float | str]:
        return {"kind": kind, "step": step, "tokens": 100 * step, "loss": loss, "step_seconds": seconds}

    rows = [row("train", 2, 5.0, 0.5), row("train", 4, 9.0, 9.0), row("train", 4, 4.0, 1.0)]
    write_rows(run / "pretrain" / "metrics.jsonl", [*rows, row("validation", 1, 6.0), row("validation", 3, 5.0)])
    losses = read_run(run).losses()
    assert losses.train_tokens == (200, 400)
    assert losses.train_seconds == (11.0, 13.0)
    assert losses.train_loss == (5.0, 4.0)
    assert losses.validation_seconds == (10.5, 12.0)
    assert losses.validation_at(200) == 5.5
    assert losses.validation_at(99) is None
    assert losses.validation_at(301) is None
    assert Losses().validation_at(0) is None


def test_masks_are_those_of_the_draw(finished: tuple[Path, Path]) -> None:
    """The last recorded observation is the one the ticket was drawn from."""
    masks = read_run(finished[0]).masks()
    ticket = Ticket.read(finished[0] / "ticket.json")
    assert masks is not None
    assert masks.steps[-1] == ticket.step
    for group, kept, width in (("heads", ticket.heads, 4), ("neurons", ticket.neurons, 512)):
        flat = [layer * width + unit for layer, units in enumerate(kept) for unit in units]
        assert np.flatnonzero(masks.units[group][-1]).tolist() == flat
        assert masks.distances(group)[-1, -5:-1] == pytest.approx(ticket.distances[group], abs=1e-6)


@given(st.integers(1, 6), st.integers(1, 40), st.randoms(use_true_random=False))
def test_pairwise_distances(rows: int, units: int, random) -> None:  # type: ignore[no-untyped-def]
    masks = np.array([[random.random() < 0.5 for _ in range(units)] for _ in range(rows)])
    distances = Masks(tuple(range(rows)), {"heads": masks}).distances("heads")
    expected = [[mask_distance(one, other) for other in masks] for one in masks]
    np.testing.assert_allclose(distances, expected, atol=1e-6)


def test_kept_pictures_show_the_ticket(finished: tuple[Path, Path]) -> None:
    ticket = Ticket.read(finished[0] / "ticket.json")
    (axes,) = plots.kept_heads(ticket).axes
    squares = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    filled = {
        (round(square.get_y() + 0.41), round(square.get_x() + 0.41)) for square in squares if square.get_facecolor()[3]
    }
    assert len(squares) == 16
    assert filled == {(layer, head) for layer, heads in enumerate(ticket.heads) for head in heads}

    bars, strip = plots.kept_neurons(ticket).axes
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == [512] * 4 + [len(units) for units in ticket.neurons]
    for image, units in zip(strip.images, ticket.neurons, strict=True):
        assert np.flatnonzero(image.get_array()[0]).tolist() == list(units)
        assert image.get_zorder() > strip.patches[0].get_zorder()


def test_a_map_of_uneven_steps_keeps_their_proportions() -> None:
    matrix = np.array([[0.0, 0.4], [0.4, 0.0]])
    figure = plots.distance_heat_map([10, 20, 60], {"heads": np.zeros((3, 3))}, None)
    assert figure.axes[0].images[0].get_extent() == [5, 80, 5, 80]
    image = plots.distance_heat_map([10, 20], {"heads": matrix}, 20).axes[0].images[0]
    assert image.get_array().tolist() == matrix.tolist()
    assert plots.distance_heat_map([5], {"heads": np.zeros((1, 1))}, 5).axes


def test_svg_has_the_pages_colours_and_its_own_ids(finished: tuple[Path, Path]) -> None:
    ticket = Ticket.read(finished[0] / "ticket.json")
    svg = svg_of(plots.kept_heads(ticket), "heads", 'a "grid" <of> heads & more')
    assert "var(--kept)" in svg
    assert not [color for color in CSS_VARIABLES if color in svg]
    assert all(name.startswith("heads-") for name in re.findall(r'\bid="([^"]+)"', svg))
    assert 'aria-label="a &#34;grid&#34; &lt;of&gt; heads &amp; more"' in svg
    assert KEPT in CSS_VARIABLES


@pytest.mark.parametrize(
    "name", ["_hidden", "$x^2$ and $", "a" * 200, "a run, \N{LATIN SMALL LETTER A WITH DIAERESIS}"]
)
def test_any_name_is_a_label(name: str) -> None:
    figure = plots.loss_curves([plots.Curve(name, [1, 2], [3.0, 2.0], [2], [2.5])], "tokens")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == 2
    assert name[-30:].lstrip("_") in labels[0].replace(r"\$", "$")
    assert "<svg" in svg_of(figure, "p", name)


def test_smoothing() -> None:
    assert plots.smoothed([3.0, 1.0, 2.0]).tolist() == [3.0, 1.0, 2.0]
    line = np.arange(200.0)
    np.testing.assert_allclose(plots.smoothed(line)[2:-2], line[2:-2])
    assert plots.smoothed(line)[0] == pytest.approx(1.0)
    broken = plots.smoothed([1.0, float("nan"), float("inf"), 2.0])
    assert np.isnan(broken).tolist() == [False, True, True, False]


def test_change() -> None:
    assert change(75, 100) == "\N{MINUS SIGN}25.0%"
    assert change(100, 75) == "+33.3%"
    assert change(100.0001, 100) == "the same"
    assert change(None, 100) == ""
    assert change(1, None) == ""


def test_reporting_needs_neither_torch_nor_pyplot(finished: tuple[Path, Path]) -> None:
    program = (
        "import sys; from pathlib import Path; from pipeline.reports.page import build_report; "
        f"build_report([Path({str(finished[0])!r})], Path({str(finished[0] / 'alone.html')!r})); "
        "print(sorted({'torch', 'deepspeed', 'transformers', 'matplotlib.pyplot', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def drop_row(step: int, theta: float, expected: float, depth: float, saved: float) -> dict[str, Any]:
    values = {"theta": theta, "expected_depth": expected, "depth": depth, "flops_saved": saved}
    return {"kind": "train", "step": step, "tokens": 100 * step, "loss": 3.0, "lr": 1e-3, "step_seconds": 0.1} | values


def test_dropping_from_known_numbers(tmp_path: Path) -> None:
    """Rows by hand. Pre-training goes on where the search ended, so its steps count from there; none lie before."""
    run = make_run(tmp_path, "r", DROPPING | {"pretrain": {"steps": 1800, "rewind": "inherit"}}, ("search", "draw"))
    ticket = Ticket.read(run / "ticket.json")
    at = ticket.step
    write_rows(run / "search" / "metrics.jsonl", [drop_row(10, 0.25, 2.5, 2.0, 0.3), drop_row(40, 0.5, 2.8, 3.0, 0.2)])
    rows = [drop_row(at + 20, 0.6, 3.0, 3.5, 0.1), drop_row(at + 120, 0.6004, 3.6, 3.2, 0.08)]
    write_rows(run / "pretrain" / "metrics.jsonl", [drop_row(at, 0.1, 1.0, 1.0, 0.9), *rows])
    record = read_run(run)
    assert record.problems == ()
    assert record.dropped("search") == Dropped(0, (10, 40), (0.25, 0.5), (2.5, 2.8), (2.0, 3.0), (0.3, 0.2))
    assert mean_depth(record) == pytest.approx((20 * 3.5 + 100 * 3.2) / 120)

    dense, slim = (shape.forward_flops_per_token(64, 0.3) for shape in (ticket.dense_shape, ticket.slim_shape()))
    together = (0.2 * 40 * dense + 0.08 * 120 * slim) / (40 * dense + 120 * slim)
    depths = {"expected": "2.73 of 4", "depth": "2.75 of 4"}
    searching = {"run": "r", "stage": "search", "steps": "40", "theta": "0.25 to 0.5", **depths, "saved": "20.0%"}
    depths = {"expected": "3.50 of 4", "depth": "3.25 of 4"}
    training = {"run": "r", "stage": "pre-training", "steps": "120", "theta": "0.6", **depths, "saved": "8.0%"}
    nothing = dict.fromkeys(("steps", "theta", "expected", "depth"), "")
    both = {"run": "r", "stage": "both together", **nothing, "saved": f"{together:.1%}"}
    assert dropping_table(record) == [searching, training, both]


@pytest.mark.parametrize("unit", ["layer", "sample"])
@pytest.mark.parametrize("steps", [1800, 900])
def test_kept_flops_are_those_of_the_layers_that_ran(tmp_path: Path, unit: str, steps: int) -> None:
    """From the rows alone: what the encoder ran, summed over layers and steps from the draws, rows of two lengths."""
    corpus = RECIPE["corpus"] | {"long_row_length": 256, "long_fraction": 0.6}
    drop = {"layer_drop": {"enabled": True, "time": "decreasing", "theta": 0.3, "depth": "pld", "unit": unit}}
    run = make_run(tmp_path, "r", drop | {"corpus": corpus, "batch": {"global_rows": 32, "micro_rows": 16}})
    path = run / "pretrain" / "metrics.jsonl"
    write_rows(path, [row for row in map(json.loads, path.read_text().splitlines()) if row["step"] <= steps])
    record = read_run(run)
    assert record.recipe is not None
    assert record.ticket is not None
    slim, layer_drop = record.ticket.slim_shape(), record.recipe.dropping(4)
    assert layer_drop is not None
    ran = whole = 0.0
    for first, last, rows, length in ((0, 720, 16, 64), (720, 1800, 4, 256)):
        shares = layer_drop.executed(np.arange(first, min(last, steps)), 2, rows)
        costs = 4 * rows * length * np.asarray(slim.layer_flops_per_token(length))
        ran, whole = ran + float((shares * costs).sum()), whole + float(len(shares) * costs.sum())
    assert dropping_kept(record) == pytest.approx(ran / whole, rel=1e-9)
    kept = slim.encoder_flops_per_token(64) / record.ticket.dense_shape.encoder_flops_per_token(64)
    assert ticket_kept(record) == pytest.approx(kept, rel=1e-12)
    assert both_kept(record) == pytest.approx(kept * ran / whole, rel=1e-9)


def test_dropping_section_and_tables(dropped: tuple[Path, Path, Path]) -> None:
    runs = [read_run(folder) for folder in dropped]
    rows = {row["label"]: row["cells"] for row in comparison_table(runs)}
    dash = ("\N{EN DASH}", "")
    depths = [run.series("pretrain", "train", "depth")[0] for run in runs[:2]]
    assert rows["Layers run in pre-training, on average"] == [
        *((f"{np.mean(depth):.2f}", "of 4") for depth in depths),
        dash,
    ]
    saved = [run.series("pretrain", "train", "flops_saved")[0][-1] for run in runs[:2]]
    assert rows["FLOPs saved by dropping, pre-training"] == [*((f"{share:.1%}", "") for share in saved), dash]
    searched = runs[0].series("search", "train", "flops_saved")[0][-1]
    assert rows["FLOPs saved by dropping, search"] == [(f"{searched:.1%}", ""), dash, dash]
    ticket, dropping, both = ticket_kept(runs[0]), dropping_kept(runs[0]), both_kept(runs[0])
    assert None not in (ticket, dropping, both)
    factors = f"{ticket:.1%} \N{MULTIPLICATION SIGN} {dropping:.1%}"
    assert rows["Encoder FLOPs kept, ticket \N{MULTIPLICATION SIGN} dropping"] == [(f"{both:.1%}", factors), dash, dash]

    text = page_of(*dropped).text
    assert "decreasing : theta(t) = 0.25 + 0.75 t / 1,799 for t = 0 to 1,799: drops most at first" in text
    assert "stages : theta = 0, 1, each for 900 steps" in text
    assert f"Layers run, on average {np.mean(depths[0]):.2f} of 4 {saved[0]:.1%} of pre-training's FLOPs saved" in text
    assert f"Encoder FLOPs kept {both:.1%} ticket \N{MULTIPLICATION SIGN} dropping: {factors}" in text
    assert f"slim: the ticket keeps {ticket:.1%} of the dense encoder's FLOPs, and pre-training ran " in text
    assert f"{dropping:.1%} of what the ticket kept: {factors} = {both:.1%}." in text
    assert "growing: the ticket keeps" not in text
    assert "dense: the ticket keeps" not in text
    assert "Not everything could be read." not in text


def test_runs_without_dropping_stay_as_they_were(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing about it on the page, not from recipes of before there was layer dropping either."""
    run = finished[1]
    text = page_of(run).text
    assert not re.search(r"layer dropping|by dropping|layers run|Not everything could be read", text, re.IGNORECASE)
    before = copy_of(run, tmp_path)
    values = json.loads((before / "recipe.json").read_text())
    del values["recipe"]["layer_drop"]
    (before / "recipe.json").write_text(json.dumps(values))
    page_of(before)
    assert (before / "report.html").read_bytes() == (run / "report.html").read_bytes()


def test_schedules_in_words(tmp_path: Path) -> None:
    """Before a step has been logged: what the recipes say, a column a run that will drop layers."""

    def begun(name: str, drop: dict[str, Any], **changes: Any) -> Path:
        return make_run(tmp_path, name, {"layer_drop": {"enabled": True} | drop} | changes, stages=())

    ends = {"time": "constant", "depth": "alternate", "unit": "sample", "theta": 0.8}
    ends |= {"dense_start": 0.1, "dense_end": 0.05}
    pld = {"time": "pld", "depth": "pld", "scaling": "sublayer", "during_search": False}
    falling = {"time": "decreasing", "depth": "uniform", "during_search": True}
    inherit = {"steps": 1800, "rewind": "inherit"}
    text = page_of(
        begun("a", ends, search={"enabled": False}),
        begun("b", pld, pretrain=inherit),
        begun("c", falling | {"after_search": "restart", "scaling": "none"}, pretrain=inherit),
        begun("d", {"enabled": False}),
    ).text
    assert "Layer dropping a has logged no steps with dropped layers yet. b has" in text
    assert "d has logged" not in text
    for words in (
        "Over time constant : theta stays at 0.8 pld : theta(t) = 0.5 exp(-0.05556 t) + 0.5 for t = 0 to 1,799: drops",
        "Over depth alternate : keep = theta for every second layer, from layer 2 on; the others always run pld : keep",
        "Dense phases the first 180 and the last 90 of 1,800 steps none of 1,800 steps none of 1,800 steps",
        "Skipped sample : a layer on a random share 1 - keep of the rows of a micro-batch layer : a layer for a whole",
        "Scaling block : what a layer adds counts 1 / keep times sublayer : what each sub-layer adds counts 1 / keep",
        "Search there is none all layers run; pre-training goes on where the search ends the same schedule over 1,800",
        "pre-training goes on with its weights and begins the schedule anew",
    ):
        assert words in text


def test_dropping_without_a_recipe(dropped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run = copy_of(dropped[0], tmp_path)
    (run / "recipe.json").unlink()
    text = page_of(run).text
    assert "slim dropped layers, but no readable recipe says by which schedule." in text
    searching, training = dropping_table(read_run(run))
    assert " ".join([*searching.values(), *training.values()]).replace("slim ", "") in text
    assert training["theta"].endswith(" to 1")


@pytest.mark.parametrize(
    "damage",
    [
        {"theta": "0.5"},
        {"theta": None},
        {"theta": True},
        {"theta": float("nan")},
        {"theta": -0.1},
        {"theta": 1.01},
        {"expected_depth": float("inf")},
        {"depth": -1},
        {"depth": []},
        {"flops_saved": 1.5},
        {"flops_saved": -0.1},
        {"step": "20"},
        {"step": 20.5},
        {"loss": "low"},
    ],
    ids=str,
)
def test_damaged_rows_of_dropping(tmp_path: Path, damage: dict[str, Any]) -> None:
    run = make_run(tmp_path, "r", DROPPING | {"search": {"enabled": False}}, stages=())
    whole = drop_row(10, 0.4, 3.0, 3.0, 0.2), drop_row(30, 0.6, 3.2, 3.3, 0.1)
    damaged = drop_row(20, 0.5, 3.1, 3.0, 0.2) | damage
    write_rows(run / "pretrain" / "metrics.jsonl", [whole[0], damaged, whole[1]])
    record = read_run(run)
    assert [problem.split(": ", 1)[1] for problem in record.problems] == [
        "1 line(s) could not be read and are left out here"
    ]
    assert record.dropped("pretrain") == Dropped(0, (10, 30), (0.4, 0.6), (3.0, 3.2), (3.0, 3.3), (0.2, 0.1))
    assert record.losses().train_tokens == (1000, 3000)


@pytest.mark.parametrize("missing", ["theta", "expected_depth", "depth", "flops_saved"])
def test_rows_with_half_of_the_figures_are_left_out(tmp_path: Path, missing: str) -> None:
    run = make_run(tmp_path, "r", DROPPING | {"search": {"enabled": False}}, stages=())
    half = drop_row(10, 0.4, 3.0, 3.0, 0.2)
    del half[missing]
    write_rows(run / "pretrain" / "metrics.jsonl", [half, drop_row(20, 1.0, 4.0, 4.0, -1e-12)])
    record = read_run(run)
    assert "1 line(s) could not be read" in record.problems[0]
    assert dropping_table(record)[0]["saved"] == "0.0%"


def test_dropping_picture_from_known_numbers() -> None:
    steps = range(1, 2001)
    long = plots.DropCurve("_a $", 2, steps, [0.5] * 2000, [3.0] * 2000, [2.9] * 2000, [0.25] * 2000)
    short = plots.DropCurve("b", 0, [5, 10], [0.4, 0.6], [2.5, 3.5], [2.0, 4.0], [0.3, 0.2])
    figure = plots.layer_dropping({"search": [short], "pre-training": [short, long]})
    panels = np.array(figure.axes).reshape(3, 2)
    assert [axes.get_title("left") for axes in panels[0]] == ["search", "pre-training"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["theta", "depth (layers)", "FLOPs saved\nso far"]
    lines = [[(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines] for axes in panels[:, 0]]
    x = [5, 10]
    assert lines == [[(x, [0.4, 0.6])], [(x, [2.0, 4.0]), (x, [2.5, 3.5])], [(x, [0.3, 0.2])]]
    real, expected = panels[1, 0].lines
    assert real.get_linewidth() == 0 < expected.get_linewidth()
    assert [line.get_color() for line in panels[0, 1].lines] == [SERIES[0], SERIES[2]]
    assert len(panels[0, 1].lines[1].get_xdata()) <= 800
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", r" _a \$", "expected depth", "real depth"]
    assert "<svg" in svg_of(figure, "p", "words")

    one = plots.layer_dropping({"search": [plots.DropCurve("b", 0, [5], [0.4], [2.5], [2.0], [0.3])]})
    assert all(line.get_marker() not in ("", "None") for axes in one.axes for line in axes.lines)

    alone = plots.layer_dropping({"pre-training": [long]})
    assert [axes.get_title("left") for axes in alone.axes] == ["", "", ""]
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["expected depth", "real depth"]
    assert {line.get_color() for line in alone.legends[0].get_lines()} == {SERIES[2]}
