"""Which documents are worth training on: the document rules of Gopher (Rae et al. 2021, A1.1), two of C4, and language.

A document is judged as a whole, repaired and in clean white space, and the first rule that fails names the reason.
Words are counted in blocks: a book costs one pass, or two where it repeats itself, and its shares are those of its
blocks together. Where a rule differs from the paper's, the reason stands at its threshold. Knows nothing of files,
sources or other documents.
"""

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.cleaning.repetition import (
    FEW_WORDS_FOR_PHRASES,
    most_in_duplicates,
    most_in_top,
    repeats_lines,
    repeats_one_phrase,
    repeats_phrases,
)
from data_prep.cleaning.words import blocks, ngrams, words_of
from data_prep.errors import UserError

# Part of the stage's settings: raised whenever a rule or repair changes, so that no old result is taken for a new one.
RULES_VERSION = 3

# Gopher: mean length of what stands between white space (from 3; Korean words have 3 syllables); hashes or ellipses
# a word; share of lines.
_WORD_LENGTH = (2.0, 10.0)
_SYMBOLS_A_WORD = 0.1
_BULLET_LINES = 0.9
_ELLIPSIS_LINES = 0.3
# Not Gopher's: fewer make no list. A text of one or two lines may begin with a dash, a review end in an ellipsis.
_LINES_OF_A_LIST = 5
# Gopher has no rule for texts under 50 words: shares and absences say little there.
_FEW_WORDS = 50
_ALPHABETIC_WORDS = 0.8
_STOP_WORDS = 2
# Not Gopher's: program code and tables keep the rules above. Prose has 2 to 5 %, code around 17 %.
_SYMBOLS, _SYMBOLS_OF_FEW_WORDS = 0.15, 0.25
# C4 drops every page with a curly bracket or "lorem ipsum". Articles on mathematics and on printing have some.
_BRACES_A_WORD = 0.1
_WORDS_A_LOREM_IPSUM = 500
# In scripts without spaces a character is a word; then what is known of words does not hold.
_UNSPACED = 0.3

_BULLETS = tuple("-*\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013\u2043\u00b7")
_ELLIPSES = ("...", "\u2026")
_LANGUAGE_CHARACTERS = 1_000
_ASCII_LETTER, _LETTER = re.compile("[A-Za-z]"), re.compile(r"[^\W\d_]")

# Gopher's words for English, and three more without which short biographies go; for other languages frequent words
# that occur neither in English nor in lorem ipsum.
STOP_WORDS = {
    "en": "the be to of and that have with is was for",
    "ca": "els les del amb una dels aquest seva",
    "cs": "na se je \u017ee byl jako kter\u00e9 p\u0159i",
    "da": "og det af til er p\u00e5 som med",
    "de": "der und das von mit ist nicht ein",
    "eo": "kaj estas kiu por sur pri ke dum",
    "es": "que del por una con para como su",
    "et": "ja ei ning oli kui mis tema aga",
    "fi": "ja ei ett\u00e4 oli h\u00e4n mutta ovat sek\u00e4",
    "fr": "les des du une dans sur aux par",
    "hr": "je na se za su od koji kao",
    "hu": "az \u00e9s hogy nem egy volt meg csak",
    "id": "yang dan di dari dengan untuk pada ini",
    "it": "che di della per una con sono nel",
    "lt": "ir yra kad buvo i\u0161 kaip tai jo",
    "lv": "un ka ar bija par tas kas gada",
    "nl": "het een van dat niet zijn voor wordt",
    "no": "og det som av til er p\u00e5 med",
    "pl": "w na z si\u0119 nie jest od przez",
    "pt": "que uma para n\u00e3o dos em foi pelo",
    "ro": "\u0219i \u00een din pe care este lui cu",
    "sk": "na sa je \u017ee bol ako ktor\u00e9 pri",
    "sl": "je na za se bil tudi kot ki",
    "sv": "och att det som av f\u00f6r \u00e4r med",
    "tr": "ve bir bu i\u00e7in ile olarak olan gibi",
    "vi": "v\u00e0 c\u1ee7a l\u00e0 c\u00f3 \u0111\u01b0\u1ee3c trong c\u00e1c cho",
}


@dataclass(frozen=True)
class Rules:
    """What a document has to satisfy. `language` is an ISO 639-1 code; with None any language will do."""

    min_characters: int = 100
    filters: Literal["default", "none"] = "default"
    language: str | None = None
    language_threshold: float = 0.5


def reason_to_drop(text: str, rules: Rules) -> str | None:
    """The name of the first rule that drops a clean text (a key of tally.DROPS), or None where it stays."""
    if not text:
        return "empty"
    if len(text) < rules.min_characters:
        return "short"
    if rules.filters == "default":
        reason = _poor_quality(text, rules.language)
        if reason is not None:
            return "one_character" if _is_one_character(text) else reason
    if rules.language is not None and not _is_in_language(text, rules.language, rules.language_threshold):
        return "language"
    return None


