"""What a tokenizer makes of text, as figures: how finely it cuts, what it loses, and what it changes before.

Knows nothing of files.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from data_prep.documents import Document
from data_prep.tokenization.vocabulary import single_character_ids, special_ids, vocabulary_size

_EXAMPLES = 8
_LONGEST_EXAMPLE = 40
# Of WordPiece, here and in BERT's own code: what is longer is unknown.
LONGEST_WORD = 100
# What normalisers set around or in front of a character is no change of it.
_ADDED = " \u2581"
_JOINERS = "\u200c\u200d"


def measure(tokenizer: Tokenizer, documents: Iterable[Document]) -> dict[str, Any]:
    """How documents are cut, and what is lost of them.

    Tokens a word between white space (fertility), a character and a byte of UTF-8; the shares of the tokens that are
    unknown, and that are one character or a part of one, one-letter words and punctuation included.
    `lost_rate`: the share of the characters that are not white space which stand under unknown tokens, or under none
    although the normaliser leaves something of them; `lost_words`, the most frequent of these;
    `lost_long_rate`, the part of it that is words too long for WordPiece.
    `letters`, and `changed_letters`: how many of them, marks and zero-width joiners included, become others before the
    look-up than themselves or their small letter; `letter_changes`, the most frequent of these as (letter, what it
    becomes, times).
    """
    unknown = special_ids(tokenizer)["unk"]
    counts = np.zeros(vocabulary_size(tokenizer), np.int64)
    characters: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    words = size = 0
    for document in documents:
        encoding = tokenizer.encode(document.text, add_special_tokens=False)
        found = np.bincount(encoding.ids, minlength=len(counts))
        counts += found
        if found[unknown]:
            spans = (place for number, place in zip(encoding.ids, encoding.offsets, strict=True) if number == unknown)
            lost.update(word for start, end in spans if (word := document.text[start:end].strip()))
        words += len(document.text.split())
        characters.update(document.text)
        size += len(document.text.encode())
    tokens, all_characters = int(counts.sum()), characters.total()
    visible = sum(count for char, count in characters.items() if not char.isspace())
    lost += _dropped(tokenizer, characters)
    changes = _changes(tokenizer, characters)
    return {
        "tokens_per_word": tokens / max(1, words),
        "tokens_per_character": tokens / max(1, all_characters),
        "tokens_per_byte": tokens / max(1, size),
        "unknown_rate": int(counts[unknown]) / max(1, tokens),
        "single_character_rate": int(counts[single_character_ids(tokenizer)].sum()) / max(1, tokens),
        "lost_rate": sum(len(word) * count for word, count in lost.items()) / max(1, visible),
        "lost_long_rate": sum(len(word) * lost[word] for word in lost if len(word) > LONGEST_WORD) / max(1, visible),
        "lost_words": [[word[:_LONGEST_EXAMPLE], count] for word, count in _commonest(lost)],
        "letters": sum(count for char, count in characters.items() if _is_letter(char)),
        "changed_letters": changes.total(),
        "letter_changes": [[before, after, count] for (before, after), count in _commonest(changes)],
    }


def _dropped(tokenizer: Tokenizer, characters: Counter[str]) -> Counter[str]:
    """How often each character was met for which the model has neither tokens nor the unknown one, as BPE may have it.

    Each is looked at by itself: offsets of the tokens around it do not show it.
    """
    unknown = special_ids(tokenizer)["unk"]
    found = [char for char in characters if not char.isspace()]
    blank = {*tokenizer.encode("", add_special_tokens=False).ids, *tokenizer.encode(" ", add_special_tokens=False).ids}
    encodings = tokenizer.encode_batch_fast(found, add_special_tokens=False)
    return Counter(
        {
            char: characters[char]
            for char, encoding in zip(found, encodings, strict=True)
            if blank.issuperset(encoding.ids) and unknown not in encoding.ids and not _vanishes(tokenizer, char)
        }
    )


def _vanishes(tokenizer: Tokenizer, char: str) -> bool:
    """Whether nothing is left of a character, or white space, before text is cut."""
    normalizer = tokenizer.normalizer
    return not (char if normalizer is None else normalizer.normalize_str(char)).strip().strip(_ADDED)


def _changes(tokenizer: Tokenizer, characters: Counter[str]) -> Counter[tuple[str, str]]:
    """How often each letter becomes what it is not, apart from case, each looked at by itself."""
    changes: Counter[tuple[str, str]] = Counter()
    normalizer = tokenizer.normalizer
    if normalizer is None:
        return changes
    for char, count in characters.items():
        if _is_letter(char):
            after = normalizer.normalize_str(char).strip(_ADDED)
            if after not in (char, char.lower()):
                changes[char, after] += count
    return changes


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM" or char in _JOINERS


def _commonest(counter: Counter[Any]) -> list[tuple[Any, int]]:
    """By count, then by themselves, so that the order depends on nothing else."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:_EXAMPLES]
