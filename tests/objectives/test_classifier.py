"""Classifiers on our own and on stock model folders, against the stock classes where they exist."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from data_prep.errors import UserError
from pipeline.objectives.classifier import build_classifier, read_pretrained
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
