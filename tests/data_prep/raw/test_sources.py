"""What the user names, what is found there, and how it is cut into units."""

import bz2
import copy
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.raw import sources
from data_prep.raw.sources import RawFile, Source, Span, find_files, parse_source, plan_units

DOC = b'<doc id="1" url="u" title="t">\nbody\n</doc>\n'
DUMP = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">\n<page></page>\n</mediawiki>\n'
JSON = json.dumps({"id": 1, "url": "u", "title": "t", "text": "x"}).encode() + b"\n"


def source(path: Path, **options: str) -> Source:
    return Source(str(path), options.pop("name", path.name), **options)  # type: ignore[arg-type]


def formats(folder: Path, **options: str) -> dict[str, str]:
    return {file.name: file.format for file in find_files([source(folder, **options)])[0]}


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("data/wikipedia/extracted", Source("data/wikipedia/extracted", "extracted")),
        ("enwiki-1.xml.bz2", Source("enwiki-1.xml.bz2", "enwiki-1")),
        ("b.TXT.gz", Source("b.TXT.gz", "b")),
        ("x/..", Source("x/..", Path.cwd().name)),
        ("a?b?name=c", Source("a?b", "c")),
        (
            "x.jsonl?name=books&format=lines&text=a+b%20",
            Source("x.jsonl", "books", format="lines", text="a+b%20"),
        ),
        ("hub:wikimedia/wikipedia", Source("wikimedia/wikipedia", "wikimedia/wikipedia", is_hub=True)),
        (
            "hub:a/b?config=20231101.en&split=test&revision=f00&text=body&name=n&format=lines",
            Source("a/b", "n", True, "lines", "body", "20231101.en", "test", "f00"),
        ),
    ],
)
def test_sources_are_read_as_written(spec: str, wanted: Source) -> None:
    assert parse_source(spec) == wanted


def test_path_that_exists_as_written_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.txt?name=b"
    path.write_text("text")
    assert parse_source(str(path)) == Source(str(path), "a.txt?name=b")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a?nam=b", "'nam=b' is not understood; options of a path are name=.., format=.., text=.., each once"),
        ("a?split=test", "'split=test' is not understood; options of a path"),
        ("a?name=b&name=c", "'name=c' is not understood"),
        ("a?name=", "'name=' is not understood"),
        ("a?b", "'b' is not understood"),
        (
            "a?format=xml",
            "format=xml is unknown, wanted one of book, lines, articles, sentences, "
            "wikiextractor, wikidump, jsonl, parquet",
        ),
        ("a?format=hub", "format=hub is unknown"),
        ("hub:a/b?format=book", "format=book is unknown, wanted one of hub, lines"),
        ("hub:?name=x", "names neither a path nor a data set"),
        ("", "names neither a path nor a data set"),
    ],
)
def test_what_is_not_understood_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse_source(spec)


def test_format_is_recognised_from_content_whatever_name_and_packing(tmp_path: Path) -> None:
    zstd = zstandard.ZstdCompressor()
    write(
        tmp_path,
        {
            "wikiextractor/wiki_00": DOC,
            "wikiextractor/wiki_01.gz": gzip.compress(DOC),
            "wikiextractor/named.txt": b"\n" + DOC,
            "wikiextractor/bom": b"\xef\xbb\xbf" + DOC,
            "wikiextractor/json": JSON,
            "wikiextractor/utf16": DOC.decode().encode("utf-16"),
            "wikidump/dump": DUMP,
            "wikidump/prolog.gz": gzip.compress(b'<?xml version="1.0" encoding="utf-8"?>\n' + DUMP),
            "wikidump/multi.txt": bz2.compress(DUMP[:80]) + bz2.compress(DUMP[80:]),
            "wikidump/piece.zst": zstd.compress(b"  <page>\n"),
            "wikidump/utf16": DUMP.decode().encode("utf-16-be"),
            "jsonl/records": b'{"text": "x"}\n',
            "jsonl/one_record": b'{"text": "x"}',
            "jsonl/broken.jsonl": b'{"tex\n',
            "jsonl/empty.ndjson": b"",
            "book/a.txt": b"It was a dark night.\n",
            "book/A.TXT": b"It was a dark night.\n",
            "book/b.txt.gz": gzip.compress(b"It was"),
            "book/c.txt.bz2": bz2.compress(b"It was"),
            "book/d.txt.zst": zstd.compress(b"It was"),
            "book/empty.txt": b"",
            "parquet/none.parquet": b"",
        },
    )
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "parquet" / "table")
    found = formats(tmp_path)
    assert len(found) == 23
    for name, kind in found.items():
        assert kind == name.split("/")[0], name


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": [1]}\n',
        b'{"text": 1}\n',
        b'["text"]\n',
        b"a\tb\n",
        b"\x89PNG\0",
        b"",
        gzip.compress(b"a\tb\n", mtime=0),
    ],
)
def test_other_files_are_left_out_but_not_when_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {"train.tsv": content, "a.txt": b"x"})
    files, unrecognised = find_files([source(tmp_path)])
    assert ([file.name for file in files], unrecognised) == (["a.txt"], ["train.tsv"])
    with pytest.raises(UserError, match=r"train\.tsv is of no known format; wanted are text files"):
        find_files([source(tmp_path / "train.tsv")])
    assert formats(tmp_path / "train.tsv", format="lines") == {"train.tsv": "lines"}


