import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.cleaning import words
from data_prep.cleaning.words import BLOCK_CHARACTERS, blocks, ngrams, words_of

ALPHABET = "abAB19 .-'\n\u00e9\u00c9\u2014\u0436\u0416"
TEXTS = st.text(ALPHABET, max_size=60).map(lambda text: "\n".join(" ".join(x.split()) for x in text.split("\n")))


@given(TEXTS)
@example("")
@example("\n")
@example(" a ")
def test_words_are_runs_of_letters_and_digits_in_lower_case(text: str) -> None:
    found = words_of(text)
    matches = list(re.finditer(r"[^\W_]+", text))
    assert found.starts.tolist() == [match.start() for match in matches]
    for match, value in zip(matches, found.hashes.tolist(), strict=True):
        assert [value] == words_of(match[0].lower()).hashes.tolist()
    by_word: dict[str, int] = {}
    for match, value in zip(matches, found.hashes.tolist(), strict=True):
        by_word[match[0].lower()] = value
    assert len(set(by_word.values())) == len(by_word)
    assert found.length == len(text)
    assert found.symbols == sum(not char.isalnum() and not char.isspace() for char in text)
    assert found.unspaced == 0
    assert found.lettered == sum(any(char.isalpha() for char in token) for token in re.split("[ \n]", text))


def test_hashes_are_the_same_on_every_machine() -> None:
    assert words_of("The early bird").hashes.tolist() == [
        9674242317061484106,
        words_of("early").hashes[0],
        words_of("bird").hashes[0],
    ]
    assert words_of("123 early").hashes[1] == words_of("early").hashes[0]


def test_scripts_without_spaces_give_a_word_a_character() -> None:
    found = words_of("\u6cb3\u5cb8\u4e0a\u3002 x1\u6cb3y \U00020000\U00020001 \u0e01\u0e34")
    assert found.starts.tolist() == [0, 1, 2, 5, 7, 8, 10, 11, 13, 14]
    assert found.unspaced == 8
    assert found.symbols == 1
    assert found.hashes[0] == found.hashes[4]
    assert len(set(found.hashes.tolist())) == 9


def test_signs_beyond_the_basic_plane() -> None:
    found = words_of("\U0001f600 \U00010400x")
    assert found.starts.tolist() == [2]
    assert found.symbols == 1


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 6), st.sampled_from([8, 16, 64]))
def test_blocks_are_the_text_cut_behind_white_space(lengths: list[int], seed: int, limit: int) -> None:
    text = "".join("x" * length + " \n"[(length * seed) % 2] for length in lengths).strip()
    original = words.BLOCK_CHARACTERS
    words.BLOCK_CHARACTERS = limit
    try:
        parts = list(blocks(text))
    finally:
        words.BLOCK_CHARACTERS = original
    assert "".join(parts) == text
    assert all(len(part) <= limit for part in parts)
    for part in parts[:-1]:
        assert part[-1] in " \n" or (len(part) == limit and not set(part) & set(" \n"))


def test_a_long_text_has_the_words_of_its_parts() -> None:
    text = " ".join(f"word{number}" for number in range(30_000))
    parts = [words_of(block) for block in blocks(text)]
    assert len(parts) == -(-len(text) // BLOCK_CHARACTERS) > 3
    hashes = np.concatenate([part.hashes for part in parts])
    assert len(np.unique(hashes)) == 30_000
    assert hashes[29_999] == words_of("word29999").hashes[0]


def test_ngrams() -> None:
    hashes = words_of("a b c a b c d").hashes
    pairs = ngrams(hashes, 2)
    assert len(pairs) == 6
    assert pairs[0] == pairs[3]
    assert pairs[1] == pairs[4]
    assert len(set(pairs.tolist())) == 4
    assert len(ngrams(hashes, 7)) == 1
    assert len(ngrams(hashes, 8)) == 0
    assert ngrams(hashes, 1).tolist() == hashes.tolist()
    assert ngrams(words_of("a b").hashes, 2)[0] != ngrams(words_of("b a").hashes, 2)[0]
