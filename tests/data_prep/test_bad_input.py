"""Damaged input through the command line: one clear line each, and the rest processed or the stage stopped."""

import bz2
import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data_prep
from data_prep.__main__ import main
from data_prep.documents import read_documents
from data_prep.manifest import read_manifest
from tests.data_prep.conftest import story

Output = pytest.CaptureFixture[str]
SAMPLES = Path(data_prep.__file__).parent / "samples"
WORK = ["--val-fraction", "0.3", "--filters", "none", "--workers", "1"]


def dump(pages: int) -> bytes:
    bodies = (
        f"<page><title>T{n}</title><ns>0</ns><id>{n}</id><revision><id>1</id><model>wikitext</model>"
        f'<text xml:space="preserve">{story(n, 20)}</text></revision></page>\n'
        for n in range(pages)
    )
    return b"<mediawiki>\n" + "".join(bodies).encode() + b"</mediawiki>\n"


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"body": ["some words"] * 5}), path)


def long_line(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(100):
            file.write(b"word " * 200_000)
        file.write(b"\n")


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a truncated bz2": (
        "cut.xml.bz2",
        lambda path: path.write_bytes(bz2.compress(dump(40))[:-4000]),
        r"cut.xml.bz2 ends in the middle of the bz2 data",
    ),
    "a UTF-16 dump": (
        "wide.xml",
        lambda path: path.write_bytes(dump(3).decode().encode("utf-16")),
        r"wide.xml is UTF-16, wanted UTF-8",
    ),
    "a zip bomb": (
        "bomb.jsonl.gz",
        lambda path: path.write_bytes(gzip.compress(bytes(1 << 20), mtime=0) * 300),
        r"bytes of it unpack to more than \d+ MiB",
    ),
    "NULs": ("nul.txt", lambda path: path.write_bytes(b"text\n" * 99 + b"a\0b\n"), r"NUL byte at byte 496"),
    "a line of 100 MB": ("line.jsonl", long_line, r"the line at byte 0 is 100,000,000 bytes long"),
    "a parquet file without the column": ("p.parquet", parquet, r"p.parquet has no column .*text.* body"),
    "JSON that is none": (
        "j.jsonl",
        lambda path: path.write_text('{"text": "a"}\n{"text": \n{"text": "b"}\n'),
        r"j.jsonl: .*line .*byte 14",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "raw"
    folder.mkdir()
    for number in range(4):
        (folder / f"b{number}.txt").write_text(story(number, 60))
    return folder


@pytest.fixture(scope="module")
def wanted(good: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    corpus = tmp_path_factory.mktemp("wanted")
    assert main(["ingest", "--source", str(good), "--out", str(corpus), *WORK]) == 0
    return texts(corpus)


def texts(corpus: Path) -> set[str]:
    return {document.text for split in ("train", "val") for document in read_documents(corpus / "clean", split)}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_and_left_out_or_stops_the_stage(
    what: str, good: Path, wanted: set[str], tmp_path: Path, capsys: Output
) -> None:
    name, make, message = BAD[what]
    bad = tmp_path / name
    make(bad)
    words = ["--source", str(good), "--source", f"{bad}?name=bad", *WORK]

    assert main(["ingest", *words, "--out", str(tmp_path / "stopped")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert not (tmp_path / "stopped" / "clean").exists()

    assert main(["ingest", *words, "--out", str(tmp_path / "skipped"), "--on-bad-input", "skip"]) == 0
    said = capsys.readouterr().out
    lines = [one for one in said.split("\n") if one.startswith("  left out: ")]
    assert len(lines) == 1
    assert line.removeprefix("error: ") == lines[0].removeprefix("  left out: ") + "\n"
    assert name in line
    assert re.search(message, line), line
    assert wanted <= texts(tmp_path / "skipped")
    manifest = read_manifest(tmp_path / "skipped" / "clean")
    assert manifest is not None
    assert manifest["results"]["num_problems"] == 1


def test_a_dangling_link_in_a_folder(good: Path, wanted: set[str], tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "gone.txt").symlink_to(tmp_path / "nowhere")
    words = ["--source", str(good), "--source", f"{tmp_path / 'raw'}?name=links&format=book", *WORK]
    assert main(["ingest", *words, "--out", str(tmp_path / "stopped")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["ingest", *words, "--out", str(tmp_path / "skipped"), "--on-bad-input", "skip"]) == 0
    assert "gone.txt" in capsys.readouterr().out
    assert texts(tmp_path / "skipped") == wanted


def test_one_character_over_and_over_is_dropped_and_counted(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "x", "text": "x" * 3_000_000}) + "\n")
    sources = ["--source", str(SAMPLES), "--source", str(tmp_path / "x.jsonl")]
    assert main(["ingest", *sources, "--out", str(tmp_path / "c"), "--val-fraction", "0.3", "--workers", "1"]) == 0
    assert re.search(r"1 +3,000,000 +dropped: one character over and over", capsys.readouterr().out)


def test_a_full_disk_keeps_what_is_done(good: Path, tmp_path: Path) -> None:
    """A file system of its own, of 200 kB; with more room the same command goes on."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("left out: a small file system cannot be mounted here (not root)")
    try:
        noise = random.Random(0)
        (tmp_path / "noise.txt").write_text("\n\n".join(noise.randbytes(2000).hex() for _ in range(400)))
        words = ["ingest", "--source", str(tmp_path / "noise.txt"), "--out", str(small), *WORK]
        command = [sys.executable, "-m", "data_prep", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert [line for line in done.stderr.split("\n") if line.startswith("error")] == done.stderr.split("\n")[-2:-1]
        assert "the disk is full" in done.stderr
        assert not (small / "clean").exists()
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        assert (small / "clean" / "manifest.json").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)
