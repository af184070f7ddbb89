"""Masking: exact counts, whole words, right shares, a pure function of its coordinates; against slow references."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_prep.rows.masking import Masked, MaskRules, extend_chain, hash_chain, mask_rows, mix, span_starts, word_starts

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB = 100
CONTINUES = np.arange(VOCAB) >= 60
UNITS = ("token", "word", "span")


def rows(num_rows: int, length: int, seed: int = 0, vocab: int = VOCAB) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(5, vocab, (num_rows, length))
    ids[:, 0], ids[:, -1] = SPECIAL["cls"], SPECIAL["sep"]
    return ids


def masked(ids: np.ndarray, row_ids: np.ndarray, epochs: np.ndarray, seed: int = 1, **rules: object) -> Masked:
    return mask_rows(ids, row_ids, epochs, seed, MaskRules(**rules), SPECIAL, VOCAB, CONTINUES)  # type: ignore[arg-type]


def same(one: Masked, other: Masked) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("input_ids", "positions", "labels")
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, dict[str, float]]:
    """Rows with special tokens anywhere, any mix of words; row numbers, epochs, seed, rules."""
    num_rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 60))
    make = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = make.integers(5, VOCAB, (num_rows, length))
    share_continuing = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    continuing = make.random(ids.shape) < share_continuing
    ids = np.where(continuing, make.integers(60, VOCAB, ids.shape), make.integers(5, 60, ids.shape))
    is_special = make.random(ids.shape) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    ids = np.where(is_special, make.integers(0, 5, ids.shape), ids)
    rate = draw(st.one_of(st.floats(0.01, 0.99), st.sampled_from([0.15, 0.4, 0.99])))
    share = draw(st.sampled_from([(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]))
    return (
        ids,
        make.integers(0, 2**40, num_rows),
        make.integers(0, 100, num_rows),
        draw(st.integers(0, 2**63)),
        {"rate": rate, "mask_token": share[0], "random_token": share[1]},
    )


# The masking of single tokens as it was before there were other units, kept to the letter: its bits may not change.


def earlier_mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def earlier_chain(*parts: object) -> np.ndarray:
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = earlier_mix(state + np.uint64(0x9E3779B97F4A7C15) + np.asarray(part).astype(np.uint64))
    return state


def earlier_uniform(hashed: np.ndarray) -> np.ndarray:
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def earlier_mask_rows(
    input_ids: np.ndarray, row_ids: np.ndarray, epochs: np.ndarray, seed: int, rules: MaskRules, vocab_size: int
) -> Masked:
    length = input_ids.shape[1]
    special = np.array(sorted(set(SPECIAL.values())), np.int64)
    maskable = ~np.isin(input_ids, special)
    counts = maskable.sum(1)
    quota = np.where(counts > 0, np.maximum(1, np.rint(rules.rate * counts)), 0).astype(np.int64)
    coordinates = (epochs[:, None], row_ids[:, None], np.arange(length)[None, :])
    rank_keys = earlier_uniform(earlier_chain(seed, 1, *coordinates))
    rank_keys[~maskable] = 2.0
    order = np.argsort(rank_keys, axis=1, kind="stable")
    chosen = np.zeros_like(maskable)
    np.put_along_axis(chosen, order, np.arange(length)[None, :] < quota[:, None], axis=1)
    positions = np.flatnonzero(chosen)
    row, column = np.divmod(positions, length)
    labels = input_ids[row, column]
    where = (epochs[row], row_ids[row], column)
    action = earlier_uniform(earlier_chain(seed, 2, *where))
    ordinary = np.setdiff1d(np.arange(vocab_size, dtype=np.int64), special)
    draws = (earlier_chain(seed, 3, *where) % np.uint64(len(ordinary))).astype(np.int64)
    replaced = np.where(
        action < rules.mask_token,
        SPECIAL["mask"],
        np.where(action < rules.mask_token + rules.random_token, ordinary[draws], labels),
    )
    masked_ids = input_ids.copy()
    masked_ids[row, column] = replaced
    return Masked(masked_ids, positions, labels)


@given(batches())
@settings(max_examples=150, deadline=None)
def test_single_tokens_are_masked_as_ever(batch: tuple) -> None:
    ids, row_ids, epochs, seed, rules = batch
    wanted = earlier_mask_rows(ids, row_ids, epochs, seed, MaskRules(**rules), VOCAB)
    assert same(masked(ids, row_ids, epochs, seed, **rules), wanted)


@pytest.mark.parametrize("length", [128, 2048])
def test_long_rows_are_masked_as_ever(length: int) -> None:
    ids = rows(3, length, vocab=30_000)
    numbers = np.array([0, 7, 2**41])
    rules = MaskRules(rate=0.15)
    wanted = earlier_mask_rows(ids, numbers, numbers, 5, rules, 30_000)
    assert same(mask_rows(ids, numbers, numbers, 5, rules, SPECIAL, 30_000), wanted)


# The same in plain whole numbers, one row at a time, for every unit.

MASK_64 = 2**64 - 1


def slow_hash(*parts: int) -> int:
    state = 0
    for part in parts:
        z = (state + 0x9E3779B97F4A7C15 + int(part)) & MASK_64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
        state = z ^ (z >> 31)
    return state


def slow_words(row: list[int]) -> list[list[int]]:
    words: list[list[int]] = []
    for column, token in enumerate(row):
        if token in SPECIAL.values():
            continue
        if CONTINUES[token] and words and words[-1][-1] == column - 1:
            words[-1].append(column)
        else:
            words.append([column])
    return words


def slow_span_length(value: int) -> int:
    """Inverse of P(at most n) = (1 - 0.8^n) / (1 - 0.8^10) at value / 2^16."""
    for n in range(1, 11):
        if value < int(2**16 * (1 - Fraction(4, 5) ** n) / (1 - Fraction(4, 5) ** 10)):
            return n
    raise AssertionError


def slow_units(row: list[int], unit: str, row_id: int, epoch: int, seed: int) -> list[list[list[int]]]:
    """Units, each a list of words, each a list of columns."""
    words = slow_words(row)
    if unit == "token":
        return [[[column]] for word in words for column in word]
    if unit == "word":
        return [[word] for word in words]
    units: list[list[list[int]]] = []
    drawn = left = 0
    for word in words:
        new_stretch = word[0] == 0 or row[word[0] - 1] in SPECIAL.values()
        if left == 0:
            quarter, place = divmod(drawn, 4)
            left = slow_span_length(slow_hash(seed, 4, epoch, row_id, quarter) >> (16 * place) & 0xFFFF)
            drawn += 1
            units.append([word])
        elif new_stretch:
            units.append([word])
        else:
            units[-1].append(word)
        left -= 1
    return units


def slow_mask(row: list[int], row_id: int, epoch: int, seed: int, unit: str, rules: MaskRules) -> dict[int, int]:
    """{column: new token}."""
    units = slow_units(row, unit, row_id, epoch, seed)
    count = sum(token not in SPECIAL.values() for token in row)
    quota = max(1, round(rules.rate * count)) if count else 0
    bits = 11 if unit == "token" else 12
    units.sort(key=lambda words: (slow_hash(seed, 1, epoch, row_id, words[0][0]) >> bits, words[0][0]))
    taken: list[tuple[int, int]] = []  # column, first column of its unit
    for words in units:
        for word in words:
            if len(taken) + len(word) > quota:
                break
            taken += [(column, words[0][0]) for column in word]
    if units and not taken:
        taken = [(column, units[0][0][0]) for column in units[0][0]]
    ordinary = [token for token in range(VOCAB) if token not in SPECIAL.values()]
    result = {}
    for column, first in taken:
        place = first if unit == "span" else column
        action = (slow_hash(seed, 2, epoch, row_id, place) >> 11) * 2.0**-53
        if action < rules.mask_token:
            result[column] = SPECIAL["mask"]
        elif action < rules.mask_token + rules.random_token:
            result[column] = ordinary[slow_hash(seed, 3, epoch, row_id, column) % len(ordinary)]
        else:
            result[column] = row[column]
    return result


@pytest.mark.parametrize("unit", UNITS)
@given(batch=batches())
@settings(max_examples=150, deadline=None)
def test_every_unit_against_a_slow_reference(unit: str, batch: tuple) -> None:
    ids, row_ids, epochs, seed, rules = batch
    result = masked(ids, row_ids, epochs, seed, unit=unit, **rules)
    positions: list[int] = []
    for i, row in enumerate(ids.tolist()):
        wanted = slow_mask(row, row_ids[i], epochs[i], seed, unit, MaskRules(**rules))
        assert result.input_ids[i].tolist() == [wanted.get(column, token) for column, token in enumerate(row)]
        positions += [i * len(row) + column for column in sorted(wanted)]
    assert result.positions.tolist() == positions
    assert result.labels.tolist() == ids.reshape(-1)[positions].tolist()


# What must hold whatever the reference says.


@given(st.integers(1, 6), st.integers(3, 40), st.floats(0.01, 0.99), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_counts_positions_and_labels(num_rows: int, length: int, rate: float, seed: int) -> None:
    ids = rows(num_rows, length, seed)
    result = masked(ids, np.arange(num_rows), np.zeros(num_rows, int), seed, rate=rate)
    per_row = np.bincount(result.positions // length, minlength=num_rows)
    assert (per_row == max(1, np.rint(rate * (length - 2)))).all()
    assert (np.diff(result.positions) > 0).all()
    assert (result.labels == ids.reshape(-1)[result.positions]).all()
    untouched = np.ones(ids.size, bool)
    untouched[result.positions] = False
    assert (result.input_ids.reshape(-1)[untouched] == ids.reshape(-1)[untouched]).all()
    assert not np.isin(result.labels, list(SPECIAL.values())).any()


@pytest.mark.parametrize("unit", ["word", "span"])
@given(batch=batches())
@settings(max_examples=100, deadline=None)
def test_whole_words_up_to_the_quota(unit: str, batch: tuple) -> None:
    ids, row_ids, epochs, seed, rules = batch
    result = masked(ids, row_ids, epochs, seed, unit=unit, **rules)
    chosen = np.zeros(ids.size, bool)
    chosen[result.positions] = True
    for row, picked in zip(ids.tolist(), chosen.reshape(ids.shape), strict=True):
        words = slow_words(row)
        count = sum(map(len, words))
        assert not picked[np.isin(row, list(SPECIAL.values()))].any()
        assert all(picked[word].all() or not picked[word].any() for word in words)
        taken = [word for word in words if picked[word[0]]]
        quota = max(1, round(rules["rate"] * count)) if count else 0
        assert picked.sum() <= quota or len(taken) == 1
        assert len(taken) >= (count > 0)
        if unit == "word" and picked.sum() < quota:
            left = quota - int(picked.sum())
            assert all(len(word) > left for word in words if not picked[word[0]])


def test_where_single_token_words_are_enough_the_quota_is_met() -> None:
    ids = rows(200, 128)
    for rate in (0.15, 0.4, 0.8):
        result = masked(ids, np.arange(200), np.zeros(200, int), unit="word", rate=rate)
        per_row = np.bincount(result.positions // 128, minlength=200)
        assert (per_row == np.rint(rate * 126)).mean() > 0.99


@pytest.mark.parametrize("unit", UNITS)
def test_a_row_is_masked_the_same_alone_in_company_and_in_any_order(unit: str) -> None:
    ids = rows(8, 64)
    row_ids, epochs = np.arange(8) + 100, np.arange(8) % 3
    together = masked(ids, row_ids, epochs, unit=unit)
    assert same(together, masked(ids.copy(), row_ids, epochs, unit=unit))
    for i in (0, 5):
        alone = masked(ids[i : i + 1], row_ids[i : i + 1], epochs[i : i + 1], unit=unit)
        assert (alone.input_ids[0] == together.input_ids[i]).all()
    order = np.array([3, 7, 0, 1, 6, 2, 5, 4])
    shuffled = masked(ids[order], row_ids[order], epochs[order], unit=unit)
    assert (shuffled.input_ids == together.input_ids[order]).all()


@pytest.mark.parametrize("unit", UNITS)
def test_epoch_row_and_seed_all_matter(unit: str) -> None:
    ids = np.repeat(rows(1, 200), 4, axis=0)
    result = masked(ids, np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]), unit=unit)
    other_seed = masked(ids, np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]), seed=2, unit=unit)
    first = result.input_ids[0]
    assert (first != result.input_ids[1]).any()
    assert (first != result.input_ids[2]).any()
    assert (first == result.input_ids[3]).all()
    assert (first != other_seed.input_ids[0]).any()


@pytest.mark.parametrize("unit", ["token", "word"])
def test_shares_of_mask_random_and_kept(unit: str) -> None:
    ids = rows(400, 202)
    result = masked(ids, np.arange(400), np.zeros(400, int), unit=unit, rate=0.5)
    now = result.input_ids.reshape(-1)[result.positions]
    n = len(now)
    share_masked = (now == SPECIAL["mask"]).mean()
    share_kept = (now == result.labels).mean()
    # A random token equals the original one time in 95.
    assert share_masked == pytest.approx(0.8, abs=4 * (0.16 / n) ** 0.5)
    assert share_kept == pytest.approx(0.1 + 0.1 / 95, abs=4 * (0.09 / n) ** 0.5)
    randoms = now[(now != SPECIAL["mask"]) & (now != result.labels)]
    assert randoms.min() >= 5
    assert stats.chisquare(np.bincount(randoms, minlength=VOCAB)[5:]).pvalue > 1e-4


def test_a_span_is_treated_alike_as_a_whole() -> None:
    ids = rows(300, 202)
    numbers, epochs = np.arange(300), np.zeros(300, int)
    result = masked(ids, numbers, epochs, unit="span", rate=0.3)
    maskable = ids >= 5
    units = span_starts(word_starts(CONTINUES[ids], maskable), maskable, numbers, epochs, 1)
    unit_numbers = np.cumsum(units.reshape(-1))[result.positions]
    now = result.input_ids.reshape(-1)[result.positions]
    kinds = np.where(now == SPECIAL["mask"], 0, np.where(now == result.labels, 2, 1))
    shares = np.zeros(3)
    for unit in np.unique(unit_numbers):
        of_span = kinds[unit_numbers == unit]
        # Among the random tokens of a span one may happen to be the original.
        kind = 1 if 1 in of_span else of_span[0]
        assert (of_span == kind).all() or (kind == 1 and 0 not in of_span)
        shares[kind] += 1
    assert shares / shares.sum() == pytest.approx([0.8, 0.1, 0.1], abs=4 * (0.16 / shares.sum()) ** 0.5)


def test_spans_have_the_lengths_of_the_paper() -> None:
    """Words of a span: 0.2 * 0.8^(n - 1), given n <= 10, whose mean is 3.8."""
    num_rows, length = 400, 1000
    words = np.ones((num_rows, length), bool)
    starts = span_starts(words, words, np.arange(num_rows), np.zeros(num_rows, int), 3)
    # The last span of a row is cut by its end.
    lengths = np.concatenate([np.diff(np.flatnonzero(row)) for row in starts])
    probabilities = 0.2 * 0.8 ** np.arange(10) / (1 - 0.8**10)
    counts = np.bincount(lengths, minlength=11)[1:]
    assert lengths.min() == 1
    assert lengths.max() == 10
    assert stats.chisquare(counts, probabilities * counts.sum()).pvalue > 1e-4
    assert lengths.mean() == pytest.approx(3.797, abs=0.03)
    # As masked: the quota cuts one span in about forty here.
    ids = np.full((100, 1000), 7)
    result = masked(ids, np.arange(100), np.zeros(100, int), unit="span", rate=0.15)
    chosen = np.zeros(ids.shape, bool)
    chosen.reshape(-1)[result.positions] = True
    assert (chosen.sum(1) == 150).all()
    units = span_starts(np.ones_like(chosen), np.ones_like(chosen), np.arange(100), np.zeros(100, int), 1)
    spans = np.unique(np.cumsum(units.reshape(-1))[result.positions], return_counts=True)[1]
    assert spans.mean() == pytest.approx(3.8, abs=0.15)


@pytest.mark.parametrize(("unit", "bias"), [("token", 0.0), ("word", 0.015), ("span", 0.03)])
def test_every_place_is_masked_about_equally_often(unit: str, bias: float) -> None:
    """Tokens exactly so. Longer words fit less often into what is left to mask, and so do a span's later words, which
    favours the first words of a row."""
    num_rows, length = 4000, 120
    ids = np.tile(np.arange(length) % 3 + 58, (num_rows, 1))  # words of one and two tokens
    result = masked(ids, np.arange(num_rows), np.zeros(num_rows, int), unit=unit, rate=0.15)
    shares = np.bincount(result.positions % length, minlength=length) / num_rows
    assert shares.mean() == pytest.approx(0.15, abs=0.002)
    assert np.abs(shares - 0.15).max() < bias + 5 * (0.15 * 0.85 / num_rows) ** 0.5


@pytest.mark.parametrize("unit", UNITS)
def test_all_mask_objective_padding_rows_and_the_highest_rate(unit: str) -> None:
    ids = rows(3, 20)
    ids[1] = SPECIAL["pad"]
    result = masked(ids, np.arange(3), np.zeros(3, int), unit=unit, rate=0.99, mask_token=1.0, random_token=0.0)
    assert not (result.positions // 20 == 1).any()
    assert (result.input_ids.reshape(-1)[result.positions] == SPECIAL["mask"]).all()
    assert (np.bincount(result.positions // 20, minlength=3) == [18, 0, 18]).all()


def test_one_endless_word_is_masked_whole() -> None:
    """Where no word is short enough; and a lone long word does not keep the others from being masked."""
    ids = np.full((2, 40), 80)
    ids[1, 30:] = 10
    result = masked(ids, np.arange(2), np.zeros(2, int), unit="word", rate=0.15)
    assert (np.bincount(result.positions // 40) == [40, 6]).all()


def test_words_need_to_know_what_continues_them() -> None:
    with pytest.raises(AssertionError, match="masking by word"):
        mask_rows(rows(1, 9), np.zeros(1, int), np.zeros(1, int), 0, MaskRules(unit="word"), SPECIAL, VOCAB)


def test_empty_batches() -> None:
    for unit in UNITS:
        result = masked(np.zeros((0, 16), np.int64), np.zeros(0, int), np.zeros(0, int), unit=unit)
        assert result.input_ids.shape == (0, 16)
        assert len(result.positions) == len(result.labels) == 0


def test_hash_chain_is_its_definition_and_its_bits_are_balanced() -> None:
    hashed = hash_chain(7, np.arange(20000))
    assert hashed[:5].tolist() == [slow_hash(7, n) for n in range(5)]
    assert (extend_chain(hash_chain(7), np.arange(20000)) == hashed).all()
    bits = (hashed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / 20000**0.5
    assert len(np.unique(hashed)) == 20000
    values = np.arange(3, dtype=np.uint64)
    mix(values)
    assert values.tolist() == [0, 1, 2]
