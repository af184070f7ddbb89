"""Clean documents: sections of long books, the split into train and val, and their files on disk.

Knows nothing of raw formats or tokens.

A clean document is one line of `clean/<split>-<number>.jsonl.zst`: {"source", "id", "text"}. Articles are whole;
a book is cut into sections of about SECTION_CHARACTERS at paragraph boundaries. The split goes by the SHA-256 of
source and text, so it depends on nothing else: not on file names, not on their order, and adding texts moves no
document from one split to the other. (Sections of one book may therefore be on either side.) Documents are
written in the order of another part of that hash: any prefix of a split is a fair sample of it.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import zstandard

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
SECTION_CHARACTERS = 5_000
_FILE_TEXT_BYTES = 256 << 20
_ZSTD_LEVEL = 6


@dataclass(frozen=True)
class Document:
    """One clean document, or one section of a long one; paragraphs are separated by "\\n"."""

    source: str
    id: str
    text: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(f"{self.source}\n{self.text}".encode()).digest()

    def to_line(self) -> bytes:
        return json.dumps(vars(self), ensure_ascii=False).encode() + b"\n"


def cut_sections(text: str, section_characters: int = SECTION_CHARACTERS) -> list[str]:
    """A text in sections of about even length, at most `section_characters` and one paragraph long.

    Only paragraph boundaries are cut: joined with "\\n" the sections are the text again.
    """
    sections: list[str] = []
    paragraphs: list[str] = []
    seen, goal = 0, _even_part(len(text), section_characters)
    for paragraph in text.split("\n"):
        paragraphs.append(paragraph)
        seen += len(paragraph) + 1
        if seen >= goal:
            sections.append("\n".join(paragraphs))
            paragraphs = []
            goal = seen + _even_part(len(text) - seen, section_characters)
    if paragraphs:
        sections.append("\n".join(paragraphs))
    return sections


def _even_part(length: int, limit: int) -> float:
    return length / max(1, -(-length // limit))


def split_of(digest: bytes, val_fraction: float) -> Split:
    """The split of a document, a pure function of its digest."""
    return "val" if int.from_bytes(digest[:8], "big") < val_fraction * 2**64 else "train"


class DocumentSorter:
    """Takes documents in any order, and writes them by split and digest, holding one bucket in memory.

    `num_buckets` decides the memory needed (about text bytes / num_buckets), never the result.
    """

    def __init__(self, scratch: Path, num_buckets: int, val_fraction: float) -> None:
        assert 1 <= num_buckets <= 256
        self.val_fraction = val_fraction
        self._scratch = scratch
        self._open_files = ExitStack()
        scratch.mkdir()
        self._buckets = {
            split: [scratch / f"{split}-{number:03d}" for number in range(num_buckets)] for split in SPLITS
        }
        self._writers = {
            split: [self._open_files.enter_context(_writer(path, level=1)) for path in paths]
            for split, paths in self._buckets.items()
        }

    def add(self, document: Document) -> Split:
        """Take one document and say which split it is in."""
        digest = document.digest
        split = split_of(digest, self.val_fraction)
        writers = self._writers[split]
        writers[digest[8] * len(writers) // 256].write(document.to_line())
        return split

    def write(self, folder: Path) -> dict[Split, list[Path]]:
        """Write `<split>-<number>.jsonl.zst` into `folder`, drop the scratch files, return the paths."""
        self._open_files.close()
        written: dict[Split, list[Path]] = {}
        for split, buckets in self._buckets.items():
            out = _NumberedFiles(folder, split)
            for bucket in buckets:
                keyed = [(Document(**json.loads(line)).digest[8:], line) for line in _read_lines(bucket)]
                for _, line in sorted(keyed):
                    out.write(line)
            written[split] = out.close()
        shutil.rmtree(self._scratch)
        return written

    def abandon(self) -> None:
        """Close what is open; the scratch folder is left to whoever owns the folder around it."""
        self._open_files.close()


class _NumberedFiles:
    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._bytes = 0

    def write(self, line: bytes) -> None:
        if self._file is None or self._bytes >= _FILE_TEXT_BYTES:
            self.close()
            path = self._folder / f"{self._split}-{len(self._paths):05d}.jsonl.zst"
            self._paths.append(path)
            self._file, self._bytes = _writer(path, _ZSTD_LEVEL), 0
        self._file.write(line)
        self._bytes += len(line)

    def close(self) -> list[Path]:
        if self._file is not None:
            self._file.close()
            self._file = None
        return self._paths


def read_documents(folder: Path, split: Split) -> Iterator[Document]:
    """The documents of one split of `clean/`, in their order, one at a time."""
    for path in sorted(folder.glob(f"{split}-*.jsonl.zst")):
        for line in _read_lines(path):
            yield Document(**json.loads(line))


def _writer(path: Path, level: int) -> BinaryIO:
    return zstandard.ZstdCompressor(level=level).stream_writer(path.open("wb"), closefd=True)


def _read_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
        yield from io.BufferedReader(stream, 1 << 20)
