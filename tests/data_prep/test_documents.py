import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.documents import Document, DocumentSorter, cut_sections, read_documents, split_of


@given(st.lists(st.text("ab", max_size=60), min_size=1), st.integers(10, 100))
def test_sections_are_the_text_cut_at_paragraphs(paragraphs: list[str], limit: int) -> None:
    text = "\n".join(paragraphs)
    sections = cut_sections(text, limit)
    assert "\n".join(sections) == text
    assert all(len(section) <= limit + max(map(len, paragraphs)) + 1 for section in sections)


def test_sections_are_even() -> None:
    text = "\n".join(["x" * 99] * 250)
    assert [len(section) for section in cut_sections(text, 10_000)] == [8399, 8299, 8299]
    assert cut_sections("short", 10_000) == ["short"]
    assert list(map(len, cut_sections("\n".join(["a" * 30, "b" * 4, "c" * 4, "d" * 4]), 10))) == [30, 9, 4]


def test_split_is_the_hash_of_source_and_text() -> None:
    document = Document("book", "any id", "text")
    digest = hashlib.sha256(b"book\ntext").digest()
    assert document.digest == digest
    assert Document("wikipedia", "any id", "text").digest != digest
    share = int.from_bytes(digest[:8], "big") / 2**64
    assert split_of(digest, share + 1e-9) == "val"
    assert split_of(digest, share - 1e-9) == "train"


def test_split_comes_near_the_fraction_and_only_grows_with_it() -> None:
    digests = [Document("book", "", str(number)).digest for number in range(20_000)]
    few = {digest for digest in digests if split_of(digest, 0.01) == "val"}
    many = {digest for digest in digests if split_of(digest, 0.05) == "val"}
    assert few < many
    assert len(few) == pytest.approx(200, abs=60)
    assert len(many) == pytest.approx(1000, abs=130)


def sort(folder: Path, documents: list[Document], num_buckets: int) -> dict[str, list[bytes]]:
    folder.mkdir()
    sorter = DocumentSorter(folder / "scratch", num_buckets, 0.2)
    for document in documents:
        sorter.add(document)
    written = sorter.write(folder)
    assert not (folder / "scratch").exists()
    return {split: [path.read_bytes() for path in paths] for split, paths in written.items()}


def test_files_depend_neither_on_order_nor_on_buckets(tmp_path: Path) -> None:
    texts = [f"text {number} \u4eba" for number in range(300)] + ["twice", "twice"]
    documents = [Document("book", f"b/{number}", text) for number, text in enumerate(texts)]
    wanted = sort(tmp_path / "a", documents, 1)
    random.Random(0).shuffle(documents)
    assert sort(tmp_path / "b", documents, 1) == wanted
    assert sort(tmp_path / "c", documents, 7) == wanted
    assert sort(tmp_path / "d", documents, 256) == wanted
    read = {split: list(read_documents(tmp_path / "a", split)) for split in ("train", "val")}
    assert sorted(read["train"] + read["val"], key=lambda d: d.id) == sorted(documents, key=lambda d: d.id)
    assert all(split_of(document.digest, 0.2) == split for split, found in read.items() for document in found)


def test_files_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.documents._FILE_TEXT_BYTES", 2000)
    documents = [Document("book", f"b/{number}", f"text {number}") for number in range(300)]
    files = sort(tmp_path / "a", documents, 3)
    assert len(files["train"]) > 3
    assert len(list(read_documents(tmp_path / "a", "train")) + list(read_documents(tmp_path / "a", "val"))) == 300
