"""Archives: read like the folder they were made from, never trusted with a name, a link or a size."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_prep.errors import UserError
from data_prep.raw import archives
from data_prep.raw.archives import archive_kind
from data_prep.raw.formats import RawDocument, read_documents
from data_prep.raw.sources import Source, find_files, plan_units
from data_prep.raw.streams import BadInput
from tests.data_prep.raw.test_formats import HEAD, TAIL, page

SUFFIXES = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst"]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "tgz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
JSONL = "".join(json.dumps({"text": f"record {number}"}) + "\n" for number in range(40)).encode()
CONTENTS = {
    "b.txt": b"A book.\n\nIts second paragraph.\n",
    "a/long.txt": b"Another book, " * 5000,
    "a/r.jsonl": JSONL,
    "a/r2.jsonl.gz": gzip.compress(JSONL[:500]) + gzip.compress(JSONL[500:]),
    "dumps/d.xml": (HEAD + page(1) + page(2) + TAIL).encode(),
    "wiki_00": b'<doc id="7" url="u" title="t">\nbody\n</doc>\n',
    "caf\u00e9.txt": b"With an accent.\n",
    "notes.md": b"unknown",
    "inner.zip": b"PK\x03\x04 an archive in an archive",
    "a/.hidden.txt": b"hidden",
    ".git/no.txt": b"hidden",
}


def pack(path: Path, contents: dict[str, bytes]) -> Path:
    suffix = path.name.partition(".")[2]
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return path
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in contents.items():
            add(tar, name, content)
    path.write_bytes(PACKERS.get(suffix.rpartition(".")[2], bytes)(packed.getvalue()))
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    tar.addfile(info, io.BytesIO(content))


@contextmanager
def tar_of(path: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(path, "w") as tar:
        yield tar


def read(path: Path, unit_bytes: int | None = None) -> tuple[list[RawDocument], list[str], list[str]]:
    """The documents of a source, the names that are not recognised, and the complaints."""
    files, others = find_files([Source(str(path), "s")])
    problems: list[BadInput] = []
    told: list[int] = []
    units = plan_units(files, unit_bytes)
    found = [document for unit in units for document in read_documents(unit, problems.append, told.append)]
    assert sum(told) == sum(file.size for file in files)
    return found, others, [str(problem) for problem in problems]


def plain(documents: list[RawDocument], below: str = "") -> list[tuple[str, str, list[str]]]:
    return sorted((one.kind, one.id.removeprefix(below), one.paragraphs) for one in documents)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_is_read_like_its_folder(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "folder"
    for name, content in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    path = pack(tmp_path / f"x.{suffix}", {f"./{name}" if "tar" in suffix else name: c for name, c in CONTENTS.items()})
    wanted, _, _ = read(folder)
    assert len(wanted) == 86
    for unit_bytes in (None, 3000):
        found, others, problems = read(path, unit_bytes)
        assert plain(found, f"{path.name}/") == plain(wanted)
        assert problems == []
        assert sorted(others) == [f"x.{suffix}/inner.zip", f"x.{suffix}/notes.md"]
    assert {path.name for path in tmp_path.iterdir()} == {"folder", path.name}


def test_members_of_a_zip_are_shared_out_and_those_of_a_packed_tar_are_read_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{number:02d}.txt": os.urandom(500).hex().encode() for number in range(20, 0, -1)}
    files, _ = find_files([Source(str(pack(tmp_path / "x.zip", contents)), "s")])
    assert len(plan_units(files, 3000)) == 7
    files, _ = find_files([Source(str(pack(tmp_path / "x.tar", contents)), "s")])
    assert len(plan_units(files, 3000)) == 7
    files, _ = find_files([Source(str(pack(tmp_path / "x.tgz", contents)), "s")])
    (unit,) = plan_units(files, 3000)
    opened: list[str] = []
    whole = archives._Forward.__init__

    def count(self: archives._Forward, path: str, compression: archives.Compression) -> None:
        opened.append(path)
        whole(self, path, compression)

    monkeypatch.setattr(archives._Forward, "__init__", count)
    assert len(list(read_documents(unit, pytest.fail, lambda _: None))) == 20
    assert len(opened) == 1


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["/etc/passwd.txt", "../up.txt", "a/../../up.txt"])
def test_a_name_that_leads_out_is_refused_and_nothing_else(tmp_path: Path, suffix: str, name: str) -> None:
    found, _, problems = read(pack(tmp_path / f"x.{suffix}", {name: b"text\n", "good.txt": b"good\n"}))
    assert [document.id for document in found] == ["good"]
    assert len(problems) == 1
    assert (
        f"x.{suffix}: the name of its member {name} leads out of the archive; mend the archive, or unpack"
        in problems[0]
    )


def test_links_and_devices(tmp_path: Path) -> None:
    with tar_of(tmp_path / "x.tar") as tar:
        add(tar, "a/good.txt", b"good\n")
        add(tar, "a/same.txt", kind=tarfile.SYMTYPE, link="good.txt")
        add(tar, "b/same.txt", kind=tarfile.SYMTYPE, link="../a/good.txt")
        add(tar, "hard.txt", kind=tarfile.LNKTYPE, link="a/good.txt")
        add(tar, "out.txt", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(tar, "gone.txt", kind=tarfile.LNKTYPE, link="gone")
        add(tar, "pipe.txt", kind=tarfile.FIFOTYPE)
        add(tar, "tty.txt", kind=tarfile.CHRTYPE)
    found, others, problems = read(tmp_path / "x.tar")
    assert [document.id for document in found] == ["good"]
    assert others == ["x.tar/pipe.txt", "x.tar/tty.txt"]
    assert [problem.partition("x.tar: ")[2].partition(";")[0] for problem in problems] == [
        "its member gone.txt is a link to gone, not in it",
        "its member out.txt is a link to /etc/passwd, not in it",
    ]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good.txt", "good")
        link = zipfile.ZipInfo("out.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    found, _, problems = read(tmp_path / "x.zip")
    assert [document.id for document in found] == ["good"]
    assert "its member out.txt is a link to /etc/passwd, not in it" in problems[0]


def test_of_a_name_that_is_there_twice_the_last_one_counts(tmp_path: Path) -> None:
    with tar_of(tmp_path / "x.tar") as tar:
        add(tar, "a.txt", b"old\n")
        add(tar, "./a.txt", b"new\n")
    assert [document.paragraphs for document in read(tmp_path / "x.tar")[0]] == [["new"]]


def test_names_that_are_no_utf8_or_hold_line_ends_are_escaped(tmp_path: Path) -> None:
    with tar_of(tmp_path / "x.tar") as tar:
        add(tar, "caf\udce9.txt", b"text\n")
        add(tar, "a\nb\x1b.jsonl", b'{"text": "x"}\n')
    found, _, problems = read(tmp_path / "x.tar")
    assert sorted(document.id for document in found) == ["caf\\xe9", "x.tar/a\\nb\\x1b.jsonl@0"]
    assert problems == []


def test_encrypted_and_unknown_packing_in_a_zip(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.txt": b"first\n", "b.txt": b"second\n", "c.txt": b"third\n"})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    second = content.index(b"PK\x01\x02", entry + 1)
    content[second + 10] = 93
    path.write_bytes(content)
    found, _, problems = read(path)
    assert [document.id for document in found] == ["c"]
    assert "x.zip: its member a.txt is encrypted; mend the archive, or unpack it" in problems[0]
    assert "x.zip: its member b.txt is packed by method 93, which is not read here" in problems[1]


def test_a_damaged_member_of_a_zip_costs_that_member(tmp_path: Path) -> None:
    path = pack(
        tmp_path / "x.zip", {"a.txt": b"first\n" * 9, "b.txt": os.urandom(2000).hex().encode(), "c.txt": b"c\n"}
    )
    content = bytearray(path.read_bytes())
    content[1200] ^= 0x55
    path.write_bytes(content)
    found, _, problems = read(path)
    assert [document.id for document in found] == ["a", "c"]
    assert len(problems) == 1
    assert "x.zip: its member b.txt cannot be read (" in problems[0]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.zst"])
def test_a_truncated_archive_is_said_once(tmp_path: Path, suffix: str) -> None:
    contents = {f"{number}.txt": os.urandom(3000).hex().encode() for number in range(5)}
    path = pack(tmp_path / f"x.{suffix}", contents)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) * 2 // 3])
    (tmp_path / "x.txt").write_text("beside it")
    found, _, problems = read(tmp_path)
    names = [document.id for document in found]
    # The list of a zip file is at its end; zstd's first block is larger than all of this.
    assert names[-1] == "x"
    assert names[:3] == (["0", "1", "2"] if suffix in ("tar", "tar.gz") else ["x"])
    assert len(problems) == 1
    assert str(path) in problems[0]


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 20)
    path = pack(tmp_path / "x.zip", {f"{number}.txt": bytes(1 << 20) for number in range(4)})
    _, _, (problem,) = read(path)
    assert "x.zip unpacks to 4 MiB, as only a decompression bomb does" in problem


def test_parquet_in_an_archive_is_named(tmp_path: Path) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["x"]}), table)
    _, _, (problem,) = read(pack(tmp_path / "x.zip", {"t.parquet": table.getvalue(), "a.txt": b"a"}))
    assert "x.zip/t.parquet: parquet is not read inside of an archive; unpack it" in problem


def test_an_archive_without_text_is_an_error_when_it_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": b"\x89PNG", "b.7z": b"7z"})
    with pytest.raises(
        UserError, match=r"x\.zip is of no known format and holds nothing that is: x\.zip/a\.png, x\.zip/b"
    ):
        find_files([Source(str(path), "s")])


def test_what_is_an_archive() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        add(tar, "a.txt", b"text")
    assert archive_kind("x.tar", packed.getvalue()) == "tar"
    assert archive_kind("any name", packed.getvalue()) == "tar"
    assert archive_kind("x.tar", b"text\n" * 200) is None
    assert archive_kind("x.tar", bytes(10240)) is None
    assert archive_kind("x.ZIP", b"PK\x03\x04...") == "zip"
    assert archive_kind("report.docx", b"PK\x03\x04...") is None


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_fault_of_ours_is_not_taken_for_damage(kind: archives.Kind, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("one.txt", "text")
    else:
        with tarfile.open(path, "w") as archive:
            entry = tarfile.TarInfo("one.txt")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"text"))

    def look(name: str, start: bytes) -> None:
        raise ValueError(f"a fault at {name}, {start!r}")

    with pytest.raises(ValueError, match=r"a fault at one\.txt, b'text'"):
        list(archives.list_members(str(path), kind, "none", look))
