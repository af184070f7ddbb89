"""Text as numbers: 64-bit hashes of its words, lower-cased and without punctuation, a block of text at a time.

A word is a run of letters, marks and digits; in scripts written without spaces (Chinese, Japanese, Thai, ...) every
character is a word. All of it is vectorised over code points. Knows nothing of what the words are counted for.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK_CHARACTERS = 1 << 16
# Bits of a table entry, above the 21 of a lower-cased code point; characters between words are 0.
_LETTER = 1 << 30
_UNSPACED = 1 << 29
_BMP = 1 << 16
_SPACE, _NEWLINE = ord(" "), ord("\n")
_UNSPACED_RANGES = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x0F00, 0x1000),  # Tibetan
    (0x1000, 0x10A0),  # Burmese
    (0x1780, 0x1800),  # Khmer
    (0x3005, 0x3008),
    (0x3040, 0x3130),  # kana, bopomofo
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),  # ideographs
    (0x4E00, 0xA4D0),  # ideographs, Yi
    (0xF900, 0xFB00),
)
_ASTRAL_IDEOGRAPHS = (0x20000, 0x40000)
_ASTRAL_SYMBOLS = (0x1F000, 0x1FC00)
# An odd number has an inverse modulo 2**64, so that a word's hash does not depend on where the word stands.
_BASE = 0x9E3779B97F4A7C15
_CHAIN = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True)
class Words:
    """The words of one block: their `hashes` and where each begins. `length` is the block's in characters.

    `symbols` characters are neither in words nor white space, `unspaced` ones are words by themselves, and
    `lettered` is how often a letter or more stand between white space.
    """

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    length: int
    symbols: int
    unspaced: int
    lettered: int


def blocks(text: str) -> Iterator[str]:
    """The text in parts of at most BLOCK_CHARACTERS, cut behind white space where there is some."""
    start = 0
    while len(text) - start > BLOCK_CHARACTERS:
        end = start + BLOCK_CHARACTERS
        cut = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def words_of(block: str) -> Words:
    """The words of a block of clean text (white space is single spaces and "\\n"), at most BLOCK_CHARACTERS long."""
    assert len(block) <= BLOCK_CHARACTERS
    codes = np.frombuffer(block.encode("utf-32-le"), np.uint32)
    coded = _table().take(codes, mode="clip")
    if codes.size and codes.max() >= _BMP:
        _code_astral(codes, coded)
    inside = coded != 0
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    unspaced = 0
    if not block.isascii():
        alone = (coded & _UNSPACED) != 0
        unspaced = int(np.count_nonzero(alone))
        if unspaced:
            begins |= alone
            begins[1:] |= inside[1:] & alone[:-1]
    starts = begins.nonzero()[0]
    blank = (codes == _SPACE) | (codes == _NEWLINE)
    return Words(
        hashes=_hashes(coded, starts),
        starts=starts,
        length=len(block),
        symbols=len(block) - int(np.count_nonzero(inside)) - int(np.count_nonzero(blank)),
        unspaced=unspaced,
        lettered=_lettered((coded & _LETTER) != 0, blank),
    )


def _lettered(letter: NDArray[np.bool_], blank: NDArray[np.bool_]) -> int:
    """How many runs of what is not blank hold a letter."""
    starts = np.concatenate([[0], blank[:-1].nonzero()[0] + 1]) if len(blank) else blank.nonzero()[0]
    return int(np.count_nonzero(np.logical_or.reduceat(letter, starts))) if len(starts) else 0


def ngrams(hashes: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """(n,) word hashes -> (max(0, n - size + 1),) hashes of every `size` words in a row."""
    count = max(0, len(hashes) - size + 1)
    chained = hashes[:count].copy()
    for step in range(1, size):
        chained = chain(chained, hashes[step : step + count])
    return chained


def chain(hashes: NDArray[np.uint64], following: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of sequences that are one word longer."""
    return hashes * _CHAIN + following


def mix(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes in which every bit depends on every bit before (the finaliser of splitmix64)."""
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _hashes(coded: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Sum of code * BASE**(place in the word) by word, mixed. What lies between words counts 0."""
    powers, inverses = _powers()
    sums = np.zeros(len(coded) + 1, np.uint64)
    np.cumsum(coded * powers[: len(coded)], out=sums[1:])
    at_starts = sums[starts]
    totals = np.empty_like(at_starts)
    np.subtract(at_starts[1:], at_starts[:-1], out=totals[:-1])
    totals[-1:] = sums[-1:] - at_starts[-1:]
    return mix(totals * inverses[starts])


def _code_astral(codes: NDArray[np.uint32], coded: NDArray[np.uint32]) -> None:
    places = np.flatnonzero(codes >= _BMP)
    astral = codes[places]
    ideographs = (astral >= _ASTRAL_IDEOGRAPHS[0]) & (astral < _ASTRAL_IDEOGRAPHS[1])
    symbols = (astral >= _ASTRAL_SYMBOLS[0]) & (astral < _ASTRAL_SYMBOLS[1])
    coded[places] = np.where(symbols, 0, astral | _LETTER | np.where(ideographs, _UNSPACED, 0))


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    """(65536,): for every code point of the basic plane the lower-cased one with its bits, or 0."""
    table = np.zeros(_BMP, np.uint32)
    for code in range(_BMP):
        kind = unicodedata.category(chr(code))[0]
        if kind in "LMN":
            lower = chr(code).lower()
            table[code] = ord(lower) if len(lower) == 1 else code
            if kind != "N":
                table[code] |= _LETTER
    for start, end in _UNSPACED_RANGES:
        inside = table[start:end]
        inside[inside != 0] |= _UNSPACED
    return table


@lru_cache(maxsize=1)
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(BLOCK_CHARACTERS,) powers of BASE modulo 2**64, and their inverses."""
    both = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        factors = np.full(BLOCK_CHARACTERS, base, np.uint64)
        factors[0] = 1
        both.append(np.multiply.accumulate(factors))
    return both[0], both[1]
