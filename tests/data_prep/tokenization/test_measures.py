"""Figures of small texts, counted by hand."""

from tokenizers import Tokenizer, models, pre_tokenizers

from data_prep.documents import Document
from data_prep.tokenization.habits import bert_normalizer
from data_prep.tokenization.measures import measure
from data_prep.tokenization.train import train_byte_bpe
from data_prep.tokenization.vocabulary import bert_tokenizer, word_piece
from tests.data_prep.vocabularies import BERT_SPECIALS, ROBERTA_SPECIALS


def tokenizer(*entries: str, lowercase: bool = True, strip_accents: bool = False, joiners: str = "") -> Tokenizer:
    vocab = {entry: number for number, entry in enumerate([*BERT_SPECIALS, *entries])}
    return bert_tokenizer(word_piece(vocab), bert_normalizer(lowercase, strip_accents, joiners))


def measured(made: Tokenizer, *texts: str) -> dict:
    return measure(made, [Document("s", str(number), text) for number, text in enumerate(texts)])


def test_lost_characters_are_those_of_the_text_not_tokens() -> None:
    thai = "\u0e44\u0e17\u0e22" * 40
    found = measured(tokenizer("the", "sea"), f"the sea {thai}", "The  Storm, the STORM")
    # the sea [UNK] the [UNK] [UNK] the [UNK]: 120 + 5 + 1 + 5 of 6 + 120 + 3 + 5 + 1 + 3 + 5 characters
    assert found["unknown_rate"] == 4 / 8
    assert found["lost_rate"] == 131 / 143
    assert found["lost_words"] == [[",", 1], ["STORM", 1], ["Storm", 1], [thai[:40], 1]]


def test_characters_that_no_token_stands_for_are_lost() -> None:
    vocab = {entry: number for number, entry in enumerate([*ROBERTA_SPECIALS, "\u2581", "a", "b"])}
    dropping = Tokenizer(models.BPE(vocab, []))
    dropping.pre_tokenizer = pre_tokenizers.Metaspace()
    found = measured(dropping, "ab \u4eba\u6c11 b\u4eba a")
    assert found["unknown_rate"] == 0
    assert found["lost_rate"] == 3 / 7
    assert found["lost_words"] == [["\u4eba", 2], ["\u6c11", 1]]
    assert measured(dropping, "ab a\nba")["lost_rate"] == 0
    # What the normaliser takes away is meant to go, and no word is lost with it.
    cleaned = measured(tokenizer("a", "e", strip_accents=True), "\xada \u200ba\u200c e\u0301\u0301 \u0939\u0948")
    assert cleaned["lost_words"] == [["\u0939", 1]]


def test_changes_of_letters_apart_from_case() -> None:
    text = "Sch\u00f6n SCH\u00d6N \u043c\u043e\u0439 \u304c \ud55c \u0939\u0948 \u0645\u06cc\u200c\u062e 1\u00bd \u4eba"
    stripped = measured(tokenizer(strip_accents=True), text)
    # o, O, i, ka, one syllable, the sign of e, a joiner
    assert stripped["changed_letters"] == 7
    assert stripped["letters"] == 5 + 5 + 3 + 1 + 1 + 2 + 4 + 1
    changes = {before: after for before, after, _ in stripped["letter_changes"]}
    assert changes == {
        "\u00f6": "o", "\u00d6": "o", "\u0439": "\u0438", "\u304c": "\u304b", "\ud55c": "\u1112\u1161\u11ab",
        "\u0948": "", "\u200c": "",
    }  # fmt: skip
    kept = measured(tokenizer(), text)
    assert [(before, after) for before, after, _ in kept["letter_changes"]] == [("\u200c", "")]
    for nothing in (tokenizer(joiners="\u200c\u200d"), tokenizer(lowercase=False, joiners="\u200c")):
        assert measured(nothing, text)["changed_letters"] == 0
    assert measured(train_byte_bpe(lambda: [], 261), text)["changed_letters"] == 0
