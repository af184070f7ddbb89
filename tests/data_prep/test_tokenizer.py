import json
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer

from data_prep import tokenizer as stage
from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.documents import Document, read_documents
from data_prep.manifest import UserError, read_manifest, sha256_file
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
from data_prep.tokenization.vocabulary import bert_tokenizer, word_piece
from data_prep.tokenizer import finished_tokenizer, make_tokenizer, measure, open_tokenizer
from tests.data_prep.vocabularies import BERT_SPECIALS, HARD_TEXTS, texts, write_vocab_json, write_vocab_txt


@pytest.fixture(scope="module")
def finished(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus with clean text and a vocabulary of 160, that tests do not change."""
    corpus = Corpus(tmp_path_factory.mktemp("corpora") / "tokenized")
    options = ["--val-fraction", "0.1", "--filters", "none", "--workers", "1"]
    assert main(["ingest", "--source", str(raw), "--out", str(corpus.root), *options]) == 0
    make_tokenizer(corpus, 160)
    return corpus


@pytest.fixture
def clean(finished: Corpus, tmp_path: Path) -> Corpus:
    """A corpus of its own that ends with clean text."""
    shutil.copytree(finished.clean, tmp_path / "corpus" / "clean")
    return Corpus(tmp_path / "corpus")


def made(corpus: Corpus) -> tuple[Tokenizer, dict]:
    """What the stage left behind, as it is on disk."""
    manifest = read_manifest(corpus.tokenizer)
    assert manifest is not None
    return Tokenizer.from_file(str(corpus.tokenizer_file)), manifest


def test_measures_worked_out_by_hand() -> None:
    vocab = {entry: number for number, entry in enumerate([*BERT_SPECIALS, "sea", "##s", "!", "a"])}
    documents = [Document("book", "1", "seas sea!"), Document("book", "2", "other \u4eba a")]
    found = measure(bert_tokenizer(word_piece(vocab), lowercase=True), documents)
    # sea ##s sea ! | [UNK] [UNK] a: 9 + 9 characters, the ideograph is 3 bytes
    assert found == {
        "tokens_per_word": 7 / 5,
        "tokens_per_character": 7 / 18,
        "tokens_per_byte": 7 / 20,
        "unknown_rate": 2 / 7,
        "single_character_rate": 3 / 7,
    }
    assert measure(train_byte_bpe(lambda: [], 261), documents)["unknown_rate"] == 0
    assert measure(train_byte_bpe(lambda: [], 261), documents)["single_character_rate"] == 1
    assert set(measure(train_byte_bpe(lambda: [], 261), []).values()) == {0}


def test_manifest_tells_kind_vocabulary_specials_and_measures(finished: Corpus) -> None:
    tokenizer, manifest = made(finished)
    results = manifest["results"]
    assert results["kind"] == "wordpiece"
    assert results["vocab_size"] == tokenizer.get_vocab_size() <= 160
    assert results["special_tokens"] == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert list(results["special_token_texts"].values()) == sorted(BERT_SPECIALS)
    assert results["special_token_texts"]["sep"] == "[SEP]"
    assert results["appended_special_tokens"] == []
    assert results["sha256"] == sha256_file(finished.tokenizer_file)
    measures = measure(tokenizer, read_documents(finished.clean, "val"))
    assert {key: results[key] for key in measures} == measures
    assert manifest["settings"] == {
        "kind": "wordpiece", "lowercase": True, "max_alphabet": 256, "training_characters": 1 << 28, "vocab_size": 160
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "lowercase"), [("wordpiece", True), ("wordpiece", False), ("bpe", True)])
def test_the_stage_trains_on_the_train_split(clean: Corpus, kind, lowercase, capsys) -> None:
    make_tokenizer(clean, 270, kind, lowercase)
    tokenizer, manifest = made(clean)
    train = [document.text for document in read_documents(clean.clean, "train")]
    wanted = train_byte_bpe(lambda: train, 270) if kind == "bpe" else train_wordpiece(lambda: train, 270, lowercase)
    assert tokenizer.to_str() == wanted.to_str()
    results = manifest["results"]
    assert results["kind"] == kind
    assert results["special_token_texts"]["mask"] == ("<mask>" if kind == "bpe" else "[MASK]")
    assert results["unknown_rate"] == 0
    line = (
        f"tokenizer: {kind}, {results['vocab_size']:,} entries; on val {results['tokens_per_word']:.3f} tokens a word"
    )
    assert line in capsys.readouterr().out
    before = clean.tokenizer_file.stat().st_mtime_ns
    make_tokenizer(clean, 270, kind, lowercase)
    assert "done and unchanged, skipped" in capsys.readouterr().out
    assert clean.tokenizer_file.stat().st_mtime_ns == before
    other = r"kind: 'bpe' -> 'wordpiece'" if kind == "bpe" else f"lowercase: {lowercase} -> {not lowercase}"
    with pytest.raises(UserError, match=other):
        make_tokenizer(clean, 270, "wordpiece", not lowercase)


def test_training_reads_so_many_characters_and_no_more(clean: Corpus, monkeypatch) -> None:
    train = "".join(document.text for document in read_documents(clean.clean, "train"))
    for limit in (1, 7_000, len(train) - 1, len(train), len(train) + 1):
        monkeypatch.setattr(stage, "TRAINING_CHARACTERS", limit)
        assert "".join(stage._training_texts(clean)) == train[:limit]


def test_the_stage_takes_files_as_they_are(clean: Corpus, tmp_path: Path, capsys) -> None:
    path = write_vocab_txt(tmp_path / "vocab.txt", vocab_size=500)
    make_tokenizer(clean, None, load=path)
    tokenizer, manifest = made(clean)
    assert tokenizer.get_vocab_size() == manifest["results"]["vocab_size"] == 500
    assert manifest["settings"] == {"kind": "loaded", "vocab_size": None}
    assert manifest["inputs"]["loaded_sha256"] == sha256_file(path)
    gpt = write_vocab_json(tmp_path / "gpt2", with_specials=False).parent
    with pytest.raises(UserError, match=r"inputs\.loaded_sha256"):
        make_tokenizer(clean, None, load=gpt)
    make_tokenizer(clean, None, load=gpt, force=True)
    tokenizer, manifest = made(clean)
    results = manifest["results"]
    assert (results["kind"], results["vocab_size"], results["unknown_rate"]) == ("bpe", 800, 0)
    assert results["special_tokens"] == {"cls": 795, "pad": 796, "sep": 797, "unk": 798, "mask": 799}
    assert results["appended_special_tokens"] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert f"{gpt} lacks <s> <pad> </s> <unk> <mask>: added as the last 5 ids\n" in capsys.readouterr().out
    make_tokenizer(clean, 800, load=clean.tokenizer_file, force=True)
    assert Tokenizer.from_file(str(clean.tokenizer_file)).to_str() == tokenizer.to_str()


def test_mistakes_leave_nothing_behind(clean: Corpus, tmp_path: Path) -> None:
    path = write_vocab_txt(tmp_path / "vocab.txt", vocab_size=500)
    for arguments, message in (
        ({"vocab_size": None}, r"either --vocab-size N \(train a vocabulary\) or --load FILE"),
        ({"vocab_size": 9}, r"--vocab-size 9 is too small"),
        ({"vocab_size": 260, "kind": "bpe"}, r"the 256 bytes alone take 261 entries"),
        ({"vocab_size": 501, "load": path}, r"--vocab-size 501 differs from the 500 entries of .*vocab\.txt"),
        ({"vocab_size": None, "load": tmp_path / "none"}, r"none is not a file or folder"),
    ):
        with pytest.raises(UserError, match=message):
            make_tokenizer(clean, **arguments)
    assert sorted(each.name for each in clean.root.iterdir()) == ["clean"]


def test_a_text_that_yields_too_few_entries_is_said(clean: Corpus, capsys) -> None:
    make_tokenizer(clean, 5000, "bpe")
    entries = made(clean)[1]["results"]["vocab_size"]
    assert entries < 5000
    assert f"the text yields no more than {entries:,} of 5,000 entries" in capsys.readouterr().out


def test_special_tokens_in_the_text_of_a_corpus_are_text(finished: Corpus) -> None:
    tokenizer, results = finished_tokenizer(finished)
    text = "the sea [SEP] the [MASK] [CLS][PAD]"
    specials = set(results["special_tokens"].values()) - {results["special_tokens"]["unk"]}
    assert not specials & set(tokenizer.encode(text, add_special_tokens=False).ids)
    assert not specials & set(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)
    plain = Tokenizer.from_file(str(finished.tokenizer_file))
    assert specials < set(plain.encode(text, add_special_tokens=False).ids)
    # The reason for opening it in every process:
    assert not pickle.loads(pickle.dumps(tokenizer)).encode_special_tokens  # noqa: S301
    with pytest.raises(UserError, match=r"tokenizer\.json is corrupt: sha256 recorded 0, found .*tokenizer again with"):
        open_tokenizer(finished.tokenizer_file, "0")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    path.write_text(train_byte_bpe(lambda: ["the sea </s> <mask>"] * 3 + HARD_TEXTS, 300).to_str(), encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["added_tokens"][4]["lstrip"]
    return open_tokenizer(path, sha256_file(path))


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_a_byte_level_corpus_loses_nothing(bpe: Tokenizer, text: str) -> None:
    """Not even where the text holds what looks like special tokens, and the space before <mask>."""
    for each in (text, f"a <mask>{text} </s><s> <unk>"):
        ids = bpe.encode(each, add_special_tokens=False).ids
        assert min(ids, default=5) > 4
        assert bpe.decode(ids, skip_special_tokens=False) == each
