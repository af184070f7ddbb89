"""Bad input: exactly one clear line each, and everything that can still be read is read."""

import bz2
import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.raw import lines, wiki_readers
from data_prep.raw.formats import read_documents
from data_prep.raw.sources import Source, Span, find_files, plan_units
from data_prep.raw.streams import BadInput
from tests.data_prep.raw.test_formats import HEAD, TAIL, page

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
AFTERWARDS = "zzz.txt"


def read_all(folder: Path, unit_bytes: int | None = None, **options: str) -> tuple[list[str], list[str]]:
    """The ids of the documents of a folder to which a good file is added last, and the complaints."""
    (folder / AFTERWARDS).write_text("a good book\n")
    files, _ = find_files([Source(str(folder), "s", **options)])  # type: ignore[arg-type]
    problems: list[BadInput] = []
    told: list[int] = []
    units = plan_units(files, unit_bytes)
    found = [document.id for unit in units for document in read_documents(unit, problems.append, told.append)]
    assert found.pop() == "zzz" if not options else found.pop().startswith(AFTERWARDS)
    assert sum(told) == sum(file.size for file in files)
    lines = [str(problem) for problem in problems]
    assert all("\n" not in line and len(line) < 700 and str(folder) in line for line in lines)
    return found, lines


def the_one(found: tuple[list[str], list[str]]) -> tuple[list[str], str]:
    documents, problems = found
    assert len(problems) == 1, problems
    return documents, problems[0]


