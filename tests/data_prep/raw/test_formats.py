"""Documents of every format, whole and in spans."""

import bz2
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_prep.raw import streams, text_readers
from data_prep.raw.books import parse_books
from data_prep.raw.extracted import extracted_paragraphs
from data_prep.raw.formats import RawDocument, read_documents
from data_prep.raw.markup import mended_paragraphs
from data_prep.raw.sources import RawFile, Source, Span, find_files, plan_units
from data_prep.raw.streams import BadInput

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SMALL_PRINT = "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*"


def found(path: Path, **options: str) -> RawFile:
    (file,), _ = find_files([Source(str(path), "s", **options)])  # type: ignore[arg-type]
    return file


def spans_of(file: RawFile, cuts: Sequence[int] = ()) -> list[Span]:
    end = file.parts or file.size
    inner = sorted({cut for cut in cuts if 0 < cut < end})
    return [Span(file, start, stop) for start, stop in zip([0, *inner], [*inner, end], strict=True)]


def read(spans: Sequence[Span], complain: Callable[[BadInput], None] = pytest.fail) -> list[RawDocument]:
    """The documents of spans, each read as a unit of its own; all their bytes must be reported."""
    documents = []
    for span in spans:
        told: list[int] = []
        documents += read_documents((span,), complain, told.append)
        assert sum(told) == span.size
        assert all(amount > 0 for amount in told)
    return documents


def texts(documents: Sequence[RawDocument]) -> list[tuple[str, list[str]]]:
    return [(document.id, document.paragraphs) for document in documents]


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
def test_boilerplate_is_cut_in_every_form(tmp_path: Path, head: str, foot: str) -> None:
    text = f"The Project Gutenberg EBook of X\nlicence\n\n{head}\n\nCHAPTER I\n\nIt was\nnight.\n\n{foot}\nlicence\n"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pg1.txt.gz").write_bytes(gzip.compress(text.encode()))
    (document,) = read(spans_of(found(tmp_path)))
    assert document == RawDocument("s", 0, "book", "pg1", ["CHAPTER I", "It was night."], True)


def test_text_without_markers_is_kept_whole() -> None:
    lines = ["Produced by the sea,", "it was *** START OF THE storm.", "", "End of the story."]
    wanted = ["Produced by the sea, it was *** START OF THE storm.", "End of the story."]
    assert list(parse_books("\n".join(lines))) == [(wanted, False, 0)]


def test_sentence_a_line_becomes_documents_by_place_and_blank_line(tmp_path: Path) -> None:
    # 5,000 bytes a cell: lines of 1,000 start at 0, 1000, ... and five of them share a cell.
    lines = [f"{number:03d} " + "x" * 995 for number in range(12)]
    (tmp_path / "books_large_p1.txt").write_text("\n".join(lines) + "\n")
    documents = read(spans_of(found(tmp_path / "books_large_p1.txt", format="lines")))
    assert texts(documents) == [
        ("books_large_p1.txt@0", [" ".join(lines[:5])]),
        ("books_large_p1.txt@5000", [" ".join(lines[5:10])]),
        ("books_large_p1.txt@10000", [" ".join(lines[10:])]),
    ]
    assert {document.kind for document in documents} == {"lines"}
    assert {document.stretch for document in documents} == {"s/books_large_p1.txt/0"}


def test_jsonl_keeps_ids_lines_and_other_columns_of_text(tmp_path: Path) -> None:
    records = [{"id": 7, "body": "one\u2028more\n\ntwo"}, {"body": "b"}, {"id": None, "body": ""}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + "\n")
    documents = read(spans_of(found(tmp_path / "a.jsonl", text="body")))
    assert texts(documents) == [
        ("7", ["one\u2028more", "", "two"]),
        ("a.jsonl@42", ["b"]),
        ("a.jsonl@56", [""]),
    ]


def test_halves_of_surrogate_pairs_in_json_become_replacement_characters(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "\\ud800", "text": "a \\ud83d\\ude00 \\udc00 b"}\n')
    ((identifier, paragraphs),) = texts(read(spans_of(found(tmp_path / "a.jsonl"))))
    assert (identifier, paragraphs) == ("\ufffd", ["a \U0001f600 \ufffd b"])
    paragraphs[0].encode()


def test_extracted_articles_keep_ids_and_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "wiki_00").write_text(
        '\ufeff<doc id="12" url="u" title="A &quot;b&quot; > c">\nA\n\nIt is\u2028first.\nx < </doc> y\n</doc>\n\n'
        '<doc id="7" url="u" title="B">\nB\n</doc>\n'
    )
    documents = read(spans_of(found(tmp_path)))
    assert texts(documents) == [("12", ["A", "It is\u2028first.", "x < </doc> y"]), ("7", ["B"])]
    assert {(document.kind, document.rank, document.source) for document in documents} == {("wikiextractor", 0, "s")}


