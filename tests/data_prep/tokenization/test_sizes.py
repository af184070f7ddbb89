"""The number of entries that files alone tell is that of the tokenizer that is made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from data_prep.tokenization.files import load_vocabulary
from data_prep.tokenization.sizes import count_entries
from data_prep.tokenization.vocabulary import vocabulary_size
from tests.data_prep.vocabularies import save, write_vocab_json, write_vocab_txt

EXTRA = {"additional_special_tokens": ["[URL]", "[USER]", "[MASK]"]}
GAP = {"mask_token": {"__type": "AddedToken", "content": "[GAP]", "lstrip": False, "normalized": False,
       "rstrip": False, "single_word": False}}  # fmt: skip
DECODER = {"added_tokens_decoder": {"300": {"content": "[URL]", "lstrip": False, "normalized": False, "rstrip": True,
           "single_word": False, "special": True}}}  # fmt: skip
BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_vocab_txt(tmp_path_factory.mktemp("bert") / "vocab.txt", vocab_size=300).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
    ("beside", "size"),
    [
        ({}, 300),
        ({"config": {"model_type": "bert"}}, 300),
        ({"tokenizer_config": BERT | EXTRA}, 302),
        ({"tokenizer_config": BERT | GAP}, 301),
        ({"tokenizer_config": BERT | DECODER}, 301),
        ({"tokenizer_config": BERT, "special_tokens_map": EXTRA}, 302),
        ({"tokenizer_config": BERT, "added_tokens": {"[URL]": 300, "[USER]": 301}}, 302),
    ],
)
def test_bert(vocabulary: str, tmp_path: Path, kind: str, beside: dict[str, Any], size: int) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text(vocabulary, encoding="utf-8")
    if kind == "tokenizer.json":
        save(load_vocabulary(path).tokenizer, tmp_path / kind)
        path.unlink()
    for name, content in beside.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    for named in (tmp_path, tmp_path / kind):
        assert count_entries(named) == size == vocabulary_size(load_vocabulary(named).tokenizer)


@pytest.mark.parametrize("with_specials", [True, False])
def test_bytes(tmp_path: Path, with_specials: bool) -> None:
    path = write_vocab_json(tmp_path, with_specials)
    assert count_entries(path) == count_entries(tmp_path) == vocabulary_size(load_vocabulary(path).tokenizer) == 800


def test_what_has_no_entries_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match=r"vocab\.json has no entries"):
        count_entries(tmp_path)
    with pytest.raises(UserError, match="is not a file or folder"):
        count_entries(tmp_path / "none")
