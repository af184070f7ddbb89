"""Classifiers on our own and on stock model folders, against the stock classes where they exist."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from data_prep.errors import UserError
from pipeline.families.hf import build_model
from pipeline.families.modeling_slim_bert import SlimBertForSequenceClassification
from pipeline.objectives.classifier import build_classifier, read_pretrained, what_of_head
from pipeline.objectives.glue import TASKS
from tests.objectives.material import SHAPE, write_model

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "max_position_embeddings": 20,
}  # fmt: skip


def save(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_our_own_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    pretrained = read_pretrained(tmp_path / "model")
    assert pretrained.shape == SHAPE
    assert not pretrained.pooler
    saved = load_file(tmp_path / "model" / "model.safetensors")
    model = build_classifier(pretrained, TASKS["MNLI"], dropout=0.25, seed=1)
    for name, value in model.named_parameters():
        assert not name.startswith("encoder.") or torch.equal(value, saved[name])
    assert model.config.num_labels == 3
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.25, 0.25)


def test_the_seed_draws_the_head_and_nothing_else(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    pretrained = read_pretrained(tmp_path / "model")
    first, again, other = (
        dict(build_classifier(pretrained, TASKS["SST-2"], 0.1, seed).named_parameters()) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {"classifier.dense.weight", "classifier.out_proj.weight"}


def test_a_regression_has_one_output_and_squared_error(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    model = build_classifier(read_pretrained(tmp_path / "model"), TASKS["STS-B"], 0.0, 0).eval()
    output = model(torch.tensor([[2, 4, 3], [2, 5, 3]]), labels=torch.tensor([1.5, 4.0]))
    assert output.logits.shape == (2, 1)
    expected = ((output.logits[:, 0] - torch.tensor([1.5, 4.0])) ** 2).mean()
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("bare", [True, False], ids=["BertModel", "with prefix"])
def test_bert_keeps_its_pooler(bare: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stock = BertForSequenceClassification(BertConfig(**SMALL, num_labels=2)).eval()
    save(stock.bert, tmp_path)
    if not bare:
        state = load_file(tmp_path / "model.safetensors")
        save_file({f"bert.{name}": value for name, value in state.items()}, tmp_path / "model.safetensors")
    pretrained = read_pretrained(tmp_path)
    assert set(pretrained.pooler) == {"pooler.dense.weight", "pooler.dense.bias"}
    model = build_classifier(pretrained, TASKS["MRPC"], 0.1, 0).eval()
    with torch.no_grad():
        model.classifier.weight.copy_(stock.classifier.weight)
        model.classifier.bias.copy_(stock.classifier.bias)
    batch = {
        "input_ids": torch.tensor([[2, 9, 3, 8, 3, 0], [2, 7, 6, 3, 5, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0], [1] * 6]),
        "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]),
    }
    torch.testing.assert_close(model(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=1e-5)


def test_roberta_gets_robertas_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = RobertaConfig(**SMALL, num_labels=2, pad_token_id=1, type_vocab_size=1)
    stock = RobertaForSequenceClassification(config).eval()
    masked = RobertaForMaskedLM(config)
    masked.roberta.load_state_dict(stock.roberta.state_dict())
    save(masked, tmp_path)
    pretrained = read_pretrained(tmp_path)
    assert not pretrained.pooler
    assert pretrained.shape.max_positions - pretrained.shape.position_offset == 18
    model = build_classifier(pretrained, TASKS["RTE"], 0.1, 0).eval()
    model.classifier.load_state_dict(stock.classifier.state_dict())
    batch = {
        "input_ids": torch.tensor([[0, 9, 2, 2, 8, 2, 1], [0, 7, 6, 2, 2, 5, 2]]),
        "attention_mask": torch.tensor([[1] * 6 + [0], [1] * 7]),
    }
    torch.testing.assert_close(model(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=1e-5)


MNLI_NAMES = ("entailment", "neutral", "contradiction")


def fine_tuned(family: str, folder: Path, **more: Any) -> torch.nn.Module:
    """A stock classifier as somebody has fine-tuned it."""
    torch.manual_seed(1)
    if family == "bert":
        stock = BertForSequenceClassification(BertConfig(**SMALL, **more))
    else:
        stock = RobertaForSequenceClassification(RobertaConfig(**SMALL, pad_token_id=1, type_vocab_size=1, **more))
    save(stock, folder)
    return stock.eval()


def named(*names: str) -> dict[int, str]:
    return dict(enumerate(names))


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("task", "config", "why"),
    [
        ("MNLI", {"num_labels": 3}, None),
        ("MNLI", {"id2label": named(*MNLI_NAMES)}, None),
        ("MNLI", {"id2label": named("ENTAILMENT", "NEUTRAL", "CONTRADICTION")}, None),
        ("SST-2", {"id2label": named("NEGATIVE", "POSITIVE")}, None),
        ("STS-B", {"num_labels": 1}, None),
        ("RTE", {"num_labels": 3}, "it has 3 outputs, the task 2"),
        (
            "MNLI",
            {"id2label": named(*reversed(MNLI_NAMES))},
            "its labels are contradiction, neutral, entailment, those",
        ),
        ("RTE", {"id2label": named("negative", "positive")}, "its labels are negative, positive, those of the task"),
        ("STS-B", {"id2label": named("toxic")}, "its labels are toxic, those of the task scores"),
        ("RTE", {"problem_type": "multi_label_classification"}, "it was trained for multi_label_classification"),
        ("RTE", {"architectures": ["BertForMultipleChoice"]}, "it is of BertForMultipleChoice"),
    ],
)
def test_a_classifier_on_the_checkpoint_is_kept_where_its_labels_are_the_tasks(
    family: str, task: str, config: dict[str, Any], why: str | None, tmp_path: Path
) -> None:
    stock = fine_tuned(family, tmp_path, **{key: value for key, value in config.items() if key != "architectures"})
    if "architectures" in config:
        saved = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(saved | config))
    pretrained = read_pretrained(tmp_path)
    model = build_classifier(pretrained, TASKS[task], 0.1, 0).eval()
    said = what_of_head(pretrained, TASKS[task])
    if why is not None:
        assert f"is dropped and {task} gets a new one: {why}" in said
        drawn = build_classifier(replace(pretrained, head={}), TASKS[task], 0.1, 0)
        head, new = model.classifier.state_dict(), drawn.classifier.state_dict()
        assert all(torch.equal(head[name], new[name]) for name in new)
        return
    assert said.endswith(f"is kept: its labels are those of {task}")
    batch = {"input_ids": torch.tensor([[0, 9, 2, 2, 8, 2], [0, 7, 6, 2, 5, 2]]), "attention_mask": torch.ones(2, 6)}
    torch.testing.assert_close(model(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", [BertForQuestionAnswering, BertForTokenClassification])
def test_heads_for_other_things_than_texts_are_dropped(cls: type, tmp_path: Path) -> None:
    save(cls(BertConfig(**SMALL)), tmp_path)
    pretrained = read_pretrained(tmp_path)
    assert f"is dropped and RTE gets a new one: it is of {cls.__name__}" in what_of_head(pretrained, TASKS["RTE"])
    build_classifier(pretrained, TASKS["RTE"], 0.1, 0)


@pytest.mark.parametrize("with_pooler", [False, True])
def test_our_own_classifier_is_kept_too(with_pooler: bool, tmp_path: Path) -> None:
    made = build_model(
        SHAPE, SlimBertForSequenceClassification, seed=3, num_labels=2, classifier_pooler=with_pooler
    ).eval()
    made.save_pretrained(tmp_path)
    pretrained = read_pretrained(tmp_path)
    assert what_of_head(pretrained, TASKS["MNLI"]).endswith("it has 2 outputs, the task 3")
    kept = build_classifier(pretrained, TASKS["RTE"], 0.1, 0).eval()
    tokens = torch.tensor([[2, 4, 3], [2, 5, 3]])
    torch.testing.assert_close(kept(tokens).logits, made(tokens).logits)


def test_an_encoder_alone_is_not_talked_about(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert what_of_head(read_pretrained(tmp_path / "model"), TASKS["RTE"]) == ""


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    save(BertModel(BertConfig(**SMALL)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"cannot be fine-tuned: .*'gpt2'"):
        read_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(UserError, match=r"do not fit its config\.json"):
        build_classifier(read_pretrained(tmp_path), TASKS["RTE"], 0.1, 0)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"pickled weights are not read: .* `python -m pipeline convert \S+ NEW_FOLDER`"
    ):
        read_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors; load the model"):
        read_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", r"config\.json is not valid JSON"),
        ("[]", r"config\.json is not a JSON object"),
        ('{"model_type": "bert", "hidden_size": "16"}', r"config\.json cannot be read by transformers: .*hidden_size"),
        ('{"model_type": "x", "auto_map": {"AutoConfig": "x.X"}}', "cannot be read by transformers: .*custom code"),
        ('{"model_type": "bert", "hidden_act": "loud"}', "activation that transformers has not: 'loud'"),
    ],
)
def test_configs_that_cannot_be_used_are_refused(said: str, words: str, tmp_path: Path) -> None:
    save(BertModel(BertConfig(**SMALL)), tmp_path)
    added = json.loads(said) if said.startswith('{"') else None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(said if added is None else json.dumps(config | added))
    (tmp_path / "x.py").write_text("raise SystemExit('the code of the folder ran')\n")
    with pytest.raises(UserError, match=words):
        build_classifier(read_pretrained(tmp_path), TASKS["RTE"], 0.1, 0)
