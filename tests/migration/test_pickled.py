"""Old model folders: the same numbers come out, nothing of the folder runs, and nothing half is left behind."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from data_prep.errors import UserError
from pipeline.__main__ import main
from pipeline.migration.pickled import convert
from pipeline.objectives.classification import read_tokenizer

LOWER = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "film", "the", "##s"]
CASED = [*LOWER, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "The", "Film"]
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "max_position_embeddings": 20,
}  # fmt: skip
RAN = "the folder's code ran"


def former(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that the first PyTorch files had."""
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    found = {}
    for name, tensor in state.items():
        end = ".".join(name.split(".")[-2:])
        found[name.removesuffix(end) + names.get(end, end)] = tensor
    return found


def old_bert(folder: Path, words: list[str] = LOWER, without: tuple[str, ...] = ()) -> BertForMaskedLM:
    """A BERT as it was published in 2019: a pickle, config.json and vocab.txt."""
    folder.mkdir()
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SMALL, vocab_size=len(words))).eval()
    torch.save(former(model.state_dict()), folder / "pytorch_model.bin")
    config = {key: value for key, value in model.config.to_dict().items() if key not in without}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return model


def test_an_old_bert_computes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = old_bert(tmp_path / "old", without=("model_type", "architectures"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "deep" / "new")]) == 0
    shown = capsys.readouterr().out
    assert "renamed gamma and beta of LayerNorms to weight and bias (12 tensors)" in shown
    assert "added model_type 'bert'" in shown
    new = tmp_path / "deep" / "new"
    assert sorted(path.name for path in new.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert list(new.parent.iterdir()) == [new]
    state = load_file(new / "model.safetensors")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(new)
    batch = tokenizer("The FILM", "thes", return_tensors="pt")
    assert batch["input_ids"].tolist() == [[2, 32, 31, 3, 32, 33, 3]]
    stock = AutoModel.from_pretrained(new).eval()
    torch.testing.assert_close(stock(**batch).last_hidden_state, model.bert(**batch).last_hidden_state)
    assert read_tokenizer(new, len(LOWER)).get_vocab_size() == len(LOWER)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}


@pytest.mark.parametrize(
    ("words", "said", "ids", "is_guess"),
    [
        (LOWER, None, [32, 31], True),
        (CASED, None, [LOWER.index("##s") + 27, LOWER.index("##s") + 28], True),
        (CASED, False, [LOWER.index("##s") + 27, LOWER.index("##s") + 28], False),
        (CASED, True, [32, 31], False),
    ],
)
def test_case_is_what_the_files_say_or_a_guess_that_is_told(
    words: list[str], said: bool | None, ids: list[int], is_guess: bool, tmp_path: Path
) -> None:
    old_bert(tmp_path / "old", words)
    if said is not None:
        (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": said}))
    lines = convert(tmp_path / "old", tmp_path / "new")
    assert AutoTokenizer.from_pretrained(tmp_path / "new")("The Film", add_special_tokens=False)["input_ids"] == ids
    assert any(line.startswith("guessed") for line in lines) == is_guess


def test_a_roberta_with_its_two_files(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    symbols = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 324))]
    vocab = {entry: number for number, entry in enumerate(["<s>", "<pad>", "</s>", "<unk>", *symbols, "ab", "<mask>"])}
    model = RobertaForMaskedLM(RobertaConfig(**SMALL, vocab_size=len(vocab), pad_token_id=1))
    torch.save(model.state_dict(), old / "pytorch_model.bin")
    model.config.save_pretrained(old)
    (old / "vocab.json").write_text(json.dumps(vocab))
    (old / "merges.txt").write_text("#version: 0.2\na b\n")
    convert(old, tmp_path / "new")
    tokenizer = read_tokenizer(tmp_path / "new", len(vocab))
    assert tokenizer.encode("ab", "c").ids == [0, vocab["ab"], 2, 2, vocab["c"], 2]


def test_code_of_the_folder_is_neither_run_nor_copied(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old_bert(old)
    (old / "theirs.py").write_text(f"raise SystemExit({RAN!r})\n")
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "theirs.Config"}}))
    said = {"tokenizer_class": "BertTokenizer", "auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None]}}
    (old / "tokenizer_config.json").write_text(json.dumps(said))
    lines = convert(old, tmp_path / "new")
    assert any("auto_map" in line for line in lines)
    for path in (tmp_path / "new").glob("*.json"):
        assert "theirs" not in path.read_text(), path
    (old / "tokenizer_config.json").write_text(json.dumps(said | {"tokenizer_class": "Theirs"}))
    with pytest.raises(UserError, match="transformers cannot read the tokenizer in"):
        convert(old, tmp_path / "other")


class Runs:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return eval, (f"exec('raise SystemExit({RAN!r})')",)


def save(value: Any) -> Callable[[Path], None]:
    return lambda old: torch.save(value, old / "pytorch_model.bin")


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(old: Path) -> None:
        (old / name).write_bytes(content)

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda old: (old / name).unlink()


def twice(old: Path) -> None:
    state = torch.load(old / "pytorch_model.bin", weights_only=True)
    name = "bert.embeddings.LayerNorm"
    torch.save(state | {f"{name}.weight": state[f"{name}.gamma"]}, old / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (save({"weight": Runs()}), "holds more than tensors, or is damaged: .*refuses it .*eval"),
        (write("pytorch_model.bin", pickle.dumps({"weight": Runs()})), "weights_only=True.* refuses it"),
        (write("pytorch_model.bin", b""), "weights_only=True.* refuses it"),
        (write("pytorch_model.bin", b"PK\3\4 torn"), "is damaged: .* refuses it"),
        (save({"epoch": 3, "model": {}}), "holds epoch, model, which are not plain tensors"),
        (save([torch.ones(1)]), "holds a list, wanted tensors by name"),
        (twice, r"bert\.embeddings\.LayerNorm\.weight twice"),
        (remove("config.json"), r"has no config\.json"),
        (write("config.json", b"{"), "not valid JSON"),
        (write("config.json", b'{"model_type": "electra"}'), "old cannot be trained: .*'electra'"),
        (remove("vocab.txt"), r"has no vocabulary: wanted is one of tokenizer\.json, vocab\.txt, vocab\.json with"),
        (write("vocab.txt", b"the\nfilm\n"), r"vocab\.txt lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
        (write("vocab.txt", "\n".join([*LOWER, "more"]).encode()), "gives ids up to 34, but the model .* has 34"),
        (remove("pytorch_model.bin"), r"has no pytorch_model\.bin to convert"),
    ],
)
def test_what_is_refused_leaves_nothing(spoil: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    old_bert(tmp_path / "old")
    spoil(tmp_path / "old")
    with pytest.raises(UserError, match=words) as caught:
        convert(tmp_path / "old", tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert "partial" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_folders_that_need_no_conversion_or_are_in_the_way(tmp_path: Path) -> None:
    old_bert(tmp_path / "old")
    convert(tmp_path / "old", tmp_path / "new")
    before = (tmp_path / "new" / "model.safetensors").stat()
    with pytest.raises(UserError, match="new exists already"):
        convert(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new" / "model.safetensors").stat() == before
    with pytest.raises(UserError, match="has safetensors already"):
        convert(tmp_path / "new", tmp_path / "more")
    with pytest.raises(UserError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "more")
