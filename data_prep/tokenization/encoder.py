"""Token ids of many texts, the very ones that the tokenizer gives, but every word is only tokenised once.

A tokenizer that never joins across a space gives for a text what it gives for its words, one after another; and of the
words of a text nearly all have been seen before. Knows nothing of files or rows.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data_prep.tokenization.habits import is_berts

# Some 100 bytes each. Then all are forgotten: the commonest are back after a few texts.
_MOST_WORDS = 100_000
_MARKS = ",.\"'();:-?!"
# An added token with one of these would be cut itself.
_BREAKS = re.compile(rf"[\s{re.escape(_MARKS)}]")
# Byte-level tokens may be runs of white space; a blank or a line end by itself begins a word.
_RUNS_OF_BLANKS = re.compile(r"\s\s|[^\S \n]|\0")


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class Encoder:
    """`encode` equals `tokenizer.encode(text, add_special_tokens=False).ids` for every text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words_of = _splitter(tokenizer)
        self._numbers = _Numbers()
        # The ids of word n are _ids[_starts[n] : _starts[n + 1]]. Both have room to spare: arrays that grew with every
        # batch would leave memory in pieces.
        self._known = 0
        self._starts = np.zeros(2 * _MOST_WORDS, np.int64)
        self._ids = np.empty(4 * _MOST_WORDS, np.int32)

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids of each text."""
        if self._words_of is None:
            return self._whole(texts)
        split = [self._words_of(text) for text in texts]
        if len(self._numbers) > _MOST_WORDS:
            self._forget()
        words = list(chain.from_iterable(part for part in split if part is not None))
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        self._learn()
        lengths = self._starts[numbers + 1] - self._starts[numbers]
        ends = np.cumsum(lengths)
        steps = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
        ids = self._ids[np.repeat(self._starts[numbers], lengths) + steps]

        apart = iter(self._whole([text for text, part in zip(texts, split, strict=True) if part is None]))
        bounds = np.concatenate([[0], ends])
        found: list[NDArray[np.int32]] = []
        first = 0
        for part in split:
            if part is None:
                found.append(next(apart))
                continue
            found.append(ids[bounds[first] : bounds[first + len(part)]])
            first += len(part)
        return found

    def _whole(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def _learn(self) -> None:
        """Tokenise the words that have a number and no ids yet."""
        ids = self._whole(list(islice(self._numbers, self._known, None)))
        known, used = self._known + len(ids), int(self._starts[self._known])
        ends = used + np.cumsum(np.fromiter(map(len, ids), np.int64, len(ids)))
        total = int(ends[-1]) if len(ends) else used
        self._starts = _with_room(self._starts, known + 1)
        self._ids = _with_room(self._ids, total)
        self._starts[self._known + 1 : known + 1] = ends
        if ids:
            self._ids[used:total] = np.concatenate(ids)
        self._known = known

    def _forget(self) -> None:
        self._numbers.clear()
        self._known = 0


def _with_room(array: np.ndarray, needed: int) -> np.ndarray:
    return array if needed <= len(array) else np.concatenate([array, np.empty(needed, array.dtype)])


def _splitter(tokenizer: Tokenizer) -> Callable[[str], list[str] | None] | None:
    """How texts are cut for this tokenizer (None for a text that has to stay whole), or None where it cannot be cut."""
    # A special token in a text may be taken for one together with the blanks beside it.
    if not tokenizer.encode_special_tokens:
        return None
    parts = json.loads(tokenizer.to_str())
    added = [token for token in parts["added_tokens"] if not token["special"]]
    if any(_BREAKS.search(form) for token in added for form in _forms(tokenizer, token)):
        return None
    options = parts["pre_tokenizer"] or {"type": None}
    if is_berts(parts["normalizer"]) and options["type"] == "BertPreTokenizer":
        return _between_blanks
    if parts["normalizer"] is None and options["type"] == "ByteLevel":
        # A token that takes the blank behind it along would leave none for the next word to begin with.
        takes_blanks = any(token["rstrip"] for token in added)
        if options["use_regex"] and not options["add_prefix_space"] and not takes_blanks:
            return _before_blanks
    return None


def _forms(tokenizer: Tokenizer, token: dict[str, Any]) -> list[str]:
    """What is looked for in a text to find an added token: as it stands, and normalised."""
    is_normalized = token["normalized"] and tokenizer.normalizer is not None
    return [token["content"]] + ([tokenizer.normalizer.normalize_str(token["content"])] if is_normalized else [])


def _between_blanks(text: str) -> list[str]:
    # BERT makes every mark a word; apart from it the word before has been seen more often.
    for mark in _MARKS:
        text = text.replace(mark, f" {mark} ")
    return text.replace("\n", " ").split(" ")


def _before_blanks(text: str) -> list[str] | None:
    if _RUNS_OF_BLANKS.search(text):
        return None
    return text.replace(" ", "\0 ").replace("\n", "\0\n").split("\0")
