from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.pack import MIN_PIECE_TOKENS, MIN_ROW_LENGTH, next_piece, pack_rows

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
FIRST = 10


def numbered(sizes: list[int]) -> list[np.ndarray]:
    """Documents whose every token is another number, so that a token tells where it came from."""
    ends = np.cumsum([0] + sizes) + FIRST
    return [np.arange(start, end) for start, end in pairwise(ends)]


def packed(sizes: list[int], row_length: int, rows_per_block: int = 1000) -> list[tuple[np.ndarray, list[int]]]:
    """Every row's ids and piece lengths."""
    blocks = list(pack_rows(numbered(sizes), row_length, SPECIAL, np.int32, rows_per_block))
    assert all(len(block.ids) == rows_per_block for block in blocks[:-1])
    return [
        (ids, block.lengths[block.offsets[row] : block.offsets[row + 1]].tolist())
        for block in blocks
        for row, ids in enumerate(block.ids)
    ]


@pytest.mark.parametrize(
    ("remaining", "used", "wanted"),
    [
        (5, 0, 5),  # fits, however short
        (14, 0, 14),  # fits exactly: 16 with [CLS] and [SEP]
        (15, 0, 9),  # not 14 and a stub of 1: the last piece gets its 6
        (20, 0, 14),
        (21, 0, 14),
        (5, 9, 5),  # 5 + 2 fill the row
        (6, 9, 0),  # a row's end too short for a piece is padded
        (30, 8, 6),  # the shortest piece of a long document
        (11, 8, 0),  # cut in two, one half would be a stub
        (12, 8, 6),
        (1, 14, 0),  # no room for [CLS] and [SEP]
        (1, 13, 1),
    ],
)
def test_next_piece_in_a_row_of_16(remaining: int, used: int, wanted: int) -> None:
    assert next_piece(remaining, used, 16) == wanted


def test_rows_worked_out_by_hand() -> None:
    rows = packed([3, 20, 4], row_length=16)
    assert [lengths for _, lengths in rows] == [[5, 11], [13], [6]]
    assert rows[0][0].tolist() == [2, 10, 11, 12, 3, 2, 13, 14, 15, 16, 17, 18, 19, 20, 21, 3]
    assert rows[1][0].tolist() == [2, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 3, 0, 0, 0]
    assert rows[2][0].tolist() == [2, 33, 34, 35, 36, 3] + [0] * 10


@given(
    st.lists(st.one_of(st.integers(0, 12), st.integers(0, 200)), max_size=30),
    st.integers(MIN_ROW_LENGTH, 70),
    st.integers(1, 5),
)
def test_every_token_once_in_order_and_no_stubs(sizes: list[int], row_length: int, rows_per_block: int) -> None:
    rows = packed(sizes, row_length, rows_per_block)
    document_of = np.repeat(np.arange(len(sizes)), sizes)
    tokens: list[int] = []
    for ids, lengths in rows:
        assert len(ids) == row_length
        assert lengths
        assert sum(lengths) <= row_length
        assert (ids[sum(lengths) :] == SPECIAL["pad"]).all()
        start = 0
        for length in lengths:
            piece = ids[start : start + length]
            start += length
            content = piece[1:-1]
            assert piece[0] == SPECIAL["cls"]
            assert piece[-1] == SPECIAL["sep"]
            documents = set(document_of[content - FIRST])
            assert len(documents) == 1
            assert length >= min(MIN_PIECE_TOKENS, sizes[documents.pop()] + 2)
            tokens += content.tolist()
    assert tokens == list(range(FIRST, FIRST + sum(sizes)))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30), st.integers(MIN_ROW_LENGTH, 70))
def test_rows_are_filled_greedily(sizes: list[int], row_length: int) -> None:
    """A row is left unfilled only where what follows could not have gone on in it, but for a stub."""
    rows = packed(sizes, row_length)
    for (_, lengths), (following, next_lengths) in pairwise(rows):
        room = row_length - sum(lengths)
        assert next_lengths[0] > room or room == 0 or following[0] != SPECIAL["cls"]
        assert room < 2 * MIN_PIECE_TOKENS


@given(st.lists(st.integers(0, 200), max_size=20), st.integers(1, 4))
def test_blocks_do_not_change_rows(sizes: list[int], rows_per_block: int) -> None:
    one, many = packed(sizes, 32), packed(sizes, 32, rows_per_block)
    assert [(ids.tolist(), lengths) for ids, lengths in one] == [(ids.tolist(), lengths) for ids, lengths in many]


def test_nothing_gives_no_rows() -> None:
    assert packed([], 16) == packed([0, 0], 16) == []
