"""Masking: exact counts, right shares, a pure function of its coordinates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Objective
from pipeline.masking import hash_chain, mask_rows

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def rows(num_rows: int, length: int, seed: int = 0, vocab: int = 100) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(5, vocab, (num_rows, length))
    ids[:, 0], ids[:, -1] = SPECIAL["cls"], SPECIAL["sep"]
    return ids


def masked(ids: np.ndarray, row_ids: np.ndarray, epochs: np.ndarray, seed: int = 1, **objective: float):
    return mask_rows(ids, row_ids, epochs, seed, Objective(**objective), SPECIAL, 100)


@given(st.integers(1, 6), st.integers(3, 40), st.floats(0.01, 0.9), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_counts_positions_and_labels(num_rows: int, length: int, rate: float, seed: int) -> None:
    ids = rows(num_rows, length, seed)
    result = masked(ids, np.arange(num_rows), np.zeros(num_rows, int), seed, mask_rate=rate)
    per_row = np.bincount(result.positions // length, minlength=num_rows)
    assert (per_row == max(1, np.rint(rate * (length - 2)))).all()
    assert (np.diff(result.positions) > 0).all()
    assert (result.labels == ids.reshape(-1)[result.positions]).all()
    untouched = np.ones(ids.size, bool)
    untouched[result.positions] = False
    assert (result.input_ids.reshape(-1)[untouched] == ids.reshape(-1)[untouched]).all()
    assert not np.isin(result.labels, list(SPECIAL.values())).any()


def test_a_row_is_masked_the_same_alone_and_in_company() -> None:
    ids = rows(8, 32)
    together = masked(ids, np.arange(8) + 100, np.full(8, 3))
    for i in (0, 5):
        alone = masked(ids[i : i + 1], np.array([i + 100]), np.array([3]))
        assert (alone.input_ids[0] == together.input_ids[i]).all()


def test_epoch_row_and_seed_all_matter() -> None:
    ids = np.repeat(rows(1, 200), 4, axis=0)
    result = masked(ids, np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]))
    other_seed = masked(ids, np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]), seed=2)
    first = result.input_ids[0]
    assert (first != result.input_ids[1]).any()
    assert (first != result.input_ids[2]).any()
    assert (first == result.input_ids[3]).all()
    assert (first != other_seed.input_ids[0]).any()


def test_shares_of_mask_random_and_kept() -> None:
    ids = rows(400, 202)
    result = masked(ids, np.arange(400), np.zeros(400, int), mask_rate=0.5, mask_token=0.8, random_token=0.1)
    now = result.input_ids.reshape(-1)[result.positions]
    n = len(now)
    share_masked = (now == SPECIAL["mask"]).mean()
    share_kept = (now == result.labels).mean()
    # A random token equals the original one time in 95.
    assert share_masked == pytest.approx(0.8, abs=4 * (0.16 / n) ** 0.5)
    assert share_kept == pytest.approx(0.1 + 0.1 / 95, abs=4 * (0.09 / n) ** 0.5)
    randoms = now[(now != SPECIAL["mask"]) & (now != result.labels)]
    assert randoms.min() >= 5
    counts = np.bincount(randoms, minlength=100)[5:]
    expected = len(randoms) / 95
    assert ((counts - expected) ** 2 / expected).sum() < 95 + 5 * (2 * 95) ** 0.5


def test_all_mask_objective_and_padding_rows() -> None:
    ids = rows(2, 20)
    ids[1] = SPECIAL["pad"]
    result = masked(ids, np.arange(2), np.zeros(2, int), mask_rate=0.4, mask_token=1.0, random_token=0.0)
    assert (result.positions < 20).all()
    assert (result.input_ids.reshape(-1)[result.positions] == SPECIAL["mask"]).all()


def test_hash_chain_bits_are_balanced() -> None:
    hashed = hash_chain(7, np.arange(20000))
    bits = (hashed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / 20000**0.5
    assert len(np.unique(hashed)) == 20000
