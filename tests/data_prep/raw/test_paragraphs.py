"""Paragraphs of text files in every layout people have."""

import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.raw.books import parse_books
from data_prep.raw.layouts import has_blank_lines, hint_of, layout_of
from data_prep.raw.paragraphs import is_wrapped, paragraphs_of

SAMPLE = Path(__file__).parents[3] / "data_prep" / "samples" / "emma.txt"


@pytest.fixture(scope="module")
def novel() -> list[str]:
    """The paragraphs of a novel, whose own file is hard-wrapped with blank lines."""
    ((paragraphs, *_),) = parse_books(SAMPLE.read_text(encoding="utf-8"))
    return paragraphs[100:400]


def paragraphs_of_lines(lines: list[str]) -> list[str]:
    return paragraphs_of("\n".join(lines))


def wrapped(paragraph: str, first: str = "") -> list[str]:
    return textwrap.wrap(paragraph, 72, initial_indent=first, break_on_hyphens=False, break_long_words=False)


def test_wrapped_lines_are_joined() -> None:
    assert paragraphs_of_lines(["", "a ", "  b", "\t", "", "c"]) == ["a b", "c"]


def test_every_layout_of_a_novel_gives_its_paragraphs(novel: list[str]) -> None:
    blank_lines = [line for paragraph in novel for line in [*wrapped(paragraph), ""]]
    indents = [line for paragraph in novel for line in wrapped(paragraph, "    ")]
    a_line_each = [line for paragraph in novel for line in (paragraph, "")]
    assert paragraphs_of_lines(blank_lines) == novel
    assert paragraphs_of_lines(indents) == novel
    assert paragraphs_of_lines(a_line_each) == novel
    assert paragraphs_of_lines(novel) == novel


def test_wrapped_without_any_mark_is_cut_where_a_line_is_short(novel: list[str]) -> None:
    found = paragraphs_of_lines([line for paragraph in novel for line in wrapped(paragraph)])
    assert "".join(found).replace(" ", "") == "".join(novel).replace(" ", "")
    assert len(found) > 0.5 * len(novel)
    # Where a paragraph begins in ours, one begins in the novel.
    assert set(found) & set(novel)


def test_indents_part_paragraphs_of_short_chapters_where_the_whole_file_has_them(novel: list[str]) -> None:
    long = [paragraph for paragraph in novel if len(paragraph) > 300][:24]
    chapters = [long[:8], long[8:16], long[16:]]
    lines, wanted = [], []
    for number, chapter in enumerate(chapters, 1):
        lines += [f"CHAPTER {number}", "", *(line for text in chapter for line in wrapped(text, "    ")), ""]
        wanted += [f"CHAPTER {number}", *chapter]
    assert paragraphs_of_lines(lines) == wanted


def test_verse_and_letters_between_paragraphs_stay_whole(novel: list[str]) -> None:
    verse = ["Tyger Tyger, burning bright,", "  In the forests of the night;", "What immortal hand or eye,",
             "  Could frame thy symmetry?", "    In what distant deeps"]  # fmt: skip
    lines = [line for paragraph in novel[:40] for line in [*wrapped(paragraph), "", *verse, ""]]
    assert paragraphs_of_lines(lines)[1::2] == [" ".join(map(str.strip, verse))] * 40


def test_short_texts_without_blank_lines(novel: list[str]) -> None:
    ends_short = [text for text in novel if len(text) > 200 and len(wrapped(text)[-1]) < 50][:4]
    assert paragraphs_of_lines([line for text in ends_short for line in wrapped(text)]) == ends_short
    sentences = [f"The {word} notice is that the library will be closed on Monday for repairs to the roof."
                 for word in ("first", "second", "third", "last")]  # fmt: skip
    assert paragraphs_of_lines(sentences) == sentences
    assert paragraphs_of_lines(wrapped(novel[0])[:3]) == [" ".join(wrapped(novel[0])[:3])]


def test_sentences_a_line_are_paragraphs() -> None:
    lines = [f"This is sentence number {number} of the text." for number in range(30)]
    assert not is_wrapped(lines)
    assert paragraphs_of_lines(lines) == lines


