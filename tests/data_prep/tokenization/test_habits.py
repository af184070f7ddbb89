"""Habits are seen from outside, and guessed as a reader of the entries would guess them."""

import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers
from transformers import BertTokenizerFast

from data_prep.tokenization.files import load_vocabulary
from data_prep.tokenization.habits import Habits, guess_habits, habits_of, lost_to
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
from tests.data_prep.real_data import DATA, needs_texts
from tests.data_prep.vocabularies import BERT_SPECIALS, NOVEL

UNCASED, WITH_ACCENTS, CASED = Habits(True, True), Habits(True, False), Habits(False, False)
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
CAPITALS = [letter.upper() for letter in LETTERS]
GERMAN = ["ich", "m\u00f6chte", "sch\u00f6n", "f\u00fcr", "der", "und", "stra\u00dfe"]
HINDI = ["\u0915\u094d\u0937", "\u0939\u0948", "\u092e\u0947\u0902", "##\u0941"]
HAN = "\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341\u767e"
GEORGIAN = [chr(code) for code in range(0x10D0, 0x10F1)]
# Every small letter with one of the five tones, or a breathing; their capitals are hardly ever written.
VIETNAMESE = unicodedata.normalize(
    "NFC", " ".join(f"{vowel}{tone}" for vowel in "a\u0103\u00e2e\u00eaio\u00f4\u01a1u\u01b0y"
                    for tone in "\u0300\u0301\u0303\u0309\u0323")
).split() + ["\u0111"]  # fmt: skip
GREEK = "\u03b1\u03b2\u03b3\u03b4\u03b5\u03b6\u03b7\u03b8\u03b9\u03ba\u03bb\u03bc"
POLYTONIC = [chr(code) for code in range(0x1F00, 0x1F68) if unicodedata.category(chr(code)) == "Ll"]
CHINESE = ["\u4eba", "\u6c11", "##\u4eba", "##\u6c11", "a", "b"]


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        (["sea", "ship", "##s"], UNCASED),
        (["Sea", "sea"], CASED),
        ([*LETTERS, "sherlock", "holmes", "[URL]", "[USER]", "<Url>", "[unused1]"], UNCASED),
        ([*LETTERS, *(f"word{n}" for n in range(50)), "iPhone", "GmbH"], UNCASED),
        ([*LETTERS, *CAPITALS, *(f"word{n}" for n in range(900))], CASED),
        (["the", "cat", "sat", "on", "the mat", "Berlin"], CASED),
        (["the", "a", "i"], UNCASED),
        ([*LETTERS, "###", "##", "#"], UNCASED),
        (GERMAN, WITH_ACCENTS),
        ([*GERMAN, "Stra\u00dfe", "M\u00f6chte"], CASED),
        ([*LETTERS, *(f"word{n}" for n in range(3000)), "caf\u00e9", "\u00e9"], UNCASED),
        ([*LETTERS, *(f"word{n}" for n in range(3000)), "\u00e9", "\u00f6", "\u00fc", "caf\u00e9"], WITH_ACCENTS),
        (HINDI, WITH_ACCENTS),
        (["\u304b", "\u304c", "##\u304c"], WITH_ACCENTS),
        (["\u043c\u043e\u0439", "\u043c\u043e\u0438"], WITH_ACCENTS),
        (["\ud55c\uad6d", "##\uc5b4"], WITH_ACCENTS),
        (["istanbul", "\u0131\u015f\u0131k"], WITH_ACCENTS),
        (CHINESE, UNCASED),
        (["\u0e44\u0e17\u0e22", "\u0e04\u0e19"], UNCASED),
        (["\u0e17\u0e35\u0e48", "\u0e04\u0e19"], WITH_ACCENTS),
        ([*(f"\u4eba\u6c11{char}" for char in HAN), "\u4eba"], Habits(True, True, False)),
        ([*LETTERS, "\u5317\u4eac", "\u4eba\u6c11", "\u65e5\u672c\u8a9e", "\u4eba"], UNCASED),
        ([*LETTERS, *CAPITALS, *GEORGIAN, "\u10d7\u10d1\u10d8\u10da\u10d8\u10e1\u10d8"], CASED),
        ([*LETTERS, *GEORGIAN], UNCASED),
        ([*GEORGIAN, "NATO", "web", "London"], CASED),
        ([*LETTERS, *CAPITALS, *VIETNAMESE, "\u0110", "\u00d4"], CASED),
        ([*LETTERS, *VIETNAMESE], WITH_ACCENTS),
        ([*GREEK, *GREEK.upper(), *POLYTONIC], CASED),
        ([*GREEK, *POLYTONIC], WITH_ACCENTS),
        ([], UNCASED),
    ],
)  # fmt: skip
def test_guesses(entries: list[str], wanted: Habits) -> None:
    assert guess_habits([*BERT_SPECIALS, *entries]) == wanted