def test_json_form_of_extracted_articles(tmp_path: Path) -> None:
    record = {"id": "3", "url": "u", "title": "t", "text": "T\n\none\u2028more\ntwo"}
    (tmp_path / "wiki_00").write_text(json.dumps(record) + "\n\n")
    (document,) = read(spans_of(found(tmp_path)))
    assert (document.kind, document.id, document.paragraphs) == (
        "wikiextractor",
        "3",
        ["T", "", "one\u2028more", "two"],
    )


def test_the_title_comes_first_in_all_json_forms_of_extracted_articles(tmp_path: Path) -> None:
    texts_of_titles = ["AT&amp;T\nIt is a firm.", "It is a firm.", "at&amp;t\nIt is a firm."]
    records = [{"id": "3", "url": "u", "title": "AT&amp;T", "text": text} for text in texts_of_titles]
    (tmp_path / "wiki_00").write_text("".join(json.dumps(record) + "\n" for record in records))
    paragraphs = [document.paragraphs for document in read(spans_of(found(tmp_path)))]
    assert paragraphs == [["AT&T", "It is a firm."], ["AT&T", "It is a firm."], ["at&t", "It is a firm."]]
    # Without a title there is none to be put before it.
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jsonl").write_text('{"text": "History.\\nIt was formula_1 at first."}\n')
    (document,) = read(spans_of(found(tmp_path / "plain", format="wikiextractor")))
    assert document.paragraphs == ["History.", "It was at first."]


def test_markup_in_columns_of_text_is_taken_out_and_counted(tmp_path: Path) -> None:
    text = "A <b>fine</b> film.<br /><br />See it ( , soon), if a < b."
    wanted = ["A fine film.", "", "See it (soon), if a < b."]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    write_table(tmp_path / "t.parquet", [text], 1)
    for name in ("a.jsonl", "t.parquet"):
        (document,) = read(spans_of(found(tmp_path / name)))
        assert document.paragraphs == wanted
        assert document.edits == {"markup_dropped": 1, "holes_closed": 1}
    (document,) = read(spans_of(found(tmp_path / "t.parquet", format="lines")))
    assert document.paragraphs == ["A fine film.  See it (soon), if a < b."]


PAGE = "<page><title>{0}</title><ns>{1}</ns><id>{2}</id>{3}<revision><text>{4}</text></revision></page>\n"
HEAD, TAIL = "<mediawiki>\n<siteinfo><sitename>W</sitename></siteinfo>\n", "</mediawiki>\n"


def page(number: int, text: str = "A '''bold''' [[link|word]].\n\nSecond &amp; last.") -> str:
    return PAGE.format(f"T{number}", 0, number, "", text)


def test_articles_of_a_dump_come_as_plain_text_and_other_pages_with_the_reason(tmp_path: Path) -> None:
    pages = [
        page(1),
        PAGE.format("R", 0, 2, '<redirect title="T1" />', "#REDIRECT [[T1]]"),
        PAGE.format("Talk:T1", 1, 3, "", "chatter\nmore"),
    ]
    (tmp_path / "dump.xml").write_text(HEAD + "".join(pages) + TAIL)
    documents = read(spans_of(found(tmp_path)))
    assert documents == [
        RawDocument("s", 0, "wikidump", "1", ["T1", "A bold word.", "Second & last."]),
        RawDocument("s", 0, "wikidump", "2", ["#REDIRECT [[T1]]"], dropped="redirects"),
        RawDocument("s", 0, "wikidump", "3", ["chatter", "more"], dropped="other namespaces"),
    ]


def test_multistream_dump_header_and_closing_tag_are_streams_without_pages(tmp_path: Path) -> None:
    parts = [HEAD, page(1) + page(2), page(3), TAIL]
    packed = [bz2.compress(part.encode()) for part in parts]
    (tmp_path / "d.xml.bz2").write_bytes(b"".join(packed))
    file = found(tmp_path)
    begins = [sum(map(len, packed[:number])) for number in range(4)]
    by_span = [[document.id for document in read([span])] for span in spans_of(file, begins)]
    assert by_span == [[], ["1", "2"], ["3"], []]
    # Spans in which no stream starts hold nothing.
    by_span = [[document.id for document in read([span])] for span in spans_of(file, [1, begins[1] + 1, begins[2]])]
    assert by_span == [[], ["1", "2"], [], ["3"]]