@pytest.mark.parametrize("end", list("\u0589\u104b\u17d4\u1362\u0965\u0f0d\u06d4\u061f\u3002\uff01"))
def test_sentences_of_every_script_end(end: str) -> None:
    lines = [f"word word word {number} word{end}" for number in range(30)]
    assert paragraphs_of_lines(lines) == lines
    assert layout_of("\n\n".join(["\n".join(lines[:6])] * 5)) == "sentences"


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (["a young colour-", "sergeant of"], "a young colour-sergeant of"),
        (["in 1914-", "18 and"], "in 1914-18 and"),
        (["the Anglo-", "Saxon"], "the Anglo-Saxon"),
        (["two-", "and threefold"], "two- and threefold"),
        (["Hin-", "und R\u00fcckfahrt"], "Hin- und R\u00fcckfahrt"),
        (["he stopped--", "and went"], "he stopped--and went"),
        (["he stopped\u2014", "and went"], "he stopped\u2014and went"),
        (["he stopped --", "and went"], "he stopped -- and went"),
        (["half-", "\u201cpast\u201d"], "half- \u201cpast\u201d"),
        (["a well\u2010", "known man"], "a well\u2010known man"),
        (["a matter-", "of-fact man-", "of-war"], "a matter-of-fact man-of-war"),
        (["up-", "to-date bread-", "and-butter"], "up-to-date bread-and-butter"),
        (["an exam\u00ad", "ple of hy\u00adphens"], "an example of hyphens"),
        (["in 1914\u2013", "18 a well\u2011", "known"], "in 1914\u201318 a well\u2011known"),
        (["said,--", "\u201cwe have"], "said,--\u201cwe have"),
        (["he was late", "--it was night--", '"Oh!"'], 'he was late--it was night--"Oh!"'),
        (["he was late", "\u2014it was"], "he was late\u2014it was"),
        (["he was late", "-- it was"], "he was late -- it was"),
        (["Il rit.", "\u2014Bonjour, dit-il"], "Il rit. \u2014Bonjour, dit-il"),
        (["\u8a71\u8aaa\u5929\u4e0b\uff0c", "\u5206\u722d"], "\u8a71\u8aaa\u5929\u4e0b\uff0c\u5206\u722d"),
        (["\u5206\u722d", "\u201c\u5427\u201d", "\u4e0b"], "\u5206\u722d\u201c\u5427\u201d\u4e0b"),
        (["\u304b\u306a", "\u30ab\u30ca"], "\u304b\u306a\u30ab\u30ca"),
        (["\u0e44\u0e17\u0e22", "\u0e04\u0e33"], "\u0e44\u0e17\u0e22\u0e04\u0e33"),
        (["\u1780\u1781", "\u1782"], "\u1780\u1781\u1782"),
        (["\u1000\u1001", "\u1002"], "\u1000\u1001\u1002"),
        (["\ud55c\uad6d\uc5b4", "\uae00"], "\ud55c\uad6d\uc5b4 \uae00"),
        (["\u5206\u722d in", "\u5206"], "\u5206\u722d in \u5206"),
        (["- one", "- two -", "three"], "- one - two - three"),
    ],
)
def test_words_that_go_on_with_the_next_line(lines: list[str], joined: str) -> None:
    assert paragraphs_of_lines(lines) == [joined]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab .\n-_\u3000", max_size=90), max_size=30))
def test_no_letter_is_lost_whatever_the_layout(texts: list[str]) -> None:
    lines = "\n".join(texts).split("\n")
    assert "".join("".join(paragraphs_of_lines(lines)).split()) == "".join("".join(lines).split())


def test_soft_hyphens_go_from_lines_that_are_paragraphs() -> None:
    lines = [f"This is sen\u00adtence number {number} of the text." for number in range(30)]
    assert paragraphs_of_lines(lines)[7] == "This is sentence number 7 of the text."


ARTICLE = "A river is a body of water that flows downhill. " * 20
SENTENCES = "\n".join(["The river was named in 1204.", "It flows to the north.", "Boats use it in the summer."] * 2)


def test_layouts_that_are_plain(novel: list[str]) -> None:
    assert layout_of("\n".join(f"{number} {ARTICLE}" for number in range(40))) == "articles"
    assert layout_of("\n\n".join([SENTENCES] * 20)) == "sentences"
    assert layout_of("\r\n\r\n".join([SENTENCES.replace("\n", "\r\n")] * 20)) == "sentences"
    assert layout_of(SAMPLE.read_text(encoding="utf-8")) == "book"
    assert layout_of("\n".join(novel)) == "book"
    assert layout_of("\n\n".join(novel)) == "book"
    assert layout_of("\n".join(line for paragraph in novel for line in wrapped(paragraph))) == "book"
    assert layout_of("*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n" + "\n\n".join([SENTENCES] * 20)) == "book"
    assert layout_of("") == layout_of(ARTICLE) == "book"


def test_a_stanza_is_no_document() -> None:
    stanza = "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould frame thee?"
    assert layout_of("\n\n".join([stanza] * 20)) == "book"


def test_long_lines_without_blank_ones_are_hinted_at(novel: list[str]) -> None:
    assert "format=articles" in hint_of("\n".join(["word " * 60 + "."] * 30), "book")
    assert hint_of("\n\n".join(novel), "book") == ""
    assert hint_of("\n".join(["short line."] * 30), "book") == ""


def test_what_may_be_a_book_or_articles_is_said_to_be_taken_for_one() -> None:
    essay = "\n".join(["The Long Novel", *["word " * 120 + "."] * 30])
    assert layout_of(essay) == "book"
    assert "format=articles" in hint_of(essay, "book")
    articles = "\n".join([ARTICLE] * 30)
    assert layout_of(articles) == "articles"
    assert "taken for an article a line" in hint_of(articles, "articles")
    assert hint_of("\n".join([ARTICLE * 3] * 30), "articles") == ""
    apart = "\n\n".join([ARTICLE] * 30)
    assert layout_of(apart) == "book"
    assert "format=articles" in hint_of(apart, "book")
    assert hint_of("The Project Gutenberg EBook\n\n" + apart, "book") == ""


def test_blank_lines_are_seen() -> None:
    assert has_blank_lines("\n\n".join([SENTENCES] * 20))
    assert not has_blank_lines("\n" + "a line\n" * 500 + "\n\n")


def test_articles_of_seven_hundred_characters_are_articles_and_say_so() -> None:
    text = "\n".join(f"{number} {ARTICLE}"[:700] for number in range(60))
    assert layout_of(text) == "articles"
    assert "format=book" in hint_of(text, "articles")
