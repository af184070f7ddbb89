import gzip
import json
import os
from pathlib import Path

import pytest

from data_prep.manifest import UserError
from data_prep.sources import find_files, read_lines, recognise

DOC = '<doc id="1" url="u" title="t">\nbody\n</doc>\n'


def lines(path: Path) -> list[str]:
    return list(read_lines(path, lambda _: None))


def test_format_is_recognised_from_content_whatever_the_name(tmp_path: Path) -> None:
    contents = {
        "wiki_00": DOC.encode(),
        "wiki_01.gz": gzip.compress(DOC.encode()),
        "named.txt": DOC.encode(),
        "bom": b"\xef\xbb\xbf" + DOC.encode(),
        "json": json.dumps({"id": 1, "url": "u", "title": "t", "text": "x"}).encode() + b"\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert recognise(tmp_path / name) == "wikipedia", name
    for name in ("a.txt", "A.TXT", "b.txt.gz", "empty.txt"):
        (tmp_path / name).write_bytes(b"" if name == "empty.txt" else b"It was a dark night.\n")
        assert recognise(tmp_path / name) == "book", name
    for name in ("train.tsv", "squad.json", "dump.xml", "image.bin"):
        (tmp_path / name).write_bytes(b'{"data": [1]}\n')
        assert recognise(tmp_path / name) is None, name


def test_folder_is_searched_whole_hidden_files_and_second_paths_left_out(tmp_path: Path) -> None:
    for name in ("a/one.txt", "a/b/two.txt", ".git/no.txt", "a/.no.txt", "a/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\n")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    files, unrecognised = find_files([tmp_path, tmp_path / "a" / "one.txt"])
    assert sorted(os.path.basename(file.path) for file in files) == ["one.txt", "two.txt"]
    assert unrecognised == ["a/README.md"]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_order_of_sources_does_not_matter(tmp_path: Path, order: slice) -> None:
    folders = []
    for name in ("x", "y", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("text\n")
        folders.append(tmp_path / name)
    assert [file.name for file in find_files(folders[order])[0]] == ["x.txt", "y.txt", "z.txt"]


def test_lines_end_at_newlines_only_and_bom_and_cr_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\u2028still\x85two\x0c\x1ctwo\r\n\r\nthree \ufeff".encode())
    assert lines(path) == ["one", "two\u2028still\x85two\x0c\x1ctwo", "", "three \ufeff"]


def test_gzip_is_read_and_all_bytes_on_disk_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(("word " * 10 + "\n").encode() * 10_000))
    reported: list[int] = []
    assert len(list(read_lines(path, reported.append))) == 10_000
    assert sum(reported) == path.stat().st_size
    assert min(reported) >= 0


def test_offset_of_a_bad_byte_is_in_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfabc\ncaf\xe9 noir\n")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8: byte 0xe9 at offset 10;"):
        lines(path)
    path.write_bytes(b"\xef\xbb\xbf\xe9\n")
    with pytest.raises(UserError, match=r"offset 3;"):
        lines(path)


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\nde\0f\n")
    with pytest.raises(UserError, match=r"not a text file: NUL byte at offset 6"):
        lines(path)


@pytest.mark.parametrize("keep", [30, -9, -1])
def test_truncated_gzip_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(os.urandom(3000).hex().encode())[:keep])
    with pytest.raises(UserError, match=r"a\.txt\.gz: this gzip file ends in the middle"):
        lines(path)


def test_corrupt_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    packed = bytearray(gzip.compress(os.urandom(3000).hex().encode()))
    packed[-6] ^= 1
    path.write_bytes(packed)
    with pytest.raises(UserError, match=r"this gzip file is corrupt \(CRC check failed"):
        lines(path)
