"""Messages name options on data_prep's own command line, and the recipe's keys where the pipeline asks for them."""

from pathlib import Path

import pytest

from data_prep.__main__ import main
from data_prep.recipe_keys import in_recipe_keys


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--val-fraction is 2.0, wanted", "corpus.val_fraction is 2.0, wanted"),
        ("raise --vocab-size (corpus.vocab_size): single", "raise corpus.vocab_size: single"),
        ("train it with --kind bpe (corpus.tokenizer_kind), or", "train it with corpus.tokenizer_kind bpe, or"),
        ("--no-cased (corpus.cased false) contradicts", "corpus.cased = false contradicts"),
        ("--no-cased (corpus.cased = false) is for", "corpus.cased = false is for"),
        (
            "--cased and --strip-accents (corpus.cased, corpus.strip_accents), or their --no- forms",
            "corpus.cased and corpus.strip_accents",
        ),
        (
            "run `python -m data_prep ingest --source ... --out c` first",
            "run `python -m pipeline data --only ingest` first",
        ),
        ("pass --force, fewer --workers", "pass --force, fewer --workers"),
        ('(corpus.verify = "full" would have told', '(corpus.verify = "full" would have told'),
        ("a--source, --sources and ---source", "a--source, --sources and ---source"),
    ],
)
def test_options_become_keys(text: str, told: str) -> None:
    assert in_recipe_keys(text) == told


def test_only_who_asks_is_told_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ingest", "--source", str(tmp_path), "--out", str(tmp_path / "c"), "--val-fraction", "2"]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("error: --val-fraction is 2.0")
    assert main(["--recipe-keys", *command]) == 2
    assert capsys.readouterr().err.startswith("error: corpus.val_fraction is 2.0")
