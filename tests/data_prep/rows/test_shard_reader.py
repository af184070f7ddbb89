"""ShardReader: the right rows in any order, flat memory, and one clear line for everything that is not as recorded."""

import gc
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.files import sha256_file
from data_prep.rows import columns
from data_prep.rows.pack import PackedRows
from data_prep.rows.shards import ShardReader, read_index
from tests.data_prep.fuzz_shards import fuzz
from tests.shard_files import SPECIAL, packed, random_rows, write_shards

LENGTH = 32
SIZES = (40, 1, 700, 13, 246)


def blocks(packing: str = "documents", vocab_size: int = 200) -> list[PackedRows]:
    return [random_rows(size, LENGTH, packing, vocab_size, seed) for seed, size in enumerate(SIZES)]


WRITTEN = blocks()


def as_written(written: list[PackedRows]) -> tuple[np.ndarray, list[list[int]]]:
    ids = np.concatenate([block.ids for block in written])
    pieces = [
        block.lengths[first:end].tolist()
        for block in written
        for first, end in zip(block.offsets[:-1], block.offsets[1:], strict=True)
    ]
    return ids, pieces


def check_rows(reader: ShardReader, written: list[PackedRows], indices: np.ndarray) -> None:
    ids, pieces = as_written(written)
    found, lengths = reader.rows(indices)
    assert found.dtype == np.int64
    assert lengths.dtype == np.int32
    assert found.shape == (len(indices), LENGTH)
    assert lengths.shape == (len(indices), reader.max_pieces)
    assert np.array_equal(found, ids[indices])
    assert [[n for n in row if n] for row in lengths.tolist()] == [pieces[i] for i in indices]
    assert all((np.flatnonzero(row == 0) >= np.count_nonzero(row)).all() for row in lengths)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", {"train": WRITTEN, "val": WRITTEN[:2]}, continuation_ids=[9, 77, 199])


def train_file(shards: Path, number: int = 2) -> Path:
    return sorted((shards / "train").glob("*.arrow"))[number]


def change_index(shards: Path, *keys: Any, value: Any) -> None:
    path = shards / "index.json"
    index = json.loads(path.read_text())
    inner = index
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("packing", ["documents", "sentences", "pairs"])
@pytest.mark.parametrize(("vocab_size", "dtype"), [(200, np.uint16), (70_000, np.int32)])
def test_rows_of_files_of_unequal_length(tmp_path: Path, packing: str, vocab_size: int, dtype: type) -> None:
    written = blocks(packing, vocab_size)
    assert written[0].ids.dtype == dtype
    reader = ShardReader(write_shards(tmp_path / "s", {"train": written}, packing, vocab_size), "train")
    assert reader.num_rows == sum(SIZES)
    assert (reader.packing, reader.row_length) == (packing, LENGTH)
    assert reader.max_pieces == {"documents": 3, "sentences": 1, "pairs": 2}[packing]
    everything = np.arange(sum(SIZES))
    draw = np.random.default_rng(0)
    for indices in (everything, everything[::-1], draw.permutation(everything), draw.integers(0, 1000, 3000)):
        check_rows(reader, written, indices)
    runs = np.concatenate([np.arange(start, start + 9) for start in (0, 36, 41, 990, 36)])
    check_rows(reader, written, runs)


