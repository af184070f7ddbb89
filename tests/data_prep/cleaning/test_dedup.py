import gzip
import hashlib
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rensa import RMinHash

from data_prep.cleaning.dedup import BAND_ROWS, MAX_RANK, NUM_BANDS, band_entries, document_key, near_duplicates
from data_prep.cleaning.words import BLOCK_CHARACTERS, mix, ngrams, words_of
from data_prep.errors import UserError
from tests.data_prep.languages import SNIPPETS
from tests.data_prep.real_data import DATA, needs_texts

ARTICLES = DATA / "wikipedia" / "extracted" / "AA"
ENTRIES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60)


def array(entries: list[tuple[int, int]]) -> np.ndarray:
    return np.array(entries, np.uint64).reshape(-1, 2)


def article(number: int, words: int = 400) -> list[str]:
    generator = random.Random(number)
    return [f"w{generator.randrange(5_000)}" for _ in range(words)]


def found(*texts: str) -> list[int]:
    """Which of the texts go, their keys being their places."""
    entries = np.concatenate([band_entries(text, place) for place, text in enumerate(texts)])
    return near_duplicates(entries).tolist()


@given(ENTRIES, st.randoms(use_true_random=False))
def test_who_goes_is_a_plain_function_of_the_entries(entries: list[tuple[int, int]], generator: random.Random) -> None:
    smallest: dict[int, int] = {}
    for band, key in entries:
        smallest[band] = min(key, smallest.get(band, key))
    wanted = sorted({key for band, key in entries if key != smallest[band]})
    gone = near_duplicates(array(entries))
    assert gone.dtype == np.uint64
    assert gone.tolist() == wanted
    shuffled = entries * 2
    generator.shuffle(shuffled)
    assert near_duplicates(array(shuffled)).tolist() == wanted
    assert not entries or min(key for _, key in entries) not in wanted


@given(ENTRIES)
def test_who_stays_stays_when_asked_again(entries: list[tuple[int, int]]) -> None:
    gone = set(near_duplicates(array(entries)).tolist())
    assert near_duplicates(array([entry for entry in entries if entry[1] not in gone])).tolist() == []


@given(ENTRIES, st.integers(0, 6), st.integers(0, 6))
def test_ranges_of_hashes_add_up(entries: list[tuple[int, int]], first: int, second: int) -> None:
    low, high = sorted((first, second))
    ranges = [(0, low), (low, high), (high, 6)]
    parts = [near_duplicates(array([e for e in entries if start <= e[0] < end])) for start, end in ranges]
    assert np.unique(np.concatenate(parts)).tolist() == near_duplicates(array(entries)).tolist()


def test_one_key_is_no_duplicate_of_itself() -> None:
    text = " ".join(article(0))
    assert found(text) == []
    assert near_duplicates(np.concatenate([band_entries(text, 7)] * 3)).tolist() == []
    assert near_duplicates(np.empty((0, 2), np.uint64)).tolist() == []
    assert found(text, text, text) == [1, 2]


def test_document_key() -> None:
    text = "na\u00efve"
    digest = int(hashlib.sha256(text.encode()).hexdigest()[:14], 16)
    assert document_key(text, 0) == digest < 1 << 56
    assert document_key(text, 3) == (3 << 56) + digest
    assert document_key(text, MAX_RANK) < 1 << 64
    assert document_key("x", 1) > document_key("y", 0)
    with pytest.raises(UserError, match="257 sources are named, at most 256 are possible"):
        document_key(text, 256)


def test_band_entries_by_hand() -> None:
    text = "One two, THREE: four five six"
    hashes = mix(ngrams(words_of("one two three four five six").hashes, 5))
    assert len(hashes) == 2
    sketch = RMinHash.digest_matrix_from_flat_token_hashes(hashes, [0, 2], 112, 20210).to_rows()[0]
    entries = band_entries(text, 77)
    assert entries.shape == (NUM_BANDS, 2) == (14, 2)
    assert entries.dtype == np.uint64
    assert (entries[:, 1] == 77).all()
    for band in range(NUM_BANDS):
        rows = np.array(sketch[band * BAND_ROWS : (band + 1) * BAND_ROWS], "<u4").tobytes()
        wanted = hashlib.blake2b(rows, digest_size=8, salt=bytes([band])).digest()
        assert int(entries[band, 0]) == int.from_bytes(wanted, "big")
    assert len(np.unique(entries[:, 0])) == NUM_BANDS