@pytest.mark.parametrize("packed", [False, True])
def test_every_span_of_a_dump_knows_the_namespaces_of_its_head(tmp_path: Path, packed: bool) -> None:
    head = HEAD.replace("</sitename>", '</sitename><namespace key="6">Bildo</namespace>')
    text = "[[Bildo:A.jpg|caption]]Word and {{nobody knows}} more."
    parts = [head, *(page(number, text) for number in range(1, 9)), TAIL]
    name = "d.xml.bz2" if packed else "d.xml"
    (tmp_path / name).write_bytes(b"".join(bz2.compress(part.encode()) if packed else part.encode() for part in parts))
    file = found(tmp_path)
    documents = read(spans_of(file, range(0, file.size, 100)))
    assert [document.paragraphs for document in documents] == [[f"T{n}", "Word and more."] for n in range(1, 9)]
    assert all(document.cut == {"nobody knows": 1} for document in documents)


def test_single_stream_dump_is_read_by_its_first_span(tmp_path: Path) -> None:
    (tmp_path / "d.xml.bz2").write_bytes(bz2.compress((HEAD + "".join(map(page, range(1, 9))) + TAIL).encode()))
    file = found(tmp_path)
    assert [len(read([span])) for span in spans_of(file, [50, 100])] == [8, 0, 0]
    assert len(plan_units([file], 60)) > 1


def test_pages_across_streams_are_whole(tmp_path: Path) -> None:
    text = (HEAD + "".join(map(page, range(1, 9))) + TAIL).encode()
    packed = [bz2.compress(text[start : start + 70]) for start in range(0, len(text), 70)]
    (tmp_path / "d.xml.bz2").write_bytes(b"".join(packed))
    file = found(tmp_path)
    documents = read(spans_of(file, range(0, file.size, 150)))
    assert [document.id for document in documents] == [str(number) for number in range(1, 9)]


