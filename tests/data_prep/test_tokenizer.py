import json
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from data_prep import tokenizer as stage
from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.documents import Document, read_documents
from data_prep.errors import UserError
from data_prep.files import sha256_file
from data_prep.manifest import read_manifest
from data_prep.rows.shards import ShardReader
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
    found = measure(bert_tokenizer(word_piece(vocab), normalizers.BertNormalizer(lowercase=True)), documents)
    # sea ##s sea ! | [UNK] [UNK] a: 9 + 9 characters, the ideograph is 3 bytes
    assert found == {
        "tokens_per_word": 7 / 5,
        "tokens_per_character": 7 / 18,
        "tokens_per_byte": 7 / 20,
        "unknown_rate": 2 / 7,
        "single_character_rate": 3 / 7,
        "lost_rate": 6 / 15,
        "lost_long_rate": 0,
        "lost_words": [["other", 1], ["\u4eba", 1]],
        "letters": 14,
        "changed_letters": 0,
        "letter_changes": [],
    }
    assert measure(train_byte_bpe(lambda: [], 261), documents)["unknown_rate"] == 0
    assert measure(train_byte_bpe(lambda: [], 261), documents)["single_character_rate"] == 1
    nothing = measure(train_byte_bpe(lambda: [], 261), [])
    assert (nothing.pop("lost_words"), nothing.pop("letter_changes")) == ([], [])
    assert set(nothing.values()) == {0}


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
        "kind": "wordpiece", "lowercase": True, "strip_accents": False, "alphabet": [256, 0.25, 0.9995],
        "training_characters": 1 << 28, "vocab_size": 160,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "cased"), [("wordpiece", False), ("wordpiece", True), ("bpe", None)])
def test_the_stage_trains_on_the_train_split(clean: Corpus, kind, cased, capsys) -> None:
    make_tokenizer(clean, 270, kind, cased)
    tokenizer, manifest = made(clean)
    train = [document.text for document in read_documents(clean.clean, "train")]
    wanted = train_byte_bpe(lambda: train, 270) if kind == "bpe" else train_wordpiece(lambda: train, 270, not cased)
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
    make_tokenizer(clean, 270, kind, cased)
    assert "done and unchanged, skipped" in capsys.readouterr().out
    assert clean.tokenizer_file.stat().st_mtime_ns == before
    other = r"kind: 'bpe' -> 'wordpiece'" if kind == "bpe" else f"lowercase: {not cased} -> {cased}"
    with pytest.raises(UserError, match=other):
        make_tokenizer(clean, 270, "wordpiece", not cased)


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
    assert manifest["settings"] == {"kind": "loaded", "vocab_size": None, "cased": None, "strip_accents": None}
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


def tiny(folder: Path, *texts: str) -> Corpus:
    """A corpus of these texts, whose last one is the validation split."""
    corpus = Corpus(folder)
    source = folder.with_suffix(".jsonl")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n, text in enumerate(texts * 20)))
    options = ["--val-fraction", "0.3", "--filters", "none", "--dedup", "none", "--min-characters", "1"]
    assert main(["ingest", "--source", str(source), "--out", str(corpus.root), *options, "--workers", "1"]) == 0
    return corpus


