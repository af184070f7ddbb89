"""Shards for tests of the reader and the loader, without a tokenizer or a corpus: random rows, and index.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.files import sha256_file
from data_prep.rows.arrow_files import write_file
from data_prep.rows.pack import PackedRows

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
FIRST_ORDINARY = 5


def packed(ids: np.ndarray, pieces: Sequence[Sequence[int]]) -> PackedRows:
    """Rows of these ids (n, L), of pieces of these lengths."""
    flat = np.array([length for row in pieces for length in row], np.int32)
    offsets = np.cumsum([0] + [len(row) for row in pieces]).astype(np.int32)
    return PackedRows(ids, flat, offsets, longest_document=1, left_out=0)


def random_rows(
    count: int, row_length: int, packing: str = "documents", vocab_size: int = 200, seed: int = 0, padded: float = 0.2
) -> PackedRows:
    """Rows as the packing makes them, of random ordinary ids; about a share `padded` of them ends in padding."""
    draw = np.random.default_rng(seed)
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.int32
    ids = draw.integers(FIRST_ORDINARY, vocab_size, (count, row_length)).astype(dtype)
    pieces: list[list[int]] = []
    for row in ids:
        filled = row_length - (draw.integers(1, row_length // 4) if draw.random() < padded else 0)
        if packing == "sentences":
            lengths = [filled]
        elif packing == "pairs":
            first = int(draw.integers(3, filled - 1))
            lengths = [first, filled - first]
        else:
            cuts = np.sort(draw.choice(np.arange(4, filled - 3), draw.integers(0, 3), replace=False))
            cuts = cuts[np.diff(cuts, prepend=0) >= 4]
            lengths = np.diff([0, *cuts, filled]).tolist()
        row[filled:] = SPECIAL["pad"]
        ends = np.cumsum(lengths)
        row[ends - 1] = SPECIAL["sep"]
        row[0] = SPECIAL["cls"]
        if packing == "documents":
            row[ends[:-1]] = SPECIAL["cls"]
        pieces.append([int(length) for length in lengths])
    return packed(ids, pieces)


def write_shards(
    folder: Path,
    splits: dict[str, Sequence[PackedRows]],
    packing: str = "documents",
    vocab_size: int = 200,
    continuation_ids: Sequence[int] = (),
    longest_document: int = 1,
    **changes: Any,
) -> Path:
    """`folder` with one Arrow file for each block of rows, and an index.json (with `changes` to its keys)."""
    index: dict[str, Any] = {
        "format": 2,
        "packing": packing,
        "row_length": next(iter(splits.values()))[0].ids.shape[1],
        "vocab_size": -(-vocab_size // 64) * 64,
        "tokenizer_vocab_size": vocab_size,
        "special_tokens": SPECIAL,
        "tokenizer_sha256": "0" * 64,
        "continuation_ids": list(continuation_ids),
        "splits": {},
    }
    for split, blocks in splits.items():
        (folder / split).mkdir(parents=True)
        files = []
        for number, block in enumerate(blocks):
            path = folder / split / f"{split}-{number:05d}.arrow"
            write_file(path, block)
            files.append(
                {
                    "name": f"{split}/{path.name}",
                    "rows": len(block.ids),
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
            )
        index["splits"][split] = {
            "rows": sum(len(block.ids) for block in blocks),
            "tokens": sum(int(block.lengths.sum()) for block in blocks),
            "documents": sum(len(block.lengths) for block in blocks),
            "max_pieces": max(int(np.diff(block.offsets).max()) for block in blocks),
            "longest_document": longest_document,
            "files": files,
        }
    (folder / "index.json").write_text(json.dumps(index | changes))
    return folder
