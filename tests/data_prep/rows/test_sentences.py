"""Sentences are the text again, whatever it holds; and they are what a reader takes for sentences."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import data_prep
from data_prep.rows.sentences import split_sentences

SAMPLES = Path(data_prep.__file__).parent / "samples"
SPACES = " \t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2003\u2028\u2029\u3000"
MARKS = ".!?\u3002\u2026;:\"'\u201c\u201d\u2018\u2019\u00ab\u00bb()[]\0"
PIECES = [*SPACES, *MARKS, "Mr", "e.g", "A", "b", "12", "\u6f22", "\U0001f44d\U0001f3fd"]
ANY_TEXT = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
# Sentences the reference below can tell from each other: no abbreviation, no quotation, a stop or a line's end.
WORDS = st.lists(st.sampled_from(["apple", "Berlin", "cats", "dogs", "every"]), min_size=2, max_size=5)
SENTENCE = st.tuples(WORDS, st.sampled_from(".!?")).map(lambda pair: " ".join(["The", *pair[0]]) + pair[1])
PARAGRAPH = st.lists(SENTENCE, min_size=1, max_size=5)


@pytest.mark.parametrize("language", ["en", "ja", "ru", "no such language"])
@given(text=ANY_TEXT)
@example(text="")
@example(text="A\u00a0. b")
@example(text="'A\u3000. " * 60)
@settings(max_examples=300)
def test_joined_they_are_the_text(language: str, text: str) -> None:
    sentences = split_sentences(text, language)
    assert "".join(sentences) == text
    if text.strip():
        assert all(sentence.strip() for sentence in sentences)
    else:
        assert sentences == ([text] if text else [])


@given(ANY_TEXT)
def test_a_paragraph_ends_a_sentence_and_white_space_goes_with_what_follows(text: str) -> None:
    sentences = split_sentences(text)
    assert all("\n" not in sentence.strip() for sentence in sentences)
    assert all(not sentence[-1].isspace() for sentence in sentences[:-1])


@given(st.lists(PARAGRAPH, min_size=1, max_size=5), st.sampled_from([" ", "  ", "\u3000", " \t"]))
def test_plain_prose_like_the_reference(paragraphs: list[list[str]], space: str) -> None:
    text = "\n".join(space.join(paragraph) for paragraph in paragraphs)
    expected = re.split(r"(?<=[.!?])\s+", text)
    assert [sentence.strip() for sentence in split_sentences(text)] == expected


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two!  Three?", ["One.", " Two!", "  Three?"]),
        ("A title\nIts text. More", ["A title", "\nIts text.", " More"]),
        ("One.\n\nTwo. \n", ["One.", "\n\nTwo. \n"]),
        ("Mr. Smith paid $3.50 to J. Doe, e.g. in May. He left.", None),
        ("Is it? (See fig. 2.) It is.", None),
        ('"Go. Now." He went.', ['"Go. Now."', " He went."]),
        ("\u5b8c\u4e86\u3002\u4e0b\u4e00\u53e5\u3002", ["\u5b8c\u4e86\u3002", "\u4e0b\u4e00\u53e5\u3002"]),
        (" \n\t", [" \n\t"]),
    ],
)
def test_worked_out_by_hand(text: str, wanted: list[str] | None) -> None:
    if wanted is None:
        wanted = {"M": [text[:-9], " He left."], "I": ["Is it?", " (See fig. 2.) It is."]}[text[0]]
    assert split_sentences(text) == wanted


def test_only_a_long_quotation_is_cut_inside() -> None:
    short = '"I came. I saw. I conquered," said he.'
    assert split_sentences(short) == [short]
    speech = '"' + " ".join(["I came to see the town and liked it well."] * 10) + '"'
    sentences = split_sentences(speech)
    assert len(sentences) == 10
    assert sentences[0] == '"I came to see the town and liked it well.'
    assert sentences[9] == ' I came to see the town and liked it well."'


def test_languages_have_abbreviations_of_their_own() -> None:
    text = "Das gilt bzw. Es galt."
    assert split_sentences(text, "de") == [text]
    assert split_sentences(text, "en") == ["Das gilt bzw.", " Es galt."]


@pytest.mark.parametrize("unit", ["\u201c", "'a' ", "a", "(", "Mr. ", "\n", " "])
def test_time_grows_with_the_length_only(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    began = time.process_time()
    assert "".join(split_sentences(text)) == text
    assert time.process_time() - began < 8  # 30 and more where it grew with the square


@pytest.mark.parametrize("sentence", ["The cat sat. ", "the cat sat "])
def test_a_runaway_paragraph_is_cut_between_sentences_else_between_words(sentence: str) -> None:
    text = sentence * 5_000
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    if "." in sentence:
        assert {part.strip() for part in sentences} == {"The cat sat."}
    else:
        assert 1 < len(sentences) < 10
        assert {word for part in sentences for word in part.split()} == {"the", "cat", "sat"}


def test_real_prose_is_cut_into_sentences_of_a_plausible_length() -> None:
    text = (SAMPLES / "emma.txt").read_text(encoding="utf-8")[20_000:320_000]
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    lengths = [len(sentence) for sentence in split_sentences("\n".join(paragraphs))]
    assert 80 < sum(lengths) / len(lengths) < 160
    assert sum(length for length in lengths if length > 500) < 0.15 * sum(lengths)
