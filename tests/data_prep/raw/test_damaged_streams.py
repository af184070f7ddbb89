"""Damage in a file of several streams, members or frames costs that one, wherever the file is cut into spans."""

import bz2
import gzip
import json
import lzma
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data_prep.raw import compression, streams
from data_prep.raw.formats import read_documents
from data_prep.raw.sources import Source, find_files, plan_units
from data_prep.raw.streams import BadInput
from tests.data_prep.raw.test_formats import HEAD, TAIL, page

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def noise(seed: int) -> str:
    return random.Random(seed).randbytes(150).hex()


def read(path: Path, unit_bytes: int = 1 << 20, **options: str) -> tuple[list[str], list[str]]:
    """The ids of a file's documents, and the complaints."""
    files, _ = find_files([Source(str(path), "s", **options)])  # type: ignore[arg-type]
    problems: list[BadInput] = []
    units = plan_units(files, unit_bytes)
    found = [document.id for unit in units for document in read_documents(unit, problems.append, lambda _: None)]
    return found, [str(problem) for problem in problems]


def is_damaged(stream: bytes) -> bool:
    """A few bits of a bz2 stream may be others: those of the size of its blocks, where the text is short."""
    try:
        bz2.decompress(stream)
    except (OSError, ValueError):
        return True
    return False


def flipped(packed: bytes, place: int) -> bytes:
    return packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]


parts = [HEAD, *("".join(page(10 * part + n, noise(10 * part + n)) for n in range(4)) for part in range(5)), TAIL]
packed_parts = [bz2.compress(part.encode()) for part in parts]
begins = [sum(map(len, packed_parts[:number])) for number in range(len(parts))]


@QUICK
@given(
    damaged=st.sets(st.integers(1, 5), min_size=1, max_size=3),
    share=st.floats(0, 1, exclude_max=True),
    unit_bytes=st.integers(60, 6000),
)
def test_a_damaged_stream_of_a_dump_costs_its_own_pages_wherever_spans_are_cut(
    tmp_path: Path, damaged: set[int], share: float, unit_bytes: int
) -> None:
    packed = list(packed_parts)
    for number in damaged:
        packed[number] = flipped(packed[number], int(share * (len(packed[number]) - 1)))
        assume(is_damaged(packed[number]))
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(b"".join(packed))
    documents, problems = read(path, unit_bytes)
    whole = [str(10 * part + n) for part in range(5) for n in range(4) if part + 1 not in damaged]
    assert documents == whole
    known = r"d\.xml\.bz2: (the bz2 data that begin|no bz2 data but something)"
    assert all(re.search(known, line) for line in problems)
    assert f"its byte {begins[min(damaged)]:,}" in problems[0]
    assert (documents, problems) == read(path)


