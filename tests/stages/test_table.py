"""The command lines of data_prep say what the recipe says, and leave unsaid what it does not."""

import json
from pathlib import Path

import pytest

from data_prep.__main__ import build_parser
from data_prep.errors import UserError
from data_prep.recipe_keys import KEYS
from pipeline.recipes.recipe import parse_recipe
from pipeline.recipes.sections import Corpus
from pipeline.runs.run import Run
from pipeline.stages.table import corpus_commands, make_corpus


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("cased", [None, True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_habits_of_a_vocabulary(tmp_path: Path, loaded: bool, cased: bool | None, strip_accents: bool | None) -> None:
    said = {"cased": cased, "strip_accents": strip_accents}
    corpus: dict[str, object] = {key: value for key, value in said.items() if value is not None}
    if loaded:
        corpus["tokenizer"] = "vocab.txt"
    run = Run.of(tmp_path, "r", parse_recipe({"corpus": corpus}, "test"), {})
    args = build_parser().parse_args(corpus_commands(run)[1])
    assert (args.cased, args.strip_accents) == (cased, strip_accents)
    assert (str(args.load), args.vocab_size) == (("vocab.txt", None) if loaded else ("None", 2048))


@pytest.mark.parametrize("only", [None, "tokenizer"])
def test_a_vocabulary_that_is_not_there_is_told_before_text_is_read(tmp_path: Path, only: str | None) -> None:
    recipe = parse_recipe({"corpus": {"name": "c", "tokenizer": str(tmp_path / "none")}}, "test")
    with pytest.raises(UserError, match=r"corpus\.tokenizer \(.*none\) does not exist"):
        make_corpus(Run.of(tmp_path, "r", recipe, {}), force=False, only=only)
    assert not list(tmp_path.iterdir())


def test_every_option_that_is_passed_has_the_key_it_comes_from(tmp_path: Path) -> None:
    source = {"path": "text", "name": "books", "weight": 2.0}
    passed: set[str] = set()
    for vocabulary in (
        {"tokenizer": "vocab.txt"}, {"cased": True, "strip_accents": True}, {"cased": False, "strip_accents": False}
    ):  # fmt: skip
        corpus = {"sources": [source], "language": "en", **vocabulary}
        for command in corpus_commands(Run.of(tmp_path, "r", parse_recipe({"corpus": corpus}, "test"), {})):
            passed |= {word for word in command if word.startswith("--")}
    assert passed == set(KEYS)
    for key in KEYS.values():
        assert key.partition("corpus.")[2].split(" ")[0] in Corpus.model_fields


def test_messages_of_data_prep_name_keys_of_the_recipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = "".join(json.dumps({"text": f"The {number} ships sailed to sea. " * 9}) + "\n" for number in range(40))
    (tmp_path / "text.jsonl").write_text(texts)
    corpus = {
        "name": "c", "sources": [str(tmp_path / "text.jsonl")], "filters": "none", "dedup": "none",
        "tokenizer_kind": "bpe", "vocab_size": 256,
    }  # fmt: skip
    run = Run.of(tmp_path, "r", parse_recipe({"corpus": corpus}, "test"), {})
    assert make_corpus(run, force=False, only="tokenizer") == 2
    assert "run `python -m pipeline data --only ingest` first" in capfd.readouterr().err
    assert make_corpus(run, force=False) == 2
    said = capfd.readouterr()
    assert "corpus.val_fraction makes it larger" in said.out
    assert "error: corpus.vocab_size 256 is too small" in said.err
    assert not any(option in said.out + said.err for option in KEYS)
