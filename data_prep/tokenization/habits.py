"""What a tokenizer does to text before the look-up: lower-casing, stripping accents, spacing ideographs.

Asked of a tokenizer, or guessed from the entries of a vocabulary. Knows nothing of files.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers

from data_prep.tokenization.vocabulary import CONTINUATION

_BRACKETED = re.compile(r"\[.*\]|<.*>", re.DOTALL)
# The blocks of ideographs that BERT's normaliser sets between spaces.
_IDEOGRAPH = re.compile("[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]")
# Zero-width non-joiner and joiner. They are spelling in Persian and Indic scripts; BERT's own normaliser drops them.
JOINERS = "\u200c\u200d"
# Where words end in Khmer, Thai and Burmese as some write them; BERT's own normaliser joins what it separates.
ZERO_WIDTH_SPACE = "\u200b"
# Fewer letters than these are words of one letter rather than an alphabet, and fewer words of ideographs were added by
# hand.
_ALPHABET = 10
# Its capitals (Mtavruli) stand in headlines only.
_GEORGIAN = re.compile("[\u10d0-\u10ff]")
# Of the entries that have a case. BERT's cased vocabularies have a third; words added by hand are a few of thousands.
_CASED_SHARE = 0.1
# Of all entries. Vocabularies of stripped text have none at all, of English with its accents some hundred in 30,000.
_MARKED_SHARE = 0.001


@dataclass(frozen=True)
class Habits:
    """Whether text is lower-cased, stripped of accents (everything that combines, category Mn), and whether every
    ideograph becomes a word."""

    lowercase: bool
    strip_accents: bool
    space_ideographs: bool = True

    def normalizer(self) -> normalizers.Normalizer:
        """BERT's, with these habits."""
        return normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.space_ideographs,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )


def bert_normalizer(
    lowercase: bool, strip_accents: bool, joiners: str = "", separates: bool = False
) -> normalizers.Normalizer:
    """BERT's, which keeps these zero-width joiners, and with `separates` takes zero-width spaces for spaces."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace(ZERO_WIDTH_SPACE, " ")] if separates else []
    if joiners:
        steps.append(normalizers.Replace(Regex(_dropped_but(joiners)), ""))
    steps.append(normalizers.BertNormalizer(clean_text=not joiners, lowercase=lowercase, strip_accents=strip_accents))
    return normalizers.Sequence(steps) if len(steps) > 1 else steps[0]


def is_berts(normalizer: dict[str, Any] | None) -> bool:
    """Whether a tokenizer.json's normaliser is BERT's or `bert_normalizer`, which look at one character at a time."""
    if normalizer is None or normalizer["type"] == "BertNormalizer":
        return normalizer is not None
    *before, last = normalizer.get("normalizers") or [normalizer]
    known = [({"String": ZERO_WIDTH_SPACE}, " ")]
    known += [({"Regex": _dropped_but(some)}, "") for some in (*JOINERS, JOINERS)]
    return last["type"] == "BertNormalizer" and all(
        step["type"] == "Replace" and (step["pattern"], step["content"]) in known for step in before
    )


def _dropped_but(joiners: str) -> str:
    """All that BERT's cleaning drops: control, format, private and unassigned characters, and U+FFFD."""
    kept = "".join(f"\\x{{{ord(joiner):X}}}" for joiner in joiners)
    return rf"[[\p{{C}}\x{{FFFD}}]&&[^\t\n\r{kept}]]"


def habits_of(tokenizer: Tokenizer) -> Habits:
    """What a tokenizer's normaliser does, seen from outside."""
    normalizer = tokenizer.normalizer
    if normalizer is None:
        return Habits(lowercase=False, strip_accents=False, space_ideographs=False)
    return Habits(
        lowercase="A" not in normalizer.normalize_str("xA"),
        strip_accents="\u0301" not in unicodedata.normalize("NFD", normalizer.normalize_str("xe\u0301")),
        space_ideographs=normalizer.normalize_str("x\u4eba").endswith(" "),
    )


def stripped(text: str) -> str:
    """The text without accents and all other marks that combine, as BERT's normaliser leaves it."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")


def lost_to(entries: Iterable[str], habits: Habits) -> list[str]:
    """The entries that text in NFC can never become, because they hold what these habits take away or marks that NFC
    does not leave apart; in their order, none twice."""
    return [
        entry
        for entry in dict.fromkeys(plain(entries))
        if (habits.lowercase and entry != entry.lower())
        or (stripped(entry) != entry if habits.strip_accents else not unicodedata.is_normalized("NFC", entry))
    ]


def plain(entries: Iterable[str]) -> list[str]:
    """The entries without those in brackets, which stand for no text, and without the marks of going on."""
    found = (entry for entry in entries if not _BRACKETED.fullmatch(entry))
    return [entry.removeprefix(CONTINUATION) if len(entry) > len(CONTINUATION) else entry for entry in found]


def guess_habits(entries: Iterable[str], lowercase: bool | None = None, strip_accents: bool | None = None) -> Habits:
    """The habits of the text that a WordPiece vocabulary was made of, where they are not given.

    Lower-cased: where most small letters without accents that are entries have no capital beside them; where few
    letters are entries, where less than a tenth of the entries have capitals; Georgian ones do not count. Stripped:
    where text was lower-cased, as in BERT, and (almost) no entry has an accent. Ideographs are words, unless more
    entries hold several of them than one, and not just a few.
    """
    words = plain(entries)
    if lowercase is None:
        lowercase = not _is_cased(words)
    if strip_accents is None:
        marked = sum(stripped(word) != word for word in words)
        strip_accents = lowercase and marked <= _MARKED_SHARE * len(words)
    return Habits(lowercase, strip_accents, _is_spaced(entries))


def _is_cased(words: list[str]) -> bool:
    with_case = [word for word in words if word.lower() != word.upper() and not _GEORGIAN.search(word)]
    letters = {word for word in with_case if len(word) == 1}
    # Capitals with accents are rare in a text, as in Vietnamese and in polytonic Greek.
    small = [letter for letter in letters if letter.islower() and len(letter.upper()) == 1 and not _is_accented(letter)]
    if len(small) >= _ALPHABET:
        return 2 * sum(letter.upper() in letters for letter in small) > len(small)
    return sum(word != word.lower() for word in with_case) > _CASED_SHARE * len(with_case)


def _is_accented(letter: str) -> bool:
    return not unicodedata.is_normalized("NFD", letter)


def has_ideographs(entries: Iterable[str]) -> bool:
    """Whether any entry begins a word with Chinese characters, which may be set apart or not."""
    return any(not entry.startswith(CONTINUATION) and _IDEOGRAPH.search(entry) for entry in entries)


def _is_spaced(entries: Iterable[str]) -> bool:
    beginning = [entry for entry in entries if not entry.startswith(CONTINUATION) and _IDEOGRAPH.search(entry)]
    single = sum(len(entry) == 1 for entry in beginning)
    return len(beginning) - single <= max(single, _ALPHABET)
