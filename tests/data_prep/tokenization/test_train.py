import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import data_prep
from data_prep.errors import UserError
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
from tests.data_prep.vocabularies import BERT_SPECIALS, HARD_TEXTS, NOVEL, ROBERTA_SPECIALS, texts

STORY = [
    "The NA\u00cfVE captain was upon deck, the sea was wild; don't! " * 3,
    "Zo\u00eb saw \u4eba\u4eba and whales.",
] * 4
TRAIN = """
import pathlib, sys
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
texts = pathlib.Path(sys.argv[1]).read_text().split("\\n\\n") + ["na\\u00efve \\u4eba \\U0001f426 ----- ====="]
for train in (train_wordpiece, train_byte_bpe):
    print(train(lambda: texts[::int(sys.argv[2])], 900).to_str())
"""


def test_training_gives_the_same_bytes_in_every_process_order_and_number_of_threads() -> None:
    """The WordPiece trainer of `tokenizers` alone gives another vocabulary every time: its hash tables are seeded."""
    made = {
        subprocess.run(
            [sys.executable, "-c", TRAIN, NOVEL, order],
            capture_output=True,
            check=True,
            cwd=Path(data_prep.__file__).parents[1],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": parallel},
        ).stdout
        for order, threads, parallel in (
            ("1", "1", "true"), ("-1", "2", "true"), ("1", "2", "false"), ("-1", "1", "false"), ("1", "3", "true"),
        )
    }  # fmt: skip
    assert len(made) == 1
    wordpiece, bpe = (Tokenizer.from_str(line) for line in made.pop().decode().removesuffix("\n").split("\n"))
    assert wordpiece.get_vocab_size() == bpe.get_vocab_size() == 900


def test_wordpiece_is_berts_kind() -> None:
    tokenizer = train_wordpiece(lambda: STORY, 120)
    assert 70 < tokenizer.get_vocab_size() <= 120
    assert [tokenizer.id_to_token(number) for number in range(5)] == BERT_SPECIALS
    encoded = tokenizer.encode("The NA\u00cfVE captain, don't \u4ebaQ")
    assert encoded.tokens[:2] == ["[CLS]", "the"]
    assert encoded.tokens[-3:] == ["\u4eba", "[UNK]", "[SEP]"]
    assert encoded.tokens.count(",") == 1
    assert tokenizer.decode(tokenizer.encode("Captain upon deck").ids) == "captain upon deck"
    pair = tokenizer.encode("sea", "deck")
    assert pair.type_ids == sorted(pair.type_ids)
    assert pair.tokens.count("[SEP]") == 2
    assert tokenizer.encode("a [MASK] b").ids.count(4) == 1


def test_cased_wordpiece_keeps_capitals_and_accents() -> None:
    tokenizer = train_wordpiece(lambda: STORY, 200, lowercase=False)
    text = "The NA\u00cfVE Zo\u00eb saw"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("the", add_special_tokens=False).ids != tokenizer.encode("The").ids[1:-1]


def test_byte_bpe_is_robertas_kind() -> None:
    tokenizer = train_byte_bpe(lambda: STORY, 300)
    assert [tokenizer.id_to_token(number) for number in range(5)] == ROBERTA_SPECIALS
    pair = tokenizer.encode("the sea", "upon deck")
    assert pair.tokens[0] == "<s>"
    assert [number for number, token in enumerate(pair.tokens) if token == "</s>"] == [
        pair.type_ids.index(1) - 1,
        len(pair.ids) - 1,
    ]
    assert pair.type_ids == sorted(pair.type_ids)
    masked = tokenizer.encode("the <mask> sea", add_special_tokens=False)
    assert masked.ids.count(4) == 1
    assert "\u0120" not in masked.tokens
    assert tokenizer.decode(masked.ids, skip_special_tokens=False) == "the<mask> sea"


def merges_by_hand(words: Counter[str], count: int) -> list[list[str]]:
    """Byte pair encoding as it is defined: the commonest pair of neighbours, again and again; ties by older pieces."""
    ages = {chr(code): code for code in range(512)}
    cut = {word: list(word) for word in words}
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in cut.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], ages[pair[0]], ages[pair[1]]))
        merges.append(list(best))
        ages["".join(best)] = 512 + len(ages)
        for pieces in cut.values():
            place = 0
            while place < len(pieces) - 1:
                if (pieces[place], pieces[place + 1]) == best:
                    pieces[place : place + 2] = ["".join(best)]
                place += 1
    return merges


def test_byte_bpe_makes_the_merges_of_the_definition() -> None:
    words = ["aaaa", "abab", "banana", "bandana", "sea", "seas", "seaside", "ababab", "aaa", "aaaaa", "tea", "teas"]
    counted = Counter({word: 2 + number % 3 for number, word in enumerate(words)})
    lines = [word for word, count in counted.items() for _ in range(count)]
    made = json.loads(train_byte_bpe(lambda: lines, 5 + 256 + 12).to_str())["model"]
    assert made["merges"] == merges_by_hand(counted, 12)


