"""Exported folders, opened the way a stranger opens them: another process, stock transformers, no project."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pipeline.artifacts import UserError
from pipeline.export import SPECIAL_TOKENS, export_compact, export_expanded, verify_export
from pipeline.model.hf import build_model, read_state
from pipeline.model.shape import EncoderShape
from pipeline.tickets.select import TicketRules
from pipeline.tickets.surgery import slice_state
from pipeline.tickets.ticket import Ticket

WORDS = ["early", "bird", "##s", "catch", "worm", "the", ".", "late"]
VOCABULARY = [*SPECIAL_TOKENS.values(), *WORDS]


def dense_shape(norm: str = "post", **changes) -> EncoderShape:
    fields = {
        "num_layers": 3,
        "num_heads": 4,
        "ffn": 24,
        "hidden_size": 16,
        "vocab_size": len(VOCABULARY),
        "max_positions": 20,
        "norm": norm,
        "initializer_range": 0.3,
    }
    return EncoderShape.uniform(**(fields | changes))


def ticket_of(shape: EncoderShape) -> Ticket:
    return Ticket(
        dense_shape=shape,
        heads=((0, 2, 3), (1,), (0, 1, 2, 3)),
        neurons=(tuple(range(0, 24, 3)), tuple(range(24)), (5, 6, 7, 20, 21, 22, 23)),
        step=120,
        score="l1",
        settled=True,
        rules=TicketRules(),
    )


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory) -> Path:
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def as_a_stranger(code: str, *arguments: object, home: Path) -> str:
    """What `code` prints in a process that knows transformers only."""
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    block = "import sys; sys.modules['pipeline'] = sys.modules['data_prep'] = None\n"
    command = [sys.executable, "-I", "-c", block + code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_both_folders_compute_what_the_trained_model_does(norm: str, tokenizer_file: Path, tmp_path: Path) -> None:
    dense = dense_shape(norm)
    ticket = ticket_of(dense)
    slim = ticket.slim_shape()
    state = slice_state(read_state(build_model(dense, seed=0)), dense, ticket)

    export_compact(state, slim, tokenizer_file, tmp_path / "model", ticket)
    assert verify_export(tmp_path / "model", state, slim, trust_remote_code=True) <= 1e-5
    export_expanded(state, slim, ticket, tokenizer_file, tmp_path / "expanded")
    assert verify_export(tmp_path / "expanded", state, slim, trust_remote_code=False) <= 1e-5

    assert sorted(path.name for path in tmp_path.iterdir()) == ["expanded", "model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_slim_bert.py",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], state[name]) for name in state)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "| 0 | 3 of 4 | 0 2 3 | 8 of 24 |" in card
    assert "step 120" in card
    config = json.loads((tmp_path / "expanded" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == ("bert" if norm == "post" else "roberta-prelayernorm")
    assert config["intermediate_size"] == 24
    assert "auto_map" not in config


def test_every_auto_class_and_the_tokenizer_load_the_compact_folder(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape()
    folder = tmp_path / "model"
    export_compact(read_state(build_model(shape, seed=0)), shape, tokenizer_file, folder)
    code = """
import sys, torch, transformers
from transformers import AutoConfig, AutoTokenizer
folder = sys.argv[1]
print(AutoConfig.from_pretrained(folder, trust_remote_code=True).heads_per_layer)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
batch = tokenizer(["Early birds catch the worm."], ["late"], return_tensors="pt")
print(sorted(batch), tokenizer.model_max_length, tokenizer.mask_token_id)
print(tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()))
for name in ("AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification",
             "AutoModelForQuestionAnswering"):
    model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    print(type(model).__name__, bool(torch.isfinite(model(**batch)[0]).all()))
"""
    assert as_a_stranger(code, folder, home=tmp_path).split("\n") == [
        "[4, 4, 4]",
        "['attention_mask', 'input_ids'] 20 4",
        "['[CLS]', 'early', 'bird', '##s', 'catch', 'the', 'worm', '.', '[SEP]', 'late', '[SEP]']",
        "SlimBertModel True",
        "SlimBertForMaskedLM True",
        "SlimBertForSequenceClassification True",
        "SlimBertForQuestionAnswering True",
        "",
    ]


def test_the_stock_tokenizer_and_fill_mask_pipeline_take_the_expanded_folder(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    shape = dense_shape("pre")
    folder = tmp_path / "expanded"
    export_expanded(read_state(build_model(shape, seed=0)), shape, None, tokenizer_file, folder)
    code = """
import sys
from transformers import pipeline
found = pipeline("fill-mask", sys.argv[1])("the early [MASK] .", top_k=3)
print(len(found), all(0 < each["score"] < 1 for each in found))
"""
    assert as_a_stranger(code, folder, home=tmp_path) == "3 True\n"


@pytest.mark.parametrize(("norm", "offset", "types"), [("post", 0, 2), ("post", 1, 0)])
def test_a_dense_model_expands_to_itself(norm, offset, types, tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape(norm, position_offset=offset, type_vocab_size=types)
    state = read_state(build_model(shape, seed=0))
    export_expanded(state, shape, None, tokenizer_file, tmp_path / "expanded")
    assert verify_export(tmp_path / "expanded", state, shape, trust_remote_code=False) <= 1e-5
    names = json.loads((tmp_path / "expanded" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert ("token_type_ids" in names["model_input_names"]) == bool(types)


def test_a_folder_that_computes_something_else_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape()
    state = read_state(build_model(shape, seed=0))
    folder = tmp_path / "model"
    export_compact(state, shape, tokenizer_file, folder)
    other = {name: value.clone() for name, value in state.items()}
    other["encoder.layers.1.ffn.down.bias"][3] += 0.01
    with pytest.raises(RuntimeError, match="computes other logits than the trained model"):
        verify_export(folder, other, shape, trust_remote_code=True)
    stored = load_file(folder / "model.safetensors")
    del stored["encoder.layers.1.ffn.down.bias"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"cannot be loaded again: the weights do not fit .*ffn\.down\.bias"):
        verify_export(folder, state, shape, trust_remote_code=True)


def test_an_older_export_is_replaced_whole(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale.bin").write_text("old", encoding="utf-8")
    (tmp_path / ".model.partial").mkdir()
    export_compact(read_state(build_model(shape, seed=0)), shape, tokenizer_file, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (folder / "stale.bin").exists()


def test_mistakes_leave_nothing_behind(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape()
    state = read_state(build_model(shape, seed=0))
    out = tmp_path / "out"
    small = replace(shape, vocab_size=12)
    small_state = read_state(build_model(small, seed=0))
    with pytest.raises(UserError, match="ids up to 12, the model a vocabulary of 12"):
        export_compact(small_state, small, tokenizer_file, out)
    with pytest.raises(UserError, match="pads with id 0, the model with 2"):
        export_compact(state, replace(shape, pad_token_id=2), tokenizer_file, out)
    with pytest.raises(UserError, match="export it with the ticket it was trained from"):
        export_expanded(state, shape, ticket_of(shape), tokenizer_file, out)
    with pytest.raises(ValueError, match=r"fp32 masters, the state holds torch.bfloat16"):
        export_compact({name: x.bfloat16() for name, x in state.items()}, shape, tokenizer_file, out)
    with pytest.raises(ValueError, match="the state does not fit the model"):
        export_compact(state, ticket_of(shape).slim_shape(), tokenizer_file, out)
    assert list(tmp_path.iterdir()) == []
