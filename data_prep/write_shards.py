"""Stages `shard` and `verify`: clean documents to packed rows on disk, and the check of all that was made.

Knows nothing of raw files or of training.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from data_prep.arrow_files import write_dataset_files, write_file
from data_prep.corpus import Corpus, is_made, lock, required_manifest, staged_folder
from data_prep.documents import SPLITS, Split, read_documents
from data_prep.ingest import clean_inputs
from data_prep.manifest import UserError, sha256_file, write_manifest
from data_prep.pack import MIN_ROW_LENGTH, pack_rows
from data_prep.shards import INDEX_FORMAT, INDEX_NAME, ShardReader, read_index
from data_prep.tokenizer import finished_tokenizer

VOCAB_MULTIPLE = 64
MAX_ROW_LENGTH = 1 << 16
_FILE_BYTES = 64 << 20
_BATCH_CHARACTERS = 1 << 20


def shard(corpus: Corpus, row_length: int, force: bool = False, file_bytes: int = _FILE_BYTES) -> None:
    """Make `shards/{train,val}/` and `shards/index.json`: rows of `row_length` tokens, files of `file_bytes`.

    Raises UserError for a row length out of bounds and for stages before this one that are missing or corrupt.
    """
    if not MIN_ROW_LENGTH <= row_length <= MAX_ROW_LENGTH:
        raise UserError(f"--row-length is {row_length}, wanted a number from {MIN_ROW_LENGTH} to {MAX_ROW_LENGTH}")
    started = time.time()
    clean = clean_inputs(corpus)
    tokenizer, made = finished_tokenizer(corpus)
    settings = {"row_length": row_length, "file_bytes": file_bytes, "format": INDEX_FORMAT}
    inputs = {**clean, "tokenizer_sha256": made["sha256"]}
    with lock(corpus):
        if is_made(corpus.shards, "shard", settings, inputs, force):
            print(f"shard: {corpus.shards} is done and unchanged, skipped")
            return
        index: dict[str, Any] = {
            "format": INDEX_FORMAT,
            "row_length": row_length,
            "vocab_size": -(-made["vocab_size"] // VOCAB_MULTIPLE) * VOCAB_MULTIPLE,
            "tokenizer_vocab_size": made["vocab_size"],
            "special_tokens": made["special_tokens"],
            "tokenizer_sha256": made["sha256"],
            "splits": {},
        }
        with staged_folder(corpus.shards) as folder:
            for split in SPLITS:
                index["splits"][split] = _write_split(corpus, split, folder, tokenizer, index, file_bytes)
            (folder / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
            results = {
                split: {key: figures[key] for key in ("rows", "tokens", "documents")}
                for split, figures in index["splits"].items()
            }
            write_manifest(folder, "shard", settings, inputs, started, results)
    for split, figures in results.items():
        filled = figures["tokens"] / (figures["rows"] * row_length)
        print(f"shard: {split} {figures['rows']:,} rows, {figures['tokens']:,} tokens, {1 - filled:.2%} padding")


def verify(corpus: Corpus) -> None:
    """Check every file of every stage against its recorded hash, and every row against the shard contract.

    Raises UserError at the first thing that is wrong.
    """
    clean = clean_inputs(corpus)
    _, made = finished_tokenizer(corpus)
    index = read_index(corpus.shards)
    manifest = required_manifest(corpus.shards, f"shard --corpus {corpus.root} --row-length L")
    for name, recorded, present in (
        ("documents", manifest["inputs"]["clean_sha256"], clean["clean_sha256"]),
        ("tokenizer", index["tokenizer_sha256"], made["sha256"]),
    ):
        if recorded != present:
            raise UserError(
                f"{corpus.shards} was made from another {name}: sha256 {recorded}, now {present}; "
                "run shard again with --force"
            )
    for split, figures in index["splits"].items():
        _verify_rows(ShardReader(corpus.shards, split), split, figures["tokens"], index["tokenizer_vocab_size"])
        print(f"verify: {split} {figures['rows']:,} rows in {len(figures['files'])} files are as recorded")


def _write_split(
    corpus: Corpus, split: Split, folder: Path, tokenizer: Tokenizer, index: dict[str, Any], file_bytes: int
) -> dict[str, Any]:
    (folder / split).mkdir()
    dtype = np.dtype(np.uint16 if index["vocab_size"] <= 1 << 16 else np.int32)
    row_length = index["row_length"]
    rows_per_file = max(1, file_bytes // (row_length * dtype.itemsize))
    counts: Counter[str] = Counter()
    documents = _encoded(corpus, split, tokenizer, counts)
    unnamed: list[Path] = []
    rows: list[int] = []
    for block in pack_rows(documents, row_length, index["special_tokens"], dtype, rows_per_file):
        unnamed.append(folder / split / f"data-{len(rows):05d}.arrow")
        write_file(unnamed[-1], block)
        rows.append(len(block.ids))
        counts["tokens"] += int(block.lengths.sum())
    if not rows:
        raise UserError(f"the {split} split of {corpus.clean} yields no token; give ingest more text")
    files: list[dict[str, Any]] = []
    for number, path in enumerate(unnamed):
        named = path.rename(path.with_name(f"data-{number:05d}-of-{len(unnamed):05d}.arrow"))
        files.append(
            {
                "name": f"{split}/{named.name}",
                "rows": rows[number],
                "bytes": named.stat().st_size,
                "sha256": sha256_file(named),
            }
        )
    names = [Path(file["name"]).name for file in files]
    write_dataset_files(folder / split, names, row_length, dtype, "".join(file["sha256"] for file in files))
    return {"rows": sum(rows), "tokens": counts["tokens"], "documents": counts["documents"], "files": files}


def _encoded(corpus: Corpus, split: Split, tokenizer: Tokenizer, counts: Counter[str]) -> Iterator[NDArray[np.int32]]:
    total = required_manifest(corpus.clean, "ingest")["results"]["splits"][split]["characters"]
    with tqdm(total=total, desc=f"shard {split}", unit="B", unit_scale=True, disable=None) as bar:
        for texts in _batches(corpus, split):
            for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                ids = np.array(encoding.ids, np.int32)
                counts["documents"] += len(ids) > 0
                yield ids
            bar.update(sum(map(len, texts)))


def _batches(corpus: Corpus, split: Split) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in read_documents(corpus.clean, split):
        batch.append(document.text)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _verify_rows(reader: ShardReader, split: str, tokens: int, tokenizer_vocab_size: int) -> None:
    special = reader.special_tokens
    step = max(1, _FILE_BYTES // (8 * reader.row_length))
    seen = 0
    for start in tqdm(range(0, reader.num_rows, step), desc=f"verify {split}", disable=None):
        ids, lengths = reader.rows(np.arange(start, min(start + step, reader.num_rows)))
        ends = np.cumsum(lengths, axis=1)
        row, piece = np.nonzero(lengths)
        last = ends[row, piece] - 1
        problem = None
        if (ends[:, -1] > reader.row_length).any() or (lengths < 0).any():
            problem = "a row holds more tokens than its length"
        elif (ids >= tokenizer_vocab_size).any():
            problem = f"a token id is {ids.max()}, the tokenizer has {tokenizer_vocab_size}"
        elif (ids[row, last - lengths[row, piece] + 1] != special["cls"]).any():
            problem = "a piece does not begin with [CLS]"
        elif (ids[row, last] != special["sep"]).any():
            problem = "a piece does not end with [SEP]"
        elif (ids[np.arange(reader.row_length) >= ends[:, -1:]] != special["pad"]).any():
            problem = "a row holds something behind its last piece"
        if problem:
            raise UserError(f"{split} rows {start} to {start + len(ids) - 1}: {problem}; run shard again with --force")
        seen += int(lengths.sum())
    if seen != tokens:
        raise UserError(f"{split} holds {seen} tokens, index.json says {tokens}; run shard again with --force")
