"""What Project Gutenberg added to a book goes, the book stays."""

import pytest

from data_prep.raw.books import parse_books
from data_prep.raw.gutenberg import is_list, plain, regions, without_additions


def parse_book(lines: list[str]) -> tuple[list[str], bool]:
    """The one book that the lines hold."""
    ((paragraphs, stripped, _),) = parse_books("\n".join(lines))
    return paragraphs, stripped


PROSE = ["It was a dark night, and the wind that had", "risen at noon was still."]


START, END = "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "*** END OF THE PROJECT GUTENBERG EBOOK X ***"


def test_missing_end_marker_keeps_the_rest_and_missing_start_the_beginning() -> None:
    assert regions(["x", START, "a", "b"]) == [(2, 4)]
    assert regions(["a", "b", END, "x"]) == [(0, 2)]
    assert regions(["a", "b"]) == [(0, 2)]


def test_end_marker_before_the_start_is_not_the_end() -> None:
    assert regions(["End of Project Gutenberg's notes", START, "a"]) == [(2, 3)]


def test_every_book_of_a_collection_is_kept() -> None:
    one = ["header", START, "a", "End of Project Gutenberg's X", END, "licence"]
    assert regions(one * 3) == [(2, 3), (8, 9), (14, 15)]
    assert [paragraphs for paragraphs, *_ in parse_books("\n".join(one * 2))] == [["a"], ["a"]]
    # What comes behind the licence is no licence.
    assert regions([*one, *["text"] * 1500]) == [(2, 3), (5, 1506)]
    # Without end markers: the beginning of the next book is no small print.
    assert regions([START, *["text"] * 1500, START, "b"]) == [(1, 1503)]


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
    assert without_additions("\n".join([*PROSE * 10, "", *notes])) == "\n".join([*PROSE * 10, ""])


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
        ("8_s_., 2_s_. 6\u00bd_d._ and 100,000_l_. on the 4_th_", "8s., 2s. 6\u00bdd. and 100,000l. on the 4th"),
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
    chapters = ["CHAPTER I. Down the Rabbit-Hole", "CHAPTER II. The Pool", "CHAPTER III. A Race", "CHAPTER IV. A Bill"]
    assert is_list("\n".join(chapters))
    assert is_list("\n".join(["Of Truth.....  1", "Of Death.....  3", "Of Revenge ....  17", "Of Envy, 20"]))
    assert is_list("\n".join(["Adams, John, 12, 44-47", "Boston,  iv", "Concord, 3, 9", "Franklin, 201"]))
    assert not is_list("\n".join(PROSE * 3))
    verse = ["Tyger Tyger, burning bright,", "In the forests of the night;", "What immortal hand or eye,   3"]
    assert not is_list("\n".join([*verse, "Could frame thy fearful symmetry?"]))
    assert not is_list("\n".join(["CHAPTER I", "The Bertolini"]))


def test_prose_whose_lines_look_like_a_list_is_none() -> None:
    laws = [f"Section {number}. This act may be known as the Dog Act." for number in range(1, 6)]
    works = [f"{name}, the story of a boy who was born in a workhouse, {year}" for name, year in
             [("Oliver Twist", 1838), ("David", 1850), ("Pip", 1861), ("Nell", 1841)]]  # fmt: skip
    days = [f"He came to {town} from the sea, on the {number}d of May, 184{number}"
            for number, town in enumerate(["Ayr", "Bath", "Cork", "Deal"])]  # fmt: skip
    for lines in (laws, works, days):
        assert not is_list("\n".join(lines), True)
        assert not is_list("\n".join(lines))
    shopping = "\n".join(["Two pounds of sugar, 7", "A bag of flour, 3", "One dozen eggs, 12", "Butter, 1"])
    assert not is_list(shopping)
    rules = "\n".join(["Section 1. No dogs", "Section 2. No cats", "Section 3. No men", "Section 4. No boys"])
    assert not is_list(rules)
    assert is_list(rules, True)
    sentences = "\n".join(f"Chapter {number} tells how the king of France died." for number in range(1, 6))
    assert not is_list(sentences)
    assert is_list(sentences, True)


def test_a_caption_inside_a_sentence_stays() -> None:
    lines = ["They held the", "[Map of the place that lay before them]", "and went on, [page 4 of it torn] to sea."]
    assert parse_book(lines)[0] == [" ".join(lines)]
    assert parse_book(["A.", "", "[Map of the place]", "[Plate of a dog]", "", "[Page 12]B."])[0] == ["A.", "B."]


def test_what_is_left_out_is_counted() -> None:
    contents = ["CHAPTER I", "CHAPTER II", "CHAPTER III", "CHAPTER IV"]
    ((paragraphs, _, left_out),) = parse_books("\n".join(["A.", "", *contents, "", "[Illustration]", "", "B."]))
    assert (paragraphs, left_out) == (["A.", "B."], len("\n".join(contents)) + len("[Illustration]"))


def test_notes_on_the_file_in_front_go() -> None:
    note = ["Note: Project Gutenberg also has an HTML version of this", "      file (http://www.gutenberg.net/1.htm)"]
    assert parse_book([START, "", "E-text prepared by A. B.", "", *note, "", "I", "", "A.", END])[0] == ["I", "A."]
    notes = [" \u25cf Transcriber\u2019s Notes:", "    \u25cb Commas were mended."]
    assert parse_book([*PROSE * 9, "", *notes])[0] == [" ".join(PROSE)] * 9


def test_page_numbers_in_braces_go() -> None:
    assert parse_book(["{0f}{18b}A dog {108a}and {p. 7}a cat {12}."])[0] == ["A dog and a cat ."]


def test_separators_of_asterisks_are_no_paragraphs() -> None:
    assert parse_book(["One.", "", "* * * * *", "", "Two."])[0] == ["One.", "Two."]
