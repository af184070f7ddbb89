"""The command line: one line and exit code 2 for every mistake, nothing half-written taken for done."""

import fcntl
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.cleaning.filters import RULES_VERSION
from data_prep.files import sha256_file
from data_prep.manifest import read_manifest
from data_prep.rows.arrow_files import write_file
from data_prep.rows.pack import PackedRows
from data_prep.rows.shards import ShardReader
from data_prep.tokenizer import load_tokenizer
from tests.data_prep.conftest import article, story

Output = pytest.CaptureFixture[str]


def failure(capsys: Output, *argv: object) -> str:
    """The one line that a failing command prints."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    return shutil.copytree(corpus, tmp_path / "copy")


def test_verify_passes_and_done_stages_are_skipped(corpus: Path, raw: Path, capsys: Output) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in corpus.rglob("*") if path.name != "raw_files.json"}

    before = times()
    capsys.readouterr()
    for argv in (
        ["ingest", "--source", raw, "--out", corpus, "--val-fraction", "0.1", "--filters", "none"],
        ["tokenizer", "--corpus", corpus, "--vocab-size", "160"],
        ["shard", "--corpus", corpus, "--row-length", "32"],
    ):
        assert main([str(word) for word in argv]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"{argv[0]}: ")
        assert printed.endswith(" is done and unchanged, skipped\n")
        assert printed.count("\n") == 1
    assert main(["verify", "--corpus", str(corpus)]) == 0
    assert times() == before
    assert sorted(path.name for path in corpus.iterdir()) == ["clean", "raw_files.json", "shards", "tokenizer"]


def test_summary_counts_rules_splits_and_unrecognised_files(tmp_path: Path, capsys: Output) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    (source / "a.txt").write_text(story(1, 400))
    (source / "b.txt").write_text("too short")
    (source / "c.txt").write_text("x" * 5000)
    (source / "wiki_00").write_text(article(1, 5) + article(2, 6) + article(2, 6))
    (source / "notes.md").write_text("x")
    words = ["--val-fraction", "0.2", "--workers", "1"]
    assert main(["ingest", "--source", str(source), "--out", str(tmp_path / "c"), *words, "--filters", "none"]) == 0
    printed = capsys.readouterr().out
    assert "ingest: 4 files, 1 left out as not recognised: notes.md" in printed
    assert re.search(r"^ +1 +9 +dropped: documents shorter than the least length$", printed, re.M)
    assert re.search(r"^ +1 +[\d,]+ +dropped: copies of another document$", printed, re.M)
    manifest = read_manifest(tmp_path / "c" / "clean")
    assert manifest is not None
    results = manifest["results"]
    assert results["unrecognised_files"] == ["notes.md"]
    assert results["sources"] == ["raw"]
    assert results["splits"]["val"]["documents"] >= 1
    kept = sum(split["documents"] for split in results["splits"].values())
    assert results["tally"]["kept"]["raw"]["documents"] == kept
    assert main(["ingest", "--source", str(source), "--out", str(tmp_path / "d"), *words]) == 0
    assert "dropped: one character over and over" in capsys.readouterr().out


def test_changed_settings_stop_with_the_keys_until_forced(copy: Path, raw: Path, capsys: Output) -> None:
    line = failure(capsys, "ingest", "--source", raw, "--out", copy, "--val-fraction", "0.2", "--filters", "none")
    assert "settings.val_fraction: 0.1 -> 0.2" in line
    assert "--force" in line
    assert "vocab_size: 160 -> 150" in failure(capsys, "tokenizer", "--corpus", copy, "--vocab-size", 150)
    line = failure(capsys, "shard", "--corpus", copy, "--row-length", 32, "--weight", f"{raw.name}=2")
    assert f"weights.{raw.name}: None -> 2.0" in line
    words = ["--val-fraction", "0.2", "--filters", "none", "--workers", "1", "--force"]
    assert main(["ingest", "--source", str(raw), "--out", str(copy), *words]) == 0
    assert "inputs.clean_sha256" in failure(capsys, "tokenizer", "--corpus", copy, "--vocab-size", 160)
    assert "was made from another documents" in failure(capsys, "verify", "--corpus", copy)
    assert sorted(path.name for path in copy.iterdir()) == ["clean", "raw_files.json", "shards", "tokenizer"]


def test_a_corpus_of_older_rules_is_refused_until_forced(copy: Path, raw: Path, capsys: Output) -> None:
    path = copy / "clean" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["rules_version"] -= 1
    path.write_text(json.dumps(manifest))
    words = ["ingest", "--source", raw, "--out", copy, "--val-fraction", "0.1", "--filters", "none"]
    line = failure(capsys, *words)
    assert f"settings.rules_version: {RULES_VERSION - 1} -> {RULES_VERSION}. Use another run or corpus name" in line
    assert main([*map(str, words), "--force"]) == 0


def test_changed_text_is_noticed(tmp_path: Path, capsys: Output) -> None:
    source = tmp_path / "a.txt"
    source.write_text(story(1, 400))
    argv = ["ingest", "--source", source, "--out", tmp_path / "c", "--val-fraction", "0.3"]
    assert main([str(word) for word in argv]) == 0
    with source.open("a") as file:
        file.write("more\n")
    assert "inputs.raw_sha256" in failure(capsys, *argv)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.txt", b"caf\xe9\n", "bad.txt is not UTF-8: byte 0xe9 at byte 3"),
        ("bad.txt", b"a\0b\n", "bad.txt is not a text file: NUL byte at byte 1"),
        ("bad.txt", "utf-16".encode("utf-16"), "bad.txt is UTF-16, wanted UTF-8; convert it"),
        ("bad.txt.gz", gzip.compress(os.urandom(999).hex().encode())[:-20], "bad.txt.gz ends in the middle of the gz"),
        ("wiki_00", b'<doc id="1" url="u" title="t">\nbody\n', "the file ends inside document 1"),
    ],
)  # fmt: skip
def test_bad_file_stops_a_folder(tmp_path: Path, capsys: Output, name: str, content: bytes, message: str) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    (source / "good.txt").write_text(story(1, 100))
    (source / name).write_bytes(content)
    line = failure(capsys, "ingest", "--source", source, "--out", tmp_path / "c", "--val-fraction", "0.2")
    assert message in line
    assert str(source) in line
    assert not (tmp_path / "c" / "clean").exists()


def test_bad_sources_and_fractions(tmp_path: Path, capsys: Output) -> None:
    def ingest(source: Path, fraction: object = 0.1) -> str:
        return failure(capsys, "ingest", "--source", source, "--out", tmp_path / "c", "--val-fraction", fraction)

    assert "nowhere does not exist" in ingest(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no text found in" in ingest(tmp_path / "empty")
    (tmp_path / "x.tsv").write_text("a\tb\n")
    assert "is of no known format" in ingest(tmp_path / "x.tsv")
    (tmp_path / "short.txt").write_text("short\n")
    assert "Left out were: 1 documents shorter than the least length" in ingest(tmp_path / "short.txt")
    (tmp_path / "one.txt").write_text(story(1, 3))
    assert "val would be empty: there are only 1 documents or sections, too few to be parted" in ingest(
        tmp_path / "one.txt", 1e-6
    )
    assert "train would be empty" in ingest(tmp_path / "one.txt", 0.999999)
    for least in (-1, 1):
        words = ["--source", tmp_path / "one.txt", "--out", tmp_path / "c", "--repeated-lines", least]
        assert f"--repeated-lines is {least}, wanted is 2 or more" in failure(capsys, "ingest", *words)
    for fraction in (0, 1, -0.1, "nan"):
        assert "wanted a number between 0 and 1" in ingest(tmp_path / "one.txt", fraction)


def test_empty_names_and_foreign_manifests(copy: Path, raw: Path, capsys: Output) -> None:
    assert "the name of the corpus folder is empty" in failure(capsys, "ingest", "--source", raw, "--out", "")
    line = failure(capsys, "ingest", "--source", raw, "--out", copy / "c", "--min-characters", "-1")
    assert "--min-characters is -1, wanted 0 or more" in line
    manifest = copy / "clean" / "manifest.json"
    whole = manifest.read_text()
    for content in ("{}", "[]", "{"):
        manifest.write_text(content)
        for command in ("stats", "verify"):
            assert f"{manifest} is " in failure(capsys, command, "--corpus", copy)
    manifest.write_text(whole)
    next((copy / "clean").glob("val-*")).unlink()
    assert "is missing" in failure(capsys, "stats", "--corpus", copy)


def test_stages_out_of_order(tmp_path: Path, corpus: Path, capsys: Output) -> None:
    empty = tmp_path / "none"
    for argv in (["tokenizer", "--vocab-size", 200], ["shard", "--row-length", 32], ["verify"]):
        line = failure(capsys, *argv, "--corpus", empty)
        assert "is missing or unfinished; run `python -m data_prep ingest" in line
    shutil.copytree(corpus / "clean", empty / "clean")
    assert "run `python -m data_prep tokenizer" in failure(capsys, "shard", "--corpus", empty, "--row-length", 32)


def test_bad_settings(copy: Path, tmp_path: Path, capsys: Output) -> None:
    assert "either --vocab-size N" in failure(capsys, "tokenizer", "--corpus", copy)
    assert "too small" in failure(capsys, "tokenizer", "--corpus", copy, "--vocab-size", 9, "--force")
    assert "is not a file" in failure(capsys, "tokenizer", "--corpus", copy, "--load", tmp_path / "none")
    loaded = copy / "tokenizer" / "tokenizer.json"
    line = failure(capsys, "tokenizer", "--corpus", copy, "--load", loaded, "--vocab-size", 999, "--force")
    assert f"differs from the {load_tokenizer(loaded).get_vocab_size()} entries" in line
    for length in (15, 65537):
        assert "wanted a number from 16 to 65536" in failure(capsys, "shard", "--corpus", copy, "--row-length", length)
    with pytest.raises(SystemExit) as stopped:
        main(["shard", "--corpus", str(copy)])
    assert stopped.value.code == 2


def test_corrupt_intermediate_files_are_named(copy: Path, capsys: Output) -> None:
    for path in (copy / "tokenizer" / "tokenizer.json", next((copy / "clean").glob("train-*"))):
        recorded, whole = sha256_file(path), path.read_bytes()
        content = bytearray(whole)
        content[100] ^= 4
        path.write_bytes(content)
        for argv in (["shard", "--row-length", 48], ["verify"]):
            line = failure(capsys, *argv, "--corpus", copy)
            assert f"{path} is corrupt: sha256 recorded {recorded}, found {sha256_file(path)}" in line
        path.write_bytes(whole)


def test_interrupted_stage_leaves_the_old_result_or_none(
    copy: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {path: sha256_file(path) for path in copy.rglob("*") if path.is_file()}

    def interrupt(path: Path, rows: PackedRows) -> None:
        write_file(path, rows)
        raise KeyboardInterrupt

    words = ["shard", "--corpus", str(copy), "--row-length", "32", "--force", "--workers", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("data_prep.write_shards.write_file", interrupt)
        assert main(words) == 130
    assert "run the command again" in capsys.readouterr().err
    assert {path: sha256_file(path) for path in kept} == kept
    shutil.rmtree(copy / "shards" / "documents-32")
    (copy / "shards" / "documents-32").mkdir()
    (copy / "shards" / "documents-32" / "mine.txt").write_text("not of this tool")
    assert "holds no finished 'shard' stage" in failure(capsys, *words[:5])
    assert main(words) == 0
    assert main(["verify", "--corpus", str(copy)]) == 0
    assert not list(copy.rglob("*.partial"))


def test_two_processes_cannot_prepare_one_corpus(copy: Path, capsys: Output) -> None:
    descriptor = os.open(copy, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert "another process is preparing" in failure(capsys, "shard", "--corpus", copy, "--row-length", 32)
    finally:
        os.close(descriptor)


def spoil(change: Callable[[np.ndarray], None], copy: Path) -> None:
    """Write rows that break the contract, with hashes that fit."""
    shards = copy / "shards" / "documents-32"
    index = json.loads((shards / "index.json").read_text())
    entry = index["splits"]["val"]["files"][0]
    path = shards / entry["name"]
    reader = ShardReader(shards, "val")
    ids, lengths = reader.rows(np.arange(reader.num_rows))
    ids = ids.astype(np.uint16)
    change(ids)
    pieces = np.count_nonzero(lengths, axis=1)
    offsets = np.cumsum([0, *pieces]).astype(np.int32)
    write_file(path, PackedRows(ids, lengths[lengths > 0], offsets, reader.longest_document, 0))
    entry |= {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    (shards / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ((3, 0), 7, r"does not begin with [CLS]"),
        ((0, 1), 190, r"a token id that the tokenizer does not have"),
        ((-1, -1), 9, r"something behind its last piece"),
    ],
)
def test_verify_looks_at_the_rows_themselves(
    copy: Path, capsys: Output, at: tuple[int, int], value: int, message: str
) -> None:
    def change(ids: np.ndarray) -> None:
        ids[at] = value

    spoil(change, copy)
    assert message in failure(capsys, "verify", "--corpus", copy)
