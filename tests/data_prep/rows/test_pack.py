"""Each packing against a slow reference that builds rows token by token, and against what its rows must be."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.rows.pack import (
    MIN_LONE_TOKENS,
    MIN_PIECE_TOKENS,
    MIN_ROW_LENGTH,
    PackedRows,
    Packing,
    next_piece,
    pack_rows,
)

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
PAD, CLS, SEP = 0, 2, 3
FIRST = 10
MIN_CONTENT = MIN_PIECE_TOKENS - 2
PACKINGS: tuple[Packing, ...] = ("documents", "sentences", "pairs")

Sizes = list[list[int]]
Row = tuple[list[int], list[int]]

SHORT = st.lists(st.lists(st.integers(0, 20), max_size=12), max_size=8)
MIXED = st.lists(st.lists(st.one_of(st.integers(0, 12), st.integers(0, 150)), max_size=10), max_size=8)
SIZES = st.one_of(SHORT, MIXED)
ROW_LENGTHS = st.one_of(st.integers(MIN_ROW_LENGTH, 70), st.just(128))


def numbered(sizes: Sequence[Sequence[int]]) -> list[list[np.ndarray]]:
    """Documents of sentences; every token is another number, so that it tells where it came from."""
    flat = [size for document in sizes for size in document]
    ranges = iter([np.arange(start, end) for start, end in pairwise(np.cumsum([0, *flat]) + FIRST)])
    return [[next(ranges) for _ in document] for document in sizes]


def pack(sizes: Sequence[Sequence[int]], packing: Packing, row_length: int, dtype: Any = np.int32) -> PackedRows:
    rows = pack_rows(numbered(sizes), packing, row_length, SPECIAL, dtype)
    assert rows.ids.shape == (len(rows.offsets) - 1, row_length)
    assert rows.ids.dtype == dtype
    assert rows.lengths.dtype == rows.offsets.dtype == np.int32
    assert rows.offsets[0] == 0
    assert rows.offsets[-1] == len(rows.lengths)
    return rows


def plain(rows: PackedRows) -> list[Row]:
    """Every row's ids without the padding, which is checked, and its piece lengths."""
    result = []
    for number, ids in enumerate(rows.ids.tolist()):
        lengths = rows.lengths[rows.offsets[number] : rows.offsets[number + 1]].tolist()
        assert lengths
        assert min(lengths) > 0
        assert ids[sum(lengths) :] == [PAD] * (len(ids) - sum(lengths))
        result.append((ids[: sum(lengths)], lengths))
    return result


def joined(parts: Sequence[list[int]]) -> list[int]:
    return [token for part in parts for token in part]


def content(ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token >= FIRST]


class Origin:
    """Where a token of `numbered` documents comes from."""

    def __init__(self, sizes: Sequence[Sequence[int]]) -> None:
        self.document = [d for d, document in enumerate(sizes) for size in document for _ in range(size)]
        self.sentence = [
            number for number, size in enumerate(size for document in sizes for size in document) for _ in range(size)
        ]
        self.sentence_sizes = [size for document in sizes for size in document]

    def documents(self, tokens: Sequence[int]) -> list[int]:
        return [self.document[token - FIRST] for token in tokens]

    def sentence_of(self, token: int) -> int:
        return self.sentence[token - FIRST]


# The references: rows are lists of parts, and whether something fits is asked by writing the row.


def reference_documents(documents: list[list[np.ndarray]], row_length: int) -> list[Row]:
    rows: list[list[list[int]]] = [[]]
    for document in documents:
        left = [int(token) for sentence in document for token in sentence]
        while left:
            used = sum(len(piece) for piece in rows[-1])
            takes = 0
            for number in range(len(left), 0, -1):
                fits = used + number + 2 <= row_length
                if fits and (number == len(left) or min(number, len(left) - number) >= MIN_CONTENT):
                    takes = number
                    break
            if not takes:
                rows.append([])
                continue
            rows[-1].append([CLS, *left[:takes], SEP])
            left = left[takes:]
    return [(joined(row), [len(piece) for piece in row]) for row in rows if row]


