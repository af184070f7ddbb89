"""Unpacking and lines, against the compression libraries' own one-shot functions and bytes.split."""

import bz2
import gzip
import lzma
import os
import random
import re
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.raw import compression, lines, streams
from data_prep.raw.compression import Compression, compression_of
from data_prep.raw.lines import own_lines, read_lines, read_texts
from data_prep.raw.streams import BadInput, Damaged, Stream, wide_encoding

ZSTD = zstandard.ZstdCompressor(write_checksum=True)
PACKERS = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zstd": ZSTD.compress}
KINDS = sorted(PACKERS)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that every boundary falls into some test."""
    monkeypatch.setattr(streams, "_BLOCK", 13)
    monkeypatch.setattr(streams, "_PACKED_BLOCK", 17)
    monkeypatch.setattr(compression, "_PIECE", 11)
    monkeypatch.setattr(compression, "_ZSTD_SLICE", 5)


def unpack(path: Path, kind: Compression) -> bytes:
    return b"".join(Stream(str(path), kind))


def drained(stream: Stream) -> tuple[bytes, str]:
    """What comes out, and the complaint that ends it, if any."""
    found = b""
    try:
        for block in stream:
            found += block
    except Damaged as problem:
        return found, str(problem)
    return found, ""


@QUICK
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.sampled_from(KINDS), st.integers(0, 40))
def test_any_number_of_members_unpacks_to_all_of_them(
    tmp_path: Path, parts: list[bytes], kind: Compression, padding: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(
        b"".join(PACKERS[kind](part) for part in parts)
        + (b"\0" * (padding // 4 * 4) if kind in ("gzip", "xz") else b"")
    )
    stream = Stream(str(path), kind, text=False)
    assert b"".join(stream) == b"".join(parts)


def test_skippable_frames_of_zstd_are_skipped(tmp_path: Path) -> None:
    frame = b"\x53\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"seekidx"
    path = tmp_path / "file"
    path.write_bytes(frame + ZSTD.compress(b"one\n") + frame + ZSTD.compress(b"two\n") + frame)
    assert compression_of(path.read_bytes()) == "zstd"
    assert unpack(path, "zstd") == b"one\ntwo\n"


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_is_seen_and_nothing_but_the_beginning_comes(tmp_path: Path, kind: Compression) -> None:
    text = random.Random(0).randbytes(70).hex().encode()
    packed = PACKERS[kind](text) + PACKERS[kind](text)
    second = len(packed) // 2
    path = tmp_path / "file"
    for size in range(20, len(packed)):
        path.write_bytes(packed[:size])
        if size == second:
            assert unpack(path, kind) == text
            continue
        found, problem = drained(Stream(str(path), kind))
        assert (text + text).startswith(found)
        assert re.search(r"file( ends in the middle of the|: no \w+ data but something else goes on at)", problem)
        assert f"its byte {second if size > second else 0}" in problem
        assert "\n" not in problem


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_refused_or_harmless(tmp_path: Path, kind: Compression) -> None:
    text = random.Random(0).randbytes(40).hex().encode()
    packed = PACKERS[kind](text)
    path = tmp_path / "file"
    refused = 0
    for bit in range(8 * len(packed)):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found, problem = drained(Stream(str(path), kind))
        refused += bool(problem)
        assert str(path) in problem if problem else found == text
    assert refused > 6 * len(packed)


def test_something_behind_packed_data_is_refused(tmp_path: Path) -> None:
    for kind in KINDS:
        packed = PACKERS[kind](b"text\n")
        (tmp_path / "file").write_bytes(packed + b"something else")
        with pytest.raises(Damaged, match=f"no {kind} data but something else goes on at its byte {len(packed)};"):
            unpack(tmp_path / "file", kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_bomb_is_refused_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.undo()
    path = tmp_path / "file"
    path.write_bytes(PACKERS[kind](b"a" * (160 << 20)))
    tracemalloc.start()
    stream = Stream(str(path), kind, most=64 << 20)  # type: ignore[arg-type]
    with pytest.raises(Damaged, match="unpack to more than 64 MiB, as only a decompression bomb does"):
        assert sum(len(block) for block in stream) < 0
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()


def test_large_text_that_does_not_shrink_so_much_is_no_bomb(tmp_path: Path) -> None:
    text = random.Random(0).randbytes(3000)
    (tmp_path / "file").write_bytes(gzip.compress(text))
    assert b"".join(Stream(str(tmp_path / "file"), "gzip", most=100)) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_utf16_is_refused_as_that_in_the_first_span_only(tmp_path: Path, encoding: str, kind: Compression) -> None:
    packed = PACKERS.get(kind, bytes)("<mediawiki>\n".encode(encoding))
    (tmp_path / "file").write_bytes(packed)
    with pytest.raises(Damaged, match="is UTF-16, wanted UTF-8"):
        unpack(tmp_path / "file", kind)
    if kind == "none":
        assert list(Stream(str(tmp_path / "file"), kind, 9)) == []


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_of_two_and_four_bytes_are_told_apart(encoding: str) -> None:
    for text in ("Text\n", "{}", "<doc"):
        assert wide_encoding(text.encode(encoding)) == encoding[:6].upper()
    assert wide_encoding("\u0422\u0435\u043a\u0441\u0442".encode("utf-32-le")) == "UTF-32"
    for text in ("", "a", "Text\n", "\u0422\u0435\u043a\u0441\u0442", "\ufeffText"):
        assert wide_encoding(text.encode()) is None


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_utf32_is_refused_as_that(tmp_path: Path, kind: Compression) -> None:
    (tmp_path / "file").write_bytes(PACKERS.get(kind, bytes)("words\n".encode("utf-32")))
    with pytest.raises(Damaged, match=r"is UTF-32, wanted UTF-8; convert it \(for instance iconv -f utf-32 -t utf-8\)"):
        unpack(tmp_path / "file", kind)


def test_too_little_memory_for_a_window_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Starved:
        eof, unused_data = False, b""

        def decompress(self, _: bytes) -> bytes:
            raise zstandard.ZstdError("zstd decompressor error: Allocation error : not enough memory")

        def decompressobj(self) -> "Starved":
            return self

    monkeypatch.setattr(compression.zstandard, "ZstdDecompressor", lambda **_: Starved())
    (tmp_path / "file").write_bytes(ZSTD.compress(b"text"))
    with pytest.raises(UserError, match=r"not enough memory to unpack it; .* give fewer --workers") as raised:
        unpack(tmp_path / "file", "zstd")
    assert not isinstance(raised.value, BadInput)


@pytest.mark.parametrize("problem", [FileNotFoundError, IsADirectoryError])
def test_unreadable_file_is_one_line(tmp_path: Path, problem: type[OSError]) -> None:
    path = tmp_path if problem is IsADirectoryError else tmp_path / "gone"
    with pytest.raises(Damaged, match=f"^cannot read {path}: [A-Z][a-z ]+; mend that or move"):
        unpack(path, "none")
    assert issubclass(Damaged, BadInput)
    assert issubclass(BadInput, UserError)


multistreams = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6)


@QUICK
@given(multistreams, st.data())
def test_spans_of_a_multistream_file_hold_the_streams_that_start_in_them(
    tmp_path: Path, parts: list[bytes], data: st.DataObject
) -> None:
    packed = [bz2.compress(part) for part in parts]
    path = tmp_path / "file"
    path.write_bytes(b"".join(packed))
    size = path.stat().st_size
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=5))})
    found = []
    for start, end in pairwise(cuts):
        stream = Stream(str(path), "bz2", start, end, text=False)
        unpacked = b"".join(stream)
        found.append(unpacked[: min(stream.limit, len(unpacked))])  # type: ignore[misc]
    begins = [sum(map(len, packed[:number])) for number in range(len(packed))]
    wanted = [
        b"".join(part for part, begin in zip(parts, begins, strict=True) if start <= begin < end)
        for start, end in pairwise(cuts)
    ]
    assert found == wanted


def test_damage_behind_a_span_is_left_to_the_span_it_belongs_to(tmp_path: Path) -> None:
    first, second = bz2.compress(b"one" * 50), bytearray(bz2.compress(b"two" * 50))
    second[-6] ^= 1
    path = tmp_path / "file"
    path.write_bytes(first + second)
    stream = Stream(str(path), "bz2", 0, len(first))
    assert b"".join(stream).startswith(b"one" * 50)
    assert stream.limit == 150
    with pytest.raises(Damaged, match=f"the bz2 data that begin at its byte {len(first)} are corrupt"):
        list(Stream(str(path), "bz2", len(first), path.stat().st_size))


def test_destroyed_header_is_refused_by_the_span_before_it(tmp_path: Path) -> None:
    packed = [bz2.compress(text) for text in (b"one", b"two", b"three")]
    path = tmp_path / "file"
    path.write_bytes(packed[0] + b"?" + packed[1][1:] + packed[2])
    cuts = (0, len(packed[0]), path.stat().st_size)
    with pytest.raises(Damaged, match=f"something else goes on at its byte {cuts[1]};"):
        list(Stream(str(path), "bz2", *cuts[:2]))
    assert b"".join(Stream(str(path), "bz2", *cuts[1:])) == b"three"


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_progress_ends_at_the_size_of_the_file(tmp_path: Path, kind: Compression) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKERS.get(kind, bytes)(b"word word word\n" * 30))
    seen: list[int] = []
    list(Stream(str(path), kind, progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size


def raw_lines(path: Path, kind: Compression = "none") -> list[tuple[int, str | BadInput]]:
    return list(read_lines(Stream(str(path), kind)))


@QUICK
@given(st.text(alphabet="ab\r\n\u2028\x85\x0c\x1c\u00e9\U0001f600", max_size=80), st.booleans())
def test_lines_end_at_newlines_and_returns_only(tmp_path: Path, text: str, packed: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    # What old systems wrote: a return by itself, or one or two of them before the newline.
    parts = re.sub("\r+\n", "\n", text).replace("\r", "\n").split("\n")
    wanted = parts if parts[-1] else parts[:-1]
    found = raw_lines(path, "gzip" if packed else "none")
    assert [line for _, line in found] == wanted
    raw = text.encode()
    assert all(offset == 0 or raw[offset - 1 : offset] in (b"\n", b"\r") for offset, _ in found)


@QUICK
@given(st.text(alphabet="ab \r\n\u00e9\U0001f600", max_size=200), st.integers(8, 60), st.booleans())
def test_texts_are_the_lines_in_parts(tmp_path: Path, text: str, size: int, packed: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    parts = list(read_texts(Stream(str(path), "gzip" if packed else "none"), size))
    # A part may end between the returns of one line end.
    assert re.sub("\n+", "\n", "".join(parts)) == re.sub("[\r\n]+", "\n", text)
    assert len(parts) >= 1
    assert all(len(part.encode()) <= size for part in parts)
    if len(text.encode()) <= size:
        assert parts == [re.sub("\r+\n", "\n", text).replace("\r", "\n")]


@pytest.mark.parametrize(("bad", "message"), [(b"\0", "NUL byte at byte 5,0"), (b"\xe9", "byte 0xe9 at byte 5,0")])
def test_bad_bytes_of_a_text_are_named_with_their_place(tmp_path: Path, bad: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(b"1234567 9\n" * 500 + b"12345678" + bad + b"\n" * 100)
    with pytest.raises(Damaged, match=message + "08"):
        list(read_texts(Stream(str(tmp_path / "file"), "none"), 1000))


def test_byte_order_mark_is_cut_and_offsets_stay(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("\ufeffone\ntwo\ufeff\n".encode())
    assert raw_lines(tmp_path / "file") == [(0, "one"), (7, "two\ufeff")]


@QUICK
@given(st.lists(st.text(alphabet="ab\u00e9", max_size=40), max_size=12), st.booleans(), st.data())
def test_lines_of_all_spans_are_those_of_the_file(
    tmp_path: Path, texts: list[str], ends: bool, data: st.DataObject
) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r", "\r\r\n"]))
    content = (end.join(texts) + end * ends).encode()
    path = tmp_path / "file"
    path.write_bytes(content)
    cuts = sorted({0, len(content), *data.draw(st.lists(st.integers(0, len(content)), max_size=6))})
    found: list[tuple[int, str]] = []
    for start, end in pairwise(cuts):
        stream = Stream(str(path), "none", max(start - 1, 0), end)
        found += own_lines(stream, pytest.fail, inside=start > 0)
    assert found == raw_lines(path)


def test_a_span_inside_of_a_long_line_reads_no_further_than_its_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000 + b"\nlast\n")
    seen: list[int] = []
    stream = Stream(str(tmp_path / "file"), "none", 999, 2000, seen.append)
    assert list(own_lines(stream, pytest.fail, inside=True)) == []
    assert seen[-1] < 2000 + 2 * 13


def test_bad_lines_are_said_with_their_place_and_the_others_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_RECORD_BYTES", 20)
    (tmp_path / "file").write_bytes(b"one\n" + b"x" * 21 + b"\n" + b"y" * 20 + b"\nn\0l\ncaf\xe9\nend\n")
    problems: list[BadInput] = []
    found = []
    for offset, line in raw_lines(tmp_path / "file"):
        if isinstance(line, BadInput):
            problems.append(line)
        else:
            found.append((offset, line))
    assert found == [(0, "one"), (26, "y" * 20), (56, "end")]
    assert [type(problem) for problem in problems] == [BadInput, Damaged, Damaged]
    long, nul, latin = map(str, problems)
    assert "file: the line at byte 4 is 21 bytes long, at most 20 are read" in long
    assert "file is not a text file: NUL byte at byte 48;" in nul
    assert "file is not UTF-8: byte 0xe9 at byte 54;" in latin


def test_offset_of_a_bad_byte_counts_the_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf\xe9\n")
    ((_, problem),) = raw_lines(tmp_path / "file")
    assert "byte 0xe9 at byte 3;" in str(problem)


def test_packing_is_known_by_the_first_bytes() -> None:
    samples = [
        (gzip.compress(b""), "gzip"),
        (bz2.compress(b""), "bz2"),
        (bz2.compress(os.urandom(10), 1), "bz2"),
        (ZSTD.compress(b""), "zstd"),
        (lzma.compress(b""), "xz"),
        (b"", "none"),
        (b"BZh is how this text begins", "none"),
        (b"plain", "none"),
    ]
    for start, wanted in samples:
        assert compression_of(start[:10]) == wanted