def test_pairs_seen_once_are_not_merged() -> None:
    assert train_byte_bpe(lambda: ["abc", "ab"], 400).get_vocab_size() == 5 + 256 + 1


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_no_text_is_unknown_to_bytes_and_none_is_lost(text: str) -> None:
    encoded = BPE.encode(text, add_special_tokens=False)
    assert 3 not in encoded.ids
    assert BPE.decode(encoded.ids) == text


BPE = train_byte_bpe(lambda: [*STORY, *HARD_TEXTS], 400)


def test_vocabularies_too_small_for_their_alphabet_are_refused() -> None:
    with pytest.raises(UserError, match=r"--vocab-size 20 is too small: 5 special tokens and .* take \d+ entries"):
        train_wordpiece(lambda: STORY, 20)
    with pytest.raises(UserError, match=r"--vocab-size 260 .* 5 special tokens and the 256 bytes alone take 261"):
        train_byte_bpe(lambda: STORY, 260)
    assert train_byte_bpe(lambda: STORY, 261).get_vocab_size() == 261


LANGUAGES = {
    "Russian": "\u043c\u043e\u0439 \u043c\u043e\u0438",
    "German": "sch\u00f6n schon m\u00f6chte",
    "Japanese": "\u304b\u304c\u304d \u304b",
    "Korean": "\ud55c\uad6d\uc5b4",
    "Hindi": "\u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948",
    "Thai": "\u0e17\u0e35\u0e48 \u0e44\u0e17\u0e22",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u06a9\u062a\u0627\u0628\u200c\u0647\u0627",
    "Sinhala": "\u0d9a\u0dca\u200d\u0dc2",
    "Vietnamese": "ti\u1ebfng vi\u1ec7t",
    "Hebrew": "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_was_trained_gives_back_the_letters_of_every_language(language: str) -> None:
    """In transformers too, which loads the file alone."""
    text = LANGUAGES[language]
    tokenizer = train_wordpiece(lambda: [text] * 3, 300)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert 1 not in ids
    assert tokenizer.decode(ids) == text
    stock = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.to_str()))
    assert stock(text, add_special_tokens=False).input_ids == ids
    capitals = tokenizer.encode(text.upper(), add_special_tokens=False).ids
    assert tokenizer.decode(capitals) == text.upper().lower()


def test_stripping_is_a_key_of_its_own() -> None:
    texts = ["Sch\u00f6n schon SCHON"] * 3
    for lowercase, strip_accents, wanted in (
        (True, True, "schon schon schon"),
        (True, False, "sch\u00f6n schon schon"),
        (False, True, "Schon schon SCHON"),
        (False, False, "Sch\u00f6n schon SCHON"),
    ):
        tokenizer = train_wordpiece(lambda: texts, 60, lowercase, strip_accents)
        assert tokenizer.decode(tokenizer.encode(texts[0]).ids) == wanted


def test_rare_joiners_make_no_word_unknown() -> None:
    """Where a joiner is not among the characters of the vocabulary it is dropped, as by BERT."""
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 400)]
    made = train_wordpiece(lambda: [" ".join(letters * 3), "sea " * 50, "s\u200cea"], 300)
    assert made.token_to_id("\u200c") is None
    assert made.encode("s\u200ce\u200da", add_special_tokens=False).ids == made.encode("sea").ids[1:-1]


def test_zero_width_spaces_end_words_where_they_are_common() -> None:
    words = ["\u1781\u17d2\u1789\u17bb\u17c6", "\u1797\u17b6\u179f\u17b6", "\u1781\u17d2\u1798\u17c2\u179a"]
    made = train_wordpiece(lambda: ["\u200b".join(words * 100)] * 2, 300)
    assert set(words) < made.get_vocab().keys()
    assert made.encode("\u200b".join(words), add_special_tokens=False).tokens == words
    assert made.token_to_id("\u200b") is None
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 400)]
    rare = train_wordpiece(lambda: [" ".join(letters * 3), "sea " * 50, "s\u200bea"], 300)
    assert rare.encode("s\u200bea").ids == rare.encode("sea").ids


def test_an_alphabet_grows_where_a_writing_has_more_characters() -> None:
    hanzi = [" ".join(chr(0x4E00 + number) for number in range(1500))] * 2
    assert not set(range(0x4E00, 0x4E00 + 1500)) - {
        ord(token) for token in train_wordpiece(lambda: hanzi, 8000).get_vocab() if len(token) == 1
    }
    few = train_wordpiece(lambda: hanzi, 2000).get_vocab()
    assert sum(len(token) == 1 for token in few) == 500
