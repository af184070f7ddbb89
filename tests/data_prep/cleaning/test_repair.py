import gzip
import re
import sys

import ftfy
import pytest
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES
from ftfy.chardata import CONTROL_CHARS, LIGATURES, WIDTH_MAP
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.cleaning import repair as module
from data_prep.cleaning.repair import clean_text, repair
from data_prep.cleaning.tally import RULE_LABELS, Tally
from tests.data_prep.real_data import DATA, needs_texts

# Everything that ftfy looks at, in pieces that meet often.
MARKS = sorted(
    {chr(code) for table in (LIGATURES, WIDTH_MAP) for code in table}
    | {chr(code) for code in CONTROL_CHARS if code > 0x7F or code == 0x1B}
    | {char for chars in MOJIBAKE_CATEGORIES.values() for char in re.sub("(.)-(.)", r"\1\2", chars, flags=re.DOTALL)}
)
PIECES = st.one_of(
    st.sampled_from(MARKS),
    st.sampled_from(
        ["a", "E", "z1", " ", "\t", ".", "?", '"', "\u2019", "\u201c", "\u2014", "\xa0", "\xad", "\xb0", "\xb2"]
        + ["<b>", "&amp;", "&lt;", "&eacute;", "&#233;", "&#7;", "&NTILDE;", "AT&T", "\x1b[1m", "\x85", "\x9d"]
        + ["\xc3\xb6", "\xe2\u20ac\u2122", "\xe2\x80\x94", "\xc3", "\xc2 ", "\u0152", "e\u0301", "\u212b", "<\u0338"]
        + ["\u0432\u0402\u201d", "\u0413\u045e", "\xd8\xa7", "\ud83d", "\ude00", "\u65e5\u672c", "word " * 8]
    ),
    st.text(st.characters(exclude_characters="\r"), max_size=3),
)


def cleaned(*paragraphs: str) -> tuple[str, dict[str, int]]:
    tally = Tally()
    return clean_text(paragraphs, tally), tally.to_json()["edited"]


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
        ("\u201cso\u201d she\u2019d said", '"so" she\'d said'),
        ("&#7;bell", "bell"),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
    ],
)
def test_characters(raw: str, wanted: str) -> None:
    assert cleaned(raw, "x") == (f"{wanted}\nx", cleaned(raw, "x")[1])


def test_every_edit_is_counted() -> None:
    text, edits = cleaned("a\u2028b\x07  c", "", " \t", "x&amp;\x9d")
    assert text == "a b c\nx&"
    assert edits == {
        "documents_repaired": 1,
        "separators_replaced": 1,
        "controls_dropped": 2,
        "whitespace_dropped": 3,
        "empty_paragraphs_dropped": 2,
    }
    assert edits.keys() <= RULE_LABELS.keys()
    assert cleaned("plain", "text") == ("plain\ntext", {})


def test_nothing_is_left_of_white_space() -> None:
    assert cleaned(" ", "\u2028")[0] == ""
    assert cleaned() == ("", {})


def test_every_kind_of_white_space_is_a_single_blank_or_line_end() -> None:
    spaces = [char for code in range(sys.maxunicode + 1) if (char := chr(code)).isspace()]
    assert set(spaces) == {*module._WHITE_SPACE, " ", "\n"}
    # ftfy makes some of entities, behind everything that looks for characters.
    for space in [*spaces, *(f"&#{ord(char)};" for char in spaces), "  ", "\n ", " \n", "\n\n"]:
        for text in (f"one{space}two", f"{space}one two", f"one two{space}", f"caf\xe9{space}two"):
            found = cleaned(text)[0]
            assert found == "\n".join(" ".join(line.split()) for line in found.split("\n") if line.strip())
            assert found.isprintable() or "\n" in found


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=40), max_size=5))
def test_clean_text_has_clean_paragraphs(paragraphs: list[str]) -> None:
    text, edits = cleaned(*paragraphs)
    assert not text or all(line and line == " ".join(line.split()) for line in text.split("\n"))
    assert text.splitlines() == ([] if not text else text.split("\n"))
    assert all(count > 0 for count in edits.values())
    text.encode()


@settings(max_examples=400)
@given(st.lists(st.lists(PIECES, max_size=9).map("".join), max_size=4).map("\n".join))
@example("\u0153\n\u0153")
@example("<b> &amp;\n&amp; \u201cx\u201d &eacute;")
@example("\u00c3\u00b6\u00bf\nx")
@example("&lt;\u2019\n&amp;")
@example("\u201c" + "x" * 11 + "\xc3\xa9")
def test_repair_is_what_ftfy_does(text: str) -> None:
    text = module._CONTROLS.sub("", module._SEPARATORS.sub(" ", text))
    assert repair(text) == ftfy.fix_text(text, module._FTFY)


def test_a_line_too_long_for_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_LINE", 10)
    text = "\u201cquoted\u201d, caf\xe9 and sch\u00c3\u00b6n\nx"
    assert repair(text) == ftfy.fix_text(text, module._FTFY)


def test_every_sign_of_mojibake_is_short_and_holds_a_suspect_character() -> None:
    """Why it is enough to look at suspect characters and around them: from the structure of ftfy's own rule."""
    tree = re._parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags)  # type: ignore[attr-defined]
    assert tree.getwidth()[1] + 1 < module._CONTEXT
    [(operation, (_, alternatives))] = tree
    assert str(operation) == "BRANCH"
    assert len(alternatives) > 30
    harmless = [chr(code) for code in range(0x110000) if not module._SUSPECT.match(chr(code))]
    assert len(harmless) == 128 + 12
    for alternative in alternatives:
        assert any(
            item.getwidth()[0] == 1 and not any(map(_compiled(item).match, harmless))
            for item in (alternative[number : number + 1] for number in range(len(alternative)))
        ), alternative


def _compiled(item: object) -> re.Pattern[str]:
    return re._compiler.compile(item, BADNESS_RE.flags)  # type: ignore[attr-defined]


@needs_texts
@pytest.mark.parametrize("name", ["wikipedia/extracted/AA/wiki_00.gz", "books/gutenberg/pg1155.txt.gz"])
def test_repair_of_real_texts(name: str) -> None:
    text = gzip.decompress((DATA / name).read_bytes()).decode()[:600_000]
    assert repair(text) == ftfy.fix_text(text, module._FTFY)


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u06a9\u062a\u0627\u0628\u200c\u0647\u0627",
        "\u0915\u094d\u200d\u0937 \u0d9a\u0dca\u200d\u0dc2",
        "\u09b6\u09cd\u09b0\u09c0\u200c",
        "\u5317\u4eac\uff0c\u9996\u90fd\uff1b\u5f88\u5927\uff01\uff08\uff15\u5143\uff09\uff1f\uff1a\uff21\uff5e\u3002\u300c\u300d",
        "\uff76\uff9e \uffe5 \uffe6",
    ],
)
def test_what_scripts_are_written_with_is_kept(text: str) -> None:
    assert clean_text([text], Tally()) == text
