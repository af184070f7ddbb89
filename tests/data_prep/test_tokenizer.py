import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

import data_prep
from data_prep.documents import Document, read_documents
from data_prep.manifest import UserError, read_manifest
from data_prep.tokenizer import load_tokenizer, measure, special_ids, train_wordpiece
from tests.data_prep.conftest import story

TEXTS = [story(number, 20) + " Zo\u00eb, na\u00efve! \u4eba\u4eba don't" for number in range(8)]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NOVEL = Path(data_prep.__file__).parent / "samples" / "persuasion.txt"
TRAIN = """
import pathlib, sys
from data_prep.tokenizer import train_wordpiece
texts = pathlib.Path(sys.argv[1]).read_text().split("\\n\\n")
sys.stdout.write(train_wordpiece(lambda: texts[::int(sys.argv[2])], 500).to_str())
"""


def test_training_gives_the_same_bytes_in_every_process_and_order() -> None:
    """The trainer of `tokenizers` alone gives another vocabulary every time: its hash tables are seeded anew."""
    made = {
        subprocess.run(
            [sys.executable, "-c", TRAIN, NOVEL, order],
            capture_output=True,
            check=True,
            cwd=Path(data_prep.__file__).parents[1],
            env={**os.environ, "RAYON_NUM_THREADS": threads},
        ).stdout
        for order, threads in (("1", "1"), ("-1", "2"), ("1", "2"), ("-1", "1"))
    }
    assert len(made) == 1
    assert Tokenizer.from_str(made.pop().decode()).get_vocab_size() == 500


def test_trained_tokenizer_is_berts_kind() -> None:
    tokenizer = train_wordpiece(lambda: TEXTS, 120)
    assert 90 < tokenizer.get_vocab_size() <= 120
    assert [tokenizer.id_to_token(number) for number in range(5)] == SPECIALS
    encoded = tokenizer.encode("The NA\u00cfVE whale, don't \u4ebaq", add_special_tokens=True)
    assert encoded.tokens[:2] == ["[CLS]", "the"]
    assert encoded.tokens[-3:] == ["\u4eba", "[UNK]", "[SEP]"]
    assert [part for part in encoded.tokens if not part.startswith("##")].count(",") == 1
    assert tokenizer.decode(tokenizer.encode("captain upon deck").ids) == "captain upon deck"
    pair = tokenizer.encode("sea", "ship")
    assert pair.type_ids == sorted(pair.type_ids)
    assert pair.tokens.count("[SEP]") == 2
    assert tokenizer.encode("a [MASK] b").ids.count(4) == 1


def test_vocabulary_too_small_for_the_alphabet_is_refused() -> None:
    with pytest.raises(UserError, match=r"--vocab-size 20 is too small: 5 special tokens and .* take \d+ entries"):
        train_wordpiece(lambda: TEXTS, 20)


def test_measures_worked_out_by_hand() -> None:
    tokenizer = load_tokenizer_of([*SPECIALS, "sea", "##s", "!"])
    documents = [Document("book", "1", "seas sea!"), Document("book", "2", "other")]
    assert measure(tokenizer, documents) == {"tokens_per_word": 5 / 3, "unknown_rate": 1 / 5}


def load_tokenizer_of(entries: list[str]) -> Tokenizer:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(entries) + "\n", encoding="utf-8")
        return load_tokenizer(path)


def test_vocab_txt_keeps_its_ids_and_its_case() -> None:
    tokenizer = load_tokenizer_of(["[unused0]", "sea", *SPECIALS, "\u2028", "##s"])
    assert special_ids(tokenizer, "x") == {"pad": 2, "unk": 3, "cls": 4, "sep": 5, "mask": 6}
    assert tokenizer.encode("SEAS").ids == [4, 1, 8, 5]
    cased = load_tokenizer_of([*SPECIALS, "Sea", "sea"])
    assert cased.encode("Sea sea SEA", add_special_tokens=False).ids == [5, 6, 1]


def test_tokenizer_json_is_taken_as_it_is(tmp_path: Path) -> None:
    made = train_wordpiece(lambda: TEXTS, 120)
    made.enable_truncation(4)
    made.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    loaded = load_tokenizer(path)
    assert loaded.get_vocab() == made.get_vocab()
    assert len(loaded.encode("the sea ship captain whale night").ids) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\nsea\n", r"lacks the special tokens \[CLS\], \[SEP\], \[MASK\]"),
        ("\n".join([*SPECIALS, "a", "a"]).encode(), r"repeats 1 entries, the first is 'a'"),
        (b'{"version": "1.0"}', r"not a tokenizer\.json"),
        (b"caf\xe9", r"not UTF-8 \(byte offset 3\)"),
        (Tokenizer(models.BPE(vocab={"<pad>": 0}, merges=[])).to_str().encode(), r"lacks the special tokens \[PAD\]"),
    ],
)
def test_bad_vocabulary_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocab"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(path)


def test_manifest_tells_vocabulary_and_specials(corpus: Path) -> None:
    manifest = read_manifest(corpus / "tokenizer")
    assert manifest is not None
    results = manifest["results"]
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer" / "tokenizer.json"))
    assert results["vocab_size"] == tokenizer.get_vocab_size() <= 160
    assert results["special_tokens"] == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert {key: results[key] for key in ("tokens_per_word", "unknown_rate")} == measure(
        tokenizer, read_documents(corpus / "clean", "val")
    )
