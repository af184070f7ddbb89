"""Sentence tasks: against slow references, never two halves of one document, a function of seed, epoch and row."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.rows.masking import hash_chain
from data_prep.rows.sentence_pairs import SentencePairs, check_task, sentence_pairs
from data_prep.rows.shards import ShardReader
from tests.shard_files import SPECIAL, packed, random_rows, write_shards

LENGTH, ROWS, LONGEST = 24, 500, 37
PAD, CLS, SEP = SPECIAL["pad"], SPECIAL["cls"], SPECIAL["sep"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    rows = [random_rows(size, LENGTH, "pairs", 70_000, seed) for seed, size in enumerate((300, 200))]
    folder = tmp_path_factory.mktemp("pairs") / "s"
    return ShardReader(write_shards(folder, {"train": rows}, "pairs", 70_000, longest_document=LONGEST), "train")


def halves(row: list[int], lengths: list[int]) -> tuple[list[int], list[int]]:
    """A and B without [CLS] and [SEP]; the rest of the row is padding."""
    first, second = lengths
    assert row[0] == CLS
    assert row[first - 1] == row[first + second - 1] == SEP
    assert set(row[first + second :]) <= {PAD}
    return row[1 : first - 1], row[first : first + second - 1]


def as_stored(reader: ShardReader, row: int) -> tuple[list[int], list[int]]:
    ids, lengths = reader.rows(np.array([row]))
    return halves(ids[0].tolist(), lengths[0].tolist())


def is_changed(seed: int, epoch: int, row: int) -> bool:
    return bool(hash_chain(seed, 5, epoch, row)[0] >= 2**63)


def shown(pairs: SentencePairs, i: int) -> tuple[list[int], list[int]]:
    return halves(pairs.input_ids[i].tolist(), pairs.lengths[i].tolist())


def test_sentence_order_swaps_half_of_the_rows(reader: ShardReader) -> None:
    rows, epochs = np.arange(ROWS), np.arange(ROWS) % 3
    pairs = sentence_pairs(reader, rows, epochs, 11, "sop")
    assert pairs.input_ids.shape == (ROWS, LENGTH)
    for i in range(ROWS):
        a, b = as_stored(reader, i)
        changed = is_changed(11, i % 3, i)
        assert pairs.labels[i] == changed
        assert shown(pairs, i) == ((b, a) if changed else (a, b))
    assert pairs.labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / ROWS**0.5)


def test_next_sentence_takes_half_of_the_second_parts_from_other_documents(reader: ShardReader) -> None:
    rows, epochs = np.arange(ROWS), np.zeros(ROWS, int)
    pairs = sentence_pairs(reader, rows, epochs, 12, "nsp")
    for i in range(ROWS):
        a, b = as_stored(reader, i)
        assert pairs.labels[i] == is_changed(12, 0, i)
        if pairs.labels[i]:
            offset = LONGEST + int(hash_chain(12, 6, 0, i)[0]) % (ROWS - 2 * LONGEST + 1)
            _, other = as_stored(reader, (i + offset) % ROWS)
            assert shown(pairs, i) == (a, other[: LENGTH - 3 - len(a)])
            assert len(shown(pairs, i)[1]) >= 1
        else:
            assert shown(pairs, i) == (a, b)
    assert pairs.labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / ROWS**0.5)


def test_the_other_row_shares_no_document(tmp_path: Path) -> None:
    """The second parts tell their row: all distances from the longest document on are drawn, and no smaller one."""
    count, longest = 25, 9
    ids = np.full((count, 16), PAD, np.uint16)
    ids[:, :5] = CLS, 5, SEP, 0, SEP
    ids[:, 3] = 100 + np.arange(count)
    folder = write_shards(tmp_path / "s", {"train": [packed(ids, [[3, 2]] * count)]}, "pairs", longest_document=longest)
    reader = ShardReader(folder, "train")
    distances: set[int] = set()
    for epoch in range(60):
        pairs = sentence_pairs(reader, np.arange(count), np.full(count, epoch), 0, "nsp")
        changed = np.flatnonzero(pairs.labels)
        distances |= set(((pairs.input_ids[changed, 3] - 100 - changed) % count).tolist())
    assert distances == set(range(longest, count - longest + 1))


@pytest.mark.parametrize("task", ["nsp", "sop"])
def test_a_row_is_the_same_in_any_company(reader: ShardReader, task: str) -> None:
    rows = np.array([3, 499, 3, 250, 0, 17])
    epochs = np.array([0, 1, 4, 1, 2, 2])
    together = sentence_pairs(reader, rows, epochs, 5, task)  # type: ignore[arg-type]
    for i in range(len(rows)):
        alone = sentence_pairs(reader, rows[i : i + 1], epochs[i : i + 1], 5, task)  # type: ignore[arg-type]
        assert np.array_equal(alone.input_ids[0], together.input_ids[i])
        assert np.array_equal(alone.lengths[0], together.lengths[i])
        assert alone.labels[0] == together.labels[i]


@pytest.mark.parametrize("task", ["nsp", "sop"])
def test_token_types(reader: ShardReader, task: str) -> None:
    pairs = sentence_pairs(reader, np.arange(100), np.zeros(100, int), 5, task)  # type: ignore[arg-type]
    types = pairs.token_types()
    for i in range(100):
        first, second = pairs.lengths[i].tolist()
        assert types[i].tolist() == [0] * first + [1] * second + [0] * (LENGTH - first - second)


def test_no_rows(reader: ShardReader) -> None:
    for task in ("nsp", "sop"):
        nothing = np.zeros(0, np.int64)
        pairs = sentence_pairs(reader, nothing, nothing, 5, task)  # type: ignore[arg-type]
        assert pairs.input_ids.shape == (0, LENGTH)


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    documents = ShardReader(write_shards(tmp_path / "d", {"train": [random_rows(20, LENGTH)]}), "train")
    for task in ("nsp", "sop"):
        with pytest.raises(UserError, match="has packing 'documents': set"):
            check_task(documents, task)  # type: ignore[arg-type]
    rows = [random_rows(20, LENGTH, "pairs")]
    books = write_shards(tmp_path / "b", {"train": rows, "val": rows}, "pairs", longest_document=11)
    for split, remedy in (("train", "more documents, or set"), ("val", "documents or a larger corpus.val_fraction")):
        with pytest.raises(UserError, match="takes 11 of the 20") as caught:
            check_task(ShardReader(books, split), "nsp")
        assert remedy in str(caught.value)
        check_task(ShardReader(books, split), "sop")
    check_task(ShardReader(write_shards(tmp_path / "e", {"val": rows}, "pairs", longest_document=10), "val"), "nsp")


@pytest.mark.parametrize("pieces", [[[24], [24]], [[2, 22], [3, 21]], [[22, 1], [20, 4]]])
def test_rows_that_are_no_pairs_are_refused(tmp_path: Path, pieces: list[list[int]]) -> None:
    folder = write_shards(tmp_path / "s", {"train": [packed(random_rows(2, LENGTH).ids, pieces)]}, "pairs")
    with pytest.raises(UserError, match="no pair of sentences"):
        sentence_pairs(ShardReader(folder, "train"), np.arange(2), np.zeros(2, int), 0, "sop")