DUMP = (HEAD + "".join(page(number, "word " * 200) for number in range(400)) + TAIL).encode()
CHECKED = zstandard.ZstdCompressor(write_checksum=True)
BOOK = "".join(f"Line {number} of a book.\n" for number in range(20_000)).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.xml.bz2", bz2.compress(DUMP, 1)[:-200], "ends in the middle of the bz2 data that begin at its byte 0"),
        ("b.txt.gz", gzip.compress(BOOK)[:-1000], "ends in the middle of the gzip data that begin at its byte 0"),
        ("b.txt.zst", zstandard.compress(BOOK)[:-500], "ends in the middle of the zstd data that begin at its byte 0"),
        ("b.txt.gz", gzip.compress(BOOK)[:-8] + bytes(8), r"the gzip data that begin at its byte 0 are corrupt \("),
        ("b.txt.bz2", bz2.compress(BOOK)[:-4] + bytes(4), r"the bz2 data .* are corrupt \(Invalid data stream\);"),
        ("b.txt.zst", CHECKED.compress(BOOK)[:-4] + bytes(4), r"the zstd data .* are corrupt \(.*\); fetch the file"),
        ("d.xml", DUMP.decode().encode("utf-16"), r"d\.xml is UTF-16, .*iconv -f utf-16 -t utf-8"),
        ("d.xml.bz2", bz2.compress(DUMP.decode().encode("utf-16-le")), r"d\.xml\.bz2 is UTF-16, wanted UTF-8"),
        ("b.txt", BOOK.decode().encode("utf-16"), r"b\.txt is UTF-16, wanted UTF-8"),
        ("b.txt", b"fine\nb\0d\n" + BOOK, r"b\.txt is not a text file: NUL byte at byte 6; move it out"),
        ("r.jsonl", b'{"text": "a"}\n\0\0\n\0', r"r\.jsonl is not a text file: NUL byte at byte 14; move it out"),
        ("b.txt", "caf\u00e9\n".encode("latin-1") + BOOK, r"b\.txt is not UTF-8: byte 0xe9 at byte 3; convert it"),
        ("t.parquet", b"PAR1 and no more", r"t\.parquet is no whole parquet file \(.+\); fetch it again or"),
        ("t.parquet", b"", r"t\.parquet is no whole parquet file \(.+\); fetch it again or"),
        ("w", b'<doc id="1">\nA\n', r"the file ends inside document 1 \(no </doc>\), so it is truncated \(at byte 0\)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)  # fmt: skip
def test_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    _, problem = the_one(read_all(tmp_path))
    with pytest.raises(BadInput, match=message):
        raise BadInput(problem)


@pytest.mark.parametrize("name", ["gone.txt", "gone.jsonl", "gone.xml", "gone.parquet", "wiki_00"])
def test_file_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    documents, problem = the_one(read_all(tmp_path))
    assert documents == []
    assert problem.startswith(f"cannot read {tmp_path / name}: No such file or directory; mend that")


def test_truncated_dump_gives_the_pages_before_the_cut(tmp_path: Path) -> None:
    parts = [HEAD, *("".join(page(10 * part + n) for n in range(10)) for part in range(3)), TAIL]
    packed = b"".join(bz2.compress(part.encode()) for part in parts)
    (tmp_path / "d.xml.bz2").write_bytes(packed[: -len(bz2.compress(TAIL.encode())) - 20])
    documents, problem = the_one(read_all(tmp_path))
    assert documents == [str(number) for number in range(20)]
    begin = sum(len(bz2.compress(part.encode())) for part in parts[:3])
    assert f"the bz2 data that begin at its byte {begin:,}: it is truncated" in problem
    # However it is cut: said once, by the span in which that stream begins.
    assert the_one(read_all(tmp_path, 50)) == (documents, problem)


def test_a_stream_that_is_damaged_costs_its_span_and_no_other(tmp_path: Path) -> None:
    packed = [bytearray(bz2.compress(part.encode())) for part in (HEAD, page(1), page(2), page(3), TAIL)]
    packed[2][-6] ^= 1
    (tmp_path / "d.xml.bz2").write_bytes(b"".join(packed))
    documents, problem = the_one(read_all(tmp_path, 100))
    assert documents == ["1", "3"]
    assert f"the bz2 data that begin at its byte {len(packed[0]) + len(packed[1])} are corrupt" in problem


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b"', r"r: the line at byte 31 is no JSON \(.*\); mend it or take it out"),
        ('["text"]', "the line at byte 31 is a JSON list, wanted an object with the text as 'text'; name the column"),
        ('{"text": null}', "the line at byte 31 has null as 'text', wanted a string; name the column"),
        ('{"text": true}', "the line at byte 31 has true as 'text', wanted a string; name the column"),
        ('{"text": 1.5}', "the line at byte 31 has a number as 'text', wanted a string; name the column"),
        ('{"text": {"a": 1}}', "the line at byte 31 has an object as 'text', wanted a string; name the column"),
        ("null", "the line at byte 31 is a JSON null, wanted an object with the text as 'text'; name the column"),
        ('"words"', "the line at byte 31 is a JSON string, wanted an object with the text as 'text'; name the column"),
        ('{"text": ["a"]}', "the line at byte 31 has a list as 'text', wanted a string; name the column"),
        ('{"id": 1, "body": "x"}', r"the line at byte 31 has no 'text', it has 'id', 'body'; name"),
        ("{}", "the line at byte 31 has no 'text', it has nothing; name the column"),
        ("[" * 100_000, r"the line at byte 31 is no JSON \(.*recursion.*\); mend it"),
        ('{"text": ' + "9" * 5000 + "}", "the line at byte 31 is no JSON"),
    ],
)  # fmt: skip
def test_bad_json_line_costs_that_line(tmp_path: Path, line: str, message: str) -> None:
    good = ['{"id": "first", "text": "word"}', line, '{"id": "last", "text": "word"}']
    (tmp_path / "r").write_text("\n".join(good) + "\n")
    documents, problem = the_one(read_all(tmp_path))
    assert documents == ["first", "last"]
    with pytest.raises(BadInput, match=message.replace("31", str(len(good[0]) + 1))):
        raise BadInput(problem)


