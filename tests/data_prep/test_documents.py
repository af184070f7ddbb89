import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.documents import (
    Document,
    bucket_of,
    clean_name,
    cut_paragraphs,
    cut_sections,
    digest,
    read_documents,
    split_of,
    write_documents,
)
from data_prep.errors import UserError
from data_prep.manifest import write_manifest


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


SENTENCES = st.lists(st.text("ab\u3002.!? ", min_size=1, max_size=70), min_size=1, max_size=12)


@given(SENTENCES, st.integers(10, 60))
def test_no_paragraph_is_longer_than_asked_and_nothing_else_changes(sentences: list[str], most: int) -> None:
    text = " ".join("\n".join(sentences).replace("\n", "\n\n").split(" "))
    cut = cut_paragraphs(text, most)
    assert all(len(paragraph) <= most for paragraph in cut.split("\n"))
    assert cut.replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
    if all(len(paragraph) <= most for paragraph in text.split("\n")):
        assert cut == text


def test_long_paragraphs_are_cut_behind_sentences_else_at_blanks_else_anywhere() -> None:
    assert cut_paragraphs("One two. Three four! Five six", 22) == "One two. Three four!\nFive six"
    assert cut_paragraphs('He said "no." She did not.', 20) == 'He said "no."\nShe did not.'
    assert cut_paragraphs("one two three four five", 12) == "one two\nthree four\nfive"
    assert cut_paragraphs("\u4e00\u4e8c\u3002\u4e09\u56db\u4e94", 4) == "\u4e00\u4e8c\u3002\n\u4e09\u56db\u4e94"
    for end in "\u0589\u104b\u17d4\u1362\u0965\u0f0d\u06d4\u061f":
        assert cut_paragraphs(f"aaa bbb{end} cc dd ee", 12) == f"aaa bbb{end}\ncc dd ee"
        assert cut_paragraphs(f"aaaabb{end}cc dd ee", 10) == f"aaaabb{end}\ncc dd ee"
    assert cut_paragraphs("a" * 25, 10) == "a" * 10 + "\n" + "a" * 10 + "\n" + "a" * 5
    assert cut_paragraphs("short\n\nlines", 6) == "short\n\nlines"


def test_long_paragraphs_take_time_in_proportion() -> None:
    long = "word " * 400_000
    assert max(map(len, cut_paragraphs(long).split("\n"))) <= 5000


def test_split_is_the_hash_of_the_text() -> None:
    wanted = hashlib.sha256(b"text").digest()
    assert digest("text") == wanted
    share = int.from_bytes(wanted[:8], "big") / 2**64
    assert split_of(wanted, share + 1e-9) == "val"
    assert split_of(wanted, share - 1e-9) == "train"


def test_split_comes_near_the_fraction_and_only_grows_with_it() -> None:
    digests = [digest(str(number)) for number in range(20_000)]
    few = {one for one in digests if split_of(one, 0.01) == "val"}
    many = {one for one in digests if split_of(one, 0.05) == "val"}
    assert few < many
    assert len(few) == pytest.approx(200, abs=60)
    assert len(many) == pytest.approx(1000, abs=130)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=30), st.integers(1, 50))
def test_buckets_follow_the_order_of_documents(digests: list[bytes], num_buckets: int) -> None:
    in_order = [bucket_of(one, num_buckets) for one in sorted(digests, key=lambda one: one[8:])]
    assert in_order == sorted(in_order)
    assert all(0 <= bucket < num_buckets for bucket in in_order)


def record(folder: Path, train: list[str]) -> None:
    """A manifest that lists these files of train and none of val."""
    splits = {"train": {"files": {name: {} for name in train}}, "val": {"files": {}}}
    write_manifest(folder, "ingest", {}, {}, 0.0, {"splits": splits})


def test_files_that_the_manifest_lists_give_their_documents_back(tmp_path: Path) -> None:
    documents = [Document("books", f"b/{number}", f"text {number} \u4eba\n\u2028") for number in range(30)]
    for number in range(3):
        lines = [document.to_line() for document in documents[10 * number : 10 * number + 10]]
        write_documents(tmp_path / clean_name("train", number), lines)
    write_documents(tmp_path / clean_name("train", 7), [Document("x", "stranger", "text").to_line()])
    with pytest.raises(UserError, match="is missing or unfinished"):
        list(read_documents(tmp_path, "train"))
    record(tmp_path, [clean_name("train", number) for number in range(3)])
    assert list(read_documents(tmp_path, "train")) == documents
    assert not list(read_documents(tmp_path, "val"))


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:30] + b"xxxxx" + b[35:], lambda b: b"none"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / clean_name("train", 0)
    write_documents(path, [Document("a", str(n), f"{n * 7919} text").to_line() for n in range(50)])
    path.write_bytes(damage(path.read_bytes()))
    record(tmp_path, [path.name])
    with pytest.raises(UserError, match=r"train-00000\.jsonl\.zst is corrupt"):
        list(read_documents(tmp_path, "train"))