def test_text_column_is_looked_for_where_the_user_says(tmp_path: Path) -> None:
    write(tmp_path, {"a": b'{"body": "x"}\n', "b": JSON})
    with pytest.raises(UserError, match="of no known format"):
        find_files([source(tmp_path / "a")])
    assert formats(tmp_path, text="body") == {"a": "jsonl"}


def test_a_given_format_holds_for_all_files_but_parquet_stays_what_it_is(tmp_path: Path) -> None:
    write(tmp_path, {"part-1": b"x\n", "b.txt.gz": gzip.compress(b"y\n"), ".hidden": b"z\n"})
    pq.write_table(pa.table({"text": ["x"] * 5}), tmp_path / "table", row_group_size=2)
    files, _ = find_files([source(tmp_path, format="lines")])
    assert [(f.name, f.format, f.compression, f.parts, f.rows_are_lines) for f in files] == [
        ("b.txt.gz", "lines", "gzip", 0, False),
        ("part-1", "lines", "none", 0, False),
        ("table", "parquet", "none", 3, True),
    ]


def test_files_that_cannot_be_read_are_not_lost(tmp_path: Path) -> None:
    write(tmp_path, {"cut.gz": gzip.compress(os.urandom(500))[:15], "cut.xml.bz2": bz2.compress(DUMP)[:30]})
    for name in ("link.txt", "link.jsonl", "link"):
        (tmp_path / name).symlink_to(tmp_path / f"gone {name}")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    files, unrecognised = find_files([source(tmp_path)])
    assert unrecognised == ["pipe.txt"]
    assert {f.name: (f.format, f.parts) for f in files} == {
        "broken.parquet": ("parquet", 1),
        "cut.gz": ("book", 0),
        "cut.xml.bz2": ("wikidump", 0),
        "link": ("book", 0),
        "link.jsonl": ("jsonl", 0),
        "link.txt": ("book", 0),
    }


def test_folder_is_searched_whole_hidden_files_and_second_paths_left_out(tmp_path: Path) -> None:
    names = ("a/one.txt", "a/b/two.txt", ".git/no.txt", "a/.no.txt", "a/README.md")
    write(tmp_path, dict.fromkeys(names, b"text\n"))
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    files, unrecognised = find_files([source(tmp_path, name="all"), source(tmp_path / "a" / "one.txt")])
    assert [(file.source, file.rank) for file in files] == [("all", 0), ("all", 0)]
    assert [file.name for file in files] == ["a/b/two.txt", "a/one.txt"]
    assert unrecognised == ["a/README.md"]


