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
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
from pipeline.families.hf import build_model, drop_sentence_head, read_state
from pipeline.families.shape import EncoderShape
from pipeline.stages.export import export_compact, export_expanded
from pipeline.stages.model_folder import SPECIAL_TOKENS
from pipeline.stages.stranger import verify_exports
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


@pytest.mark.parametrize(
    ("norm", "positions", "family"),
    [("post", "absolute", "bert"), ("pre", "absolute", "roberta-prelayernorm"), ("pre", "rotary", "esm")],
)
def test_both_folders_compute_what_the_trained_model_does(
    norm: str, positions: str, family: str, tokenizer_file: Path, tmp_path: Path
) -> None:
    dense = dense_shape(norm, positions=positions)
    ticket = ticket_of(dense)
    slim = ticket.slim_shape()
    state = slice_state(read_state(build_model(dense, seed=0)), dense, ticket)

    export_compact(state, slim, tokenizer_file, tmp_path / "model", ticket)
    export_expanded(state, slim, ticket, tokenizer_file, tmp_path / "expanded")
    both = [(tmp_path / "model", True), (tmp_path / "expanded", False)]
    assert max(verify_exports(both, state, slim)) <= 1e-5

    assert sorted(path.name for path in tmp_path.iterdir()) == ["expanded", "model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_slim_bert.py",
        "modeling_slim_bert_heads.py",
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
    assert config["model_type"] == family
    assert config["intermediate_size"] == 24
    assert "auto_map" not in config
    ids = [VOCABULARY.index(SPECIAL_TOKENS[name]) for name in ("pad_token", "cls_token", "sep_token")]
    wanted = ids if family != "bert" else [ids[0], None, None]
    assert [config.get(f"{name}_token_id") for name in ("pad", "bos", "eos")] == wanted


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
             "AutoModelForQuestionAnswering", "AutoModelForTokenClassification", "AutoModelForMultipleChoice"):
    model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    given = {key: value[:, None] for key, value in batch.items()} if name.endswith("Choice") else batch
    print(type(model).__name__, bool(torch.isfinite(model(**given)[0]).all()))
"""
    assert as_a_stranger(code, folder, home=tmp_path).split("\n") == [
        "[4, 4, 4]",
        "['attention_mask', 'input_ids'] 20 4",
        "['[CLS]', 'early', 'bird', '##s', 'catch', 'the', 'worm', '.', '[SEP]', 'late', '[SEP]']",
        "SlimBertModel True",
        "SlimBertForMaskedLM True",
        "SlimBertForSequenceClassification True",
        "SlimBertForQuestionAnswering True",
        "SlimBertForTokenClassification True",
        "SlimBertForMultipleChoice True",
        "",
    ]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"`AutoModelFor{task}`" in card for task in ("TokenClassification", "MultipleChoice"))


def test_every_class_of_the_compact_folder_becomes_a_graph_that_serves_other_batches(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    shapes = [dense_shape(type_vocab_size=2), dense_shape(position_offset=1), dense_shape("pre", positions="rotary")]
    for number, shape in enumerate(shapes):
        state = read_state(build_model(shape, seed=0))
        export_compact(state, shape, tokenizer_file, tmp_path / f"model{number}")
    code = """
import sys, torch, transformers
from torch.export import Dim, export
transformers.logging.set_verbosity_error()
rows, length = Dim("rows", max=64), Dim("length", max=19)
ids = torch.tensor([[2, 5, 6, 7, 3, 8, 9, 3], [2, 9, 8, 7, 6, 5, 6, 3]])
short = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0], [2, 3, 0, 0, 0]])
tasks = ("SequenceClassification", "QuestionAnswering", "TokenClassification", "MultipleChoice")
plans = [(folder, "MaskedLM") for folder in sys.argv[1:]] + [(sys.argv[1], task) for task in tasks]
for folder, task in plans:
    model = getattr(transformers, "AutoModelFor" + task).from_pretrained(folder, trust_remote_code=True).eval()
    first, sizes = ids, {0: rows, 1: length}
    batch = {"input_ids": short, "attention_mask": short.ne(0).long()}
    if task == "MultipleChoice":
        first, sizes, batch = ids[None], {1: rows, 2: length}, {key: value[None] for key, value in batch.items()}
    # The batch it is made from has no padding: no mask may be dropped on its account.
    graph = export(
        model, (), {"input_ids": first, "attention_mask": torch.ones_like(first)},
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
    ).module()
    found, wanted = graph(**batch), model(**batch)
    print(type(found) is type(wanted), torch.allclose(found[0], wanted[0], atol=1e-5))
