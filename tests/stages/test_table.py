"""The command lines of data_prep say what the recipe says, and leave unsaid what it does not."""

from pathlib import Path

import pytest

from data_prep.__main__ import build_parser
from data_prep.errors import UserError
from pipeline.recipes.recipe import parse_recipe
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