def written_sentences(row: list[tuple[int, list[int]]]) -> list[int]:
    ids = [CLS]
    for position, (document, tokens) in enumerate(row):
        if position and row[position - 1][0] != document:
            ids.append(SEP)
        ids += tokens
    return [*ids, SEP]


def reference_sentences(documents: list[list[np.ndarray]], row_length: int) -> list[Row]:
    rows: list[list[tuple[int, list[int]]]] = [[]]
    for number, document in enumerate(documents):
        for sentence in document:
            left = sentence.tolist()
            while left:
                takes = 0
                if len(written_sentences([*rows[-1], (number, left)])) <= row_length:
                    takes = len(left)
                elif len(sentence) + 2 > row_length:
                    for cut in range(MIN_CONTENT, len(left) - MIN_CONTENT + 1):
                        if len(written_sentences([*rows[-1], (number, left[:cut])])) <= row_length:
                            takes = cut
                if takes:
                    rows[-1].append((number, left[:takes]))
                    left = left[takes:]
                if left:
                    rows.append([])
    return [(ids, [len(ids)]) for ids in (written_sentences(row) for row in rows if row)]


def split_mix(*parts: int) -> int:
    """A hash of a sequence of numbers, in Python's own integers: SplitMix64 chained."""
    state = 0
    for part in parts:
        state = (state + 0x9E3779B97F4A7C15 + part) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state


def reference_pairs(documents: list[list[np.ndarray]], row_length: int) -> tuple[list[Row], int]:
    rows: list[Row] = []
    left_out = 0
    room = row_length - 3
    for number, document in enumerate(documents):
        left = [(sentence.tolist(), len(sentence) > room) for sentence in document if len(sentence)]
        while left:
            row: list[list[int]] = []
            space = room
            while left and len(left[0][0]) <= space:
                row.append(left.pop(0)[0])
                space -= len(row[-1])
            if left and (len(row) < 2 or left[0][1]):
                tokens, is_long = left[0]
                cut = min(space, len(tokens) - MIN_CONTENT)
                if cut >= MIN_CONTENT:
                    row.append(tokens[:cut])
                    left[0] = (tokens[cut:], is_long)
            if len(row) == 1:
                if not left and len(row[0]) < MIN_LONE_TOKENS:
                    left_out += len(row[0])
                    continue
                half = len(row[0]) // 2
                row = [row[0][:half], row[0][half:]]
            first = 1 + ((split_mix(number, len(rows)) >> 32) * (len(row) - 1) >> 32)
            a, b = [CLS, *joined(row[:first]), SEP], [*joined(row[first:]), SEP]
            rows.append((a + b, [len(a), len(b)]))
    return rows, left_out


# Any packing.


@given(SIZES, ROW_LENGTHS)
def test_documents_like_the_reference(sizes: Sizes, row_length: int) -> None:
    rows = pack(sizes, "documents", row_length)
    assert plain(rows) == reference_documents(numbered(sizes), row_length)


@given(SIZES, ROW_LENGTHS)
def test_sentences_like_the_reference(sizes: Sizes, row_length: int) -> None:
    rows = pack(sizes, "sentences", row_length)
    assert plain(rows) == reference_sentences(numbered(sizes), row_length)


@given(SIZES, ROW_LENGTHS)
def test_pairs_like_the_reference(sizes: Sizes, row_length: int) -> None:
    rows = pack(sizes, "pairs", row_length)
    assert (plain(rows), rows.left_out) == reference_pairs(numbered(sizes), row_length)