@given(st.lists(st.integers(0, sum(SIZES) - 1), max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_indices(tmp_path_factory: pytest.TempPathFactory, indices: list[int]) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_indices"
    if not folder.exists():
        write_shards(folder, {"train": WRITTEN})
    check_rows(ShardReader(folder, "train"), WRITTEN, np.array(indices, np.int64))


def test_what_the_index_says(shards: Path) -> None:
    reader = ShardReader(shards, "val")
    assert reader.num_rows == 41
    assert (reader.vocab_size, reader.special_tokens, reader.longest_document) == (256, SPECIAL, 1)
    assert reader.continues.shape == (200,)
    assert np.flatnonzero(reader.continues).tolist() == [9, 77, 199]
    assert reader.index == json.loads((shards / "index.json").read_text())
    assert (reader.folder, reader.split) == (shards, "val")


def test_indices_beyond_the_rows_are_refused(shards: Path) -> None:
    reader = ShardReader(shards, "train")
    for bad in ([-1], [reader.num_rows], [0, 2**40]):
        with pytest.raises(IndexError, match=r"within 0 \.\. 999"):
            reader.rows(np.array(bad))
    with pytest.raises(IndexError):
        reader.rows(np.zeros((2, 2), np.int64))


def test_threads_read_the_same_rows_with_few_files_open(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_MAX_OPEN_FILES", 2)
    reader = ShardReader(shards, "train")
    wanted = reader.rows(np.arange(reader.num_rows))[0]
    before = len(os.listdir("/proc/self/fd"))
    wrong: list[int] = []

    def read(own_reader: ShardReader, seed: int) -> None:
        for _ in range(30):
            picked = np.random.default_rng(seed).integers(0, len(wanted), 64)
            if not np.array_equal(own_reader.rows(picked)[0], wanted[picked]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(reader, seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(os.listdir("/proc/self/fd")) <= before
    del reader, threads
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def resident_bytes() -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) * 1024


def test_memory_does_not_grow_with_the_rows_read(tmp_path: Path) -> None:
    """A quarter of a million random rows of 200 MB, then all of them in order, in the memory of one batch."""
    count, length = 400_000, 256
    ids = np.empty((count, length), np.uint16)
    ids[:] = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(7919) % np.uint64(50_000)
    rows = PackedRows(ids, np.full(count, length, np.int32), np.arange(count + 1, dtype=np.int32), 1, 0)
    folder = write_shards(tmp_path / "s", {"train": [rows]}, "sentences", 50_000)
    del ids, rows
    reader = ShardReader(folder, "train", "size")
    draw = np.random.default_rng(0)
    reader.rows(draw.integers(0, count, 4096))
    before = resident_bytes()
    most = 0
    for number in range(92):
        indices = draw.integers(0, count, 4096) if number < 64 else np.arange(4096) + 4096 * (number - 64)
        found, _ = reader.rows(indices)
        assert (found[:, 0] == indices * 7919 % 50_000).all()
        most = max(most, resident_bytes())
    assert most - before < 30 << 20
    for path in folder.rglob("*.arrow"):
        assert path.stat().st_size > 200e6
        path.unlink()


def test_flipped_bit_names_the_file_and_both_hashes(shards: Path) -> None:
    path = train_file(shards)
    recorded = sha256_file(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        ShardReader(shards, "train")
    for part in (str(path), recorded, sha256_file(path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    ShardReader(shards, "train", verify="size")


@pytest.mark.parametrize("vocab_size", [200, 70_000])
def test_token_ids_the_tokenizer_lacks(tmp_path: Path, vocab_size: int) -> None:
    """What a flipped bit or another tokenizer's shards would feed to the embedding."""
    rows = random_rows(50, LENGTH, vocab_size=vocab_size)
    for bad in (vocab_size, -1) if vocab_size > 1 << 16 else (vocab_size, 65_535):
        rows.ids[17, 5] = bad
        reader = ShardReader(write_shards(tmp_path / str(bad), {"train": [rows]}, vocab_size=vocab_size), "train")
        with pytest.raises(UserError, match=r"train-00000.arrow: row 17 holds a token id that the tokenizer does not"):
            reader.rows(np.array([3, 17]))
        reader.rows(np.array([3, 18]))


@pytest.mark.parametrize(
    ("pieces", "offsets", "message"),
    [
        ([[10], [30, 20], [32]], None, "row 1 holds pieces that do not fit into it"),
        ([[10], [2**31 - 1, 2**31 - 1], [32]], None, "row 1 holds pieces that do not fit"),
        ([[10], [0, 20], [32]], None, "row 1 holds pieces that do not fit"),
        ([[10], [-5, 20], [32]], None, "row 1 holds pieces that do not fit"),
        ([[10], [], [32]], None, "row 1 holds another number of pieces than 1 to 2"),
        ([[10], [5, 5], [32]], [0, 1, 3, 9], "no readable Arrow stream"),
        ([[10], [5, 5], [32]], [0, 1, 3, 5], "no readable Arrow stream"),
        ([[10], [5, 5], [32]], [0, 3, 1, 4], "row 0 holds another number of pieces"),
        ([[10], [5, 5], [32]], [0, -1, 3, 4], "row 0 holds another number of pieces"),
        ([[10], [5, 5], [32]], [0, 1, 9, 4], "row 1 holds another number of pieces"),
        ([[10], [5, 5], [32]], [-1, 1, 3, 4], "no readable Arrow stream"),
    ],
)
def test_pieces_that_cannot_be(
    tmp_path: Path, pieces: list[list[int]], offsets: list[int] | None, message: str
) -> None:
    rows = packed(random_rows(3, LENGTH).ids, pieces)
    folder = write_shards(tmp_path / "s", {"train": [rows]})
    if offsets is not None:
        path = train_file(folder, 0)
        old, new = (np.array(numbers, "<i4").tobytes() for numbers in (rows.offsets, offsets))
        assert path.read_bytes().count(old) == 1
        path.write_bytes(path.read_bytes().replace(old, new))
    change_index(folder, "splits", "train", "max_pieces", value=2)
    with pytest.raises(UserError, match=message):
        ShardReader(folder, "train", "size").rows(np.arange(3))


def test_cut_missing_and_foreign_files_are_refused(shards: Path) -> None:
    path = train_file(shards)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    for mode in ("full", "size"):
        with pytest.raises(UserError, match=path.name):
            ShardReader(shards, "train", verify=mode)  # type: ignore[arg-type]
    path.unlink()
    for mode in ("full", "size"):
        with pytest.raises(UserError, match=f"{path.name} is missing"):
            ShardReader(shards, "train", verify=mode)  # type: ignore[arg-type]
    path.mkdir()
    with pytest.raises(UserError, match=f"{path.name} is missing"):
        ShardReader(shards, "train", verify="size")
    path.rmdir()
    path.write_bytes(b"\1" * len(content))
    with pytest.raises(UserError, match="no readable Arrow stream"):
        ShardReader(shards, "train", verify="size")
    with pytest.raises(UserError, match="no split 'test', only train, val"):
        ShardReader(shards, "test")


def test_a_file_cut_while_it_is_in_use(shards: Path) -> None:
    reader = ShardReader(shards, "train")
    os.truncate(train_file(shards), 2000)
    with pytest.raises(UserError, match="became shorter while it was in use"):
        reader.rows(np.arange(reader.num_rows))
    train_file(shards, 4).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        reader.rows(np.array([reader.num_rows - 1]))


def test_files_of_other_rows_are_refused(tmp_path: Path) -> None:
    one, other = random_rows(9, LENGTH), random_rows(9, LENGTH, vocab_size=70_000)
    with pytest.raises(UserError, match="different types"):
        ShardReader(write_shards(tmp_path / "types", {"train": [one, other]}), "train")
    with pytest.raises(UserError, match="other columns than rows of length 32"):
        ShardReader(write_shards(tmp_path / "length", {"train": [one, random_rows(9, 16)]}), "train")


def test_damaged_bytes_give_right_rows_or_one_line() -> None:
    outcomes = fuzz(200, seed=1)
    assert not outcomes.failures
    assert outcomes.read > 10
    assert outcomes.refused > 100


def test_an_index_of_the_earlier_format_asks_for_new_shards(shards: Path) -> None:
    old = {"format": 1, "row_length": LENGTH, "vocab_size": 256, "tokenizer_vocab_size": 200, "splits": {}}
    (shards / "index.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match=r"has format 1, this version reads 2; run `python -m data_prep shard`"):
        read_index(shards)
    (shards / "index.json").write_text("{}")
    with pytest.raises(UserError, match=r"has format None, this version reads 2"):
        read_index(shards)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("row_length",), 16, "other columns than rows of length 16"),
        (("row_length",), "32", "row_length: Input should be a valid integer"),
        (("row_length",), 0, "row_length"),
        (("packing",), "words", "packing: Input should be 'documents', 'sentences' or 'pairs'"),
        (("tokenizer_vocab_size",), 150, "an id is not below tokenizer_vocab_size"),
        (("vocab_size",), 150, "or that exceeds 150"),
        (("special_tokens",), {"pad": 0}, "special_tokens lacks unk, cls, sep, mask"),
        (("special_tokens", "pad"), -1, "special_tokens.pad"),
        (("continuation_ids",), None, "continuation_ids"),
        (("splits", "train"), [], "splits.train"),
        (("splits", "train", "rows"), 999, "files hold 1000 rows, not 999"),
        (("splits", "train", "files", 0, "rows"), 41, "holds 40 rows, index.json says 41"),
        (("splits", "train", "files", 0, "bytes"), 1, "index.json says 1 bytes"),
        (("splits", "train", "files", 0, "name"), "../../etc/passwd", "files.0.name"),
        (("splits", "train", "files", 0, "sha256"), "abc", "files.0.sha256"),
        (("splits", "train", "files", 0, "name"), "train/train-00001.arrow", "a file is named twice"),
        (("splits", "train", "files"), [], "files hold 0 rows, not 1000"),
        (("splits", "train", "max_pieces"), 0, "max_pieces"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(shards: Path, keys: tuple, value: Any, message: str) -> None:
    change_index(shards, *keys, value=value)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        ShardReader(shards, "train")
    assert "\n" not in str(caught.value)


def test_an_index_that_lacks_a_key_is_refused(shards: Path) -> None:
    whole = json.loads((shards / "index.json").read_text())
    for key in set(whole) - {"format"}:
        (shards / "index.json").write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(UserError, match=f"no index of shards: {key}: Field required"):
            read_index(shards)


def test_an_index_that_is_no_json_or_not_there(shards: Path) -> None:
    path = shards / "index.json"
    for content in (b"{", b"", b"\xff\xfe", b"[" * 100_000, b"\0"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not valid JSON"):
            read_index(shards)
    path.unlink()
    with pytest.raises(UserError, match=r"does not exist; run `python -m data_prep shard` for this corpus first"):
        read_index(shards)
    path.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_index(shards)
