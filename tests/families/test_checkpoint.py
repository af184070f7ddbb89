"""Models that go on from our own and from stock model folders, against the stock classes where they exist."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from data_prep.errors import UserError
from pipeline.families.checkpoint import build_from, read_checkpoint, shape_of
from pipeline.families.head import Head
from pipeline.families.hf import build_model, config_from_shape, load_state, read_state
from pipeline.families.modeling_slim_bert import SlimBertForMaskedLM
from pipeline.families.modeling_slim_bert_heads import SlimBertForSequenceClassification
from pipeline.families.models import build
from pipeline.families.shape import EncoderShape
from pipeline.families.stock import leaving_config
from pipeline.objectives.glue import TASKS
from pipeline.tickets.surgery import slice_state
from tests.objectives.material import SHAPE, tokenizer, write_model
from tests.tickets.make import random_ticket

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "max_position_embeddings": 20,
}  # fmt: skip


def head_of(task: str) -> Head:
    return Head("classification", labels=TASKS[task].label_names, words=TASKS[task].labels)


def built(folder: Path, task: str, dropout: float = 0.1, seed: int = 0) -> tuple[torch.nn.Module, str]:
    """The folder's model under the head of a task, and what was said of its own."""
    checkpoint, head = read_checkpoint(folder), head_of(task)
    model, notes = build_from(checkpoint, shape_of(checkpoint, head, dropout, dropout), head, seed)
    return model, "; ".join(notes)


def save(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_our_own_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    found = shape_of(read_checkpoint(tmp_path / "model"), head_of("MNLI"), 0.1, 0.1)
    assert found == replace(SHAPE, outputs=3)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    model, notes = built(tmp_path / "model", "MNLI", dropout=0.25, seed=1)
    assert notes == ""
    assert sum(x.numel() for x in model.parameters()) == found.num_parameters()
    for name, value in model.named_parameters():
        assert not name.startswith("encoder.") or torch.equal(value, saved[name])
    assert model.config.num_labels == 3
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.25, 0.25)


