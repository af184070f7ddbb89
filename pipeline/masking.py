"""Masked language modelling as a pure function of (seed, epoch, row). Knows nothing of files, ranks or torch.

Every random choice is a hash of its coordinates, so any row can be masked alone, in any order, on any rank.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Objective

IntArray = NDArray[np.int64]

_STREAM_CHOICE, _STREAM_ACTION, _STREAM_TOKEN = 1, 2, 3


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: uint64 to well-mixed uint64 (Steele, Lea and Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def hash_chain(*parts: IntArray | int) -> NDArray[np.uint64]:
    """One uint64 for every (broadcast) tuple of integer coordinates."""
    state = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = mix(state + np.uint64(0x9E3779B97F4A7C15) + np.asarray(part).astype(np.uint64))
    return state


def _uniform(hashed: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


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
    objective: Objective,
    special_tokens: dict[str, int],
    vocab_size: int,
) -> Masked:
    """Mask exactly round(mask_rate * maskable) tokens a row (at least one where any token can be masked).

    Of these, `mask_token` become [MASK], `random_token` a random ordinary token, the rest stay (BERT, Devlin et al.
    2019, 3.1). Special tokens and padding are never masked. Exact counts a row, rather than one coin a token, lower
    the variance and keep shapes steady.

    input_ids: (n, L); row_ids, epochs: (n,); vocab_size: ids a random token is drawn from are 0..vocab_size-1
    without the special ones.
    """
    length = input_ids.shape[1]
    special = np.array(sorted(set(special_tokens.values())), np.int64)
    maskable = ~np.isin(input_ids, special)
    counts = maskable.sum(1)
    quota = np.where(counts > 0, np.maximum(1, np.rint(objective.mask_rate * counts)), 0).astype(np.int64)

    coordinates = (epochs[:, None], row_ids[:, None], np.arange(length)[None, :])
    rank_keys = _uniform(hash_chain(seed, _STREAM_CHOICE, *coordinates))
    rank_keys[~maskable] = 2.0
    order = np.argsort(rank_keys, axis=1, kind="stable")
    chosen = np.zeros_like(maskable)
    np.put_along_axis(chosen, order, np.arange(length)[None, :] < quota[:, None], axis=1)

    positions = np.flatnonzero(chosen)
    row, column = np.divmod(positions, length)
    labels = input_ids[row, column]
    where = (epochs[row], row_ids[row], column)
    action = _uniform(hash_chain(seed, _STREAM_ACTION, *where))
    ordinary = np.setdiff1d(np.arange(vocab_size, dtype=np.int64), special)
    draws = (hash_chain(seed, _STREAM_TOKEN, *where) % np.uint64(len(ordinary))).astype(np.int64)
    replaced = np.where(
        action < objective.mask_token,
        special_tokens["mask"],
        np.where(action < objective.mask_token + objective.random_token, ordinary[draws], labels),
    )
    masked_ids = input_ids.copy()
    masked_ids[row, column] = replaced
    return Masked(masked_ids, positions, labels)
