"""Lines that stand in many documents: boilerplate such as notices, prompts and bylines, which a model learns by heart.

A line counts once a document, and only in documents that stay; copies of a document are one. Every range of line hashes
can be counted by itself, so that nothing has to be in memory at once. Knows nothing of files, splits or workers.
"""

import hashlib
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

# Shorter lines, and those of dialogue, are said again in any text.
LEAST_BYTES = 24
_DIALOGUE = tuple(mark.encode() for mark in "\u201c\"\u2018'\u00ab\u201e\u2014\u2013-\u300c")
# The part of a document's key that is of its text, without the rank of its source.
_TEXT_OF_KEY = np.uint64((1 << 56) - 1)


def line_entries(text: str, key: int) -> NDArray[np.uint64]:
    """(n, 2): the hash of every different line of a text that can be a repeated one, and the document's key."""
    hashes = _hashes(set(_candidates(text)))
    return np.stack([hashes, np.full_like(hashes, key)], axis=1)


def frequent_lines(entries: NDArray[np.uint64], least: int) -> NDArray[np.uint64]:
    """(n, 2) entries of all documents that stay, in any order -> (2, m) the hashes, rising, of lines that stand in at
    least `least` documents of different text, and in how many."""
    documents = np.unique(np.stack([entries[:, 0], entries[:, 1] & _TEXT_OF_KEY], axis=1), axis=0)
    hashes, counts = np.unique(documents[:, 0], return_counts=True)
    often = counts >= least
    return np.stack([hashes[often], counts[often].astype(np.uint64)])


def without_lines(text: str, frequent: NDArray[np.uint64]) -> tuple[str, dict[str, int]]:
    """A text without its lines that are `frequent` (2, m), and of each of these in how many documents it stands."""
    candidates = list(_candidates(text))
    hashes = _hashes(candidates)
    places = np.minimum(np.searchsorted(frequent[0], hashes), frequent.shape[1] - 1)
    found = np.flatnonzero(frequent[0][places] == hashes)
    gone = {candidates[n].decode(): int(frequent[1][places[n]]) for n in found}
    if not gone:
        return text, gone
    return "\n".join(line for line in text.split("\n") if line not in gone), gone


def _candidates(text: str) -> list[bytes]:
    lines = text.encode().split(b"\n")
    return [line for line in lines if len(line) >= LEAST_BYTES and not line.startswith(_DIALOGUE)]


def _hashes(lines: Collection[bytes]) -> NDArray[np.uint64]:
    digests = b"".join([hashlib.blake2b(line, digest_size=8).digest() for line in lines])
    return np.frombuffer(digests, ">u8").astype(np.uint64)