def test_the_seed_draws_the_head_and_nothing_else(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    first, again, other = (
        dict(built(tmp_path / "model", "SST-2", seed=seed)[0].named_parameters()) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {"classifier.dense.weight", "classifier.out_proj.weight"}


def test_a_regression_has_one_output_and_squared_error(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    model = built(tmp_path / "model", "STS-B", dropout=0.0)[0].eval()
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
    model = built(tmp_path, "MRPC")[0].eval()
    with torch.no_grad():
        model.model.classifier.weight.copy_(stock.classifier.weight)
        model.model.classifier.bias.copy_(stock.classifier.bias)
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
    assert shape_of(read_checkpoint(tmp_path), head_of("RTE"), 0.1, 0.1).row_limit == 18
    model = built(tmp_path, "RTE")[0].eval()
    model.model.classifier.load_state_dict(stock.classifier.state_dict())
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
    model, said = built(tmp_path, task)
    model.eval()
    if why is not None:
        assert f"is dropped and the model gets a new one: {why}" in said
        trained = stock.classifier.state_dict()
        assert not any(
            torch.equal(new, trained.get(name, new[:0]))
            for name, new in model.model.classifier.state_dict().items()
            if new.any()
        )
        return
    assert said.endswith("is kept: its labels are those of the task")
    batch = {"input_ids": torch.tensor([[0, 9, 2, 2, 8, 2], [0, 7, 6, 2, 5, 2]]), "attention_mask": torch.ones(2, 6)}
    torch.testing.assert_close(model(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", [BertForQuestionAnswering, BertForTokenClassification])
def test_heads_for_other_things_than_texts_are_dropped(cls: type, tmp_path: Path) -> None:
    save(cls(BertConfig(**SMALL)), tmp_path)
    assert f"is dropped and the model gets a new one: it is of {cls.__name__}" in built(tmp_path, "RTE")[1]


@pytest.mark.parametrize("with_pooler", [False, True])
def test_our_own_classifier_is_kept_too(with_pooler: bool, tmp_path: Path) -> None:
    made = build_model(
        SHAPE, SlimBertForSequenceClassification, seed=3, num_labels=2, classifier_pooler=with_pooler
    ).eval()
    made.save_pretrained(tmp_path)
    assert built(tmp_path, "MNLI")[1].endswith("it has 2 outputs, the task 3")
    kept = built(tmp_path, "RTE")[0].eval()
    tokens = torch.tensor([[2, 4, 3], [2, 5, 3]])
    torch.testing.assert_close(kept(tokens).logits, made(tokens).logits)


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    save(BertModel(BertConfig(**SMALL)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "electra"}))
    with pytest.raises(UserError, match=r"cannot be trained: .*'electra'"):
        built(tmp_path, "RTE")
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(UserError, match=r"do not fit its config\.json"):
        built(tmp_path, "RTE")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"pickled weights are not read: .* `python -m pipeline convert \S+ NEW_FOLDER`"
    ):
        read_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors; load the model"):
        read_checkpoint(tmp_path)


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
        built(tmp_path, "RTE")


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "gpt2", "slim_bert"])
def test_going_on_with_a_language_model(family: str, tmp_path: Path) -> None:
    """The same logits as before, at the chosen places; of a folder without the head the model gets a new one."""
    config = {
        "bert": lambda: BertConfig(**SMALL),
        "roberta": lambda: RobertaConfig(**SMALL, pad_token_id=1),
        "distilbert": lambda: DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=4, hidden_dim=32),
        "modernbert": lambda: ModernBertConfig(**SMALL, pad_token_id=0),
        "gpt2": lambda: GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=20),
        "slim_bert": lambda: config_from_shape(SHAPE),
    }[family]()
    head = Head("causal-lm" if family == "gpt2" else "masked-lm")
    torch.manual_seed(0)
    if family == "slim_bert":
        made = SlimBertForMaskedLM(config).eval()
    else:
        made = getattr(transformers, head.auto_class).from_config(config).eval()
    save(made, tmp_path / "whole")
    ids = torch.randint(4, 14, (2, 6), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([1, 4, 7])
    checkpoint = read_checkpoint(tmp_path / "whole")
    model, notes = build_from(checkpoint, shape_of(checkpoint, head, 0.0, 0.0), head, 0)
    with torch.no_grad():
        wanted = made(ids).logits.flatten(0, 1)[positions]
        torch.testing.assert_close(model.eval()(ids, masked_positions=positions).logits, wanted, atol=1e-6, rtol=1e-5)
    assert notes == []
    if family in ("gpt2", "slim_bert"):  # its head is the word embedding
        return
    save(made.base_model, tmp_path / "bare")
    _, notes = build_from(read_checkpoint(tmp_path / "bare"), shape_of(checkpoint, head, 0.0, 0.0), head, 0)
    assert notes == [f"{tmp_path / 'bare'} has no masked-lm head: the model gets a new one"]


def test_a_narrow_folder_is_gone_on_from(tmp_path: Path) -> None:
    stock = BertForSequenceClassification(BertConfig(**SMALL, num_labels=2))
    save(stock, tmp_path / "dense")
    dense, _ = built(tmp_path / "dense", "RTE")
    shape = dense.shape
    ticket = random_ticket(shape, 3)
    slim = build(ticket.slim_shape(), seed=1).eval()
    load_state(slim, slice_state(read_state(dense), shape, ticket))
    slim.model.save_pretrained(tmp_path / "slim")
    leaving_config(ticket.slim_shape()).to_json_file(tmp_path / "slim" / "config.json", use_diff=False)
    again, notes = built(tmp_path / "slim", "RTE")
    assert again.shape.layers == ticket.slim_shape().layers
    assert "is kept" in notes
    ids = torch.tensor([[2, 4, 3], [2, 5, 3]])
    torch.testing.assert_close(again.eval()(ids).logits, slim(ids).logits)


def test_a_gpt2_is_padded_as_its_tokenizer_pads(tmp_path: Path) -> None:
    save(transformers.GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, eos_token_id=7)), tmp_path)
    made = tokenizer()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    checkpoint = read_checkpoint(tmp_path)
    assert shape_of(checkpoint, head_of("RTE"), 0.0, 0.0).pad_token_id == 7
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "sep_token": "[SEP]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    assert shape_of(read_checkpoint(tmp_path), head_of("RTE"), 0.3, 0.0).pad_token_id == 0


def test_every_dropout_is_the_recipes(tmp_path: Path) -> None:
    for number, config in enumerate(
        (BertConfig(**SMALL, classifier_dropout=0.5), DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=4))
    ):
        save(transformers.AutoModel.from_config(config), tmp_path / str(number))
        model, _ = built(tmp_path / str(number), "RTE", dropout=0.0)
        rates = [each.p for each in model.modules() if isinstance(each, torch.nn.Dropout)]
        assert set(rates) == {0.0}


def test_the_sizes_of_classifiers(tmp_path: Path) -> None:
    save(BertModel(BertConfig(**SMALL)), tmp_path)
    model, _ = built(tmp_path, "MNLI")
    assert not isinstance(model.shape, EncoderShape)
    assert model.shape.num_parameters() == sum(x.numel() for x in model.parameters())