def test_order_is_that_of_the_sources_then_of_names(tmp_path: Path) -> None:
    write(tmp_path, {"x/b.txt": b"1", "x/a.txt": b"22", "y/0.txt": b"333"})
    files, _ = find_files([source(tmp_path / "y"), source(tmp_path / "x")])
    found = [(file.rank, file.source, file.name, file.size, file.path) for file in files]
    assert found == [
        (0, "y", "0.txt", 3, str(tmp_path / "y/0.txt")),
        (1, "x", "a.txt", 2, str(tmp_path / "x/a.txt")),
        (1, "x", "b.txt", 1, str(tmp_path / "x/b.txt")),
    ]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none does not exist"):
        find_files([source(tmp_path / "none")])
    with pytest.raises(UserError, match=r"no text found in .*: 0 files looked at, none is known; wanted are"):
        find_files([source(tmp_path)])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"two sources have the name n: .*a\.txt and .*; name one with \?name=\.\."):
        find_files([source(tmp_path / "a.txt", name="n"), source(tmp_path, name="n")])


def raw(size: int, kind: str = "jsonl", packing: str = "none", parts: int = 0) -> RawFile:
    return RawFile("/x", "x", "s", 0, kind, packing, size, parts=parts)  # type: ignore[arg-type]


def test_units_of_about_the_wanted_size() -> None:
    files = [raw(30), raw(40), raw(50), raw(250), raw(20), raw(250, "book"), raw(0)]
    units = plan_units(files, 100)
    spans = [[(files.index(span.file), span.start, span.end) for span in unit] for unit in units]
    assert spans == [
        [(0, 0, 30), (1, 0, 40)],
        [(3, 0, 83)],
        [(3, 83, 166)],
        [(3, 166, 250)],
        [(2, 0, 50), (4, 0, 20)],
        [(5, 0, 250)],
        [(6, 0, 0)],
    ]


@pytest.mark.parametrize(
    ("file", "cuts"),
    [
        (raw(300, "wikidump", "bz2"), [0, 100, 200, 300]),
        (raw(300, "wikidump"), [0, 100, 200, 300]),
        (raw(300, "lines"), [0, 100, 200, 300]),
        (raw(300, "wikiextractor"), [0, 100, 200, 300]),
        (raw(300, "wikiextractor", "bz2"), [0, 300]),
        (raw(300, "wikidump", "gzip"), [0, 300]),
        (raw(300, "jsonl", "zstd"), [0, 300]),
        (raw(300, "book"), [0, 300]),
        (raw(300, "parquet", parts=8), [0, 2, 5, 8]),
        (raw(300, "parquet", parts=2), [0, 1, 2]),
        (raw(90, "parquet", parts=8), [0, 8]),
        (raw(90, "hub", parts=3), [0, 1, 2, 3]),
    ],
)
def test_what_can_be_cut(file: RawFile, cuts: list[int]) -> None:
    spans = [span for unit in plan_units([file], 100) for span in unit]
    assert [0, *(span.end for span in spans)] == cuts
    assert [*(span.start for span in spans), cuts[-1]] == cuts


kinds = st.sampled_from(["book", "lines", "jsonl", "wikidump", "wikiextractor"])
plain = st.builds(raw, st.integers(0, 1000), kinds, st.sampled_from(["none", "bz2", "gzip"]))
tables = st.builds(raw, st.integers(0, 1000), st.sampled_from(["parquet", "hub"]), parts=st.integers(1, 9))


@given(st.lists(plain | tables, max_size=12), st.integers(1, 300))
def test_spans_cover_every_file_once_and_their_sizes_add_up(files: list[RawFile], unit_bytes: int) -> None:
    files = [RawFile(**{**vars(file), "path": f"/{number}"}) for number, file in enumerate(files)]
    units = plan_units(files, unit_bytes)
    assert units == plan_units(copy.deepcopy(files), unit_bytes)
    by_file: dict[str, list[Span]] = {}
    for unit in units:
        assert unit
        if len(unit) > 1:
            assert sum(span.size for span in unit) <= unit_bytes
        for span in unit:
            by_file.setdefault(span.file.path, []).append(span)
    assert by_file.keys() == {file.path for file in files}
    for file in files:
        spans = by_file[file.path]
        ends = [span.end for span in spans]
        assert [span.start for span in spans] == [0, *ends[:-1]]
        assert ends[-1] == (file.parts or file.size)
        assert sum(span.size for span in spans) == file.size


def test_the_usual_unit_is_a_setting_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(plan_units([raw(32 << 20)])) == 4
    monkeypatch.setattr(sources, "UNIT_BYTES", 2 << 20)
    assert len(plan_units([raw(32 << 20)])) == 16