def test_what_is_said_is_not_guessed_and_stripping_follows_case() -> None:
    assert guess_habits(["sea"], lowercase=False) == CASED
    assert guess_habits(["Sea"], lowercase=True) == UNCASED
    assert guess_habits(GERMAN, strip_accents=True) == UNCASED
    assert guess_habits(["Sea"], strip_accents=True) == Habits(False, True)


@pytest.mark.parametrize("habits", [UNCASED, WITH_ACCENTS, CASED, Habits(False, True), Habits(True, False, False)])
def test_habits_are_seen_in_a_tokenizer(habits: Habits) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.normalizer = habits.normalizer()
    assert habits_of(tokenizer) == habits
    steps = [normalizers.NFD()] + [normalizers.StripAccents()] * habits.strip_accents
    tokenizer.normalizer = normalizers.Sequence([*steps, *[normalizers.Lowercase()] * habits.lowercase])
    assert habits_of(tokenizer) == Habits(habits.lowercase, habits.strip_accents, False)


@pytest.mark.parametrize("habits", [UNCASED, WITH_ACCENTS, CASED])
def test_a_vocabulary_that_was_trained_is_guessed_right(habits: Habits) -> None:
    text = NOVEL.read_text(encoding="utf-8")[:200_000] + " caf\u00e9 na\u00efve Zo\u00eb" * 20
    trained = train_wordpiece(lambda: [text], 800, habits.lowercase, habits.strip_accents)
    assert habits_of(trained) == guess_habits(trained.get_vocab()) == habits
    assert habits_of(train_byte_bpe(lambda: [text], 300)) == Habits(False, False, False)
    assert lost_to(trained.get_vocab(), habits) == []


def test_entries_that_no_text_reaches() -> None:
    entries = ["[PAD]", "Sea", "sea", "##\u00e9", "\u0939\u0948", "\u4eba"]
    assert lost_to(entries, UNCASED) == ["Sea", "\u00e9", "\u0939\u0948"]
    assert lost_to(entries, WITH_ACCENTS) == ["Sea"]
    assert lost_to(["##Sea", "e\u0301", "Sea"], WITH_ACCENTS) == ["Sea", "e\u0301"]
    assert lost_to(entries, CASED) == []


@needs_texts
def test_berts_own_vocabulary_stays_stripped_with_a_handful_of_own_entries(tmp_path: Path) -> None:
    lines = (DATA / "vocab" / "bert-base-uncased-vocab.txt").read_text(encoding="utf-8").split("\n")
    for number, entry in enumerate(["[URL]", "<User>", "GmbH", "caf\u00e9", "\u00e9", "COVID"], 1):
        lines[number] = entry
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    loaded = load_vocabulary(path)
    assert loaded.guessed == ("lower-casing", "accents stripped", "every Chinese character a word")
    text = "Sherlock Holmes, M\u00f6chte \u0939\u0948 caf\u00e9 [URL]"
    assert loaded.tokenizer.encode(text).ids == BertTokenizerFast(vocab=str(path))(text).input_ids