def write_table(path: Path, rows: Sequence[str], group: int, **columns: list[object]) -> RawFile:
    pq.write_table(pa.table({"text": list(rows), **columns}), path, row_group_size=group)
    return found(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_rows_of_a_table_are_documents(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "t.parquet"
    column = pa.array(["a\nb", "", "c"], pa.string()).cast(kind)
    pq.write_table(pa.table({"id": ["x", None, "z"], "n": [1, 2, 3], "text": column}), path, row_group_size=2)
    documents = read(spans_of(found(path)))
    assert texts(documents) == [("x", ["a", "b"]), ("0/1", [""]), ("z", ["c"])]
    assert {document.kind for document in documents} == {"parquet"}


def test_rows_that_are_lines_become_documents_within_a_row_group(tmp_path: Path) -> None:
    rows = ["x" * 1999] * 7 + ["", "a", " b\nc "]
    write_table(tmp_path / "t.parquet", rows, 8)
    documents = read(spans_of(found(tmp_path / "t.parquet", format="lines")))
    long = " ".join(["x" * 1999] * 3)
    assert texts(documents) == [("0/0", [long]), ("0/3", [long]), ("0/6", ["x" * 1999]), ("1/0", ["a b c"])]
    assert {document.kind for document in documents} == {"lines"}


words = st.text(alphabet="ab <>&\r\u2028\u00e9\U0001f600", max_size=30)
# Lines of the text of an article that look like something else, but for those that begin or end one.
bodies = st.lists(words | st.sampled_from(["{", "<doc", "text </doc>", "", "}"]), max_size=6)


def agree(file: RawFile, cuts: Sequence[int]) -> list[RawDocument]:
    whole = read(spans_of(file))
    assert read(spans_of(file, cuts)) == whole
    return whole


cuts = st.lists(st.integers(0, 2000), max_size=6)


@QUICK
@given(st.lists(bodies, max_size=6), cuts, st.booleans())
def test_any_cut_of_extracted_articles(tmp_path: Path, articles: list[list[str]], cuts: list[int], blank: bool) -> None:
    parts = [
        f'<doc id="{number}" url="u" title="t">\n' + "".join(line + "\n" for line in lines) + "</doc>\n" + "\n" * blank
        for number, lines in enumerate(articles)
    ]
    (tmp_path / "w").write_bytes("".join(['<doc id="first">\n</doc>\n', *parts]).encode())
    whole = agree(found(tmp_path / "w"), cuts)
    wanted = [[part for line in lines for part in line.split("\r") if part.strip()] for lines in articles]
    assert [document.paragraphs for document in whole[1:]] == [extracted_paragraphs(lines)[0] for lines in wanted]


@QUICK
@given(st.lists(words, max_size=12), cuts, st.booleans())
@example(["", ""], [9], True)
def test_any_cut_of_jsonl(tmp_path: Path, records: list[str], cuts: list[int], ascii_only: bool) -> None:
    lines = [json.dumps({"text": text, "more": [1]}, ensure_ascii=ascii_only) for text in ["first", *records]]
    (tmp_path / "r").write_bytes("\n".join(lines).encode())
    whole = agree(found(tmp_path / "r"), cuts)
    assert [document.paragraphs for document in whole[1:]] == [mended_paragraphs(text)[0] for text in records]


@QUICK
@given(st.lists(words, max_size=40), st.integers(1, 60), cuts)
def test_any_cut_of_lines(tmp_path: Path, lines: list[str], gathered: int, cuts: list[int]) -> None:
    lines = [line.replace("\r", " ") for line in lines]
    (tmp_path / "l.txt").write_bytes("\n".join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_readers, "GATHERED", gathered)
        whole = agree(replace(found(tmp_path / "l.txt", format="lines"), format="lines"), cuts)
    assert " ".join(document.paragraphs[0] for document in whole) == " ".join(filter(None, map(str.strip, lines)))


@QUICK
@given(st.lists(words, max_size=12), cuts, st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_cut_of_articles(tmp_path: Path, lines: list[str], cuts: list[int], end: str) -> None:
    lines = [line.replace("\r", " ") for line in lines]
    (tmp_path / "a.txt").write_bytes(end.join(lines).encode())
    whole = agree(found(tmp_path / "a.txt", format="articles"), cuts)
    assert [document.paragraphs for document in whole] == [[line] for line in lines if line.strip()]


@QUICK
@given(st.lists(words, max_size=20), cuts, st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 90))
def test_any_cut_of_sentences(tmp_path: Path, lines: list[str], cuts: list[int], end: str, volume: int) -> None:
    lines = [line.replace("\r", " ") for line in lines]
    (tmp_path / "b.txt").write_bytes(end.join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_readers, "VOLUME_BYTES", volume)
        whole = agree(found(tmp_path / "b.txt", format="sentences"), cuts)
    blocks = [list(group) for is_text, group in groupby(lines, lambda line: bool(line.strip())) if is_text]
    assert [line for document in whole for line in document.paragraphs] == [line for block in blocks for line in block]
    if volume > max((sum(map(len, block)) for block in blocks), default=0):
        assert [document.paragraphs for document in whole] == blocks


@QUICK
@given(st.lists(words.filter(str.strip), max_size=8), cuts)
def test_any_cut_of_a_plain_dump(tmp_path: Path, titles: list[str], cuts: list[int]) -> None:
    pages = [page(number, f"Words of {number}.") for number in range(len(titles))]
    (tmp_path / "d.xml").write_bytes((HEAD + "".join(pages) + TAIL).encode())
    whole = agree(found(tmp_path / "d.xml"), cuts)
    assert [document.id for document in whole] == [str(number) for number in range(len(titles))]


@QUICK
@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), cuts, st.sampled_from([7, 64, 1 << 18]))
def test_any_cut_of_a_multistream_dump(tmp_path: Path, pages: list[int], cuts: list[int], block: int) -> None:
    numbers = iter(range(100))
    parts = [HEAD, *("".join(page(next(numbers)) for _ in range(count)) for count in pages), TAIL]
    (tmp_path / "d.xml.bz2").write_bytes(b"".join(bz2.compress(part.encode()) for part in parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_PACKED_BLOCK", block)
        whole = agree(found(tmp_path / "d.xml.bz2"), cuts)
    assert [document.id for document in whole] == [str(number) for number in range(sum(pages))]


@QUICK
@given(st.lists(words, min_size=1, max_size=20), st.integers(1, 5), cuts, st.booleans())
def test_any_cut_of_a_table(tmp_path: Path, rows: list[str], group: int, cuts: list[int], as_lines: bool) -> None:
    write_table(tmp_path / "t.parquet", rows, group)
    file = found(tmp_path / "t.parquet", **{"format": "lines"} if as_lines else {})
    whole = agree(file, [cut % 20 for cut in cuts])
    if not as_lines:
        assert [document.paragraphs for document in whole] == [mended_paragraphs(text)[0] for text in rows]


def test_units_of_several_files_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n')
    (tmp_path / "c.txt").write_text("")
    files, _ = find_files([Source(str(tmp_path), "s")])
    (unit,) = plan_units(files)
    told: list[int] = []
    documents = list(read_documents(unit, pytest.fail, told.append))
    assert texts(documents) == [("a", ["one"]), ("b.jsonl@0", ["two"]), ("c", [])]
    assert sum(told) == 4 + 16