def test_line_of_100_mb_costs_that_line_and_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "r.jsonl").open("wb") as file:
        file.write(b'{"id": "first", "text": "a"}\n{"id": "long", "text": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"id": "last", "text": "b"}\n')
    tracemalloc.start()
    documents, problem = the_one(read_all(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()
    assert documents == ["first", "last"]
    assert "the line at byte 29 is 104,857,626 bytes long, at most 33,554,432 are read; break it up" in problem
    # The spans inside of the line find nothing, and say nothing.
    assert the_one(read_all(tmp_path, 16 << 20)) == (documents, problem)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('<doc id="2" url="u">\ntext\n', r"document 2 has no </doc> before the next one begins \(at byte 24\)"),
        ("</doc>\n", r"</doc> without a <doc> before it \(at byte 24\)"),
        ("stray\nmore stray\n\nand more\n", r"text outside <doc> ... </doc>: 'stray' \(at byte 24\)"),
        ("<doc id=2>\nits text\n</doc>\n", r"malformed '<doc id=2>', wanted <doc id=\"...\" ...> \(at byte 24\)"),
        ('<doc id="2">\n' + "x" * 300 + "\nmore\n</doc>\n", "the line at byte 37 is 300 bytes long, at most 200 are"),
        (
            '<doc id="2">\n' + "xxxxxxxxx\n" * 30 + "</doc>\n",
            r"document 2 is longer than 200 characters \(at byte 24\)",
        ),
    ],
)
def test_malformed_extraction_costs_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, message: str
) -> None:
    monkeypatch.setattr(lines, "MAX_RECORD_BYTES", 200)
    monkeypatch.setattr(wiki_readers, "MAX_RECORD_BYTES", 200)
    (tmp_path / "w").write_text('<doc id="1">\nfirst\n</doc>\n' + bad + '<doc id="3">\nlast\n</doc>\n')
    documents, problem = the_one(read_all(tmp_path))
    assert documents == ["1", "3"]
    shift = len('<doc id="1">\nfirst\n</doc>\n') - 24
    for place in (24, 37):
        message = message.replace(f"byte {place}", f"byte {place + shift}")
    with pytest.raises(BadInput, match=message):
        raise BadInput(problem)
    # Whatever the spans, what is said is said of the same place.
    assert read_all(tmp_path, 7)[0] == documents


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (page(2).replace("</title>", "</titel>"), "the page is not well-formed XML: mismatched tag: .*"),
        (page(2).replace("<ns>0</ns>", ""), "the page has no <ns>"),
        (page(2).replace("</page>", ""), "the page has no </page> in its"),
        (page(2).replace("A ", "\x01"), "the page is not well-formed XML: not well-formed"),
        (page(2).replace("A ", "&lol;"), "the page is not well-formed XML: undefined entity"),
        (page(2, "x" * 3000), "the page has no </page> in its 2,000 bytes: it is cut short or too long"),
    ],
)
def test_malformed_page_costs_that_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, message: str
) -> None:
    monkeypatch.setattr(wiki_readers, "MAX_RECORD_BYTES", 2000)
    (tmp_path / "d.xml").write_text(HEAD + page(1) + bad + page(3) + TAIL)
    documents, problem = the_one(read_all(tmp_path))
    assert documents == ["1", "3"]
    place = rf"{message}.* \(at byte {len(HEAD + page(1))}\); fetch the dump again or take the page out"
    with pytest.raises(BadInput, match=place):
        raise BadInput(problem)
    assert the_one(read_all(tmp_path, 100)) == (documents, problem)


