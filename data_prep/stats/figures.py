"""What `stats` tells about a corpus, as numbers: from the manifests of its stages, and from samples of bounded size.

Knows nothing of how it is shown. Whatever stage has not finished is simply not there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from data_prep.corpus import Corpus
from data_prep.documents import SPLITS, Document, read_documents
from data_prep.errors import UserError
from data_prep.ingest import clean_files, clean_inputs
from data_prep.manifest import read_manifest
from data_prep.rows.shards import INDEX_NAME, ShardReader, read_index
from data_prep.tokenizer import finished_tokenizer

Counts = NDArray[np.int64]

# Documents are in the order of a hash, so that the first of them are a fair sample; rows are taken all over a split.
SAMPLE_CHARACTERS = 16 << 20
SAMPLE_DOCUMENTS = 100_000
SAMPLE_TOKENS = 16 << 20
_BATCH_CHARACTERS = 1 << 19
_BLOCK_ROWS = 64


@dataclass(frozen=True)
class Stage:
    """`seconds` and `finished` are None for a stage that has not finished; `work`: so many `unit`s were done."""

    name: str
    state: str
    seconds: float | None = None
    finished: str | None = None
    work: float = 0
    unit: str = ""


@dataclass(frozen=True)
class LengthSample:
    """The first `documents` of the `of` train documents: each one's source as an index into `sources`, and lengths.

    `tokens` is None where there is no tokenizer yet.
    """

    of: int
    sources: list[str]
    source: Counts
    characters: Counts
    words: Counts
    tokens: Counts | None

    @property
    def documents(self) -> int:
        return len(self.characters)


@dataclass(frozen=True)
class RowSample:
    """`rows` of the `of` train rows: how many hold 0, 1, 2 .. tokens and pieces, and how often each token occurs."""

    rows: int
    of: int
    by_tokens: Counts
    by_pieces: Counts
    by_token: Counts


@dataclass(frozen=True)
class ShardSet:
    """The rows of one packing and length."""

    name: str
    index: dict[str, Any]
    manifest: dict[str, Any]
    sample: RowSample


@dataclass(frozen=True)
class Figures:
    """Everything known of a corpus: the manifests of `clean` and `tokenizer` (None where there is none yet), the size
    of the clean files by split, every shards folder, and a sample of documents."""

    root: Path
    stages: list[Stage]
    clean: dict[str, Any]
    clean_bytes: dict[str, int]
    tokenizer: dict[str, Any] | None
    sets: list[ShardSet]
    lengths: LengthSample


def gather(corpus: Corpus) -> Figures:
    """Read the manifests and take the samples. Raises UserError where no stage has finished, or a file is damaged."""
    clean, made = read_manifest(corpus.clean), read_manifest(corpus.tokenizer)
    if clean is None:
        raise UserError(f"{corpus.clean} is missing or unfinished; run `python -m data_prep ingest` first")
    tokenizer = finished_tokenizer(corpus)[0] if made else None
    sets = [_shard_set(path.parent) for path in sorted(corpus.root.glob(f"shards/[!.]*/{INDEX_NAME}"))]
    return Figures(
        corpus.root,
        _stages(corpus, clean, made, sets),
        clean,
        {split: sum(_size_of(corpus.clean / name) for name in clean_files(corpus, split)) for split in SPLITS},
        made,
        sets,
        sample_lengths(corpus, clean, tokenizer),
    )


def _size_of(path: Path) -> int:
    if not path.is_file():
        raise UserError(f"{path} is missing; run ingest again with --force")
    return path.stat().st_size


def sample_lengths(corpus: Corpus, clean: dict[str, Any], tokenizer: Tokenizer | None) -> LengthSample:
    """Lengths of the first train documents, up to SAMPLE_DOCUMENTS or SAMPLE_CHARACTERS of them."""
    figures = clean["results"]["splits"]["train"]
    numbers: dict[str, int] = {}
    columns: list[list[int]] = [[], [], [], []]
    with tqdm(
        total=min(figures["characters"], SAMPLE_CHARACTERS),
        desc="stats: lengths",
        unit="B",
        unit_scale=True,
        disable=None,
    ) as bar:
        for batch in _batches(corpus):
            texts = [document.text for document in batch]
            rows = [
                [numbers.setdefault(document.source, len(numbers)) for document in batch],
                [len(text) for text in texts],
                [len(text.split()) for text in texts],
            ]
            encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False) if tokenizer else []
            rows.append([len(found.ids) for found in encoded])
            for column, values in zip(columns, rows, strict=True):
                column += values
            bar.update(sum(rows[1]))
    source, characters, words, tokens = (np.array(column, np.int64) for column in columns)
    return LengthSample(figures["documents"], list(numbers), source, characters, words, tokens if tokenizer else None)


def sample_rows(reader: ShardReader) -> RowSample:
    """Figures of rows spread over a split, up to SAMPLE_TOKENS tokens of them."""
    picked = spread_rows(reader.num_rows, SAMPLE_TOKENS // reader.row_length)
    is_filled_by_sentences = reader.packing == "sentences"
    by_tokens = np.zeros(reader.row_length + 1, np.int64)
    by_pieces = np.zeros(reader.row_length + 1, np.int64)
    by_token = np.zeros(len(reader.continues), np.int64)
    step = max(1, (1 << 20) // reader.row_length)
    title = f"stats: {reader.folder.name}"
    for start in tqdm(range(0, len(picked), step), desc=title, unit="batch", disable=None):
        ids, lengths = reader.rows(picked[start : start + step])
        tokens = lengths.sum(1)
        real = np.arange(reader.row_length) < tokens[:, None]
        # Such a row is one piece of parts of documents, with a [SEP] behind each.
        ends = (ids == reader.special_tokens["sep"]) & real
        pieces = ends.sum(1) if is_filled_by_sentences else (lengths > 0).sum(1)
        by_tokens += np.bincount(tokens, minlength=len(by_tokens))
        by_pieces += np.bincount(pieces, minlength=len(by_pieces))
        by_token += np.bincount(ids[real], minlength=len(by_token))
    return RowSample(len(picked), reader.num_rows, by_tokens, by_pieces, by_token)


def spread_rows(num_rows: int, wanted: int) -> Counts:
    """About `wanted` different rows in rising order, in blocks at even distances; all where there are no more."""
    blocks = max(1, wanted // _BLOCK_ROWS)
    if num_rows <= blocks * _BLOCK_ROWS:
        return np.arange(num_rows)
    starts = np.arange(blocks) * num_rows // blocks
    return (starts[:, None] + np.arange(_BLOCK_ROWS)).reshape(-1)


def _batches(corpus: Corpus) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = in_batch = 0
    for number, document in enumerate(read_documents(corpus.clean, "train"), 1):
        batch.append(document)
        in_batch += len(document.text)
        characters += len(document.text)
        is_enough = number >= SAMPLE_DOCUMENTS or characters >= SAMPLE_CHARACTERS
        if is_enough or in_batch >= _BATCH_CHARACTERS:
            yield batch
            batch, in_batch = [], 0
        if is_enough:
            return
    if batch:
        yield batch


def _shard_set(folder: Path) -> ShardSet:
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder} has no manifest.json, so that its rows are of unknown origin; run shard with --force"
        )
    return ShardSet(folder.name, read_index(folder), manifest, sample_rows(ShardReader(folder, "train", "size")))


def _stages(corpus: Corpus, clean: dict[str, Any], made: dict[str, Any] | None, sets: list[ShardSet]) -> list[Stage]:
    now = clean_inputs(corpus)["clean_sha256"]
    tally = clean["results"]["tally"]
    read = sum(entry["characters"] for part in ("dropped", "kept") for entry in tally[part].values())
    stages = [_done("ingest", "done", clean, read, "characters")]
    if made is None:
        stages.append(Stage("tokenizer", "not made yet"))
    else:
        state = "done" if made["inputs"]["clean_sha256"] == now else "done, from other documents"
        stages.append(_done("tokenizer", state, made, 0, ""))
    for one in sets:
        state = "done" if one.manifest["inputs"]["clean_sha256"] == now else "done, from other documents"
        if made and one.index["tokenizer_sha256"] != made["results"]["sha256"]:
            state = "done, with another tokenizer"
        tokens = sum(split["tokens"] for split in one.index["splits"].values())
        stages.append(_done(f"shard {one.name}", state, one.manifest, tokens, "tokens"))
    begun = sorted(path.name[1:].removesuffix(".partial") for path in corpus.root.glob("shards/.*.partial"))
    stages += [Stage(f"shard {name}", "begun, goes on behind what is done") for name in begun]
    if not sets and not begun:
        stages.append(Stage("shard", "not made yet"))
    return stages


def _done(name: str, state: str, manifest: dict[str, Any], work: float, unit: str) -> Stage:
    return Stage(name, state, manifest["seconds"], manifest["finished"], work, unit)
