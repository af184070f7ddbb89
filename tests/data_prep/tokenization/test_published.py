"""Folders whose files disagree: our ids are those of transformers' AutoTokenizer, in every script."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertTokenizerFast

from data_prep.errors import UserError
from data_prep.tokenization.files import load_vocabulary
from data_prep.tokenization.habits import Habits, habits_of
from tests.data_prep.vocabularies import BERT_SPECIALS, HARD_TEXTS, save, write_vocab_json, write_vocab_txt

SCRIPTS = [
    "It is a TRUTH, universally acknowledged!",
    "M\u00f6chte Stra\u00dfe \u00dcber",
    "\u0130stanbul \u0131\u015f\u0131k",
    "Ti\u1ebfng Vi\u1ec7t",
    "\u039f\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2",
    "\u041c\u043e\u0439 \u0451\u043b\u043a\u0430",
    "\u0531\u0575\u0562",
    "\u10e5\u10d0\u10e0\u10d7",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "\u0643\u0650\u062a\u0627\u0628",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\u09ac\u09be\u0982\u09b2\u09be",
    "\u0a2a\u0a70\u0a1c\u0a3e\u0a2c\u0a40",
    "\u0a97\u0ac1\u0a9c\u0ab0\u0abe\u0aa4\u0ac0",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    "\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41",
    "\u0c95\u0ca8\u0ccd\u0ca8\u0ca1",
    "\u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02",
    "\u0dc3\u0dd2\u0d82\u0dc4\u0dbd",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\u0ea5\u0eb2\u0ea7",
    "\u1781\u17d2\u1798\u17c2\u179a",
    "\u1019\u103c\u1014\u103a\u1019\u102c",
    "\u0f56\u0f7c\u0f51\u0f0b",
    "\u12a0\u121b\u122d\u129b",
    "\u4eba\u6c11\u65e5\u62a5",
    "\u304b\u304c \u30ac \u65e5\u672c\u8a9e",
    "\ud55c\uad6d\uc5b4",
    "\u1820\u1828\u1833",
    "\u13e3\u13b3\u13a9",
    "\U00010400\U0001f600\u200d\u2764\ufe0f",
    "a [URL] b[USER]c <ent> [MASK] <mask> [SEP]</s>",
    *HARD_TEXTS,
]
EXTRA = {"additional_special_tokens": ["[URL]", "[USER]"]}
# What is in tokenizer_config.json, and the model_type of config.json, where there is one.
BERT_FOLDERS: dict[str, tuple[dict[str, Any] | None, str | None]] = {
    "nothing beside": (None, None),
    "only a model type": (None, "bert"),
    "only a foreign model type": (None, "slim_bert"),
    "class without habits": ({"tokenizer_class": "BertTokenizer"}, None),
    "habits without class": ({"do_lower_case": False}, None),
    "habits and model type": ({"do_lower_case": False, "strip_accents": True}, "distilbert"),
    "class of the file itself": ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, "bert"),
    "old fast class": ({"do_lower_case": True, "strip_accents": False, "tokenizer_class": "BertTokenizerFast"}, None),
    "extra tokens": ({"do_lower_case": True, "tokenizer_class": "BertTokenizer", **EXTRA}, None),
    "added tokens": (
        {
            "tokenizer_class": "BertTokenizer",
            "added_tokens_decoder": {
                "300": {"content": "[URL]", "lstrip": False, "normalized": False, "rstrip": True, "single_word": False,
                        "special": True},
                "301": {"content": "<Ent>", "lstrip": True, "normalized": True, "rstrip": False, "single_word": True,
                        "special": False},
            },
        },
        "bert",
    ),
} | {
    f"{lower}-{strip}-{spaced}": (
        {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": spaced,
         "tokenizer_class": "BertTokenizer"},
        None,
    )
    for lower, strip, spaced in product((True, False), (True, False, None), (True, False))
}  # fmt: skip


SPACED = "every Chinese character a word"
VOCAB_TXT = ["only a model type", "class without habits", "habits and model type", "old fast class", "extra tokens"]


def described(folder: Path, config: dict[str, Any] | None, model_type: str | None, **files: object) -> Path:
    if config is not None:
        files["tokenizer_config"] = config
    if model_type is not None:
        files["config"] = {"model_type": model_type}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def assert_as_transformers(folder: Path, named: Path | None = None, theirs: Any = None) -> None:
    theirs = theirs or AutoTokenizer.from_pretrained(folder)
    ours = load_vocabulary(named or folder).tokenizer
    for text in SCRIPTS:
        for pair in ((text,), (text, "the second")):
            wanted = theirs(*pair, return_token_type_ids=True)
            found = ours.encode(*pair)
            assert (found.ids, found.type_ids) == (wanted.input_ids, wanted.token_type_ids), text


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_vocab_txt(tmp_path_factory.mktemp("bert") / "vocab.txt", lowercase=False, vocab_size=300)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def bert(vocabulary: str, tmp_path: Path) -> Path:
    """A folder with a cased vocab.txt of 300 entries."""
    (tmp_path / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", BERT_FOLDERS)
def test_a_tokenizer_json_and_what_lies_beside_it(bert: Path, name: str) -> None:
    load_vocabulary(bert).tokenizer.save(str(bert / "tokenizer.json"))
    (bert / "vocab.txt").unlink()
    described(bert, *BERT_FOLDERS[name])
    assert_as_transformers(bert)
    assert_as_transformers(bert, bert / "tokenizer.json")


@pytest.mark.parametrize("name", [*list(BERT_FOLDERS)[10:], *VOCAB_TXT])
def test_a_vocab_txt_and_what_lies_beside_it(bert: Path, name: str) -> None:
    assert_as_transformers(described(bert, *BERT_FOLDERS[name]))
    assert load_vocabulary(bert).guessed == ()


def test_a_vocab_txt_with_habits_of_no_class_is_berts(bert: Path) -> None:
    described(bert, {"do_lower_case": True, "tokenize_chinese_chars": False}, None)
    loaded = load_vocabulary(bert, strip_accents=False)
    assert habits_of(loaded.tokenizer) == Habits(True, False, False)
    assert loaded.guessed == ()
    theirs = BertTokenizerFast.from_pretrained(bert, strip_accents=False)
    for text in SCRIPTS:
        assert loaded.tokenizer.encode(text).ids == theirs(text).input_ids
    assert load_vocabulary(bert).guessed == ("accents kept",)


def test_a_class_that_is_nothing_but_a_tokenizer_json_says_nothing_of_other_files(bert: Path) -> None:
    """As in a folder that was saved with a tokenizer.json, of which the vocab.txt is named."""
    described(
        bert, {"do_lower_case": True, "strip_accents": False, "tokenizer_class": "PreTrainedTokenizerFast"}, "bert"
    )
    loaded = load_vocabulary(bert / "vocab.txt")
    assert (habits_of(loaded.tokenizer), loaded.guessed) == (Habits(True, False), (SPACED,))
    described(bert, None, None, tokenizer=json.loads(load_vocabulary(bert).tokenizer.to_str()))
    assert load_vocabulary(bert / "vocab.txt").tokenizer.to_str() == loaded.tokenizer.to_str()


@pytest.mark.parametrize("legacy", ["special_tokens_map", "added_tokens"])
@pytest.mark.parametrize("config", [None, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}])
def test_older_files_have_the_say_that_transformers_gives_them(bert: Path, legacy: str, config) -> None:
    load_vocabulary(bert).tokenizer.save(str(bert / "tokenizer.json"))
    content = EXTRA if legacy == "special_tokens_map" else {"[URL]": 300, "[USER]": 301}
    assert_as_transformers(described(bert, config, None, **{legacy: content}))


@pytest.mark.parametrize(
    ("config", "model_type"),
    [
        (None, "roberta"),
        ({"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}, None),
        ({"add_prefix_space": True}, "roberta"),
        ({"tokenizer_class": "RobertaTokenizerFast", "mask_token": {"__type": "AddedToken", "content": "<mask>",
          "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}}, None),
        ({"tokenizer_class": "RobertaTokenizer", **EXTRA}, "roberta"),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}, "roberta"),
    ],
)  # fmt: skip
def test_robertas_folders(tmp_path: Path, config, model_type) -> None:
    write_vocab_json(tmp_path, with_specials=True)
    if config and config.get("tokenizer_class") == "PreTrainedTokenizerFast":
        save(load_vocabulary(tmp_path).tokenizer, tmp_path / "tokenizer.json")
    described(tmp_path, config, model_type)
    assert_as_transformers(tmp_path)


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "GPT2Tokenizer"}])
def test_gpt2s_prefix_is_heeded_and_its_missing_tokens_added(tmp_path: Path, config: dict[str, Any]) -> None:
    path = write_vocab_json(tmp_path, with_specials=False)
    described(tmp_path, {**config, "add_prefix_space": True}, None)
    loaded = load_vocabulary(path)
    assert len(loaded.appended) == 5
    theirs = AutoTokenizer.from_pretrained(tmp_path, **({} if config else {"tokenizer_type": "gpt2"}))
    ids = loaded.tokenizer.get_vocab()
    for text in SCRIPTS[:-1]:
        if "mask" not in text:
            assert loaded.tokenizer.encode(text).ids == [ids["<s>"], *theirs(text).input_ids, ids["</s>"]]


def test_keys_decide_what_no_file_says_and_are_refused_where_one_does(bert: Path) -> None:
    described(bert, {"tokenizer_class": "BertTokenizer", "do_lower_case": True}, None)
    assert habits_of(load_vocabulary(bert).tokenizer) == Habits(True, True)
    assert habits_of(load_vocabulary(bert, strip_accents=False).tokenizer) == Habits(True, False)
    assert habits_of(load_vocabulary(bert, False, True).tokenizer) == Habits(True, True)
    with pytest.raises(UserError) as caught:
        load_vocabulary(bert, cased=True)
    config = bert / "tokenizer_config.json"
    assert str(caught.value) == (
        f"--cased (corpus.cased true) contradicts {config} (do_lower_case true), which makes it false; leave it away "
        "to take the vocabulary as it is, or change the file"
    )
    config.unlink()
    described(bert, None, "bert")
    assert habits_of(load_vocabulary(bert, cased=True).tokenizer) == Habits(False, False)
    (bert / "config.json").unlink()
    assert load_vocabulary(bert).guessed == ("cased", "accents kept", SPACED)
    for cased, strip in product((True, False), repeat=2):
        loaded = load_vocabulary(bert, cased, strip)
        assert (habits_of(loaded.tokenizer), loaded.guessed) == (Habits(not cased, strip), (SPACED,))
    save(load_vocabulary(bert).tokenizer, bert / "tokenizer.json")
    assert habits_of(load_vocabulary(bert, True, False).tokenizer) == Habits(False, False)
    with pytest.raises(
        UserError, match=r"--strip-accents \(corpus.strip_accents true\) contradicts .*tokenizer.json, "
    ):
        load_vocabulary(bert, strip_accents=True)
    with pytest.raises(
        UserError, match=r"--no-cased \(corpus.cased false\) contradicts .*vocab.json, which makes it true"
    ):
        load_vocabulary(write_vocab_json(bert / "bytes", True), cased=False)


def test_the_hash_is_of_all_files_that_have_a_say(bert: Path) -> None:
    hashes = {load_vocabulary(bert).sha256}
    for lower in (True, False):
        described(bert, {"do_lower_case": lower}, None)
        hashes.add(load_vocabulary(bert).sha256)
    assert len(hashes) == 3
    # Another name is no folder of transformers.
    (bert / "mine.txt").write_bytes((bert / "vocab.txt").read_bytes())
    assert load_vocabulary(bert / "mine.txt").guessed == ("cased", "accents kept", SPACED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"tokenizer_config\.json is not valid JSON"),
        ("[]", r"tokenizer_config\.json is not a JSON object"),
        ('{"tokenizer_class": "NoSuchTokenizer"}', r"transformers cannot read .*vocab\.txt with what lies beside it: "),
        ('{"auto_map": {"AutoTokenizer": ["x.T", null]}, "tokenizer_class": "T"}', r"transformers cannot read .*vocab"),
        ('{"tokenizer_class": "CanineTokenizer"}', r"as CanineTokenizer, which is not of the tokenizers library"),
    ],
)
def test_what_transformers_cannot_read_is_one_line(bert: Path, content: str, message: str) -> None:
    (bert / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(bert)
    assert "\n" not in str(caught.value)


def test_special_tokens_of_the_class_are_needed_too(bert: Path) -> None:
    described(bert, {"tokenizer_class": "BertTokenizer", "mask_token": "[GAP]"}, None)
    assert load_vocabulary(bert).tokenizer.token_to_id("[GAP]") is not None
    assert load_vocabulary(bert).tokenizer.token_to_id("[MASK]") == BERT_SPECIALS.index("[MASK]")


def test_a_class_that_does_not_read_the_named_file_is_refused(bert: Path) -> None:
    """Its tokenizer would have five entries."""
    described(bert, None, "roberta")
    with pytest.raises(UserError, match=r"vocab\.txt and what lies beside it that lacks \d+ of its 300 entries"):
        load_vocabulary(bert)
