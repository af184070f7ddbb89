"""Fine-tuning from the files in to the files out: skipping, resuming to the same result, refusing what changed."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel

from data_prep.errors import UserError
from pipeline.__main__ import main
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import parse_recipe
from pipeline.runs.run import Run
from pipeline.stages import finetune as stage
from pipeline.stages.finetune import finetune, plan_run
from pipeline.training.ranks import Ranks
from tests import ranks
from tests.objectives.material import SHAPE, tokenizer, write_model, write_sentiment, write_similarity

SMALL = [
    "tracking.wandb=disabled", "tracking.log_every_steps=4", "checkpoint.every_steps=4", "batch.global_rows=8",
    "pretrain.epochs=2", "optimizer.lr=0.02", "task.max_length=16",
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose model is exported."""
    made = Run.of(tmp_path, "t", parse_recipe({}, "test"), {}).save()
    write_model(made.folder.model)
    write_sentiment(tmp_path / "glue")
    return made


def planned(root: Path, task: str = "SST-2", seed: int = 0, model: str | None = None, overrides: Sequence[str] = ()):
    return plan_run(root, "t", task, seed, str(root / "glue"), model, "finetune", None, [*SMALL, *overrides])


def test_what_is_missing_is_said_before_anything_starts(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no task 'SST'"):
        plan_run(tmp_path, "t", "SST", 0, None, None, "finetune", None, [])
    with pytest.raises(UserError, match="RTE has no train file"):
        planned(tmp_path, "RTE")
    with pytest.raises(UserError, match=r"t is a run with a model of its own: name another place for .* with --run"):
        planned(tmp_path, model=str(tmp_path))
    with pytest.raises(UserError, match="unknown key"):
        planned(tmp_path, overrides=["optimizer.learning_rate=1"])
    with pytest.raises(UserError, match="finetune: fine-tuning has recipes of its own now"):
        planned(tmp_path, overrides=["finetune.lr=1"])
    with pytest.raises(UserError, match="--seed is 0 or more, got -1"):
        finetune(tmp_path, "t", "SST-2", -1)
    shutil.rmtree(run.folder.model)
    with pytest.raises(UserError, match=r"model is not there: finish the run's export stage, or name a folder"):
        planned(tmp_path)


def spoil_weights(run: Run, data: Path) -> None:
    (run.folder.model / "model.safetensors").rename(run.folder.model / "pytorch_model.bin")


def spoil_config(run: Run, data: Path) -> None:
    config = run.folder.model / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"hidden_size": 16', '"hidden_size": 32'))


def lose_tokenizer(run: Run, data: Path) -> None:
    (run.folder.model / "tokenizer.json").unlink()


def lose_config(run: Run, data: Path) -> None:
    (run.folder.model / "config.json").unlink()


def spoil_positions(run: Run, data: Path) -> None:
    shutil.rmtree(run.folder.model)
    write_model(run.folder.model, replace(SHAPE, max_positions=2))


def spoil_data(run: Run, data: Path) -> None:
    with (data / "SST-2" / "dev.tsv").open("a", encoding="utf-8") as file:
        file.write("good film\tgood\n")


def spoil_engine(run: Run, data: Path) -> None:
    run.engine["compile"] = {"layers": True}
    run.save()


def spoil_rows(run: Run, data: Path) -> None:
    SMALL.append("batch.global_rows=9")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_weights, "pickled weights are not read"),
        (spoil_config, r"do not fit its config\.json"),
        (lose_tokenizer, r"is not a model folder: it has no tokenizer\.json; finish the run's export stage"),
        (lose_config, r"is not a model folder: it has no config\.json"),
        (spoil_positions, "positions for 2 tokens .* SST-2 needs 3 or more"),
        (spoil_data, "label 'good' is none of"),
        (spoil_engine, r"compile\.layers .* needs a GPU"),
        (spoil_rows, r"batch\.global_rows \(9\)"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_cannot_be_fine_tuned_leaves_no_trace(
    spoil: Callable[[Run, Path], None],
    words: str,
    force: bool,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder begun with a bad input would refuse the mended one; `--force` must not cost the results before."""
    two = Ranks(0, 0, 2, torch.device("cpu"))
    monkeypatch.setattr("tests.stages.test_finetune.SMALL", [*SMALL])
    monkeypatch.setattr(Ranks, "from_main", lambda self, value: value)
    monkeypatch.setattr(stage, "started_ranks", lambda: nullcontext(two))
    folder = run.folder.finetune("SST-2", 0)
    if force:
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
    spoil(run, tmp_path / "glue")
    with pytest.raises(UserError, match=words):
        stage.finetune(tmp_path, "t", "SST-2", 0, str(tmp_path / "glue"), overrides=SMALL, force=force)
    assert [path.name for path in folder.parent.rglob("*.json")] == (["metrics.json"] if force else [])
    assert folder.exists() == force


def test_the_contract_names_everything_that_decides_the_result(run: Run, tmp_path: Path) -> None:
    def contract(seed: int = 0, overrides: Sequence[str] = ()):
        return stage.contract(*planned(tmp_path, "sst2", seed, overrides=overrides))

    first = contract()
    assert contract() == first
    assert contract(seed=1) != first
    assert contract(overrides=["optimizer.lr=0.1"]) != first
    assert contract(overrides=["checkpoint.every_steps=9"]) == first
    dev = tmp_path / "glue" / "SST-2" / "dev.tsv"
    text = dev.read_text(encoding="utf-8")
    dev.write_text(text.replace("\t0", "\t1", 1), encoding="utf-8")
    changed = contract()
    assert {key for key in first[1] if first[1][key] != changed[1][key]} == {"dev_rows"}
    dev.write_text(text, encoding="utf-8")
    write_model(tmp_path / "other", replace(SHAPE, layers=SHAPE.layers[:1]))
    weights = (tmp_path / "other" / "model.safetensors").read_bytes()
    (run.folder.model / "model.safetensors").write_bytes(weights)
    changed = contract()
    assert {key for key in first[1] if first[1][key] != changed[1][key]} == {"model.safetensors"}


COMMON = """
import os
from pathlib import Path
from data_prep.errors import UserError
from pipeline.training.checkpoint import Checkpoints
from pipeline.stages.finetune import finetune
root, data, small = Path({root!r}), str(Path({root!r}) / "glue"), {small!r}
"""
WHOLE = """
assert finetune(root, "t", "SST-2", 0, data, overrides=small) == 0
assert finetune(root, "t", "sst2", 0, data, overrides=small) == 0
try:
    finetune(root, "t", "SST-2", 0, data, overrides=[*small, "pretrain.epochs=1"])
except UserError as error:
    print("refused:", error)
"""
CUT = """
saved = Checkpoints.save
def save_and_die(self, engine, step, values, tensors):
    saved(self, engine, step, values, tensors)
    if step == 12:
        os._exit(9)
Checkpoints.save = save_and_die
finetune(root, "t", "SST-2", 0, data, overrides=small)
"""


def results(run: Run, seed: int = 0) -> dict:
    values = json.loads((run.folder.finetune("SST-2", seed) / "metrics.json").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if not key.startswith(("seconds", "model"))}


@pytest.mark.dist
def test_a_killed_fine_tuning_ends_like_one_left_alone(run: Run, tmp_path: Path) -> None:
    common = COMMON.format(root=str(tmp_path), small=SMALL)
    [output] = ranks.run(["-c", common + WHOLE], 1, tmp_path)
    folder = run.folder.finetune("SST-2", 0)
    assert "SST-2 seed 0: done, skipped" in output
    assert "refused: stage 'finetune'" in output
    assert "settings.pretrain.epochs: 2" in output
    found = results(run)
    assert found["metrics"] == {"accuracy": found["headline"]}
    # 70 rows by 8 make 9 steps; one word decides the label, which two epochs are enough to learn.
    assert [epoch["step"] for epoch in found["epochs"]] == [9, 18]
    assert found["headline"] > 90
    lines = (folder / "dev.tsv").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "index\tprediction\tlabel"
    cells = [line.split("\t") for line in lines[1:-1]]
    assert [int(row[0]) for row in cells] == list(range(30))
    assert [row[2] for row in cells] == ["positive", "negative"] * 15
    right = sum(row[1] == row[2] for row in cells)
    assert found["headline"] == pytest.approx(100 * right / 30)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["results"]["headline"] == found["headline"]
    assert not [*folder.glob("*/checkpoints"), *folder.glob("*/weights.safetensors")]
    assert AutoConfig.from_pretrained(folder / "model", trust_remote_code=True).id2label == {
        0: "negative",
        1: "positive",
    }

    # The same again, killed after a checkpoint past the first epoch, and started again.
    other = Run.of(tmp_path / "cut", "t", run.recipe, run.engine).save()
    write_model(other.folder.model)
    (tmp_path / "cut" / "glue").symlink_to(tmp_path / "glue")
    common = COMMON.format(root=str(tmp_path / "cut"), small=SMALL)
    [(code, output)] = ranks.finish(ranks.start(["-c", common + CUT], 1, tmp_path), 120)
    assert code == 9, output
    assert not (other.folder.finetune("SST-2", 0) / "metrics.json").exists()
    place = ["--root", str(tmp_path / "cut"), "--run", "t", "--data", str(tmp_path / "glue")]
    [output] = ranks.run(["-m", "pipeline", "finetune", "--task", "SST-2", *place, *SMALL], 1, tmp_path)
    assert "resumed after step 12 of 18" in output
    assert results(other) == found
    assert (other.folder.finetune("SST-2", 0) / "dev.tsv").read_bytes() == (folder / "dev.tsv").read_bytes()


@pytest.mark.dist
def test_a_regression_in_bf16_scores_almost_every_row_apart(run: Run, tmp_path: Path) -> None:
    """bf16 has 8 bits: scores rounded to it would tell half of these 100 different rows apart."""
    engine = engine_config.load_ds_config("zero1_bf16")
    half = Run.of(tmp_path, "half", run.recipe, engine).save()
    write_model(half.folder.model, replace(SHAPE, initializer_range=0.3))  # rows end far apart without long training
    write_similarity(tmp_path / "glue")
    place = ["--root", str(tmp_path), "--run", "half", "--data", str(tmp_path / "glue")]
    ranks.run(["-m", "pipeline", "finetune", "--task", "STS-B", *place, *SMALL, "optimizer.lr=0.002"], 1, tmp_path)
    lines = (half.folder.finetune("STS-B", 0) / "dev.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    assert len(lines) == 100
    assert len({line.split("\t")[1] for line in lines}) > 80


def test_a_mistake_is_one_line_and_exit_code_2(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--root", str(tmp_path), "--run", "t", "--data", str(tmp_path / "glue")]
    assert main(["finetune", *place, "--task", "CoLA"]) == 2
    assert capsys.readouterr().err.startswith("error: CoLA has no train file")


@pytest.mark.dist
def test_a_ticket_of_a_stock_model_is_the_same_on_shared_parameters(tmp_path: Path) -> None:
    """Gates, scores, cut and retraining of a stock BERT in fp32: two ranks that share it against one with all of it."""
    write_sentiment(tmp_path / "glue")
    config = BertConfig(
        vocab_size=SHAPE.vocab_size + 1, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer().save(str(tmp_path / "bert" / "tokenizer.json"))  # to which transformers adds BERT's [MASK]
    found = []
    for name, count, zero in (("one", 1, 0), ("two", 2, 2), ("three", 2, 3)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"zero_optimization": {"stage": zero}}))
        arguments = [
            "-m", "pipeline", "finetune", "--root", tmp_path, "--run", name, "--model", tmp_path / "bert", "--task",
            "SST-2", "--data", tmp_path / "glue", "--ds", tmp_path / f"{name}.json", *SMALL, "model.dropout=0",
            "model.attention_dropout=0", "search.enabled=true", "pretrain.epochs=3", "optimizer.lr=0.005",
        ]  # fmt: skip
        output = ranks.run([*map(str, arguments)], count, tmp_path)[0]
        assert "bert has no" not in output
        folder = tmp_path / "runs" / name / "finetune" / "SST-2" / "seed-0"
        ticket = json.loads((folder / "ticket.json").read_text(encoding="utf-8"))
        values = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        found.append((ticket["layers"], ticket["step"], values["parameters"], values["epochs"][-1]["loss"]))
    (*alone, loss), *shared = found
    assert [shape for *shape, _ in shared] == [alone, alone]
    assert [last for *_, last in shared] == [pytest.approx(loss, rel=1e-3)] * 2
    stock = AutoModelForSequenceClassification.from_pretrained(folder / "model-expanded")
    assert type(stock).__name__ == "BertForSequenceClassification"
