"""Shards as written by the `shard` stage and read by ShardReader."""

import json
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.documents import read_documents
from data_prep.manifest import UserError, sha256_file
from data_prep.shards import ShardReader
from data_prep.write_shards import shard, verify
from tests.data_prep.conftest import build_corpus


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
    index = json.loads((corpus / "shards" / "index.json").read_text())
    for split in ("train", "val"):
        reader = ShardReader(corpus / "shards", split)
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

    shard(Corpus(copy), 32, force=True, file_bytes=10_000)
    for split in ("train", "val"):
        reader = ShardReader(copy / "shards", split)
        dataset = datasets.load_from_disk(str(copy / "shards" / split))
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
    assert len(reader.index["splits"]["train"]["files"]) > 3


def test_state_files_are_those_datasets_writes(corpus: Path, tmp_path: Path) -> None:
    """All keys and features, but for the fingerprint."""
    import datasets

    ours = corpus / "shards" / "val"
    datasets.load_from_disk(str(ours)).save_to_disk(tmp_path / "theirs")
    assert (
        json.loads((ours / "dataset_info.json").read_text())["features"]
        == json.loads((tmp_path / "theirs" / "dataset_info.json").read_text())["features"]
    )
    mine, theirs = (json.loads((folder / "state.json").read_text()) for folder in (ours, tmp_path / "theirs"))
    del mine["_fingerprint"], theirs["_fingerprint"]
    assert mine == theirs


def test_file_size_bounds_files_and_changes_no_row(corpus: Path, copy: Path) -> None:
    wanted = all_rows(ShardReader(corpus / "shards", "train"))
    shard(Corpus(copy), 32, force=True, file_bytes=10_000)
    reader = ShardReader(copy / "shards", "train", verify="size")
    files = reader.index["splits"]["train"]["files"]
    assert [file["rows"] for file in files[:-1]] == [156] * (len(files) - 1)
    assert files[1]["name"] == f"train/data-00001-of-{len(files):05d}.arrow"
    found = all_rows(reader)
    assert np.array_equal(found[0], wanted[0])
    assert np.array_equal(found[1], wanted[1])
    picked = np.random.default_rng(0).integers(0, reader.num_rows, 500)
    ids, lengths = reader.rows(picked)
    assert ids.dtype == np.int64
    assert lengths.dtype == np.int32
    assert np.array_equal(ids, wanted[0][picked])
    assert np.array_equal(lengths, wanted[1][picked])
    assert reader.rows(np.array([], np.int64))[0].shape == (0, 32)
    for bad in ([-1], [reader.num_rows]):
        with pytest.raises(IndexError):
            reader.rows(np.array(bad))


def test_second_run_and_other_order_of_files_give_the_same_bytes(raw: Path, corpus: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "raw"
    files = [path for path in raw.rglob("*") if path.is_file()]
    random.Random(1).shuffle(files)
    for number, path in enumerate(files):
        target = shuffled / f"{number}" / path.name
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    assert tree(build_corpus(raw, tmp_path / "again")) == tree(corpus)
    assert tree(build_corpus(shuffled, tmp_path / "shuffled")) == tree(corpus)


def test_threads_read_the_same_rows(corpus: Path) -> None:
    reader = ShardReader(corpus / "shards", "train")
    wanted = all_rows(reader)[0]
    wrong: list[int] = []

    def read(seed: int) -> None:
        for _ in range(50):
            picked = np.random.default_rng(seed).integers(0, reader.num_rows, 64)
            if not np.array_equal(reader.rows(picked)[0], wanted[picked]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_large_vocabulary_takes_int32(copy: Path, tmp_path: Path) -> None:
    vocab = tmp_path / "vocab.txt"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(65_530)), "the", "sea"]
    vocab.write_text("\n".join(entries), encoding="utf-8")
    assert main(["tokenizer", "--corpus", str(copy), "--load", str(vocab), "--force"]) == 0
    assert main(["shard", "--corpus", str(copy), "--row-length", "16", "--force"]) == 0
    reader = ShardReader(copy / "shards", "val")
    assert reader.index["tokenizer_vocab_size"] == 65_537
    assert reader.vocab_size == 65_600
    assert all_rows(reader)[0].max() == 65_536
    verify(Corpus(copy))


def test_flipped_bit_names_the_file_and_both_hashes(copy: Path) -> None:
    path = next((copy / "shards" / "train").glob("*.arrow"))
    recorded = sha256_file(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        ShardReader(copy / "shards", "train")
    for part in (str(path), recorded, sha256_file(path)):
        assert part in str(caught.value)
    ShardReader(copy / "shards", "train", verify="size")


def test_cut_missing_and_foreign_files_are_refused(copy: Path) -> None:
    shards = copy / "shards"
    path = next((shards / "train").glob("*.arrow"))
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    for mode in ("full", "size"):
        with pytest.raises(UserError, match=path.name):
            ShardReader(shards, "train", verify=mode)  # type: ignore[arg-type]
    path.unlink()
    for mode in ("full", "size"):
        with pytest.raises(UserError, match=f"{path.name} is missing"):
            ShardReader(shards, "train", verify=mode)  # type: ignore[arg-type]
    path.write_bytes(b"\1" * len(content))
    with pytest.raises(UserError, match="no readable Arrow stream"):
        ShardReader(shards, "train", verify="size")
    with pytest.raises(UserError, match="no split 'test', only train, val"):
        ShardReader(shards, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_length": 16}, "holds other columns than rows of length 16"),
        ({"format": 2}, "has format 2, this version reads 1"),
    ],
)
def test_index_that_does_not_fit_is_refused(copy: Path, change: dict[str, int], message: str) -> None:
    path = copy / "shards" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        ShardReader(copy / "shards", "train")
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        ShardReader(copy / "shards", "train")
    path.unlink()
    with pytest.raises(UserError, match=r"python -m data_prep shard"):
        ShardReader(copy / "shards", "train")
