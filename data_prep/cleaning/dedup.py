"""Near-duplicate documents: MinHash band hashes of one text, and duplicates among the band entries of many.

Two texts whose sets of 5-word phrases have Jaccard similarity s share a hash in at least one of 14 bands of 8 with
probability 1 - (1 - s**8)**14:

    s            0.5    0.6    0.7    0.75   0.8    0.85   0.9    0.95
    probability  0.053  0.211  0.565  0.772  0.924  0.989  0.9996 1.0000

A document is removed when in any band a preferred document has the same hash, whether that one stays or not. So the
result depends on the set of documents only, every range of band hashes can be searched by itself, and nothing has to be
in memory at once. Exact duplicates are found elsewhere. Knows nothing of files, splits or workers.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from data_prep.cleaning.words import blocks, mix, ngrams, words_of
from data_prep.errors import UserError

NUM_BANDS, BAND_ROWS = 14, 8
SHINGLE_WORDS = 5
MAX_RANK = 255
_SEED = 20210
_KEY_BYTES = 7


def document_key(text: str, rank: int) -> int:
    """A 64-bit name for a text, smaller for one that is preferred: 8 bits of `rank`, then 56 of the text's SHA-256.

    Raises UserError for a rank above MAX_RANK, the position of a source among all that were named.
    """
    if not 0 <= rank <= MAX_RANK:
        raise UserError(f"{rank + 1} sources are named, at most {MAX_RANK + 1} are possible; put files into one folder")
    return rank << 8 * _KEY_BYTES | int.from_bytes(hashlib.sha256(text.encode()).digest()[:_KEY_BYTES], "big")


def band_entries(text: str, key: int) -> NDArray[np.uint64]:
    """(NUM_BANDS, 2): the hash of every band, and the document's key. (0, 2) for a text with fewer than 5 words.

    What counts are runs of 5 words, lower-cased and without punctuation. A hash differs between bands.
    """
    digest: NDArray[np.uint32] | None = None
    for shingles in _shingles(text):
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, np.array([0, len(shingles)], np.uint64), NUM_BANDS * BAND_ROWS, _SEED
        )
        least = np.array(matrix.to_rows()[0], np.uint32)
        digest = least if digest is None else np.minimum(digest, least)
    if digest is None:
        return np.empty((0, 2), np.uint64)
    entries = np.empty((NUM_BANDS, 2), np.uint64)
    for band, rows in enumerate(digest.astype("<u4").reshape(NUM_BANDS, BAND_ROWS)):
        named = hashlib.blake2b(rows.tobytes(), digest_size=8, salt=bytes([band]))
        entries[band] = int.from_bytes(named.digest(), "big"), key
    return entries


def near_duplicates(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(n, 2) band entries in any order -> rising keys of documents that share a band hash with a smaller key.

    The entries are those of all documents in some range of band hashes: results of several ranges add up.
    """
    in_order = entries[np.lexsort((entries[:, 1], entries[:, 0]))]
    hashes, keys = in_order[:, 0], in_order[:, 1]
    begins = np.ones(len(in_order), bool)
    begins[1:] = hashes[1:] != hashes[:-1]
    smallest = keys[begins][np.cumsum(begins) - 1]
    return np.unique(keys[keys != smallest])


def _shingles(text: str) -> Iterator[NDArray[np.uint64]]:
    """Hashes of all runs of SHINGLE_WORDS words, a block of text at a time; nothing empty."""
    before = np.empty(0, np.uint64)
    for block in blocks(text):
        hashes = np.concatenate([before, words_of(block).hashes])
        if len(hashes) >= SHINGLE_WORDS:
            yield mix(ngrams(hashes, SHINGLE_WORDS))
        before = hashes[1 - SHINGLE_WORDS :]