def printed(corpus: Corpus, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """What the stage prints when it is called with these options."""
    capsys.readouterr()
    assert main(["tokenizer", "--corpus", str(corpus.root), "--force", *options]) == 0
    return [line.removeprefix("tokenizer: ") for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tiny(tmp_path_factory.mktemp("german") / "g", "Ich m\u00f6chte sch\u00f6n schlafen f\u00fcr dich")


def test_training_keeps_accents_and_says_what_is_changed(german: Corpus, capsys) -> None:
    lines = printed(german, capsys, "--vocab-size", "100")
    assert len(lines) == 2
    assert lines[0].startswith("wordpiece, ")
    assert "0.000% of the characters lost" in lines[0]
    assert lines[1].startswith("the text yields no more than ")
    tokenizer, _ = made(german)
    assert tokenizer.decode(tokenizer.encode("SCH\u00d6N").ids) == "sch\u00f6n"
    lines = printed(german, capsys, "--vocab-size", "100", "--strip-accents")
    documents = sum(1 for _ in read_documents(german.clean, "val"))
    share = 3 / len("Ichm\u00f6chtesch\u00f6nschlafenf\u00fcrdich")
    assert lines[1] == (
        f"{3 * documents:,} letters ({share:.2%}) are changed apart from case: \u00f6 to o {2 * documents:,} times, "
        f"\u00fc to u {documents:,} times"
    )
    tokenizer, manifest = made(german)
    assert tokenizer.decode(tokenizer.encode("SCH\u00d6N").ids) == "schon"
    assert manifest["settings"]["strip_accents"] is True
    printed(german, capsys, "--vocab-size", "100", "--cased")
    assert made(german)[1]["settings"]["lowercase"] is False


def vocabulary(path: Path, *entries: str) -> Path:
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    lines = [*BERT_SPECIALS, *entries, *letters, *(f"##{letter}" for letter in letters)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_guess_is_printed_as_one_and_keys_decide(german: Corpus, tmp_path: Path, capsys) -> None:
    path = vocabulary(tmp_path / "vocab.txt", "m\u00f6chte", "sch\u00f6n", "f\u00fcr", "[URL]")
    guess = "does not say how its text was made; guessed from the entries: "
    lines = printed(german, capsys, "--load", str(path))
    assert lines[1] == (
        f"{path} {guess}lower-casing, accents kept; to say it: --cased and --strip-accents (corpus.cased, "
        "corpus.strip_accents), or their --no- forms"
    )
    assert len(lines) == 2
    tokenizer, manifest = made(german)
    assert tokenizer.encode("Ich M\u00d6CHTE f\u00fcr", add_special_tokens=False).tokens[-2:] == [
        "m\u00f6chte",
        "f\u00fcr",
    ]
    assert (manifest["results"]["lost_rate"], manifest["results"]["guessed"]) == (0, ["lower-casing", "accents kept"])
    lines = printed(german, capsys, "--load", str(path), "--strip-accents")
    assert any(f"{guess}lower-casing; " in line for line in lines)
    unreached = "3 entries are never reached, as text is lower-cased, stripped or composed before: "
    assert f"{unreached}f\u00fcr, m\u00f6chte, sch\u00f6n" in lines
    lines = printed(german, capsys, "--load", str(path), "--no-cased", "--no-strip-accents")
    assert not any("guessed" in line for line in lines)
    with pytest.raises(UserError, match=r"strip_accents: False -> True"):
        make_tokenizer(german, None, strip_accents=True, cased=False, load=path)


def test_a_refusal_tells_what_was_guessed(german: Corpus, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\n".join([*BERT_SPECIALS, *"abcdefghijklmnopqrstuvwxyz", "Ich", "M\u00f6chte"]), encoding="utf-8")
    assert main(["tokenizer", "--corpus", str(german.root), "--force", "--load", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path} does not say how its text was made; guessed from the entries: lower-casing, " in error
    assert (
        "to say it: --cased and --strip-accents (corpus.cased, corpus.strip_accents), or their --no- forms; " in error
    )
    assert "100 characters" not in error


def test_too_few_entries_for_the_characters_are_named(tmp_path: Path, capsys) -> None:
    ideographs = "".join(map(chr, range(0x4E00, 0x4E00 + 600)))
    corpus = tiny(tmp_path / "c", ideographs)
    capsys.readouterr()
    assert main(["tokenizer", "--corpus", str(corpus.root), "--vocab-size", "600"]) == 2
    error = capsys.readouterr().err
    assert "; raise --vocab-size (corpus.vocab_size): single characters get 25% of the entries, at least 256" in error
    assert "100 characters" not in error
    printed(corpus, capsys, "--vocab-size", "2600")
    assert made(corpus)[1]["results"]["lost_rate"] < 0.01


def test_the_default_of_a_class_is_printed_and_keys_change_it(german: Corpus, tmp_path: Path, capsys) -> None:
    path = vocabulary(tmp_path / "vocab.txt", "m\u00f6chte", "sch\u00f6n", "f\u00fcr")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    lines = printed(german, capsys, "--load", str(tmp_path))
    assert any(
        "the default of the class it is for: lower-casing, accents stripped; to say it: --cased and" in line
        for line in lines
    )
    lines = printed(german, capsys, "--load", str(tmp_path), "--no-strip-accents")
    assert any("the default of the class it is for: lower-casing; to say it: --cased" in line for line in lines)
    assert not any("never reached" in line for line in lines)
    assert made(german)[0].encode("M\u00d6CHTE").tokens[1:-1] == ["m\u00f6chte"]
    assert not any(
        "class" in line for line in printed(german, capsys, "--load", str(path), "--cased", "--no-strip-accents")
    )


def test_the_kind_of_a_loaded_vocabulary_cannot_be_said(german: Corpus, tmp_path: Path, capsys) -> None:
    path = vocabulary(tmp_path / "vocab.txt")
    assert main(["tokenizer", "--corpus", str(german.root), "--load", str(path), "--kind", "bpe"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --kind bpe says what to train, but --load {path} brings its own")


def test_decomposed_entries_are_composed_as_documents_are(german: Corpus, tmp_path: Path, capsys) -> None:
    path = vocabulary(tmp_path / "mine.txt", "mo\u0308chte", "scho\u0308n", "fu\u0308r", "\u00e4", "a\u0308ra")
    assert "4 entries are taken in Unicode NFC, in which documents are" in printed(german, capsys, "--load", str(path))
    tokenizer, manifest = made(german)
    assert (manifest["results"]["lost_rate"], tokenizer.token_to_id("f\u00fcr")) == (0, 7)
    both = vocabulary(tmp_path / "both.txt", "m\u00f6chte", "mo\u0308chte", "sch\u00f6n", "f\u00fcr")
    lines = printed(german, capsys, "--load", str(both))
    assert lines[-1].startswith("1 entry is never reached, as text is lower-cased, stripped or composed before: ")
    assert made(german)[0].token_to_id("mo\u0308chte") == 6


def test_special_tokens_that_were_added_are_reached(german: Corpus, tmp_path: Path, capsys) -> None:
    vocabulary(tmp_path / "vocab.txt", "@USER", "M\u00f6chte", "##M\u00f6chte", "m\u00f6chte", "sch\u00f6n", "f\u00fcr")
    config = {"tokenizer_class": "BertTokenizer", "strip_accents": False, "extra_special_tokens": ["@USER"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    lines = printed(german, capsys, "--load", str(tmp_path))
    assert lines[-1] == ("1 entry is never reached, as text is lower-cased, stripped or composed before: M\u00f6chte")


def test_one_capital_letter_does_not_make_a_vocabulary_cased(tmp_path: Path, capsys) -> None:
    corpus = tiny(tmp_path / "c", "Sherlock Holmes looked at London and the Thames")
    path = vocabulary(tmp_path / "vocab.txt", "[URL]", "[USER]", "sherlock", "holmes", "##London")
    lines = printed(corpus, capsys, "--load", str(path))
    assert "lower-casing, accents stripped" in lines[1]
    assert "0.000% unknown" in lines[0]
    assert lines[2].startswith("1 entry is never reached")
    assert made(corpus)[0].encode("Sherlock Holmes").tokens[1:-1] == ["sherlock", "holmes"]


def test_lost_words_are_named_above_one_percent_and_stop_the_stage_above_twenty(tmp_path: Path, capsys) -> None:
    corpus = tiny(tmp_path / "c", "the sea and the ship upon the deck of the \u4eba\u6c11 seen \u6c11")
    path = vocabulary(tmp_path / "vocab.txt")
    lines = printed(corpus, capsys, "--load", str(path))
    results = made(corpus)[1]["results"]
    documents = sum(1 for _ in read_documents(corpus.clean, "val"))
    assert 0.01 < results["lost_rate"] < 0.2
    assert results["lost_words"] == [["\u6c11", 2 * documents], ["\u4eba", documents]]
    assert lines[1] == (
        f"warning: on val {results['unknown_rate']:.1%} of the tokens are unknown and {results['lost_rate']:.1%} of "
        f"the characters lost, most often \u6c11 {2 * documents} times, \u4eba {documents} times"
    )
    assert main(["shard", "--corpus", str(corpus.root), "--row-length", "32", "--workers", "1"]) == 0
    shares = re.findall(r"([\d,]+) tokens, ([\d,]+) of them \(([\d.]+)%\) unknown", capsys.readouterr().out)
    assert len(shares) == 2
    assert int(shares[1][1]) == 3 * documents
    assert all(share == f"{100 * int(unknown) / int(tokens):.2f}" for tokens, unknown, share in shares)
    thai = tiny(tmp_path / "t", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22" * 20, "\u0e17\u0e35\u0e48" * 60)
    capsys.readouterr()
    assert main(["tokenizer", "--corpus", str(thai.root), "--vocab-size", "200"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has no entries for " in error
    assert "train it with --kind bpe (corpus.tokenizer_kind), or name a vocabulary made for this text" in error
    assert sorted(each.name for each in thai.root.iterdir()) == ["clean", "raw_files.json"]
    printed(thai, capsys, "--vocab-size", "300", "--kind", "bpe")
    assert made(thai)[1]["results"]["lost_rate"] == 0


def test_what_is_lost_is_looked_for_in_train_too(german: Corpus, tmp_path: Path, monkeypatch, capsys) -> None:
    path = vocabulary(tmp_path / "vocab.txt", "m\u00f6chte", "sch\u00f6n", "f\u00fcr")
    ours = stage.read_documents
    thai = Document("s", "1", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22")
    monkeypatch.setattr(
        stage, "read_documents", lambda folder, split: [thai] if split == "train" else ours(folder, split)
    )
    capsys.readouterr()
    assert main(["tokenizer", "--corpus", str(german.root), "--force", "--load", str(path)]) == 2
    assert "has no entries for 100.0% of the characters of the training documents: they become [UNK]" in (
        capsys.readouterr().err
    )


def test_the_measured_sample_ends_behind_a_document(finished: Corpus, monkeypatch) -> None:
    every = list(read_documents(finished.clean, "train"))
    assert list(stage._measured(finished, "train")) == every
    for limit, count in ((1, 1), (len(every[0].text), 1), (len(every[0].text) + 1, 2)):
        monkeypatch.setattr(stage, "MEASURED_CHARACTERS", limit)
        assert list(stage._measured(finished, "train")) == every[:count]


def test_a_corpus_of_unknown_tokens_makes_no_shards(tmp_path: Path, monkeypatch, capsys) -> None:
    corpus = tiny(tmp_path / "t", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22")
    monkeypatch.setattr(stage, "LOST_LIMIT", 1.0)
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(BERT_SPECIALS), encoding="utf-8")
    printed(corpus, capsys, "--load", str(path))
    assert main(["shard", "--corpus", str(corpus.root), "--row-length", "16", "--workers", "1"]) == 2
    assert re.search(
        r"error: all \d+ tokens of the train split are unknown to .*tokenizer\.json", capsys.readouterr().err
    )
    assert not list(corpus.root.glob("shards/[!.]*"))


def test_habits_of_bytes_cannot_be_chosen(german: Corpus, capsys) -> None:
    for option, named in (
        ("--no-cased", "--no-cased (corpus.cased = false)"),
        ("--strip-accents", "--strip-accents ("),
    ):
        arguments = ["tokenizer", "--corpus", str(german.root), "--vocab-size", "300", "--kind", "bpe", "--force"]
        assert main([*arguments, option]) == 2
        assert capsys.readouterr().err.startswith(f"error: {named}")


def test_special_tokens_of_a_loaded_tokenizer_are_found_in_documents(tmp_path: Path, capsys) -> None:
    """As often as transformers finds them; the structural ones stay text."""
    corpus = tiny(tmp_path / "c", "see [URL] and [URL], [MASK] or <ent>[URL]", "the [SEP] sea")
    folder = tmp_path / "published"
    folder.mkdir()
    vocabulary(folder / "vocab.txt", "see", "[", "]", "<", ">", ",")
    config = {"tokenizer_class": "BertTokenizer", "extra_special_tokens": ["[URL]", "<ent>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    printed(corpus, capsys, "--load", str(folder))
    assert main(["shard", "--corpus", str(corpus.root), "--row-length", "16", "--workers", "1"]) == 0
    theirs = AutoTokenizer.from_pretrained(folder)
    for split in ("train", "val"):
        wanted = Counter(n for document in read_documents(corpus.clean, split) for n in theirs(document.text).input_ids)
        ids, _ = (reader := ShardReader(corpus.shards("documents", 16), split)).rows(np.arange(reader.num_rows))
        for token in ("[URL]", "<ent>"):
            number = theirs.convert_tokens_to_ids(token)
            assert (ids == number).sum() == wanted[number] > 0
        assert not (ids == reader.special_tokens["mask"]).any()
        assert not (ids == reader.special_tokens["unk"]).any()
    # What the exported model's folder holds finds them too.
    exported = tmp_path / "exported"
    exported.mkdir()
    shutil.copy(corpus.tokenizer_file, exported)
    text = "see [URL] <ent>"
    assert AutoTokenizer.from_pretrained(exported)(text).input_ids == theirs(text).input_ids
