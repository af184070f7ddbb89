"""Fine-tuning from the files in to the files out: skipping, resuming to the same result, refusing what changed."""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_prep.errors import UserError
from pipeline.__main__ import main
from pipeline.families.hf import build_model
from pipeline.families.modeling_slim_bert import SlimBertForSequenceClassification
from pipeline.objectives.classification import EvaluationBatches, Inputs, encode
from pipeline.objectives.glue import TASKS
from pipeline.objectives.tasks import Example
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import Recipe, parse_recipe
from pipeline.runs.run import Run
from pipeline.stages import finetune as stage
from pipeline.stages.finetune import DevEvaluation, finetune_recipe, overridden, prepare
from pipeline.training.ranks import Ranks
from tests import ranks
from tests.objectives.material import SHAPE, tokenizer, write_model, write_sentiment, write_similarity

RECIPE = {
    "tracking": {"wandb": "disabled", "log_every_steps": 4},
    "checkpoint": {"every_steps": 4},
    "finetune": {"rows": 8, "epochs": 2, "lr": 0.02, "max_length": 16},
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.of(tmp_path, "t", parse_recipe(RECIPE, "test"), {}).save()
    write_model(made.folder.model)
    write_sentiment(tmp_path / "glue")
    return made


def test_only_sections_that_matter_can_be_overridden() -> None:
    recipe = overridden(Recipe(), ["finetune.lr=2e-5", "tracking.wandb=disabled"])
    assert recipe.finetune.lr == 2e-5
    assert recipe.tracking.wandb == "disabled"
    with pytest.raises(UserError, match=r"'optimizer\.lr=1' changes nothing in fine-tuning; .*finetune, tracking"):
        overridden(Recipe(), ["optimizer.lr=1"])
    with pytest.raises(UserError, match="unknown key"):
        overridden(Recipe(), ["finetune.learning_rate=1"])


def test_the_engine_gets_the_rows_and_rates_of_fine_tuning() -> None:
    recipe = finetune_recipe(parse_recipe(RECIPE, "test"), world_size=2)
    assert (recipe.batch.global_rows, recipe.batch.micro_rows) == (8, 8)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adamw", 0.02, 0.01)
    assert (recipe.optimizer.betas, recipe.optimizer.eps) == ((0.9, 0.98), 1e-6)
    assert (recipe.schedule.warmup_fraction, recipe.schedule.decay) == (0.06, "linear")
    berts = overridden(recipe, ["finetune.betas=[0.9,0.999]", "finetune.eps=1e-8", "finetune.weight_decay=0.1"])
    given = engine_config.join({}, finetune_recipe(berts, world_size=1), 1)["optimizer"]["params"]
    assert (given["betas"], given["eps"], given["weight_decay"]) == ([0.9, 0.999], 1e-8, 0.1)
    with pytest.raises(UserError, match=r"finetune\.rows \(8\) is not a multiple of the number of ranks \(3\)"):
        finetune_recipe(recipe, world_size=3)


def test_what_is_missing_is_said_before_anything_starts(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "glue"
    with pytest.raises(UserError, match="no task 'SST'"):
        prepare(run, "SST", 0, data, None, None)
    with pytest.raises(UserError, match="RTE has no train file"):
        prepare(run, "RTE", 0, data, None, None)
    with pytest.raises(UserError, match=r"has no config\.json and no tokenizer\.json"):
        prepare(run, "SST-2", 0, data, tmp_path, None)
    with pytest.raises(UserError, match="--seed is 0 or more, got -1"):
        prepare(run, "SST-2", -1, data, None, None)
    (run.folder.model / "tokenizer.json").unlink()
    with pytest.raises(
        UserError, match=r"it has no tokenizer\.json; finish the run's export stage, or name with --model"
    ):
        prepare(run, "SST-2", 0, data, None, None)


def spoil_weights(run: Run, data: Path) -> None:
    (run.folder.model / "model.safetensors").rename(run.folder.model / "pytorch_model.bin")


def spoil_config(run: Run, data: Path) -> None:
    config = run.folder.model / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"hidden_size": 16', '"hidden_size": 32'))


def spoil_tokenizer(run: Run, data: Path) -> None:
    tokenizer(pairs=False).save(str(run.folder.model / "tokenizer.json"))


def spoil_positions(run: Run, data: Path) -> None:
    shutil.rmtree(run.folder.model)
    write_model(run.folder.model, replace(SHAPE, max_positions=2))


def spoil_data(run: Run, data: Path) -> None:
    with (data / "SST-2" / "dev.tsv").open("a", encoding="utf-8") as file:
        file.write("good film\tgood\n")


def spoil_engine(run: Run, data: Path) -> None:
    run.engine["compile"] = {"layers": True}


def spoil_rows(run: Run, data: Path) -> None:
    object.__setattr__(run, "recipe", overridden(run.recipe, ["finetune.rows=9"]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_weights, "pickled weights are not read"),
        (spoil_config, r"do not fit its config\.json"),
        (spoil_tokenizer, "a classifier needs"),
        (spoil_positions, "positions for 2 tokens .* SST-2 needs 3 or more"),
        (spoil_data, "label 'good' is none of"),
        (spoil_engine, r"compile\.layers .* needs a GPU"),
        (spoil_rows, r"finetune\.rows \(9\) is not a multiple of the number of ranks \(2\)"),
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
    monkeypatch.setattr(Ranks, "from_main", lambda self, value: value)
    monkeypatch.setattr(stage, "started_ranks", lambda: nullcontext(two))
    folder = run.folder.finetune("SST-2", 0)
    if force:
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
    spoil(run, tmp_path / "glue")
    with pytest.raises(UserError, match=words):
        stage.finetune(run, "SST-2", 0, tmp_path / "glue", force=force)
    assert [path.name for path in folder.parent.rglob("*.json")] == (["metrics.json"] if force else [])
    assert folder.exists() == force


def test_what_becomes_of_a_classifier_on_the_model_is_noted(run: Run, tmp_path: Path) -> None:
    model = build_model(SHAPE, SlimBertForSequenceClassification, seed=1, num_labels=3)
    model.save_pretrained(run.folder.model)
    alone = Ranks(0, 0, 1, torch.device("cpu"))
    material = stage.read_material(prepare(run, "SST-2", 0, tmp_path / "glue", None, None), alone)
    assert [note for note in material.notes if "head" in note] == [
        f"the head of {run.folder.model} is dropped and SST-2 gets a new one: it has 3 outputs, the task 2"
    ]


def test_the_contract_names_everything_that_decides_the_result(run: Run, tmp_path: Path) -> None:
    def contract(seed: int = 0, overrides: list[str] | None = None):
        return prepare(run, "sst2", seed, tmp_path / "glue", None, overrides).contract()

    first = contract()
    assert contract() == first
    assert contract(seed=1) != first
    assert contract(overrides=["finetune.lr=0.1"]) != first
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


class EngineStandIn:
    """Answers every row with logits that say its number of tokens."""

    ranks = Ranks(0, 0, 1, torch.device("cpu"))

    @contextmanager
    def evaluating(self):
        yield

    def forward(self, batch: dict[str, torch.Tensor]) -> SimpleNamespace:
        assert "labels" not in batch
        lengths = batch["attention_mask"].sum(1).float()
        return SimpleNamespace(logits=torch.stack([lengths, torch.full_like(lengths, 4.5)], 1))


def test_dev_evaluation_puts_every_prediction_in_its_row() -> None:
    # Lengths with [CLS] and [SEP]: 5, 3, 4, 6, 3; the prediction is 0 above 4.5 tokens, else 1.
    texts = ["a a a", "a", "a a", "a a a a", "a"]
    labels = [0, 1, 1, 1, 0]
    examples = [Example(text, None, label) for text, label in zip(texts, labels, strict=True)]
    rows = encode(examples, tokenizer(), 16, False)
    evaluation = DevEvaluation(TASKS["SST-2"], EvaluationBatches(rows, Inputs(0, 16, False), 2), rows.labels)
    found = evaluation(EngineStandIn())
    assert evaluation.predictions.tolist() == [0, 1, 1, 0, 1]
    assert found["accuracy"] == found["headline"] == pytest.approx(60.0)
    # Cross entropy of (length, 4.5): log(1 + exp(wrong - right)).
    gaps = np.array([4.5 - 5, 3 - 4.5, 4 - 4.5, 6 - 4.5, 4.5 - 3])
    assert found["loss"] == pytest.approx(float(np.log1p(np.exp(gaps)).mean()))


COMMON = """
import os
from pathlib import Path
from data_prep.errors import UserError
from pipeline.training.checkpoint import Checkpoints
from pipeline.stages.finetune import finetune
from pipeline.runs.run import Run
run, data = Run.open(Path({root!r}), "t"), Path({root!r}) / "glue"
"""
WHOLE = """
assert finetune(run, "SST-2", 0, data) == 0
assert finetune(run, "sst2", 0, data) == 0
try:
    finetune(run, "SST-2", 0, data, overrides=["finetune.epochs=1"])
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
finetune(run, "SST-2", 0, data)
"""


def results(run: Run, seed: int = 0) -> dict:
    values = json.loads((run.folder.finetune("SST-2", seed) / "metrics.json").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if not key.startswith(("seconds", "model"))}


@pytest.mark.dist
def test_a_killed_fine_tuning_ends_like_one_left_alone(run: Run, tmp_path: Path) -> None:
    common = COMMON.format(root=str(tmp_path))
    [output] = ranks.run(["-c", common + WHOLE], 1, tmp_path)
    folder = run.folder.finetune("SST-2", 0)
    assert "SST-2 seed 0: done, skipped" in output
    assert "refused: stage 'finetune'" in output
    assert "settings.finetune.epochs: 2 -> 1" in output
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
    assert not (folder / "checkpoints").exists()

    # The same again, killed after a checkpoint past the first epoch, and started again.
    other = Run.of(tmp_path / "cut", "t", run.recipe, run.engine).save()
    write_model(other.folder.model)
    (tmp_path / "cut" / "glue").symlink_to(tmp_path / "glue")
    common = COMMON.format(root=str(tmp_path / "cut"))
    [(code, output)] = ranks.finish(ranks.start(["-c", common + CUT], 1, tmp_path), 120)
    assert code == 9, output
    assert not (other.folder.finetune("SST-2", 0) / "metrics.json").exists()
    place = ["--root", str(tmp_path / "cut"), "--run", "t", "--data", str(tmp_path / "glue")]
    [output] = ranks.run(["-m", "pipeline", "finetune", "--task", "SST-2", *place], 1, tmp_path)
    assert "resumed after step 12 of 18" in output
    assert results(other) == found
    assert (other.folder.finetune("SST-2", 0) / "dev.tsv").read_bytes() == (folder / "dev.tsv").read_bytes()


@pytest.mark.dist
def test_two_ranks_learn_what_one_does(run: Run, tmp_path: Path) -> None:
    arguments = ["-m", "pipeline", "finetune", "--root", str(tmp_path), "--run", "t", "--task", "SST-2",
                 "--data", str(tmp_path / "glue"), "finetune.dropout=0", "finetune.epochs=1"]  # fmt: skip
    ranks.run([*arguments, "--seed", "0"], 2, tmp_path)
    two = results(run)
    ranks.run([*arguments, "--seed", "0", "--force"], 1, tmp_path)
    one = results(run)
    assert (two.pop("world_size"), one.pop("world_size")) == (2, 1)
    [after_two], [after_one] = two.pop("epochs"), one.pop("epochs")
    assert after_two["loss"] == pytest.approx(after_one["loss"], rel=1e-3)
    assert after_two["tokens"] == after_one["tokens"]
    assert abs(two["headline"] - one["headline"]) < 4


@pytest.mark.dist
def test_a_regression_in_bf16_scores_almost_every_row_apart(run: Run, tmp_path: Path) -> None:
    """bf16 has 8 bits: scores rounded to it would tell half of these 100 different rows apart."""
    engine = engine_config.load_ds_config("zero1_bf16")
    half = Run.of(tmp_path, "half", run.recipe, engine).save()
    write_model(half.folder.model, replace(SHAPE, initializer_range=0.3))  # rows end far apart without long training
    write_similarity(tmp_path / "glue")
    place = ["--root", str(tmp_path), "--run", "half", "--data", str(tmp_path / "glue")]
    ranks.run(["-m", "pipeline", "finetune", "--task", "STS-B", *place, "finetune.lr=0.002"], 1, tmp_path)
    lines = (half.folder.finetune("STS-B", 0) / "dev.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    assert len(lines) == 100
    assert len({line.split("\t")[1] for line in lines}) > 80


def test_a_mistake_is_one_line_and_exit_code_2(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--root", str(tmp_path), "--run", "t", "--data", str(tmp_path / "glue")]
    assert main(["finetune", *place, "--task", "CoLA"]) == 2
    assert capsys.readouterr().err.startswith("error: CoLA has no train file")