"""
    folders = [tmp_path / f"model{number}" for number in range(3)]
    assert as_a_stranger(code, *folders, home=tmp_path) == "True True\n" * 7


def test_pipelines_of_transformers_take_the_compact_folder(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape(type_vocab_size=2)
    folder = tmp_path / "model"
    export_compact(read_state(build_model(shape, seed=0)), shape, tokenizer_file, folder)
    code = """
import io, logging, sys, torch, transformers
from transformers import AutoTokenizer, pipeline
folder, text = sys.argv[1], "the early [MASK] ."
heard = io.StringIO()
logging.getLogger("transformers").handlers[:] = [logging.StreamHandler(heard)]
batch = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)(text, return_tensors="pt")

def of(task):
    found = pipeline(task, model=folder, trust_remote_code=True)
    with torch.no_grad():
        return found(text), found.model.eval()(**batch)[0][0]

found, logits = of("fill-mask")
print(found[0]["token"] == int(logits[batch["input_ids"][0] == 4].argmax()))
found, logits = of("text-classification")
print(abs(found[0]["score"] - float(logits.softmax(-1).max())) < 1e-5)
found, logits = of("token-classification")
print([each["word"] for each in found], found[0]["entity"] == f"LABEL_{int(logits[1].argmax())}")
found, states = of("feature-extraction")
print(torch.allclose(torch.tensor(found[0]), states, atol=1e-5), "not supported" in heard.getvalue())
"""
    assert as_a_stranger(code, folder, home=tmp_path) == (
        "True\nTrue\n['the', 'early', '[MASK]', '.'] True\nTrue False\n"
    )


@pytest.mark.parametrize("types", [0, 2])
def test_the_compact_folder_answers_the_calls_of_sentence_transformers(
    types: int, tokenizer_file: Path, tmp_path: Path
) -> None:
    shape = dense_shape(type_vocab_size=types)
    folder = tmp_path / "model"
    export_compact(read_state(build_model(shape, seed=0)), shape, tokenizer_file, folder)
    code = """
import inspect, sys, torch
from transformers import AutoConfig, AutoModel, AutoTokenizer
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, config=config, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
features = dict(tokenizer(["the early bird", "late"], padding=True, return_tensors="pt"))
features["token_type_ids"] = torch.zeros_like(features["input_ids"])
print(set(features) <= set(inspect.signature(model.forward).parameters), config.hidden_size)
with torch.no_grad():
    output, plain = model(**features, return_dict=True), model(**features, return_dict=False)