@pytest.mark.parametrize("packing", PACKINGS)
@given(sizes=SIZES, row_length=ROW_LENGTHS)
def test_order_kept_nothing_lost_longest_document_right(packing: Packing, sizes: Sizes, row_length: int) -> None:
    rows = pack(sizes, packing, row_length)
    tokens = [token for ids, _ in plain(rows) for token in content(ids)]
    assert len(tokens) + rows.left_out == sum(map(sum, sizes))
    assert all(one < other for one, other in pairwise(tokens))
    if packing != "pairs":
        assert rows.left_out == 0
    origin = Origin(sizes)
    rows_of: dict[int, set[int]] = {}
    for number, (ids, _) in enumerate(plain(rows)):
        for document in origin.documents(content(ids)):
            rows_of.setdefault(document, set()).add(number)
    assert all(max(numbers) - min(numbers) == len(numbers) - 1 for numbers in rows_of.values())
    assert rows.longest_document == max(map(len, rows_of.values()), default=0)


@pytest.mark.parametrize("packing", PACKINGS)
def test_nothing_gives_no_rows(packing: Packing) -> None:
    for sizes in ([], [[]], [[0], [0, 0]]):
        rows = pack(sizes, packing, 16)
        assert len(rows.ids) == len(rows.lengths) == rows.longest_document == rows.left_out == 0


@pytest.mark.parametrize("packing", PACKINGS)
@given(sizes=MIXED)
def test_empty_sentences_change_nothing_and_documents_come_from_any_iterable(packing: Packing, sizes: Sizes) -> None:
    bare = numbered(sizes)
    padded = ([part for sentence in document for part in (sentence[:0], sentence)] for document in bare)
    one, other = (pack_rows(documents, packing, 32, SPECIAL, np.uint16) for documents in (bare, padded))
    assert plain(one) == plain(other)


@pytest.mark.parametrize("packing", PACKINGS)
def test_ids_up_to_the_end_of_their_type(packing: Packing) -> None:
    document = [np.full(20, 65_535, np.int32), np.full(20, 40_000, np.int32)]
    ids = pack_rows([document], packing, 64, SPECIAL, np.uint16).ids
    assert ids.dtype == np.uint16
    assert sorted(ids[ids > SEP].tolist()) == [40_000] * 20 + [65_535] * 20


# Packing "documents".


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


def test_documents_worked_out_by_hand() -> None:
    rows = plain(pack([[3], [20], [4]], "documents", row_length=16))
    assert [lengths for _, lengths in rows] == [[5, 11], [13], [6]]
    assert rows[0][0] == [2, 10, 11, 12, 3, 2, 13, 14, 15, 16, 17, 18, 19, 20, 21, 3]
    assert rows[1][0] == [2, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 3]
    assert rows[2][0] == [2, 33, 34, 35, 36, 3]


@given(
    st.lists(st.one_of(st.integers(0, 12), st.integers(0, 200)), max_size=30),
    st.integers(MIN_ROW_LENGTH, 70),
)
def test_pieces_are_of_one_document_and_no_stubs(sizes: list[int], row_length: int) -> None:
    origin = Origin([sizes])
    for ids, lengths in plain(pack([[size] for size in sizes], "documents", row_length)):
        start = 0
        for length in lengths:
            piece = ids[start : start + length]
            start += length
            assert piece[0] == CLS
            assert piece[-1] == SEP
            assert len(content(piece)) == length - 2
            documents = {origin.sentence_of(token) for token in content(piece)}
            assert len(documents) == 1
            assert length >= min(MIN_PIECE_TOKENS, sizes[documents.pop()] + 2)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30), st.integers(MIN_ROW_LENGTH, 70))
def test_rows_are_filled_greedily(sizes: list[int], row_length: int) -> None:
    """A row is left unfilled only where what follows could not have gone on in it, but for a stub."""
    rows = plain(pack([[size] for size in sizes], "documents", row_length))
    for (_, lengths), (following, next_lengths) in pairwise(rows):
        room = row_length - sum(lengths)
        assert next_lengths[0] > room or room == 0 or following[0] != CLS
        assert room < 2 * MIN_PIECE_TOKENS