def test_long_line_of_a_running_text_costs_that_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_RECORD_BYTES", 100)
    (tmp_path / "l").write_text("one\n" + "x" * 101 + "\ntwo\n")
    documents, problem = the_one(read_all(tmp_path, format="lines"))
    assert documents == ["l@0"]
    assert "l: the line at byte 4 is 101 bytes long, at most 100 are read" in problem


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": [1], "body": ["x"]}, r"t.parquet has no column 'text', it has id, body; name one with \?text=COLUMN"),
        ({"text": [1, 2]}, r"t.parquet: column 'text' holds int64, wanted strings; name another one with \?text="),
        ({"text": [["a"]]}, "t.parquet: column 'text' holds list<"),
    ],
)
def test_table_without_a_column_of_text_is_one_line(
    tmp_path: Path, table: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    documents, problem = the_one(read_all(tmp_path))
    assert documents == []
    with pytest.raises(BadInput, match=message):
        raise BadInput(problem)


def test_row_without_text_and_row_that_is_no_utf8_cost_that_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", None, b"caf\xe9", b"d"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet", row_group_size=2)
    documents, problems = read_all(tmp_path)
    assert documents == ["0/0", "1/1"]
    null, latin = problems
    assert "t.parquet: row 1 of row group 0 has nothing in column 'text', wanted a string; mend it" in null
    assert "t.parquet: row 0 of row group 1 is not UTF-8 (" in latin


def test_table_damaged_in_the_middle_gives_the_row_groups_before(tmp_path: Path) -> None:
    rows = [f"{number} " + "word " * 50 for number in range(40)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "t.parquet", row_group_size=10, compression="gzip")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    middle = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(2).column(0).dictionary_page_offset
    content[middle + 30 : middle + 60] = bytes(30)
    (tmp_path / "t.parquet").write_bytes(content)
    documents, problem = the_one(read_all(tmp_path))
    assert documents[:20] == [f"{group}/{row}" for group in range(2) for row in range(10)]
    assert "t.parquet is no whole parquet file (" in problem


def test_the_policy_to_stop_stops_at_the_first(tmp_path: Path) -> None:
    def stop(problem: BadInput) -> None:
        raise problem

    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nbad\n{"text": "b"}\n')
    files, _ = find_files([Source(str(tmp_path), "s")])
    documents = read_documents((Span(files[0], 0, files[0].size),), stop, lambda _: None)
    assert next(documents).id == "a.jsonl@0"
    with pytest.raises(BadInput, match="the line at byte 14 is no JSON"):
        next(documents)


SEEDS: dict[str, bytes] = {
    "d.xml": (HEAD + page(1) + page(2) + TAIL).encode(),
    "d.xml.bz2": b"".join(bz2.compress(part.encode()) for part in (HEAD, page(1), page(2), TAIL)),
    "w": b'<doc id="1" url="u" title="t">\nbody\n</doc>\n<doc id="2" url="u" title="t">\nbody\n</doc>\n',
    "w.gz": gzip.compress(b'<doc id="1" url="u" title="t">\nbody\n</doc>\n'),
    "j": b"".join(json.dumps({"id": n, "url": "", "title": "", "text": "a\nb"}).encode() + b"\n" for n in range(4)),
    "r.jsonl.zst": zstandard.compress(b'{"text": "one"}\n{"text": "two"}\n'),
    "b.txt": BOOK[:200],
}
edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "double"]), st.integers(0, 400), st.binary(min_size=1, max_size=6)
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, data in edits:
        at = place % (len(content) + 1)
        if kind == "set":
            content = content[:at] + data + content[at + len(data) :]
        elif kind == "cut":
            content = content[:at] + content[at + len(data) * 4 :]
        elif kind == "insert":
            content = content[:at] + data + content[at:]
        else:
            content = content[:at] + content
    return content


@pytest.mark.parametrize("name", sorted(SEEDS))
@QUICK
@given(edits=edits, unit_bytes=st.integers(5, 500))
def test_whatever_is_edited_readers_only_complain(
    tmp_path: Path, name: str, edits: list[tuple[str, int, bytes]], unit_bytes: int
) -> None:
    (tmp_path / name).write_bytes(edited(SEEDS[name], edits))
    read_all(tmp_path, unit_bytes)


@QUICK
@given(edits=edits)
def test_whatever_is_edited_in_a_table_readers_only_complain(
    tmp_path: Path, edits: list[tuple[str, int, bytes]]
) -> None:
    pq.write_table(pa.table({"text": ["one", "two", "three"]}), tmp_path / "t.parquet", row_group_size=2)
    content = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(edited(content, edits))
    read_all(tmp_path)
