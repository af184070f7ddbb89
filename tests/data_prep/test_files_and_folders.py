"""Files and folders as systems have them: unreadable, oddly named, empty, in each other's way; one line for each."""

import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.__main__ import main
from data_prep.documents import SPLITS, read_documents
from data_prep.errors import refusal
from data_prep.manifest import read_manifest
from tests.data_prep.conftest import article, story

Output = pytest.CaptureFixture[str]
WORK = ["--val-fraction", "0.3", "--filters", "none", "--workers", "1"]
NOBODY = 65534


@pytest.fixture
def home(corpus: Path) -> Iterator[Path]:
    """A folder of somebody whom the system can refuse something, as it does not root.

    All that a corpus needs was imported by then: somebody else may not be able to read it.
    """
    folder = Path(tempfile.mkdtemp())
    was_root = os.geteuid() == 0
    importlib.import_module("data_prep.stats.page")
    if was_root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        for found, names, _ in os.walk(folder):
            for name in names:
                Path(found, name).chmod(0o755)
        shutil.rmtree(folder)


def failure(capsys: Output, *argv: object) -> str:
    """The one line that a failing command prints."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def books(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names or ("a.txt", "b.txt", "c.txt")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(story(number, 60))
    return folder


def ids(corpus: Path) -> set[str]:
    return {one.id.rpartition("/")[0] for name in SPLITS for one in read_documents(corpus / "clean", name)}


def problems(corpus: Path) -> list[str]:
    manifest = read_manifest(corpus / "clean")
    assert manifest is not None
    return manifest["results"]["problems"]


def test_a_folder_that_cannot_be_listed_stops_or_is_named(home: Path, capsys: Output) -> None:
    source = books(home / "raw", "a.txt", "closed/b.txt", "closed/deep/c.txt", "d/e.txt")
    (source / "closed").chmod(0)
    words = ["ingest", "--source", source, "--out", home / "c", *WORK]
    assert f"cannot list the folder {source / 'closed'}: Permission denied; mend that or move" in failure(
        capsys, *words
    )
    assert not (home / "c" / "clean").exists()
    assert main([*map(str, words), "--on-bad-input", "skip"]) == 0
    said = capsys.readouterr().out
    assert f"  left out: cannot list the folder {source / 'closed'}: Permission denied" in said
    assert "ingest: 2 files, none left out" in said
    assert ids(home / "c") == {"a", "e"}
    assert len(problems(home / "c")) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_folder_on_a_failing_disk_is_no_empty_folder(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = books(tmp_path / "raw", "a.txt", "mount/b.txt")
    whole = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("mount"):
            raise OSError(number, os.strerror(number), path)
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    line = failure(capsys, "ingest", "--source", source, "--out", tmp_path / "c", *WORK)
    assert f"cannot list the folder {source / 'mount'}: {os.strerror(number)}" in line


def test_a_file_and_a_folder_that_may_not_be_looked_into(home: Path, capsys: Output) -> None:
    source = books(home / "raw", "a.txt", "names/b.txt", "c.txt")
    (source / "c.txt").chmod(0)
    # The names can be read here, but nothing else of the files.
    (source / "names").chmod(0o444)
    words = ["ingest", "--source", source, "--out", home / "c", *WORK]
    assert "Permission denied; mend that or move the file out of the source" in failure(capsys, *words)
    assert main([*map(str, words), "--on-bad-input", "skip"]) == 0
    assert [one.partition(":")[0] for one in problems(home / "c")] == [
        f"cannot read {source / 'c.txt'}",
        f"cannot read {source / 'names' / 'b.txt'}",
    ]
    assert ids(home / "c") == {"a"}


def test_places_that_cannot_be_used_are_one_line(home: Path, capsys: Output) -> None:
    source = books(home / "raw")
    (home / "closed").mkdir()
    books(home / "closed" / "raw")
    (home / "closed").chmod(0)
    (home / "locked").mkdir()
    (home / "locked").chmod(0o555)
    (home / "file").write_text("a file")
    (home / "loop").symlink_to(home / "loop")

    def ingest(source: Path, out: Path) -> str:
        return failure(capsys, "ingest", "--source", source, "--out", out, *WORK)

    denied = "Permission denied; mend that"
    assert f"cannot look at {home / 'closed' / 'raw'}: {denied}" in ingest(home / "closed" / "raw", home / "c")
    assert f"cannot look at {home / 'loop'}: Too many levels of symbolic links" in ingest(home / "loop", home / "c")
    assert "File name too long" in ingest(home / ("x" * 300), home / "c")
    assert f"cannot use {home / 'locked' / 'c'}: {denied}" in ingest(source, home / "locked" / "c")
    assert f"--out {home / 'file'} is a file, wanted a folder" in ingest(source, home / "file")
    assert "Not a directory" in ingest(source, home / "file" / "c")
    assert denied in ingest(source, home / "closed" / "c")
    for command in (
        ["stats"],
        ["verify"],
        ["preview"],
        ["tokenizer", "--vocab-size", 99],
        ["shard", "--row-length", 32],
    ):
        assert denied in failure(capsys, *command, "--corpus", home / "closed" / "c")
        assert "is missing or unfinished" in failure(capsys, *command, "--corpus", home / "file")
    assert main([str(word) for word in ["ingest", "--source", source, "--out", home / "c", *WORK]]) == 0
    (home / "vocab.txt").write_text("x")
    (home / "vocab.txt").chmod(0)
    assert denied in failure(capsys, "tokenizer", "--corpus", home / "c", "--load", home / "vocab.txt")
    (home / "c").chmod(0o555)
    assert denied in failure(capsys, "tokenizer", "--corpus", home / "c", "--vocab-size", 99)
    assert denied in failure(capsys, "stats", "--corpus", home / "c")


def test_what_points_to_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "x")), tmp_path) is None
    assert refusal(FileExistsError(errno.EEXIST, "File exists", str(tmp_path)), tmp_path) is None
    assert refusal(OSError("no number"), tmp_path) is None
    gone = refusal(FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "x/y")), tmp_path / "x")
    assert (
        str(gone)
        == f"{tmp_path / 'x'} is gone or cannot be made; name another place, or run the command when it is back"
    )
    full = refusal(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert str(full).startswith(f"the disk is full ({tmp_path}); make room")


def test_names_that_are_no_utf8_or_hold_line_ends_and_escapes(tmp_path: Path, capsys: Output) -> None:
    raw = os.path.join(os.fsencode(tmp_path), b"ra\xff\nw")
    corpus = os.path.join(os.fsencode(tmp_path), b"c\x1b")
    os.mkdir(raw)
    for number, name in enumerate([b"caf\xe9.txt", b"a\nb.txt", b"wiki\x1b[2J", b"no\xff.png"]):
        with open(os.path.join(raw, name), "wb") as file:
            content = "".join(article(10 + n, n) for n in range(9)) if b"wiki" in name else story(number, 60)
            file.write(b"\x89PNG" if b"png" in name else content.encode())
    with open(os.path.join(raw, b"bad\xff\n.jsonl"), "wb") as file:
        file.write(b'{"text": 1}\n')
    with open(os.path.join(raw, b"table\xff.parquet"), "wb") as file:
        pq.write_table(pa.table({"id": ["row"], "text": [story(9, 3)]}), file)

    words = ["ingest", "--source", os.fsdecode(raw), "--out", os.fsdecode(corpus), *WORK]
    line = failure(capsys, *words)
    assert "ra\\xff\\nw/bad\\xff\\n.jsonl: the line at byte 0 has a number as 'text'" in line
    # A terminal without UTF-8, where every name is hard to print.
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", *words, "--on-bad-input", "skip"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 left out as not recognised: no\\xff.png" in done.stdout
    assert "\x1b" not in done.stdout
    made = Path(os.fsdecode(corpus))
    assert {"caf\\xe9", "a\\nb"} <= ids(made)
    assert "row" in {one.id for name in SPLITS for one in read_documents(made / "clean", name)}
    assert {one.source for one in read_documents(made / "clean", "val")} == {"ra\\xff\\nw"}
    (problem,) = problems(made)
    assert "bad\\xff\\n.jsonl" in problem
    assert main([*words, "--on-bad-input", "skip"]) == 0
    assert main(["tokenizer", "--corpus", str(made), "--vocab-size", "99"]) == 0
    assert main(["stats", "--corpus", str(made)]) == 0
    assert "c\\x1b" in (made / "stats.html").read_text(encoding="utf-8")
    odd = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"c\xe9"))
    assert "has a name that is not UTF-8; name another one" in failure(capsys, *words[:3], "--out", odd, *WORK)


def test_a_source_that_gives_nothing_is_an_error_beside_others(tmp_path: Path, capsys: Output) -> None:
    source = books(tmp_path / "raw")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "dump.7z").write_bytes(b"7z\xbc\xaf")
    words = ["ingest", "--source", source, "--source", tmp_path / "packed", "--out", tmp_path / "c", *WORK]
    line = failure(capsys, *words)
    assert (
        f"no text found in {tmp_path / 'packed'}: 1 files looked at, such as dump.7z, none is known; wanted are" in line
    )
    assert "unpack others, such as .7z and .rar" in line
    assert main([*map(str, words), "--on-bad-input", "skip"]) == 0
    assert "left out: no text found in" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["d.xml.bz2", "d.xml", "r.jsonl.gz", "b.txt.zst"])
def test_an_empty_file_of_what_is_never_empty_is_bad_input(tmp_path: Path, capsys: Output, name: str) -> None:
    source = books(tmp_path / "raw")
    (source / name).write_bytes(b" \n" if name == "d.xml" else b"")
    words = ["ingest", "--source", source, "--out", tmp_path / "c", *WORK]
    line = failure(capsys, *words)
    assert f"{source / name} " in line
    assert "empty" in line
    assert main([*map(str, words), "--on-bad-input", "skip"]) == 0
    assert len(problems(tmp_path / "c")) == 1


def test_other_empty_files_are_named_and_a_source_of_them_is_an_error(tmp_path: Path, capsys: Output) -> None:
    source = books(tmp_path / "raw")
    (source / "none.txt").write_text(" \n\n")
    (source / "none.jsonl").write_text("")
    words = ["ingest", "--source", source, "--out", tmp_path / "c", *WORK]
    assert main([str(word) for word in words]) == 0
    assert "ingest: 5 files, none left out\n  2 of them are empty: none.jsonl, none.txt\n" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("\n")
    line = failure(capsys, "ingest", "--source", tmp_path / "empty", "--out", tmp_path / "d", *WORK)
    assert f"no text found: 1 files are empty: {tmp_path / 'empty' / 'a.txt'}" in line
    line = failure(capsys, *words, "--source", tmp_path / "empty", "--force")
    assert f"no text found in {tmp_path / 'empty'}: 1 files looked at, all of them empty" in line


def test_a_corpus_and_its_source_keep_apart(tmp_path: Path, capsys: Output) -> None:
    source = books(tmp_path / "raw")
    (tmp_path / "link").symlink_to(source)
    for one, out in (
        (source, source / "c"),
        (source, source),
        (source / "a.txt", source),
        (source, tmp_path / "link/c"),
    ):
        line = failure(capsys, "ingest", "--source", one, "--out", out, *WORK)
        assert f"--out {out} and source {one} lie in one another" in line
    assert sorted(path.name for path in source.iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_a_pipe_is_no_source(tmp_path: Path, capsys: Output) -> None:
    os.mkfifo(tmp_path / "pipe")
    line = failure(capsys, "ingest", "--source", tmp_path / "pipe", "--out", tmp_path / "c", *WORK)
    assert "is neither a file nor a folder" in line


def test_an_archive_is_ingested_whatever_the_workers_and_its_changes_are_noticed(
    tmp_path: Path, capsys: Output
) -> None:
    source = books(tmp_path / "raw")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(source.iterdir()):
            archive.write(one, f"deep/{one.name}")
    words = ["ingest", "--source", str(path), *WORK]
    for number, out in enumerate(("one", "two")):
        assert main([*words, "--out", str(tmp_path / out), "--workers", str(number + 1)]) == 0
    assert ids(tmp_path / "one") == {"a", "b", "c"}
    files = [{one.name: one.read_bytes() for one in (tmp_path / out / "clean").glob("*.zst")} for out in ("one", "two")]
    assert files[0] == files[1]
    assert json.loads((tmp_path / "one" / "raw_files.json").read_text()).keys() == {str(path)}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("d.txt", story(9, 60))
    assert "inputs.raw_sha256" in failure(capsys, *words, "--out", tmp_path / "one")
