"""Clean documents: sections of long texts, the split into train and val, and their files on disk.

Knows nothing of raw formats or tokens.

A clean document is one line of `clean/<split>-<number>.jsonl.zst`: {"source", "id", "text"}. Articles are whole;
longer texts are cut into sections of about SECTION_CHARACTERS at paragraph boundaries. The split goes by the SHA-256
of the text, so it depends on nothing else: not on file names, not on their order, and adding texts moves no document
from one split to the other. (Sections of one book may therefore be on either side.) Documents are in the order of
another part of that hash: any prefix of a split is a fair sample of it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zstandard

from data_prep.manifest import UserError, whole_file

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
SECTION_CHARACTERS = 5_000
_ZSTD_LEVEL = 6


@dataclass(frozen=True)
class Document:
    """One clean document, or one section of a long one; paragraphs are separated by "\\n"."""

    source: str
    id: str
    text: str

    def to_line(self) -> bytes:
        return json.dumps(vars(self), ensure_ascii=False).encode() + b"\n"


def digest(text: str) -> bytes:
    """What a text's split (bytes 0 to 7) and place (bytes 8 to 31) go by."""
    return hashlib.sha256(text.encode()).digest()


def split_of(text_digest: bytes, val_fraction: float) -> Split:
    """The split of a document, a pure function of its digest."""
    return "val" if int.from_bytes(text_digest[:8], "big") < val_fraction * 2**64 else "train"


def bucket_of(text_digest: bytes, num_buckets: int) -> int:
    """Which of `num_buckets` files a document is in; all documents of a file come before those of the next."""
    return int.from_bytes(text_digest[8:16], "big") * num_buckets >> 64


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


def clean_name(split: Split, number: int) -> str:
    """The name of one file of `clean/`."""
    return f"{split}-{number:05d}.jsonl.zst"


def write_documents(path: Path, lines: Sequence[bytes]) -> None:
    """Write documents' lines, each with its line end."""
    with (
        whole_file(path) as file,
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(file, closefd=False) as out,
    ):
        for line in lines:
            out.write(line)


def read_documents(folder: Path, split: Split) -> Iterator[Document]:
    """The documents of one split of `clean/`, in their order, one at a time."""
    for path in sorted(folder.glob(f"{split}-*.jsonl.zst")):
        yield from read_file(path)


def read_file(path: Path) -> Iterator[Document]:
    """The documents of one file of `clean/`, which is read whole. Raises UserError where it is no such file."""
    try:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        content = unpacker.decompress(path.read_bytes())
        if not unpacker.eof:
            raise ValueError("it ends in the middle")
        for line in content.split(b"\n")[:-1]:
            yield Document(**json.loads(line))
    except (zstandard.ZstdError, ValueError, TypeError) as error:
        raise UserError(f"{path} is corrupt ({error}); run ingest again with --force") from error
