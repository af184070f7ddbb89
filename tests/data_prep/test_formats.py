import json

import pytest

from data_prep.formats import gutenberg_bounds, join_wrapped, parse_book, parse_documents
from data_prep.manifest import UserError

SMALL_PRINT = "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*"


@pytest.mark.parametrize(
    ("head", "foot"),
    [
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"),
        ("*** START OF THE PROJECT GUTENBERG EBOOK X ***", "*** END OF THE PROJECT GUTENBERG EBOOK X ***"),
        ("***START OF THE PROJECT GUTENBERG EBOOK X***", "***END OF THE PROJECT GUTENBERG EBOOK X***"),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK\nA LONG\nTITLE ***", "   *** END OF THE PROJECT GUTENBERG EBOOK X"),
        (SMALL_PRINT, "End of the Project Gutenberg Etext of X, by Y"),
        ("*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.07.00*END*", "End of Project Gutenberg's X, by Y"),
        ("*** START OF THE PROJECT GUTENBERG EBOOK X ***\nlegal\n" + SMALL_PRINT, "End of Project Gutenberg\u2019s X"),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "End of the Project Gutenberg EBook of X\n*** END OF THIS "
         "PROJECT GUTENBERG EBOOK X ***"),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nProduced by A. B.\nand C. D.", "*** END OF THIS PROJECT "
         "GUTENBERG EBOOK X ***\n" + SMALL_PRINT),
    ],
)  # fmt: skip
def test_boilerplate_is_cut_in_every_form(head: str, foot: str) -> None:
    text = f"The Project Gutenberg EBook of X\nlicence\n\n{head}\n\nCHAPTER I\n\nIt was\nnight.\n\n{foot}\nlicence\n"
    document = parse_book(text.split("\n"), "folder/pg1.txt.gz")
    assert document.paragraphs == ["CHAPTER I", "It was night."]
    assert document.stripped
    assert document.id == "pg1"


def test_text_without_markers_is_kept_whole() -> None:
    lines = ["Produced by the sea,", "it was *** START OF THE storm.", "", "End of the story."]
    document = parse_book(lines, "a.txt")
    assert not document.stripped
    assert document.paragraphs == ["Produced by the sea, it was *** START OF THE storm.", "End of the story."]


def test_missing_end_marker_keeps_the_rest_and_missing_start_the_beginning() -> None:
    assert gutenberg_bounds(["x", "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "a", "b"]) == (2, 4)
    assert gutenberg_bounds(["a", "b", "*** END OF THE PROJECT GUTENBERG EBOOK X ***", "x"]) == (0, 2)


def test_end_marker_before_the_start_is_not_the_end() -> None:
    lines = ["End of Project Gutenberg's notes", "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "a"]
    assert gutenberg_bounds(lines) == (2, 3)


def test_wrapped_lines_are_joined() -> None:
    assert list(join_wrapped(["", "a ", "  b", "\t", "", "c"])) == ["a b", "c"]


def test_extracted_articles_keep_ids_and_paragraphs() -> None:
    text = (
        '<doc id="12" url="u" title="A &quot;b&quot; > c">\nA\n\nFirst\u2028line.\n<b>x</b> </doc> y\n</doc>\n\n'
        '<doc id="7" url="u" title="B">\nB\n</doc>\n'
    )
    found = [(doc.kind, doc.id, doc.paragraphs) for doc in parse_documents(text.split("\n"), "wikipedia", "wiki_00")]
    assert found == [
        ("wikipedia", "12", ["A", "First\u2028line.", "<b>x</b> </doc> y"]),
        ("wikipedia", "7", ["B"]),
    ]


def test_json_form() -> None:
    lines = [json.dumps({"id": "3", "url": "u", "title": "t", "text": "T\n\none\u2028more\ntwo"}), ""]
    (document,) = parse_documents(lines, "wikipedia", "wiki_00")
    assert (document.id, document.paragraphs) == ("3", ["T", "", "one\u2028more", "two"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<doc id="1" url="u" title="t">\nbody\n', "ends inside document 1"),
        ('<doc id="1" url="u" title="t">\n<doc id="2" url="u" title="t">\n', "line 2: a new <doc> begins before"),
        ("</doc>\n", "line 1: </doc> without"),
        ('<doc id="1" url="u" title="t">\n</doc>\nstray\n', "line 3: text outside"),
        ("<doc id=1>\n</doc>\n", "line 1: malformed"),
        ('{"id": 1, "text"\n', "line 1: not a WikiExtractor JSON object"),
        ('{"id": 1}\n', "line 1: not a WikiExtractor JSON object"),
    ],
)
def test_malformed_extraction_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(parse_documents(text.split("\n"), "wikipedia", "wiki_00"))
