from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import MIN_CHARACTERS, RULES, clean_text, table

LONG = "x" * MIN_CHARACTERS


def clean(*paragraphs: str) -> tuple[str | None, Counter[str]]:
    counts: Counter[str] = Counter()
    return clean_text(paragraphs, counts), counts


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("a\u2028b\u2029c\x0bd\x0ce\rf", "a b c d e f"),
        ("one\x85two", "one\u2026two"),
        ("\u4eba one\x85two", "\u4eba one\u2026two"),
        ("sch\u00c3\u00b6n \u00e2\x80\x94 d\u00e2\u20ac\u2122accord", "sch\u00f6n \u2014 d'accord"),
        ("\u00c3\x85ngstr\u00c3\u00b6m", "\u00c5ngstr\u00f6m"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufb01sh", "fish"),
        ("a\x00b\x07c\x7fd\ufeff", "abcd"),
        ("  a \t\u00a0 b\u3000c  ", "a b c"),
        ("\x1b[31mred\x1b[0m \x9dx", "red x"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
    ],
)
def test_characters(raw: str, wanted: str) -> None:
    text, _ = clean(raw, LONG)
    assert text == f"{wanted}\n{LONG}"


def test_every_rule_is_counted() -> None:
    text, counts = clean("a\u2028b\x07  c", "", " \t", LONG)
    assert text == f"a b c\n{LONG}"
    assert counts == {
        "documents_read": 1,
        "documents_repaired": 0,
        "separators_replaced": 1,
        "controls_dropped": 1,
        "whitespace_dropped": 3,
        "empty_paragraphs_dropped": 2,
        "documents_kept": 1,
    }
    assert all(label in table(counts) for label in RULES.values())


def test_empty_and_short_documents_are_dropped() -> None:
    text, counts = clean(" ", "\u2028")
    assert text is None
    assert counts["empty_documents_dropped"] == 1
    text, counts = clean(LONG[1:])
    assert text is None
    assert counts["short_documents_dropped"] == 1
    assert clean(LONG)[0] == LONG
    assert clean()[1]["empty_documents_dropped"] == 1


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=5))
def test_clean_text_has_clean_paragraphs(paragraphs: list[str]) -> None:
    text, counts = clean(*paragraphs, LONG)
    assert text is not None
    assert all(line and line == " ".join(line.split()) for line in text.split("\n"))
    assert text.splitlines() == text.split("\n")
    assert all(count >= 0 for count in counts.values())
