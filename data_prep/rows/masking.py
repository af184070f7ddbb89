"""Masked language modelling as a pure function of (seed, epoch, row). Knows nothing of files, recipes or torch.

Every random choice is a hash of its coordinates, so any row can be masked alone, in any order, on any rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

_STREAM_CHOICE, _STREAM_ACTION, _STREAM_TOKEN, _STREAM_SPAN = 1, 2, 3, 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LAST = np.uint64(2**64 - 1)
# A column takes this many low bits of a sort key; rows of more columns take what they need.
_COLUMN_BITS = 11
MAX_SPAN_WORDS = 10


def mix(values: Hashes) -> Hashes:
    """SplitMix64's output function: uint64 to well-mixed uint64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def extend_chain(state: Hashes, part: IntArray | int) -> Hashes:
    """hash_chain with one more part: `extend_chain(hash_chain(a, b), c)` is `hash_chain(a, b, c)`."""
    return mix((state + _GOLDEN) + np.asarray(part).astype(np.uint64))


def hash_chain(*parts: IntArray | int) -> Hashes:
    """One uint64 for every (broadcast) tuple of integer coordinates."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = extend_chain(state, part)
    return state


def uniform(hashed: Hashes) -> NDArray[np.float64]:
    """Doubles in [0, 1), from the upper 53 bits."""
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class MaskRules:
    """What is masked: `rate` of a row's tokens, as single tokens, whole words, or spans of whole words; of these a
    share `mask_token` becomes [MASK], a share `random_token` a random token, the rest stays."""

    rate: float = 0.15
    unit: Literal["token", "word", "span"] = "token"
    mask_token: float = 0.8
    random_token: float = 0.1


@dataclass(frozen=True)
class Masked:
    """A batch ready for the model: `input_ids` (n, L), flat `positions` (m,) of the masked tokens in row order
    and the original tokens there, `labels` (m,)."""

    input_ids: IntArray
    positions: IntArray
    labels: IntArray


def mask_rows(
    input_ids: IntArray,
    row_ids: IntArray,
    epochs: IntArray,
    seed: int,
    rules: MaskRules,
    special_tokens: Mapping[str, int],
    vocab_size: int,
    continues: Flags | None = None,
) -> Masked:
    """Mask round(rate * maskable) tokens a row, at least one where any token can be masked.

    Units are taken in hashed order. With unit "token" the count is exact. With "word" and "span" a unit gives its
    words from the left as long as they fit into what is left of the count; so the count is never exceeded, unless
    no unit begins with a word that short: then one word is masked. A span has 1 to 10 words (see `span_starts`).
    Of the chosen tokens `mask_token` become [MASK], `random_token` a random ordinary token, the rest stay (BERT,
    Devlin et al. 2019, 3.1), each token for itself, or with "span" all tokens of a span alike (SpanBERT, Joshi et
    al. 2020, 3.1). Special tokens and padding are never masked. Counts a row, rather than one coin a token, lower
    the variance and keep shapes steady.

    input_ids: (n, L), all below vocab_size; row_ids, epochs: (n,); vocab_size: ids a random token is drawn from are
    0..vocab_size-1 without the special ones; continues: (vocab_size,), the ids that continue a word, needed for
    every unit but "token".
    """
    special = np.array(sorted(set(special_tokens.values())), np.int64)
    is_special = np.zeros(vocab_size, np.bool_)
    is_special[special] = True
    maskable = ~is_special[input_ids]
    counts = maskable.sum(1)
    quota = np.where(counts > 0, np.maximum(1, np.rint(rules.rate * counts)), 0).astype(np.int64)
    columns = np.arange(input_ids.shape[1], dtype=np.int64)
    choice = extend_chain(hash_chain(seed, _STREAM_CHOICE, epochs, row_ids)[:, None], columns[None, :])

    first_columns = None
    if rules.unit == "token":
        chosen = _choose_tokens(choice, maskable, quota)
    else:
        assert continues is not None, f"masking by {rules.unit} needs to know which ids continue a word"
        starts = word_starts(continues[input_ids], maskable)
        units = starts if rules.unit == "word" else span_starts(starts, maskable, row_ids, epochs, seed)
        unit_columns = np.maximum.accumulate(np.where(units, columns, 0), axis=1)
        chosen = _choose_words(choice, maskable, quota, starts, units, unit_columns)
        first_columns = unit_columns if rules.unit == "span" else None

    row, column = np.nonzero(chosen)
    labels = input_ids[row, column]
    replaced = np.full(len(row), special_tokens["mask"], np.int64)
    if rules.mask_token < 1:
        where = column if first_columns is None else first_columns[row, column]
        action = uniform(extend_chain(hash_chain(seed, _STREAM_ACTION, epochs, row_ids)[row], where))
        kept = action >= rules.mask_token + rules.random_token
        replaced[kept] = labels[kept]
        random = np.flatnonzero((action >= rules.mask_token) & ~kept)
        draws = extend_chain(hash_chain(seed, _STREAM_TOKEN, epochs, row_ids)[row[random]], column[random])
        draws %= np.uint64(vocab_size - len(special))
        replaced[random] = _ordinary(draws.astype(np.int64), special)
    masked_ids = input_ids.copy()
    masked_ids[row, column] = replaced
    return Masked(masked_ids, row * input_ids.shape[1] + column, labels)


def word_starts(continuing: Flags, maskable: Flags) -> Flags:
    """(n, L): True on the first token of every word; behind a special token begins one whatever it holds."""
    starts = ~continuing
    starts[:, 0] = True
    starts[:, 1:] |= ~maskable[:, :-1]
    return starts & maskable


def span_starts(starts: Flags, maskable: Flags, row_ids: IntArray, epochs: IntArray, seed: int) -> Flags:
    """(n, L): True on the first token of every span.

    The words of a row (`starts`) are cut from left to right into spans whose numbers of words are drawn from
    SpanBERT's distribution, geometric with p = 0.2 given that it is at most 10 (mean 3.8). No span goes over a
    special token: there it is cut in two. Spans side by side rather than anywhere make them independent of each
    other and of the quota: they are chosen like words are.
    """
    most_words = int(starts.sum(1).max(initial=0))
    quarters = np.arange((most_words + 3) // 4, dtype=np.int64)
    draws = extend_chain(hash_chain(seed, _STREAM_SPAN, epochs, row_ids)[:, None], quarters[None, :])
    ends = np.cumsum(_SPAN_WORDS[draws.astype("<u8").view("<u2")], axis=1, dtype=np.int64)
    begins = np.zeros((len(starts), most_words + 1), np.bool_)
    begins[:, 0] = True
    np.put_along_axis(begins, np.minimum(ends, most_words), True, axis=1)
    numbers = np.maximum(np.cumsum(starts, axis=1) - 1, 0)
    spans = np.take_along_axis(begins, numbers, axis=1)
    spans[:, 1:] |= ~maskable[:, :-1]
    return spans & starts


def _span_words() -> NDArray[np.uint8]:
    """Words of a span for every 16-bit number, in whole-number arithmetic: the same on every machine."""
    whole = 5**MAX_SPAN_WORDS - 4**MAX_SPAN_WORDS
    up_to = [5**MAX_SPAN_WORDS - 4**n * 5 ** (MAX_SPAN_WORDS - n) for n in range(MAX_SPAN_WORDS + 1)]
    bounds = np.array([(1 << 16) * part // whole for part in up_to])
    return np.repeat(np.arange(1, MAX_SPAN_WORDS + 1, dtype=np.uint8), np.diff(bounds))


_SPAN_WORDS = _span_words()


def _choose_tokens(choice: Hashes, maskable: Flags, quota: IntArray) -> Flags:
    """The `quota` maskable tokens of each row with the smallest (upper bits of the hash, column)."""
    keys, _ = _sort_keys(choice, 0)
    keys[~maskable] = _LAST
    thresholds = np.take_along_axis(np.sort(keys, axis=1), np.maximum(quota - 1, 0)[:, None], axis=1)
    return (keys <= thresholds) & maskable


def _choose_words(
    choice: Hashes, maskable: Flags, quota: IntArray, starts: Flags, units: Flags, unit_columns: IntArray
) -> Flags:
    """Whole words up to the quota: of the units in hashed order, their words from the left as long as they fit."""
    length = maskable.shape[1]
    keys, bits = _sort_keys(np.take_along_axis(choice, unit_columns, axis=1), 1)
    ends = maskable.copy()
    ends[:, :-1] &= starts[:, 1:] | ~maskable[:, 1:]
    keys |= ends
    keys[~maskable] = _LAST
    # The tokens of a unit stand together in this order, left to right; a key tells its column and the word's end.
    ordered = np.sort(keys, axis=1)
    places = np.arange(1, length + 1)
    closed = np.where((ordered & np.uint64(1)).astype(np.bool_) & (places <= quota[:, None]), places, 0).max(1)
    thresholds = np.take_along_axis(ordered, np.maximum(closed - 1, 0)[:, None], axis=1)
    chosen = (keys <= thresholds) & maskable & (closed > 0)[:, None]

    short = np.flatnonzero(closed < quota)
    if len(short):
        columns = ((ordered[short] >> np.uint64(1)) & np.uint64((1 << bits) - 1)).astype(np.int64)
        columns = np.minimum(columns, length - 1)
        real = ordered[short] != _LAST
        taken = _fill(
            real & np.take_along_axis(units[short], columns, axis=1),
            real & np.take_along_axis(ends[short], columns, axis=1),
            real.sum(1),
            closed[short],
            quota[short],
        )
        row, place = np.nonzero(taken)
        chosen[short[row], columns[row, place]] = True
    return chosen


def _fill(units: Flags, ends: Flags, counts: IntArray, closed: IntArray, quota: IntArray) -> Flags:
    """(k, L): tokens to take behind the `closed` first ones of each row, where the next word did not fit.

    units, ends: whether a token in hashed order begins a unit, ends a word; counts: how many tokens there are.
    """
    num_rows, length = units.shape
    places = np.arange(length)
    word_end = np.minimum.accumulate(np.where(ends, places, length)[:, ::-1], axis=1)[:, ::-1] + 1
    closed_before = np.maximum.accumulate(np.where(ends, places + 1, 0), axis=1)
    unit_end = np.where(units, places, counts[:, None])
    unit_end = np.minimum.accumulate(unit_end[:, ::-1], axis=1)[:, ::-1]
    first_words = np.where(units, word_end - places, length + 1)
    taken = np.zeros((num_rows, length), np.bool_)

    rows, at, left = np.arange(num_rows), closed.copy(), quota - closed
    while len(rows):
        fits = (first_words[rows] <= left[:, None]) & (places >= at[:, None])
        begin = fits.argmax(1)
        found = fits[np.arange(len(rows)), begin]
        rows, begin, left = rows[found], begin[found], left[found]
        behind = np.append(unit_end[rows], counts[rows, None], axis=1)[np.arange(len(rows)), begin + 1]
        at = closed_before[rows, np.minimum(begin + left, behind) - 1]
        taken[rows] |= (places >= begin[:, None]) & (places < at[:, None])
        left = left - (at - begin)
        rows, at, left = rows[left > 0], at[left > 0], left[left > 0]

    bare = (closed == 0) & ~taken.any(1)
    taken[bare] = places < word_end[bare, :1]
    return taken


def _sort_keys(hashed: Hashes, flag_bits: int) -> tuple[Hashes, int]:
    """Hashes (n, L) with their low bits replaced by the column and `flag_bits` zeros below it; the column's bits."""
    length = hashed.shape[1]
    bits = max(_COLUMN_BITS, (length - 1).bit_length())
    keys = hashed & ~np.uint64((1 << (bits + flag_bits)) - 1)
    keys |= np.arange(length, dtype=np.uint64) << np.uint64(flag_bits)
    return keys, bits


def _ordinary(draws: IntArray, special: IntArray) -> IntArray:
    """The ids that are not special, by their number: 0 is the smallest. special: sorted, without doubles."""
    return draws + np.searchsorted(special - np.arange(len(special)), draws, side="right")
