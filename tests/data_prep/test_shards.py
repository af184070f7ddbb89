"""Shards as written by the `shard` stage."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.documents import read_documents
from data_prep.files import sha256_file
from data_prep.manifest import read_manifest
from data_prep.rows.shards import ShardReader, read_index
from data_prep.verify import verify
from tests.data_prep.conftest import WORDS, build_corpus


def all_rows(reader: ShardReader) -> tuple[np.ndarray, np.ndarray]:
    return reader.rows(np.arange(reader.num_rows))


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file that holds data; manifests hold times."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    return shutil.copytree(corpus, tmp_path / "copy")


def test_rows_give_back_every_token_of_every_document(corpus: Path) -> None:
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer" / "tokenizer.json"))
    index = json.loads((corpus / "shards" / "documents-32" / "index.json").read_text())
    for split in ("train", "val"):
        reader = ShardReader(corpus / "shards" / "documents-32", split)
        ids, lengths = all_rows(reader)
        found: list[int] = []
        for row, pieces in zip(ids, lengths, strict=True):
            for end, length in zip(np.cumsum(pieces), pieces, strict=True):
                found += row[end - length + 1 : max(end - 1, 0)].tolist()
        documents = list(read_documents(corpus / "clean", split))  # type: ignore[arg-type]
        encoded = tokenizer.encode_batch([document.text for document in documents], add_special_tokens=False)
        assert found == [number for encoding in encoded for number in encoding.ids]
        figures = index["splits"][split]
        assert figures["documents"] == len(documents)
        assert figures["tokens"] == lengths.sum() == len(found) + 2 * (lengths > 0).sum()
        assert figures["rows"] == reader.num_rows == len(ids)
    assert index["vocab_size"] % 64 == 0
    assert index["vocab_size"] - 64 < index["tokenizer_vocab_size"] <= index["vocab_size"]
    assert index["tokenizer_sha256"] == sha256_file(corpus / "tokenizer" / "tokenizer.json")
    assert (reader.row_length, reader.vocab_size) == (32, index["vocab_size"])
    assert reader.special_tokens == index["special_tokens"]


def test_datasets_opens_the_shards_and_agrees(copy: Path) -> None:
    import datasets

    for split in ("train", "val"):
        reader = ShardReader(copy / "shards" / "documents-32", split)
        dataset = datasets.load_from_disk(str(copy / "shards" / "documents-32" / split))
        assert dataset.features == datasets.Features(
            {
                "input_ids": datasets.List(datasets.Value("uint16"), length=32),
                "lengths": datasets.List(datasets.Value("int32")),
            }
        )
        ids, lengths = all_rows(reader)
        assert len(dataset) == reader.num_rows
        assert np.array_equal(np.array(dataset["input_ids"]), ids)
        assert list(dataset["lengths"]) == [[int(n) for n in row if n] for row in lengths]
        assert dataset[reader.num_rows - 1]["input_ids"] == ids[-1].tolist()


def test_state_files_are_those_datasets_writes(corpus: Path, tmp_path: Path) -> None:
    """All keys and features, but for the fingerprint."""
    import datasets

    ours = corpus / "shards" / "documents-32" / "val"
    datasets.load_from_disk(str(ours)).save_to_disk(tmp_path / "theirs")
    assert (
        json.loads((ours / "dataset_info.json").read_text())["features"]
        == json.loads((tmp_path / "theirs" / "dataset_info.json").read_text())["features"]
    )
    mine, theirs = (json.loads((folder / "state.json").read_text()) for folder in (ours, tmp_path / "theirs"))
    for state in (mine, theirs):
        del state["_fingerprint"], state["_data_files"][0]["filename"]
    assert mine == theirs


def test_second_run_and_other_order_of_files_give_the_same_bytes(raw: Path, corpus: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "raw"
    files = [path for path in raw.rglob("*") if path.is_file()]
    random.Random(1).shuffle(files)
    for number, path in enumerate(files):
        target = shuffled / f"{number}" / path.name
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    again = build_corpus(raw, tmp_path / "again")
    assert tree(again / "clean") == tree(corpus / "clean")
    for other in (again, build_corpus(shuffled, tmp_path / "shuffled")):
        for stage in ("tokenizer", "shards"):
            assert tree(other / stage) == tree(corpus / stage)


def test_large_vocabulary_takes_int32(copy: Path, tmp_path: Path) -> None:
    vocab = tmp_path / "vocab.txt"
    words = [word for word in WORDS if word != "sea"]
    fillers = [f"w{n}" for n in range(65_530 - len(words))]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *fillers, ".", *words, "sea"]
    vocab.write_text("\n".join(entries), encoding="utf-8")
    assert main(["tokenizer", "--corpus", str(copy), "--load", str(vocab), "--force"]) == 0
    assert main(["shard", "--corpus", str(copy), "--row-length", "16", "--workers", "1"]) == 0
    shutil.rmtree(copy / "shards" / "documents-32")
    reader = ShardReader(copy / "shards" / "documents-16", "val")
    assert reader.index["tokenizer_vocab_size"] == 65_537
    assert reader.vocab_size == 65_600
    assert all_rows(reader)[0].max() == 65_536
    verify(Corpus(copy))


@pytest.mark.parametrize("packing", ["sentences", "pairs"])
def test_other_packings_stand_beside_the_first(copy: Path, packing: str) -> None:
    before = tree(copy / "shards" / "documents-32")
    words = ["shard", "--corpus", str(copy), "--row-length", "64", "--packing", packing, "--workers", "1"]
    assert main(words) == 0
    assert tree(copy / "shards" / "documents-32") == before
    reader = ShardReader(copy / "shards" / f"{packing}-64", "train")
    assert reader.packing == packing
    ids, lengths = all_rows(reader)
    assert (ids[:, 0] == reader.special_tokens["cls"]).all()
    assert set(np.count_nonzero(lengths, axis=1)) == {1 if packing == "sentences" else 2}
    verify(Corpus(copy))


def test_weights_take_documents_so_many_times(raw: Path, tmp_path: Path) -> None:
    """Books twice and a half, articles not at all, and validation as it is."""
    corpus = tmp_path / "corpus"
    sources = ["--source", f"{raw / 'books'}?name=novels", "--source", f"{raw / 'wiki'}?name=wiki"]
    words = ["--val-fraction", "0.2", "--filters", "none", "--workers", "1"]
    assert main(["ingest", *sources, "--out", str(corpus), *words]) == 0
    assert main(["tokenizer", "--corpus", str(corpus), "--vocab-size", "160"]) == 0
    weights = ["--weight", "novels=2.5", "--weight", "wiki=0"]
    assert main(["shard", "--corpus", str(corpus), "--row-length", "32", *weights, "--workers", "1"]) == 0
    novels = [d for d in read_documents(corpus / "clean", "train") if d.source == "novels"]
    index = read_index(corpus / "shards" / "documents-32")
    assert 2 * len(novels) < index["splits"]["train"]["documents"] < 3 * len(novels)
    assert index["splits"]["val"]["documents"] == len(list(read_documents(corpus / "clean", "val")))
    by_source = (read_manifest(corpus / "shards" / "documents-32") or {})["results"]["tokens_by_source"]
    assert by_source["train"].keys() == {"novels"}
    assert by_source["val"].keys() == {"novels", "wiki"}