@given(MIXED)
def test_documents_do_not_mind_where_sentences_end(sizes: Sizes) -> None:
    assert plain(pack(sizes, "documents", 32)) == plain(pack([[sum(x)] for x in sizes], "documents", 32))


# Packing "sentences".


def test_sentences_worked_out_by_hand() -> None:
    rows = pack([[4, 3], [5, 2], [30]], "sentences", row_length=16)
    assert plain(rows) == [
        ([2, 10, 11, 12, 13, 14, 15, 16, 3, 17, 18, 19, 20, 21, 3], [15]),  # 2 more would make 17
        ([2, 22, 23, 3, *range(24, 35), 3], [16]),  # the long sentence fills this row,
        ([2, *range(35, 48), 3], [15]),  # leaves six of its tokens to the last,
        ([2, *range(48, 54), 3], [8]),
    ]
    assert rows.longest_document == 3


def test_a_row_may_hold_several_whole_documents() -> None:
    assert plain(pack([[1], [2], [], [1, 1]], "sentences", row_length=16)) == [
        ([2, 10, 3, 11, 12, 3, 13, 14, 3], [9]),
    ]


@given(SIZES, ROW_LENGTHS)
def test_sentence_rows_are_laid_out_as_in_the_paper(sizes: Sizes, row_length: int) -> None:
    origin = Origin(sizes)
    for ids, lengths in plain(pack(sizes, "sentences", row_length)):
        assert lengths == [len(ids)]
        assert ids[0] == CLS
        assert ids[-1] == SEP
        assert ids.count(CLS) == 1
        tokens = content(ids)
        assert tokens == list(range(tokens[0], tokens[-1] + 1))
        inner = [position for position, token in enumerate(ids) if token == SEP][:-1]
        between = [(ids[position - 1], ids[position + 1]) for position in inner]
        documents = origin.documents(tokens)
        changes = [
            (one, other) for one, other in pairwise(tokens) if origin.documents([one]) != origin.documents([other])
        ]
        assert between == changes
        assert len(inner) == len(set(documents)) - 1


@given(SIZES, ROW_LENGTHS)
def test_sentences_are_whole_but_for_those_longer_than_a_row(sizes: Sizes, row_length: int) -> None:
    origin = Origin(sizes)
    rows = plain(pack(sizes, "sentences", row_length))
    for (ids, _), (following, _) in pairwise(rows):
        last, first = content(ids)[-1], content(following)[0]
        sentence = origin.sentence_of(first)
        size = origin.sentence_sizes[sentence]
        together = len(ids) + (origin.documents([last]) != origin.documents([first])) + size
        if origin.sentence_of(last) == sentence:
            assert size > row_length - 2
        elif size <= row_length - 2:
            assert together > row_length  # it would not have fitted into the row before
        else:
            assert row_length - len(ids) <= MIN_CONTENT


# Packing "pairs".


def test_pairs_worked_out_by_hand() -> None:
    rows = pack([[5, 6, 4], [40], [7], [3, 20]], "pairs", row_length=16)
    assert plain(rows) == [
        ([2, *range(10, 15), 3, *range(15, 21), 3], [7, 7]),  # 4 more would make 15 + 3
        ([2, *range(25, 31), 3, *range(31, 38), 3], [8, 8]),  # a long sentence fills rows, parted in the middle,
        ([2, *range(38, 44), 3, *range(44, 51), 3], [8, 8]),
        ([2, *range(51, 55), 3, *range(55, 59), 3], [6, 5]),  # leaves six to the last, which are left out
        ([2, *range(72, 75), 3, *range(75, 85), 3], [5, 11]),
    ]
    assert rows.left_out == 4 + 6 + 7 + 10
    assert rows.longest_document == 3


@pytest.mark.parametrize(("tokens", "lengths"), [(15, []), (16, [10, 9]), (17, [10, 10])])
def test_a_lone_sentence_is_parted_in_the_middle_or_left_out(tokens: int, lengths: list[int]) -> None:
    rows = pack([[tokens]], "pairs", row_length=64)
    assert rows.lengths.tolist() == lengths
    assert rows.left_out == (0 if lengths else tokens)


