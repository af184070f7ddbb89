"""The loader: order, sharding and packing are pure functions, the same on every number of ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Objective
from pipeline.data import PretrainLoader, ShardReader, epoch_rows, packed_batch, permuted, prefetched
from tests.corpus import tiny_corpus


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return ShardReader(tiny_corpus(tmp_path_factory.mktemp("corpus")) / "shards", "train")


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_an_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    order = permuted(seed, np.full(size, epoch), np.arange(size), size)
    assert (np.sort(order) == np.arange(size)).all()


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = [permuted(seed, np.full(500, epoch), np.arange(500), 500) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, one in enumerate(orders):
        assert (one != np.arange(500)).mean() > 0.9
        for other in orders[i + 1 :]:
            assert (one != other).mean() > 0.9


def test_the_order_has_no_serial_correlation() -> None:
    order = permuted(3, np.zeros(20000, int), np.arange(20000), 20000)
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 4 / 20000**0.5


def test_any_slice_of_the_stream_stands_alone() -> None:
    epochs, rows = epoch_rows(5, 0, 1000, 77)
    for start in (0, 1, 76, 77, 500):
        some_epochs, some_rows = epoch_rows(5, start, 100, 77)
        assert (some_epochs == epochs[start : start + 100]).all()
        assert (some_rows == rows[start : start + 100]).all()


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_packed_batch_against_a_plain_loop(pieces: list[list[int]]) -> None:
    length = 48
    width = max(len(row) for row in pieces)
    lengths = np.array([row + [0] * (width - len(row)) for row in pieces])
    documents, positions = packed_batch(lengths, length)
    for i, row in enumerate(pieces):
        expected_documents = [number + 1 for number, size in enumerate(row) for _ in range(size)]
        expected_positions = [position for size in row for position in range(size)]
        padding = [0] * (length - len(expected_documents))
        assert documents[i].tolist() == expected_documents + padding
        assert positions[i].tolist() == expected_positions + padding


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (2, 4), (4, 2), (2, 2), (8, 1), (1, 1)])
def test_the_global_batch_is_the_same_on_any_topology(reader: ShardReader, world: int, micro: int) -> None:
    reference = PretrainLoader(reader, Objective(), 9, 8, 8)
    for step in (0, 3, 1000):
        whole = reference.micro_batch(step, 0)["input_ids"]
        parts = [
            PretrainLoader(reader, Objective(), 9, 8, micro, rank, world).micro_batch(step, m)["input_ids"]
            for m in range(8 // (world * micro))
            for rank in range(world)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_every_row_once_an_epoch(reader: ShardReader) -> None:
    seen = np.concatenate([epoch_rows(1, start, 8, reader.num_rows)[1] for start in range(0, reader.num_rows, 8)])
    assert (np.bincount(seen[: reader.num_rows], minlength=reader.num_rows) == 1).all()


def test_labels_are_the_shards_tokens(reader: ShardReader) -> None:
    loader = PretrainLoader(reader, Objective(), 9, 8, 8)
    batch = loader.micro_batch(2, 0)
    original, _ = reader.rows(epoch_rows(9, 16, 8, reader.num_rows)[1])
    assert torch.equal(torch.from_numpy(original).view(-1)[batch["masked_positions"]], batch["labels"])


def test_prefetching_changes_nothing(reader: ShardReader) -> None:
    loader = PretrainLoader(reader, Objective(), 9, 8, 4)
    direct = [loader.micro_batch(step, micro) for step in range(3, 6) for micro in range(2)]
    ahead = list(prefetched(loader, 3, 6, 2))
    assert len(direct) == len(ahead)
    for one, other in zip(direct, ahead, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_failing_loader_fails_the_loop() -> None:
    class Broken:
        def micro_batch(self, step: int, micro: int) -> dict:
            raise ValueError(f"no step {step}")

        def tokens(self, steps: int) -> int:
            return 0

    with pytest.raises(ValueError, match="no step 0"):
        next(prefetched(Broken(), 0, 2, 1))


def test_tiny_corpora_are_for_tests(tmp_path: Path) -> None:
    folder = tiny_corpus(tmp_path)
    assert ShardReader(folder / "shards", "val").num_rows >= 4