def _poor_quality(text: str, language: str | None) -> str | None:
    length, words = len(text), text.count(" ") + text.count("\n") + 1
    counts = _count(text, words)
    few, spaced = words < _FEW_WORDS, counts.unspaced <= _UNSPACED * length
    if spaced and not _WORD_LENGTH[0] <= (length - words + 1) / words <= _WORD_LENGTH[1]:
        return "word_length"
    if max(text.count("#"), sum(text.count(ellipsis) for ellipsis in _ELLIPSES)) > _SYMBOLS_A_WORD * words:
        return "symbol_words"
    if counts.symbols > (_SYMBOLS_OF_FEW_WORDS if few else _SYMBOLS) * length:
        return "symbols"
    lines = text.split("\n")
    if _are_many(sum(line.startswith(_BULLETS) for line in lines), _BULLET_LINES, lines):
        return "bullet_lines"
    if _are_many(sum(line.endswith(_ELLIPSES) for line in lines), _ELLIPSIS_LINES, lines):
        return "ellipsis_lines"
    if spaced and not few:
        if text.count("{") + text.count("}") > _BRACES_A_WORD * words:
            return "braces"
        if counts.lettered < _ALPHABETIC_WORDS * words:
            return "alphabetic_words"
        if counts.lorem_ipsum * _WORDS_A_LOREM_IPSUM >= words:
            return "lorem_ipsum"
        if not _has_stop_words(text, language):
            return "stop_words"
    if repeats_lines(text, lines):
        return "duplicate_lines"
    if repeats_one_phrase(text, counts.most_in_top):
        return "top_ngram"
    if spaced and repeats_phrases(text, counts.most_in_duplicates):
        return "duplicate_ngrams"
    return None


def _are_many(found: int, share: float, lines: list[str]) -> bool:
    return found >= _LINES_OF_A_LIST and found > share * len(lines)


@dataclass
class _Counts:
    """Sums over all blocks of a text."""

    lettered: int = 0
    symbols: int = 0
    unspaced: int = 0
    lorem_ipsum: int = 0
    most_in_top: int = 0
    most_in_duplicates: int = 0


def _count(text: str, num_words: int) -> _Counts:
    counts = _Counts()
    for words in map(words_of, blocks(text)):
        counts.lettered += words.lettered
        counts.symbols += words.symbols
        counts.unspaced += words.unspaced
        pairs = ngrams(words.hashes, 2)
        counts.lorem_ipsum += int(np.count_nonzero(pairs == _lorem_ipsum()))
        counts.most_in_top += most_in_top(words, pairs)
        if num_words >= FEW_WORDS_FOR_PHRASES:
            counts.most_in_duplicates += most_in_duplicates(words)
    return counts


@lru_cache(maxsize=1)
def _lorem_ipsum() -> np.uint64:
    return ngrams(words_of("lorem ipsum").hashes, 2)[0]


def _has_stop_words(text: str, language: str | None) -> bool:
    """Whether two frequent words of the language occur, or with None of any language that has a list here.

    True where nothing can be said: a language without a list, and with None texts not in Latin script.
    """
    if language is not None and language not in STOP_WORDS:
        return True
    known = _stop_word_hashes()
    first = language or "en"
    # Nearly all texts have two of them between spaces, which is found in no time.
    seen = (f" {word} " in text for word in STOP_WORDS[first].split())
    if sum(itertools.islice(filter(None, seen), _STOP_WORDS)) == _STOP_WORDS or _finds(text, [known[first]]):
        return True
    if language is not None:
        return False
    letters = len(_LETTER.findall(text))
    return 2 * len(_ASCII_LETTER.findall(text)) < letters or _finds(text, list(known.values()))


def _finds(text: str, lists: list[NDArray[np.uint64]]) -> bool:
    found = [np.zeros(len(hashes), bool) for hashes in lists]
    for words in map(words_of, blocks(text)):
        for seen, hashes in zip(found, lists, strict=True):
            seen |= (words.hashes[:, None] == hashes).any(axis=0)
            if seen.sum() >= _STOP_WORDS:
                return True
    return False


@lru_cache(maxsize=1)
def _stop_word_hashes() -> dict[str, NDArray[np.uint64]]:
    return {language: words_of(text).hashes for language, text in STOP_WORDS.items()}


def _is_one_character(text: str) -> bool:
    counts = Counter(text)
    blanks = counts.pop(" ", 0) + counts.pop("\n", 0)
    return 2 * max(counts.values()) > len(text) - blanks


def _is_in_language(text: str, language: str, threshold: float) -> bool:
    """By the middle of the text: all of it would cost too much, and books begin with contents and pictures."""
    start = max(0, (len(text) - _LANGUAGE_CHARACTERS) // 2)
    found, confidence = _identifier().classify(text[start : start + _LANGUAGE_CHARACTERS])
    return found == language and confidence >= threshold


def check_language(language: str | None) -> None:
    """UserError for a language that the identifier does not know; None is any language."""
    if language is not None and language not in _identifier().labels:
        raise UserError(f"language is {language!r}, wanted one of {', '.join(sorted(_identifier().labels))}")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
