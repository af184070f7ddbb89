"""The bundled sample, and real Wikipedia articles and books where they are at hand."""

from pathlib import Path

import numpy as np

import data_prep
from data_prep.__main__ import main
from data_prep.documents import SPLITS, read_documents
from data_prep.manifest import read_manifest
from data_prep.rows.shards import ShardReader
from data_prep.tokenizer import load_tokenizer
from tests.data_prep.real_data import DATA, needs_texts

SAMPLES = Path(data_prep.__file__).parent / "samples"


def test_sample_is_small_plain_and_free_of_foreign_licences() -> None:
    texts = sorted(SAMPLES.glob("*.txt"))
    assert [path.name for path in texts] == ["emma.txt", "persuasion.txt", "pride_and_prejudice.txt"]
    assert 1 << 20 < sum(path.stat().st_size for path in texts) < 3 << 20
    for path in texts:
        assert path.name in (SAMPLES / "README.md").read_text()
        assert "gutenberg" not in path.read_bytes().decode("ascii").lower()


def test_sample_with_the_settings_of_its_readme(tmp_path: Path) -> None:
    corpus = tmp_path / "sample"
    assert main(["ingest", "--source", str(SAMPLES), "--out", str(corpus), "--val-fraction", "0.05"]) == 0
    assert main(["tokenizer", "--corpus", str(corpus), "--vocab-size", "2048"]) == 0
    assert main(["shard", "--corpus", str(corpus), "--row-length", "64"]) == 0
    assert main(["verify", "--corpus", str(corpus)]) == 0
    train, val = (ShardReader(corpus / "shards" / "documents-64", split) for split in ("train", "val"))
    assert train.vocab_size == 2048
    assert 6_000 < train.num_rows < 7_500
    assert 0.2 < val.num_rows / train.num_rows < 0.35
    books = [{d.id.partition("/")[0] for d in read_documents(corpus / "clean", split)} for split in SPLITS]
    assert books == [{"emma", "pride_and_prejudice"}, {"persuasion"}]
    paragraphs = [line for document in read_documents(corpus / "clean", "val") for line in document.text.split("\n")]
    assert 100 < np.mean([len(line) for line in paragraphs]) < 500


@needs_texts
def test_books_lose_their_boilerplate_and_articles_are_all_there(tmp_path: Path) -> None:
    corpus = tmp_path / "real"
    books = sorted((DATA / "books").rglob("*.txt.gz"))[:6]
    articles = sorted((DATA / "wikipedia" / "extracted").rglob("wiki_*"))[:1]
    sources = [word for path in books + articles for word in ("--source", str(path))]
    assert main(["ingest", *sources, "--out", str(corpus), "--val-fraction", "0.05"]) == 0
    manifest = read_manifest(corpus / "clean")
    assert manifest is not None
    tally = manifest["results"]["tally"]
    assert tally["edited"]["boilerplate_stripped"] == 6
    assert not tally["dropped"]
    documents = [*read_documents(corpus / "clean", "train"), *read_documents(corpus / "clean", "val")]
    assert len({(document.source, document.id.partition("/0")[0]) for document in documents}) == 6 + 25
    for document in documents:
        assert "START OF TH" not in document.text
        assert "Gutenberg-tm" not in document.text
        assert "Gutenberg\u2122" not in document.text
        assert "</doc>" not in document.text


@needs_texts
def test_berts_vocabulary_keeps_its_ids() -> None:
    path = DATA / "vocab" / "bert-base-uncased-vocab.txt"
    tokenizer = load_tokenizer(path)
    assert tokenizer.get_vocab_size() == 30522
    assert tokenizer.encode("Hello, na\u00efve world!").ids == [101, 7592, 1010, 15743, 2088, 999, 102]
    assert tokenizer.token_to_id("[MASK]") == 103