def test_hashes_are_the_same_on_every_machine() -> None:
    entries = band_entries("The early bird catches the worm.", 1)
    assert entries[:2, 0].tolist() == [5452338256607557959, 3927237964250961795]


def test_short_texts_have_no_entries() -> None:
    assert band_entries("", 1).shape == band_entries("Four words, not five!", 1).shape == (0, 2)
    assert band_entries("Here are five of them.", 1).shape == (NUM_BANDS, 2)
    assert band_entries("\u4eca\u5929\u5929\u6c14", 1).shape == (0, 2)
    assert band_entries("\u4eca\u5929\u5929\u6c14\u597d", 1).shape == (NUM_BANDS, 2)


def test_case_punctuation_and_lines_do_not_count() -> None:
    text = " ".join(article(1))
    other = re.sub(" ", lambda match: random.Random(match.start()).choice([" ", ", ", "\n", " - "]), text.upper())
    assert (band_entries(text, 5) == band_entries(other, 5)).all()


def test_a_text_of_many_blocks_has_the_shingles_of_one() -> None:
    words = article(2, 60_000)
    text = " ".join(words)
    assert len(text) > 5 * BLOCK_CHARACTERS
    by_word = {word: words_of(word).hashes[0] for word in set(words)}
    hashes = np.array([by_word[word] for word in words])
    sketch = RMinHash.digest_matrix_from_flat_token_hashes(mix(ngrams(hashes, 5)), [0, len(words) - 4], 112, 20210)
    rows = np.array(sketch.to_rows()[0], "<u4").reshape(14, 8)
    wanted = [
        hashlib.blake2b(row.tobytes(), digest_size=8, salt=bytes([band])).digest() for band, row in enumerate(rows)
    ]
    assert band_entries(text, 0)[:, 0].tolist() == [int.from_bytes(value, "big") for value in wanted]


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9])
def test_collisions_follow_the_documented_curve(similarity: float) -> None:
    """Pairs of texts that share their first part and differ in the rest: their similarity is that of the parts."""
    shingles = 800
    shared = round(2 * shingles * similarity / (1 + similarity))
    exact = shared / (2 * shingles - shared)
    trials = 400
    hits = 0
    for number in range(trials):
        words = [f"x{number}y{place}" for place in range(shingles + 4)]
        others = [*words[: shared + 4], *(f"z{number}y{place}" for place in range(shared + 4, shingles + 4))]
        hits += len(found(" ".join(words), " ".join(others)))
    probability = 1 - (1 - exact**BAND_ROWS) ** NUM_BANDS
    # Five standard deviations of a binomial.
    assert abs(hits / trials - probability) <= 5 * (probability * (1 - probability) / trials) ** 0.5 + 0.002


def test_an_edited_copy_is_found_and_a_different_text_is_not() -> None:
    generator = random.Random(3)
    for number in range(40):
        original = article(number)
        edited = original.copy()
        for place in generator.sample(range(len(edited)), 3):
            edited[place] = "edited"
        cut = original[10:]
        assert found(" ".join(original), " ".join(edited), " ".join(cut)) == [1, 2]
    assert found(*(" ".join(article(number)) for number in range(300))) == []
    assert found(*SNIPPETS.values()) == []


def test_a_preferred_source_keeps_its_copy() -> None:
    text = " ".join(article(4))
    edited = text.replace(text.split()[200], "edited", 1)
    keys = document_key(text, 1), document_key(edited, 0)
    gone = near_duplicates(np.concatenate([band_entries(text, keys[0]), band_entries(edited, keys[1])]))
    assert gone.tolist() == [keys[0]]


@needs_texts
def test_real_articles_are_different_and_their_edited_copies_are_found() -> None:
    files = sorted(ARTICLES.glob("wiki_*.gz"))[:4]
    whole = "".join(gzip.decompress(path.read_bytes()).decode() for path in files)
    articles = re.findall(r"<doc [^>]*>\n(.*?)</doc>", whole, re.DOTALL)
    assert len(articles) > 90
    assert found(*articles) == []
    generator = random.Random(0)
    for article in articles:
        words = article.split(" ")
        for place in generator.sample(range(len(words)), 4):
            words[place] = "edited"
        assert found(article, " ".join(words)) == [1]
