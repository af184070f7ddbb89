"""Clean documents: sections of long texts, the split into train and val, and their files on disk.

Knows nothing of raw formats or tokens.

A clean document is one line of `clean/<split>-<number>.jsonl.zst`: {"source", "id", "text"}. Articles are whole;
longer texts are cut into sections of about SECTION_CHARACTERS at paragraph boundaries. The split goes by the SHA-256
of the whole text, so it depends on nothing else: not on file names, not on their order, all sections of a book are
in one split, and adding texts moves no document from one split to the other. Sections and articles are in the order
of another part of the hash of their own text: any prefix of a split is a fair sample of it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zstandard

from data_prep.errors import UserError
from data_prep.files import whole_file
from data_prep.manifest import read_manifest
from data_prep.sentence_ends import CLOSERS, ENDS, OTHER_ENDS

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
SECTION_CHARACTERS = 5_000
_ZSTD_LEVEL = 3
# Behind a sentence: white space, or a full stop of a script that has none.
_SENTENCE_END = re.compile(rf"[{ENDS}][{CLOSERS}]{{0,3}} |[{OTHER_ENDS}]++[{CLOSERS}]{{0,3}}")


@dataclass(frozen=True)
class Document:
    """One clean document, or one section of a long one; paragraphs are separated by "\\n"."""

    source: str
    id: str
    text: str

    def to_line(self) -> bytes:
        return json.dumps(vars(self), ensure_ascii=False).encode() + b"\n"


def digest(text: str) -> bytes:
    """What the split of a whole text (bytes 0 to 7) and the place of a section (bytes 8 to 31) go by."""
    return hashlib.sha256(text.encode()).digest()


def split_of(text_digest: bytes, val_fraction: float) -> Split:
    """The split of a document, a pure function of its digest."""
    return "val" if int.from_bytes(text_digest[:8], "big") < val_fraction * 2**64 else "train"


def bucket_of(text_digest: bytes, num_buckets: int) -> int:
    """Which of `num_buckets` files a document is in; all documents of a file come before those of the next."""
    return int.from_bytes(text_digest[8:16], "big") * num_buckets >> 64


def cut_paragraphs(text: str, most_characters: int = SECTION_CHARACTERS) -> str:
    """The text with paragraphs of at most `most_characters`: longer ones are cut behind a sentence, else at a blank,
    else anywhere. Blanks become line breaks; nothing else changes, and only within such paragraphs."""
    if len(text) <= most_characters:
        return text
    return "\n".join(
        part
        for paragraph in text.split("\n")
        for part in (_parts(paragraph, most_characters) if len(paragraph) > most_characters else (paragraph,))
    )


def _parts(paragraph: str, most: int) -> Iterator[str]:
    start = 0
    while len(paragraph) - start > most:
        ends = [found.end() for found in _SENTENCE_END.finditer(paragraph, start + most // 2, start + most)]
        cut = ends[-1] if ends else paragraph.rfind(" ", start + 1, start + most + 1)
        cut = cut if cut > 0 else start + most
        yield paragraph[start:cut].rstrip(" ")
        start = cut + (paragraph[cut : cut + 1] == " ")
    yield paragraph[start:]


def cut_sections(text: str, section_characters: int = SECTION_CHARACTERS) -> list[str]:
    """A text in sections of about even length, at most `section_characters` and one paragraph long.

    Only paragraph boundaries are cut: joined with "\n" the sections are the text again.
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
    """The documents of one split of `clean/`, in their order, one at a time.

    Those of the files that the manifest lists: others beside them are strangers. Raises UserError where there is none.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is missing or unfinished; run `python -m data_prep ingest` first")
    for name in sorted(manifest["results"]["splits"][split]["files"]):
        yield from read_file(folder / name)


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