def test_a_page_that_goes_on_in_a_damaged_stream_is_left_out_without_more_words(tmp_path: Path) -> None:
    whole = page(1, noise(1))
    packed = [
        bz2.compress(text.encode()) for text in (HEAD + page(0) + whole[:99], whole[99:] + page(2), page(3) + TAIL)
    ]
    packed[1] = flipped(packed[1], 40)
    (tmp_path / "d.xml.bz2").write_bytes(b"".join(packed))
    for unit_bytes in (1 << 20, 200, 90):
        documents, problems = read(tmp_path / "d.xml.bz2", unit_bytes)
        assert documents == ["0", "3"]
        assert len(problems) == 1
        assert f"the bz2 data that begin at its byte {len(packed[0])} are corrupt" in problems[0]


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("aligned", [True, False], ids=["members end with lines", "members end anywhere"])
def test_a_damaged_member_of_json_lines_costs_the_records_that_touch_it(
    tmp_path: Path, suffix: str, aligned: bool
) -> None:
    lines = [
        json.dumps({"id": n, "text": f"\u00e9 {noise(n)}"}, ensure_ascii=False).encode() + b"\n" for n in range(30)
    ]
    content = b"".join(lines)
    cuts = [len(b"".join(lines[:10])) + (0 if aligned else 9), len(b"".join(lines[:20])) + (0 if aligned else 19)]
    members = [PACKERS[suffix](part) for part in (content[: cuts[0]], content[cuts[0] : cuts[1]], content[cuts[1] :])]
    members[1] = flipped(members[1], len(members[1]) // 2)
    (tmp_path / f"r.jsonl.{suffix}").write_bytes(b"".join(members))
    documents, problems = read(tmp_path / f"r.jsonl.{suffix}")
    assert documents == [str(n) for n in range(30) if not 10 <= n < (20 if aligned else 21)]
    assert len(problems) == 1
    assert f"data that begin at its byte {len(members[0]):,} are corrupt" in problems[0]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_damaged_member_of_extracted_text_and_of_running_text(tmp_path: Path, suffix: str) -> None:
    documents = [f'<doc id="{n}" url="u" title="t">\n{noise(n)}\n</doc>\n' for n in range(9)]
    sentences = [f"{n} {noise(n)}\n" for n in range(30)]

    def damaged(texts: list[str]) -> bytes:
        third = len(texts) // 3
        # Each cut lies inside of a record.
        text = "".join(texts).encode()
        cuts = [len("".join(texts[: third * part]).encode()) + 30 for part in (1, 2)]
        members = [PACKERS[suffix](part) for part in (text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :])]
        return members[0] + flipped(members[1], len(members[1]) // 2) + members[2]

    (tmp_path / f"w.{suffix}").write_bytes(damaged(documents))
    found, problems = read(tmp_path / f"w.{suffix}")
    assert found == ["0", "1", "2", "7", "8"]
    assert len(problems) == 1
    (tmp_path / f"l.{suffix}").write_bytes(damaged(sentences))
    files, _ = find_files([Source(str(tmp_path / f"l.{suffix}"), "s", format="lines")])
    complaints: list[BadInput] = []
    read_back = [
        " ".join(document.paragraphs)
        for unit in plan_units(files)
        for document in read_documents(unit, complaints.append, lambda _: None)
    ]
    kept = [sentence.strip() for number, sentence in enumerate(sentences) if not 10 <= number < 21]
    assert " ".join(read_back) == " ".join(kept)
    assert any(text.startswith(kept[10]) for text in read_back)
    assert len(complaints) == 1


def test_the_policy_to_stop_stops_at_the_damaged_stream(tmp_path: Path) -> None:
    packed = [*packed_parts[:2], flipped(packed_parts[2], 50), *packed_parts[3:]]
    (tmp_path / "d.xml.bz2").write_bytes(b"".join(packed))
    files, _ = find_files([Source(str(tmp_path / "d.xml.bz2"), "s")])

    def stop(problem: BadInput) -> None:
        raise problem

    (unit,) = plan_units(files)
    found: list[str] = []
    with pytest.raises(BadInput, match=f"the bz2 data that begin at its byte {begins[2]:,} are corrupt"):
        found += [document.id for document in read_documents(unit, stop, lambda _: None)]


def test_nothing_unchecked_comes_out_of_a_small_stream_and_the_beginning_of_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum at the end of a gzip member is wrong: of what could be held back nothing is taken."""
    lines = [json.dumps({"id": n, "text": noise(n)}).encode() + b"\n" for n in range(20)]
    member = gzip.compress(b"".join(lines))
    (tmp_path / "r.jsonl.gz").write_bytes(flipped(member, len(member) - 6) + gzip.compress(lines[0]))
    assert read(tmp_path / "r.jsonl.gz")[0] == ["0"]
    monkeypatch.setattr(streams, "_HELD_BYTES", 100)
    monkeypatch.setattr(compression, "_PIECE", 1000)
    found, problems = read(tmp_path / "r.jsonl.gz")
    assert found[:15] == [str(n) for n in range(15)]
    assert found[-1] == "0"
    assert len(problems) == 1


def test_a_truncated_member_in_the_middle_is_damage_and_at_the_end_gives_what_came_before(tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "text": noise(n)}).encode() + b"\n" for n in range(30)]
    members = [gzip.compress(b"".join(lines[part : part + 10])) for part in (0, 10, 20)]
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(members[0] + members[1][:-300] + members[2])
    documents, problems = read(path)
    assert documents == [str(n) for n in range(30) if not 10 <= n < 20]
    assert len(problems) == 1
    path.write_bytes(members[0] + members[1] + members[2][:-300])
    documents, problems = read(path)
    assert documents[:20] == [str(n) for n in range(20)]
    assert 20 < len(documents) < 30
    assert len(problems) == 1
    assert "it is truncated" in problems[0]


def long_window(text: bytes, window_log: int) -> bytes:
    """A frame of raw blocks with the header that `zstd --long` writes to a pipe (RFC 8878, 3.1.1)."""
    blocks = [text[start : start + 1000] for start in range(0, len(text), 1000)]
    headers = (struct.pack("<I", (len(block) << 3) | (block is blocks[-1]))[:3] for block in blocks)
    body = b"".join(header + block for header, block in zip(headers, blocks, strict=True))
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + body


@pytest.mark.parametrize("window_log", [27, 28, 31])
def test_zstd_with_a_long_window_is_read(tmp_path: Path, window_log: int) -> None:
    lines = [json.dumps({"id": n, "text": noise(n)}).encode() + b"\n" for n in range(30)]
    packed = long_window(b"".join(lines), window_log)
    assert zstandard.get_frame_parameters(packed).window_size == 1 << window_log
    (tmp_path / "r.jsonl.zst").write_bytes(packed)
    assert read(tmp_path / "r.jsonl.zst") == ([str(n) for n in range(30)], [])