@given(SIZES, ROW_LENGTHS)
def test_both_parts_are_of_one_document_and_follow_each_other(sizes: Sizes, row_length: int) -> None:
    origin = Origin(sizes)
    for ids, lengths in plain(pack(sizes, "pairs", row_length)):
        a, b = ids[1 : lengths[0] - 1], ids[lengths[0] : -1]
        assert ids == [CLS, *a, SEP, *b, SEP]
        assert lengths == [len(a) + 2, len(b) + 1]
        assert a
        assert b
        assert a + b == list(range(a[0], b[-1] + 1))
        assert len(set(origin.documents(a + b))) == 1
        if origin.sentence_of(a[-1]) == origin.sentence_of(b[0]):
            assert origin.sentence_of(a[0]) == origin.sentence_of(b[-1])
            assert len(b) - len(a) in (0, 1)


@given(SIZES, ROW_LENGTHS)
def test_pairs_leave_out_only_short_ends_of_documents(sizes: Sizes, row_length: int) -> None:
    rows = pack(sizes, "pairs", row_length)
    kept = {token for ids, _ in plain(rows) for token in content(ids)}
    for document in numbered(sizes):
        tokens = [int(token) for sentence in document for token in sentence]
        missing = [token not in kept for token in tokens]
        assert sum(missing) < MIN_LONE_TOKENS
        assert missing == sorted(missing)


@given(SIZES, ROW_LENGTHS)
def test_pairs_cut_a_sentence_only_where_two_do_not_fit(sizes: Sizes, row_length: int) -> None:
    origin = Origin(sizes)
    room = row_length - 3
    for (ids, _), (following, _) in pairwise(plain(pack(sizes, "pairs", row_length))):
        tokens, first = content(ids), content(following)[0]
        sentences = [origin.sentence_of(token) for token in tokens]
        size = origin.sentence_sizes[origin.sentence_of(first)]
        if sentences[-1] == origin.sentence_of(first):
            before = tokens.index(next(t for t in tokens if origin.sentence_of(t) == sentences[-1]))
            assert size > room or (len(set(sentences)) == 2 and before + size > room)


def test_a_row_is_parted_at_any_sentence_alike() -> None:
    rows = pack([[5] * 1998], "pairs", row_length=33)
    assert (rows.lengths.reshape(-1, 2).sum(1) == 33).all()
    counts = np.bincount((rows.lengths[::2] - 2) // 5, minlength=6)
    assert counts[0] == 0
    assert counts.sum() == 333
    expected = counts.sum() / 5
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 18.5  # chi square, 4 degrees of freedom, p = 0.001


def test_the_parting_depends_on_the_place_in_the_unit_only() -> None:
    sizes = [[4, 5, 6, 7, 8, 9] * 5, [7] * 40]
    assert plain(pack(sizes, "pairs", 64)) == plain(pack(sizes, "pairs", 64))
    moved = pack([[20, 20], *sizes], "pairs", 64).lengths[2:]
    assert moved.tolist() != pack(sizes, "pairs", 64).lengths.tolist()


# How well rows are filled, on text like real text.


@pytest.mark.parametrize(
    ("packing", "row_length", "least"),
    [
        ("documents", 128, 0.99),
        ("documents", 512, 0.99),
        ("sentences", 128, 0.84),
        ("sentences", 512, 0.95),
        ("pairs", 128, 0.83),
        ("pairs", 512, 0.78),
    ],
)
def test_rows_are_filled_well(packing: Packing, row_length: int, least: float) -> None:
    generator = np.random.default_rng(7)
    sizes = [np.ceil(generator.lognormal(3.2, 0.6, 40)).astype(int).tolist() for _ in range(200)]
    rows = pack(sizes, packing, row_length)
    assert rows.lengths.sum() / rows.ids.size > least
    assert rows.left_out < 0.002 * sum(map(sum, sizes))