print(output[0] is output.last_hidden_state, isinstance(plain, tuple), torch.equal(plain[0], output[0]))
"""
    assert as_a_stranger(code, folder, home=tmp_path) == "True 16\nTrue True True\n"


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
    assert verify_exports([(tmp_path / "expanded", False)], state, shape)[0] <= 1e-5
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
        verify_exports([(folder, True)], other, shape)
    stored = load_file(folder / "model.safetensors")
    del stored["encoder.layers.1.ffn.down.bias"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"cannot be loaded again: the weights do not fit .*ffn\.down\.bias"):
        verify_exports([(folder, True)], state, shape)


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


@pytest.mark.parametrize(
    ("changes", "stock"),
    [
        ({"norm": "post"}, "BertForPreTraining"),
        ({"norm": "post", "position_offset": 1}, "RobertaForMaskedLM"),
        ({"norm": "pre"}, "RobertaPreLayerNormForMaskedLM"),
    ],
)
def test_a_sentence_head_is_exported_where_the_class_has_one(changes, stock, tokenizer_file: Path, tmp_path: Path):
    dense = dense_shape(**changes, type_vocab_size=2, sentence_head=True)
    ticket = ticket_of(dense)
    slim = ticket.slim_shape()
    state = slice_state(read_state(build_model(dense, seed=0)), dense, ticket)
    compact, expanded = tmp_path / "model", tmp_path / "expanded"

    export_compact(state, slim, tokenizer_file, compact, ticket)
    export_expanded(state, slim, ticket, tokenizer_file, expanded)
    assert max(verify_exports([(compact, True), (expanded, False)], state, slim)) <= 1e-5
    assert load_file(compact / "model.safetensors").keys() == state.keys()
    card = (compact / "README.md").read_text(encoding="utf-8")
    assert "`sentence_logits`" in card
    assert f"{slim.num_parameters():,} parameters" in card

    config = json.loads((expanded / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [stock]
    stored = load_file(expanded / "model.safetensors")
    card = (expanded / "README.md").read_text(encoding="utf-8")
    if stock == "BertForPreTraining":
        assert torch.equal(stored["bert.pooler.dense.weight"], state["pooler.dense.weight"])
        assert torch.equal(stored["cls.seq_relationship.bias"], state["sentence.bias"])
        assert "AutoModelForPreTraining.from_pretrained(folder)" in card
        assert f"{slim.num_parameters():,} parameters" in card
    else:
        assert not [name for name in stored if "pooler" in name or "seq_relationship" in name]
        assert f"a sentence head, which is left out: `{stock}` has none." in card
        assert f"{replace(slim, sentence_head=False).num_parameters():,} parameters" in card


def test_strangers_find_the_sentence_head_of_both_folders(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape(type_vocab_size=2, sentence_head=True)
    state = read_state(build_model(shape, seed=0))
    compact, expanded = tmp_path / "model", tmp_path / "expanded"
    export_compact(state, shape, tokenizer_file, compact)
    export_expanded(state, shape, None, tokenizer_file, expanded)
    code = """
import sys, torch, transformers
from safetensors.torch import load_file
compact, expanded = sys.argv[1:]
ids = torch.tensor([[2, 5, 6, 7, 3, 8, 9, 3]])
batch = {"input_ids": ids, "token_type_ids": torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])}
with torch.no_grad():
    ours = transformers.AutoModelForMaskedLM.from_pretrained(compact, trust_remote_code=True)(**batch)
    both = transformers.AutoModelForPreTraining.from_pretrained(expanded)(**batch)
    order = transformers.AutoModelForNextSentencePrediction.from_pretrained(expanded)(**batch)
    masked = transformers.AutoModelForMaskedLM.from_pretrained(expanded)(**batch)
close = lambda a, b: bool(torch.allclose(a, b, atol=1e-5))
print(close(both.seq_relationship_logits, ours.sentence_logits), close(order.logits, ours.sentence_logits))
print(close(both.prediction_logits, ours.logits), close(masked.logits, ours.logits))
classifier = transformers.AutoModelForSequenceClassification.from_pretrained(compact, trust_remote_code=True)
trained = load_file(compact + "/model.safetensors")["pooler.dense.weight"]
print(torch.equal(classifier.pooler.dense.weight, trained))
"""
    assert as_a_stranger(code, compact, expanded, home=tmp_path) == "True True\nTrue True\nTrue\n"


def test_a_masked_lm_class_reads_the_compact_sentence_head_without_a_word(tokenizer_file: Path, tmp_path: Path):
    shape = dense_shape(type_vocab_size=2, sentence_head=True)
    folder = tmp_path / "model"
    export_compact(read_state(build_model(shape, seed=0)), shape, tokenizer_file, folder)
    code = """
import contextlib, io, logging, sys, transformers
heard = io.StringIO()
transformers.logging.set_verbosity_warning()
transformers.logging.disable_progress_bar()
logging.getLogger("transformers").handlers[:] = [logging.StreamHandler(heard)]
with contextlib.redirect_stderr(heard):
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(
        sys.argv[1], trust_remote_code=True, output_loading_info=True
    )
