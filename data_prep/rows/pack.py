"""Packing: token ids of documents into rows of one length, in order, in one of three ways.

Knows nothing of files or tokenizers.

documents: `[CLS] d d [SEP] [CLS] e e [SEP]`. A piece is all of one document; one that does not fit is cut, and goes
on in the next row. Sentences count for nothing, no token is lost.
sentences: `[CLS] s s [SEP] t t t [SEP]`, FULL-SENTENCES of RoBERTa (Liu et al. 2019, 4.2). As many whole sentences as
fit, going over from one document to the next, with [SEP] behind each document's part. No token is lost.
pairs: `[CLS] A [SEP] B [SEP]` as for BERT (Devlin et al. 2019, A.2). A and B are consecutive parts of one document, as
many whole sentences as fit, parted where one of them ends. A row with just one is parted in its middle; at the end of
a document such a row is left out where it has fewer than MIN_LONE_TOKENS.

A sentence is cut only where it is longer than a row, or, in pairs, where two do not fit into one row; then a row is
filled up with its beginning, and the next one begins with what is left of it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from data_prep.rows.masking import hash_chain

Packing = Literal["documents", "sentences", "pairs"]
PACKINGS: tuple[Packing, ...] = ("documents", "sentences", "pairs")
Ints = NDArray[np.int64]

# Shorter pieces teach nothing: none has fewer tokens, [CLS] and [SEP] counted, unless its document is so short.
MIN_PIECE_TOKENS = 8
MIN_ROW_LENGTH = 2 * MIN_PIECE_TOKENS
MIN_LONE_TOKENS = 16
_MIN_CONTENT = MIN_PIECE_TOKENS - 2


@dataclass(frozen=True)
class PackedRows:
    """Rows: `ids` (n, row_length); `lengths`, the pieces' token counts, flat; row i holds
    `lengths[offsets[i]:offsets[i + 1]]`. In packing sentences a row is one piece; in pairs it is two, `[CLS] A [SEP]`
    and `B [SEP]`. `longest_document`: the most rows any document is in. `left_out`: tokens that are in no row."""

    ids: NDArray[np.integer]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]
    longest_document: int
    left_out: int


class _Text(NamedTuple):
    """All documents' `tokens`, flat; the token `ends` of all sentences; the number of each one's document."""

    tokens: NDArray[np.integer]
    ends: Ints
    documents: Ints


class _Runs(NamedTuple):
    """Tokens that stand together in a row, [SEP] behind them: run i is `size[i]` tokens from `start[i]` on."""

    row: Ints
    document: Ints
    start: Ints
    size: Ints


def next_piece(remaining: int, used: int, row_length: int) -> int:
    """How many of a document's `remaining` > 0 tokens go behind the `used` tokens of a row.

    0 means that the row is padded, and the question asked again for an empty one, where it is never 0.
    """
    space = row_length - used - 2
    if remaining <= space:
        return remaining
    piece = min(space, remaining - _MIN_CONTENT)
    return piece if piece >= _MIN_CONTENT else 0


def pack_rows(
    documents: Iterable[Sequence[NDArray[np.integer]]],
    packing: Packing,
    row_length: int,
    special_tokens: dict[str, int],
    dtype: DTypeLike,
) -> PackedRows:
    """Rows of all documents, each a sequence of its sentences' ids (1-D; empty ones are passed over).

    `row_length` is at least MIN_ROW_LENGTH.
    """
    assert row_length >= MIN_ROW_LENGTH
    text = _joined(documents, dtype)
    if not len(text.tokens):
        return PackedRows(np.empty((0, row_length), dtype), np.empty(0, np.int32), np.zeros(1, np.int32), 0, 0)
    if packing == "documents":
        runs = _cut(text, _document_rows(text, row_length))
    elif packing == "sentences":
        runs = _cut(text, _sentence_rows(text, row_length))
    else:
        runs = _pair_runs(text, row_length)
    return _written(text, runs, packing, row_length, special_tokens)


def _joined(documents: Iterable[Sequence[NDArray[np.integer]]], dtype: DTypeLike) -> _Text:
    sentences: list[NDArray[np.integer]] = [np.empty(0, dtype)]
    numbers: list[int] = []
    for number, document in enumerate(documents):
        present = [sentence for sentence in document if len(sentence)]
        sentences += present
        numbers += [number] * len(present)
    ends = np.cumsum([len(sentence) for sentence in sentences[1:]], dtype=np.int64)
    return _Text(np.concatenate(sentences, dtype=dtype, casting="unsafe"), ends, np.array(numbers, np.int64))


def _document_starts(text: _Text) -> Ints:
    """The first token of every document that has one."""
    behind = np.flatnonzero(np.diff(text.documents))
    return np.concatenate([[0], text.ends[behind]])


def _document_rows(text: _Text, row_length: int) -> list[int]:
    """The token that every row begins with."""
    rows = [0]
    used = 0
    for start, end in pairwise([*_document_starts(text).tolist(), len(text.tokens)]):
        while start < end:
            size = next_piece(end - start, used, row_length)
            start += size
            used += size + 2
            if not size or used == row_length:
                rows.append(start)
                used = 0
    return rows[:-1] if rows[-1] == len(text.tokens) else rows


def _sentence_rows(text: _Text, row_length: int) -> list[int]:
    """The token that every row begins with."""
    # Up to the end of a sentence a row takes its tokens, and one [SEP] for every document before this one.
    number = (np.diff(text.documents, prepend=text.documents[0]) > 0).cumsum()
    costs = (text.ends + number).tolist()
    ends, numbers = text.ends.tolist(), number.tolist()
    rows = []
    start = sentence = 0
    while start < len(text.tokens):
        rows.append(start)
        behind = bisect_right(costs, start + numbers[sentence] + row_length - 2, sentence)
        end = ends[behind - 1] if behind > sentence else start
        if behind < len(ends) and ends[behind] - (ends[behind - 1] if behind else 0) > row_length - 2:
            used = end - start + numbers[behind] - numbers[sentence]
            end += next_piece(ends[behind] - end, used, row_length)
        start, sentence = end, behind
    return rows


def _cut(text: _Text, rows: list[int]) -> _Runs:
    """All tokens, cut where a row or a document begins."""
    row_starts, document_starts = np.array(rows), _document_starts(text)
    starts = np.union1d(row_starts, document_starts)
    return _Runs(
        np.searchsorted(row_starts, starts, "right") - 1,
        np.searchsorted(document_starts, starts, "right") - 1,
        starts,
        np.diff(starts, append=len(text.tokens)),
    )


def _pair_runs(text: _Text, row_length: int) -> _Runs:
    ends = text.ends.tolist()
    room = row_length - 3
    rows: list[tuple[int, int, int, int, int]] = []
    first_sentences = np.flatnonzero(np.diff(text.documents, prepend=-1)).tolist()
    start = 0
    for sentence, behind_last in pairwise([*first_sentences, len(ends)]):
        number = int(text.documents[sentence])
        while start < ends[behind_last - 1]:
            behind = bisect_right(ends, start + room, sentence, behind_last)
            end = ends[behind - 1] if behind > sentence else start
            if behind < behind_last and (behind - sentence < 2 or ends[behind] - ends[behind - 1] > room):
                end += next_piece(ends[behind] - end, end - start + 1, row_length)
            # A may end with any sentence but the one that the row ends in.
            num_places = bisect_left(ends, end, sentence, behind) - sentence
            if num_places or end < ends[behind_last - 1] or end - start >= MIN_LONE_TOKENS:
                rows.append((number, start, end, sentence, num_places))
            start, sentence = end, behind
    document, first, last, sentences, places = np.array(rows, np.int64).reshape(-1, 5).T
    row = np.arange(len(rows))
    drawn = (hash_chain(document, row) >> np.uint64(32)) * places.astype(np.uint64) >> np.uint64(32)
    middle = np.where(places, text.ends[sentences + drawn.astype(np.int64)], (first + last) // 2)
    return _Runs(
        np.repeat(row, 2),
        np.repeat(document, 2),
        np.stack([first, middle], 1).reshape(-1),
        np.stack([middle - first, last - middle], 1).reshape(-1),
    )


def _written(text: _Text, runs: _Runs, packing: Packing, row_length: int, special_tokens: dict[str, int]) -> PackedRows:
    """The rows: behind every run [SEP], before every one in documents [CLS], else before the first of a row."""
    cls, sep, pad = (special_tokens[name] for name in ("cls", "sep", "pad"))
    row_begins = np.flatnonzero(np.diff(runs.row, prepend=-1))
    has_cls = np.full(len(runs.row), packing == "documents")
    has_cls[row_begins] = True
    widths = runs.size + has_cls + 1
    behind = np.cumsum(widths)
    places = behind - widths + runs.row * row_length
    places -= (behind - widths)[row_begins][runs.row]

    ids = np.full(len(row_begins) * row_length, pad, text.tokens.dtype)
    ids[places[has_cls]] = cls
    ids[places + widths - 1] = sep
    for place, start, size in np.stack([places + has_cls, runs.start, runs.size], 1).tolist():
        ids[place : place + size] = text.tokens[start : start + size]

    bounds = np.flatnonzero(np.diff(runs.document, prepend=-1, append=-1))
    rows_taken = runs.row[bounds[1:] - 1] - runs.row[bounds[:-1]] + 1
    if packing == "sentences":
        widths, row_begins = np.add.reduceat(widths, row_begins), np.arange(len(row_begins))
    return PackedRows(
        ids.reshape(-1, row_length),
        widths.astype(np.int32),
        np.append(row_begins, len(widths)).astype(np.int32),
        int(rows_taken.max(initial=0)),
        len(text.tokens) - int(runs.size.sum()),
    )
