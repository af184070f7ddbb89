"""What Project Gutenberg added to a book goes, the book stays."""

import pytest

from data_prep.raw.books import parse_book
from data_prep.raw.gutenberg import bounds, is_list, plain, without_additions

PROSE = ["It was a dark night, and the wind that had", "risen at noon was still."]


def test_missing_end_marker_keeps_the_rest_and_missing_start_the_beginning() -> None:
    assert bounds(["x", "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "a", "b"]) == (2, 4)
    assert bounds(["a", "b", "*** END OF THE PROJECT GUTENBERG EBOOK X ***", "x"]) == (0, 2)


def test_end_marker_before_the_start_is_not_the_end() -> None:
    lines = ["End of Project Gutenberg's notes", "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "a"]
    assert bounds(lines) == (2, 3)


@pytest.mark.parametrize(
    "addition",
    [
        ["[Illustration]"],
        ["[Illustration: \u201cA picture,\u201d of [two] men", "and a dog.]"],
        ["[Illustration:", "", "With its caption", "", "in paragraphs]"],
        ["[Frontispiece: the author]", "", "[Picture: a map]", "", "[Sidenote: 1745]"],
        ["[Transcriber's Note: Spelling was kept.]"],
        ["[Transcriber\u2019s Note:", "", "Two", "", "paragraphs.]"],
        ["Transcriber's Note: spelling as it stood", "in the edition of 1887."],
        ["TRANSCRIBER'S NOTES", "", "Some.", "", "More.", "", ""],
        ["    +------------------------+", "    | Transcriber's Note:    |", "    |                        |",
         "    | Spelling was kept.     |", "    +------------------------+"],
    ],
)  # fmt: skip
def test_pictures_and_notes_go(addition: list[str]) -> None:
    before, after = ["CHAPTER I", ""], ["", *PROSE]
    assert parse_book([*before, *addition, *after]) == (["CHAPTER I", " ".join(PROSE)], False)


def test_notes_at_the_end_go_with_all_that_follows() -> None:
    notes = ["Transcriber's Notes:", "", "page 4: teh to the", "", "page 9: adn to and"]
    assert without_additions([*PROSE * 10, "", *notes]) == [*PROSE * 10, ""]


def test_what_only_sounds_like_a_note_stays() -> None:
    lines = ["The transcriber notes that", "all is well [as he saw it].", "", "[Illustrious guests came.]"]
    assert parse_book(lines)[0] == [
        "The transcriber notes that all is well [as he saw it].",
        "[Illustrious guests came.]",
    ]


def test_a_bracket_that_never_closes_takes_nothing_along() -> None:
    lines = ["[Illustration: broken", "", *PROSE]
    assert parse_book(lines)[0] == ["[Illustration: broken", " ".join(PROSE)]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It was _very_ cold, _he said_.", "It was very cold, he said."),
        ("_The Times_, in italics", "The Times, in italics"),
        ("an italic _that never ends", "an italic that never ends"),
        ("some_file_name and __init__", "some_file_name and __init__"),
        ("=Bold= words, but a = b = c", "Bold words, but a = b = c"),
        ("the 4^{th} of May", "the 4th of May"),
        ("C[oe]ur de Lion", "Coeur de Lion"),
        ("in London[36] at three.[7] He", "in London at three. He"),
        ("[Footnote 7: See the appendix.]", "See the appendix."),
        ("[Footnote A: one [of two]]", "one [of two]"),
        ("an array[0] of [1] things", "an array of [1] things"),
    ],
)
def test_marks_of_print_go(written: str, said: str) -> None:
    assert plain(written) == said


def test_contents_and_indexes_are_lists_and_prose_and_verse_are_none() -> None:
    assert is_list(
        ["CHAPTER I. Down the Rabbit-Hole", "CHAPTER II. The Pool", "CHAPTER III. A Race", "CHAPTER IV. A Bill"]
    )
    assert is_list(["Of Truth.....  1", "Of Death.....  3", "Of Revenge ....  17", "Of Envy, 20"])
    assert is_list(["Adams, John, 12, 44-47", "Boston,  iv", "Concord, 3, 9", "Franklin, 201"])
    assert not is_list(PROSE * 3)
    verse = ["Tyger Tyger, burning bright,", "In the forests of the night;", "What immortal hand or eye,   3"]
    assert not is_list([*verse, "Could frame thy fearful symmetry?"])
    assert not is_list(["CHAPTER I", "The Bertolini"])


def test_separators_of_asterisks_are_no_paragraphs() -> None:
    assert parse_book(["One.", "", "* * * * *", "", "Two."])[0] == ["One.", "Two."]