print(any(info.values()), repr(heard.getvalue()))
"""
    assert as_a_stranger(code, folder, home=tmp_path) == "False ''\n"


def test_an_export_whose_sentence_head_differs_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    shape = dense_shape(type_vocab_size=2, sentence_head=True)
    state = read_state(build_model(shape, seed=0))
    compact, expanded = tmp_path / "model", tmp_path / "expanded"
    export_compact(state, shape, tokenizer_file, compact)
    export_expanded(state, shape, None, tokenizer_file, expanded)
    other = {name: value.clone() for name, value in state.items()}
    other["sentence.bias"][1] += 0.01
    with pytest.raises(RuntimeError, match=r"model computes other logits .* 0\.01, .*expanded computes .* 0\.01"):
        verify_exports([(compact, True), (expanded, False)], other, shape)
    without, plain = drop_sentence_head(state, shape)
    with pytest.raises(RuntimeError, match="has a sentence head, against what was trained"):
        verify_exports([(compact, True)], without, plain)
    export_compact(without, plain, tokenizer_file, compact)
    with pytest.raises(RuntimeError, match="has no sentence head, against what was trained"):
        verify_exports([(compact, True)], state, shape)


@pytest.mark.parametrize(("norm", "offset"), [("post", 0), ("post", 2), ("pre", 0)])
def test_a_byte_level_tokenizer_leaves_as_it_is(norm: str, offset: int, tmp_path: Path) -> None:
    """What transformers makes of the exported folders gives the ids of the tokenizer the model was trained with."""
    trained = train_byte_bpe(lambda: ["early birds catch the worm, late birds do not"] * 3, 300)
    trained.save(str(tmp_path / "tokenizer.json"))
    types = 0 if offset else 2
    shape = dense_shape(norm, vocab_size=320, pad_token_id=1, position_offset=offset, type_vocab_size=types)
    state = read_state(build_model(shape, seed=0))
    compact, expanded = tmp_path / "model", tmp_path / "expanded"
    export_compact(state, shape, tmp_path / "tokenizer.json", compact)
    export_expanded(state, shape, None, tmp_path / "tokenizer.json", expanded)
    code = """
import json, sys
from transformers import AutoTokenizer
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    texts = ["early birds", "the <mask>, \\u4eba  \\U0001f426\\n"]
    batch = tokenizer(texts[0], texts[1])
    print(json.dumps([
        [tokenizer(text).input_ids for text in texts], batch.input_ids, batch.get("token_type_ids"),
        tokenizer.decode(tokenizer(texts[1]).input_ids, skip_special_tokens=True), tokenizer.all_special_ids,
    ]))
"""
    texts = ["early birds", "the <mask>, \u4eba  \U0001f426\n"]
    pair = trained.encode(*texts)
    assert [pair.ids.count(number) for number in (0, 2, 4)] == [1, 2, 1]
    assert pair.type_ids == sorted(pair.type_ids)
    wanted = [
        [trained.encode(text).ids for text in texts],
        pair.ids,
        pair.type_ids if types else None,
        "the, \u4eba  \U0001f426\n",
        [0, 1, 2, 3, 4],
    ]
    for line in as_a_stranger(code, compact, expanded, home=tmp_path).removesuffix("\n").split("\n"):
        *found, special = json.loads(line)
        assert [*found, sorted(special)] == wanted
    config = json.loads((compact / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (config["cls_token"], config["mask_token"]) == ("<s>", "<mask>")


def test_a_tokenizer_without_special_tokens_is_not_exported(tmp_path: Path) -> None:
    shape = dense_shape()
    Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(UserError, match=r"tokenizer\.json lacks the special tokens <mask>$"):
        export_compact(read_state(build_model(shape, seed=0)), shape, tmp_path / "tokenizer.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_accents_joiners_and_additional_special_tokens_leave_with_the_folders(norm: str, tmp_path: Path) -> None:
    """A normaliser of our own and added tokens: transformers gives the ids of the file the model was trained with."""
    texts = [
        "Sch\u00d6N m\u00f6chte \u043c\u043e\u0439 [URL] \u0939\u0948",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u304c\xad[URL].",
    ]
    trained = train_wordpiece(lambda: texts * 3, 200)
    trained.add_special_tokens(["[URL]"])
    assert json.loads(trained.to_str())["normalizer"]["type"] == "Sequence"
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    shape = dense_shape(norm, vocab_size=256)
    state = read_state(build_model(shape, seed=0))
    export_compact(state, shape, path, tmp_path / "compact")
    export_expanded(state, shape, None, path, tmp_path / "stock")
    wanted = [trained.encode(text).ids for text in texts]
    assert sum(trained.token_to_id("[URL]") in ids for ids in wanted) == 2
    for folder in ("compact", "stock"):
        theirs = AutoTokenizer.from_pretrained(tmp_path / folder, trust_remote_code=False)
        assert [theirs(text).input_ids for text in texts] == wanted
