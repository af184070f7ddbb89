"""What goes into train and val: whole documents, nothing twice, and no line that stands in many of them."""

import json
import random
import re
from pathlib import Path

import pytest

from data_prep.__main__ import main
from data_prep.documents import SPLITS, Document, clean_name, read_documents, write_documents
from data_prep.manifest import read_manifest
from data_prep.tokenizer import load_tokenizer
from tests.data_prep.conftest import article, story

NOTICE = "This page is a part of the collection of the old port."


def prose(seed: int, paragraphs: int) -> str:
    """Paragraphs of words of their own, so that nothing is a near copy of anything."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(900)]
    return "\n".join(" ".join(rng.choices(words, k=60)) + "." for _ in range(paragraphs))


def ingest(source: Path, out: Path, *more: str) -> dict[str, list[Document]]:
    words = ["ingest", "--source", str(source), "--out", str(out), "--filters", "none", "--workers", "1", *more]
    assert main(words) == 0
    return {split: list(read_documents(out / "clean", split)) for split in SPLITS}


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


def book_of(document: Document) -> str:
    return document.id.partition("/")[0]


def test_all_sections_of_a_book_are_in_one_split(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(40):
        (tmp_path / "raw" / f"b{number}.txt").write_text(prose(number, 60).replace("\n", "\n\n"))
    found = ingest(tmp_path / "raw", tmp_path / "c", "--val-fraction", "0.2")
    books = {split: {book_of(document) for document in documents} for split, documents in found.items()}
    assert not books["train"] & books["val"]
    assert len(books["train"] | books["val"]) == 40
    assert len(books["val"]) >= 3
    assert all(len(found[split]) > 3 * len(books[split]) for split in SPLITS)


def test_adding_books_moves_none_to_the_other_split(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(20):
        (tmp_path / "raw" / f"b{number}.txt").write_text(prose(number, 30))
    few = ingest(tmp_path / "raw", tmp_path / "few", "--val-fraction", "0.3")
    for number in range(20, 30):
        (tmp_path / "raw" / f"a{number}.txt").write_text(prose(number, 30))
    many = ingest(tmp_path / "raw", tmp_path / "many", "--val-fraction", "0.3")
    for split in SPLITS:
        assert {document.text for document in few[split]} <= {document.text for document in many[split]}


def test_stretches_of_running_text_stay_together(tmp_path: Path) -> None:
    lines = [f"{number} {text}" for number, text in enumerate(prose(1, 6500).split("\n"))]
    (tmp_path / "all.txt").write_text("\n".join(lines) + "\n")
    found = ingest(Path(f"{tmp_path / 'all.txt'}?format=lines"), tmp_path / "c", "--val-fraction", "0.3")
    stretches = {
        split: {int(document.id.rpartition("@")[2]) // 250_000 for document in documents}
        for split, documents in found.items()
    }
    assert len(stretches["train"] | stretches["val"]) >= 8
    assert not stretches["train"] & stretches["val"]


def test_what_val_holds_is_not_in_train_a_second_time(tmp_path: Path) -> None:
    shared = prose(0, 14)
    (tmp_path / "raw").mkdir()
    for number in range(1, 30):
        own = [prose(number * 100 + part, 14) for part in range(8)]
        text = "\n".join([own[0], shared, *own[1:]])
        (tmp_path / "raw" / f"b{number}.txt").write_text(text)
    found = ingest(tmp_path / "raw", tmp_path / "c", "--val-fraction", "0.3", "--repeated-lines", "0")
    texts = {split: {document.text for document in documents} for split, documents in found.items()}
    assert not texts["train"] & texts["val"]
    for split in SPLITS:
        assert len(texts[split]) == len(found[split])


def test_of_few_documents_the_one_nearest_to_the_share_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    for name, paragraphs in (("long", 160), ("middle", 60), ("short", 20)):
        (tmp_path / "raw" / f"{name}.txt").write_text(prose(paragraphs, paragraphs))
    found = ingest(tmp_path / "raw", tmp_path / "c", "--val-fraction", "0.0001")
    assert {book_of(document) for document in found["val"]} == {"short"}
    assert {book_of(document) for document in found["train"]} == {"long", "middle"}
    assert "left a split empty, so val is short, 8.5% of the text" in capsys.readouterr().out


def test_of_one_document_its_end_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.txt").write_text(prose(1, 200))
    found = ingest(tmp_path / "one.txt", tmp_path / "c", "--val-fraction", "0.1")
    places = {split: [int(d.id.partition("/")[2]) for d in documents] for split, documents in found.items()}
    assert max(places["train"]) < min(places["val"])
    assert 0.07 < len(places["val"]) / len(places["train"] + places["val"]) < 0.2
    assert "val is the end of the only document" in capsys.readouterr().out


def test_lines_of_many_documents_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = '"What do you mean by that, sir?"'
    texts = [f"{prose(number, 2)}\n{NOTICE}\n{said}\n{prose(number + 500, 1)}" for number in range(40)]
    rare = "A line of some length that stands in few of them."
    texts = [f"{text}\n{rare}" if number < 19 else text for number, text in enumerate(texts)]
    source = write_jsonl(
        tmp_path / "d.jsonl", [*texts, *[texts[0]] * 50, f"{NOTICE}\nand some words, which are not enough for a text"]
    )
    found = ingest(source, tmp_path / "c", "--val-fraction", "0.2")
    lines = [line for split in SPLITS for document in found[split] for line in document.text.split("\n")]
    assert NOTICE not in lines
    assert lines.count(said) == 40
    assert lines.count(rare) == 19
    assert sum(len(documents) for documents in found.values()) == 40
    printed = capsys.readouterr().out
    assert "edited: lines that stand in many documents dropped" in printed
    assert "dropped: little else than lines of many documents" in printed
    results = (read_manifest(tmp_path / "c" / "clean") or {})["results"]
    assert results["repeated_lines"] == [[NOTICE, 41]]
    assert results["tally"]["edited"]["repeated_lines_dropped"] == 41

    assert main(["stats", "--corpus", str(tmp_path / "c")]) == 0
    assert re.search(rf"{re.escape(NOTICE)} +41\n", capsys.readouterr().out)
    assert NOTICE in (tmp_path / "c" / "stats.html").read_text(encoding="utf-8")

    kept = ingest(source, tmp_path / "all", "--val-fraction", "0.2", "--repeated-lines", "0")
    assert sum(NOTICE in document.text for split in SPLITS for document in kept[split]) == 41


def test_texts_that_differ_in_such_lines_only_are_copies(tmp_path: Path) -> None:
    other = "All rights are reserved by the publisher of this website."
    bodies = [prose(number, 3) for number in range(30)]
    both = [f"{NOTICE}\n{text}" for text in bodies] + [f"{text}\n{other}" for text in bodies]
    source = write_jsonl(tmp_path / "d.jsonl", both)
    found = ingest(source, tmp_path / "c", "--val-fraction", "0.3", "--dedup", "exact")
    texts = [document.text for split in SPLITS for document in found[split]]
    assert sorted(texts) == sorted(bodies)
    tally = (read_manifest(tmp_path / "c" / "clean") or {})["results"]["tally"]
    assert sum(tally["dropped"][rule]["documents"] for rule in tally["dropped"]) == 30


def test_strangers_beside_the_clean_files_are_read_by_no_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("".join(article(number, number) for number in range(20)))
    corpus = tmp_path / "c"
    ingest(tmp_path / "a", corpus, "--val-fraction", "0.2")
    stranger = corpus / "clean" / clean_name("train", 900)
    write_documents(stranger, [Document("x", "x", "zzz qqq " * 500).to_line()])
    assert main(["tokenizer", "--corpus", str(corpus), "--vocab-size", "160"]) == 0
    assert not any(set(entry) & set("zq") for entry in load_tokenizer(corpus / "tokenizer").get_vocab())
    assert main(["shard", "--corpus", str(corpus), "--row-length", "32", "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["verify", "--corpus", str(corpus)]) == 2
    assert f"holds 1 files that its manifest does not list and no stage reads: {stranger.name}" in (
        capsys.readouterr().err
    )
    stranger.unlink()
    assert main(["verify", "--corpus", str(corpus)]) == 0


def test_memory_of_a_book_without_blank_lines_is_that_of_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.raw.text_readers.VOLUME_BYTES", 20_000)
    (tmp_path / "all.txt").write_text(story(1, 400).replace("\n\n", "\n"))
    found = ingest(tmp_path / "all.txt", tmp_path / "c", "--val-fraction", "0.3", "--dedup", "none")
    books = {book_of(document) for documents in found.values() for document in documents}
    assert {"all", "all#2", "all#3"} <= books
    assert all(len(document.text) < 11_000 for documents in found.values() for document in documents)
