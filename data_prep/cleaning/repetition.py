"""How much a text repeats itself: Gopher's rules (Rae et al. 2021, A1.1) for lines and for phrases of 2 to 10 words.

Phrases are looked for within blocks of words, and the shares of a text are those of its blocks together: so long books
take time in proportion, and are not dropped for phrases that come back in every chapter. Knows nothing of other rules.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from data_prep.cleaning.words import Words, blocks, ngrams, words_of

# Gopher: share of characters in repeated lines. Its share of lines is left out: in plays every third line is a name.
_DUPLICATE_LINES = 0.2
# Gopher: share of the characters in the phrase of n words that takes most. In short articles the title alone may
# take so much: it has to stand there often, too.
_TOP_NGRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
_OFTEN = 10
# Gopher: share of the characters in phrases of n words that stood there before. Short articles say the same of one
# thing after another; theirs is the share of repeated lines alone.
_DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
FEW_WORDS_FOR_PHRASES = 200


def repeats_lines(text: str, lines: list[str]) -> bool:
    """Whether too many of the characters are in lines that stood there before."""
    repeated = sum(len(line) * (count - 1) for line, count in Counter(lines).items() if count > 1)
    return repeated > _DUPLICATE_LINES * len(text)


def most_in_top(words: Words, pairs: NDArray[np.uint64]) -> int:
    """A bound, soon found, on the characters of a block in any one phrase of 2 to 4 words.

    No phrase occurs more often than the most frequent of the `pairs`, the hashes of every two words.
    """
    if len(pairs) < _OFTEN:
        return 0
    rising = np.sort(pairs)
    if not (rising[_OFTEN - 1 :] == rising[: len(rising) - _OFTEN + 1]).any():
        return 0
    often = int(np.diff((rising[1:] != rising[:-1]).nonzero()[0], prepend=-1, append=len(pairs) - 1).max())
    return often * int(max(_spans(words, size).max(initial=0) for size in _TOP_NGRAMS))


def most_in_duplicates(words: Words) -> int:
    """A bound on the characters of a block in repeated phrases: all such phrases begin like one of 5 words."""
    return _covered(words, _later(ngrams(words.hashes, 5)), max(_DUPLICATE_NGRAMS))


def repeats_one_phrase(text: str, most: int) -> bool:
    """Whether one phrase of 2 to 4 words takes too much. `most` is the sum of `most_in_top` over all blocks."""
    if most <= min(_TOP_NGRAMS.values()) * len(text):
        return False
    taken = dict.fromkeys(_TOP_NGRAMS, 0)
    for words in map(words_of, blocks(text)):
        for size in _TOP_NGRAMS:
            grams = ngrams(words.hashes, size)
            if len(grams) < _OFTEN:
                continue
            order = np.argsort(grams)
            begins = np.flatnonzero(np.diff(grams[order], prepend=~grams[order[0]]) != 0)
            often = np.diff(begins, append=len(grams)) >= _OFTEN
            taken[size] += int((np.add.reduceat(_spans(words, size)[order], begins) * often).max())
    return any(taken[size] > share * len(text) for size, share in _TOP_NGRAMS.items())


def repeats_phrases(text: str, most: int) -> bool:
    """Whether repeated phrases of 5 to 10 words do. `most` is the sum of `most_in_duplicates` over all blocks."""
    if most <= min(_DUPLICATE_NGRAMS.values()) * len(text):
        return False
    taken = dict.fromkeys(_DUPLICATE_NGRAMS, 0)
    for words in map(words_of, blocks(text)):
        for size in _DUPLICATE_NGRAMS:
            taken[size] += _covered(words, _later(ngrams(words.hashes, size)), size)
    return any(taken[size] > share * len(text) for size, share in _DUPLICATE_NGRAMS.items())


def _later(grams: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where n-grams stand that stood somewhere before."""
    order = np.argsort(grams)
    rising = grams[order]
    same = rising[1:] == rising[:-1]
    if not same.any():
        return np.empty(0, np.int64)
    repeated = np.zeros(len(grams), bool)
    repeated[1:] |= same
    repeated[:-1] |= same
    places = np.sort(order[repeated])
    return np.delete(places, np.unique(grams[places], return_index=True)[1])


def _covered(words: Words, places: NDArray[np.int64], size: int) -> int:
    """Characters of all words that are among `size` words from one of the places."""
    if not len(places):
        return 0
    change = np.zeros(len(words.hashes) + 1, np.int64)
    np.add.at(change, places, 1)
    np.add.at(change, np.minimum(places + size, len(words.hashes)), -1)
    return int(_spans(words, 1)[np.cumsum(change[:-1]) > 0].sum())


def _spans(words: Words, size: int) -> NDArray[np.int64]:
    """Characters from the beginning of every word to that of the word `size` behind it."""
    edges = np.append(words.starts, words.length)
    return edges[size:] - edges[:-size]
