"""Stage `verify`: every file of a finished corpus against its recorded hash, every row against the shard contract.

Knows nothing of how any of it was made.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_prep.corpus import Corpus, required_manifest
from data_prep.documents import SPLITS
from data_prep.errors import UserError
from data_prep.ingest import check_clean, clean_files, clean_inputs
from data_prep.manifest import MANIFEST_NAME
from data_prep.rows.shards import INDEX_NAME, ShardReader, read_index
from data_prep.terminal import escaped
from data_prep.tokenizer import finished_tokenizer

_BATCH_BYTES = 8 << 20
_STRANGERS_SHOWN = 5


def verify(corpus: Corpus) -> None:
    """Check all that is there. Raises UserError at the first thing that is wrong."""
    clean = clean_inputs(corpus)
    for split in SPLITS:
        check_clean(corpus, split)
        print(f"verify: clean/{split}: {len(clean_files(corpus, split))} files are as recorded")
    _check_strangers(corpus)
    _, made = finished_tokenizer(corpus)
    folders = sorted(path.parent for path in corpus.root.glob(f"shards/[!.]*/{INDEX_NAME}"))
    if not folders:
        raise UserError(f"{corpus.root / 'shards'} holds no shards; run `python -m data_prep shard` first")
    for folder in folders:
        index = read_index(folder)
        manifest = required_manifest(folder, f"shard --corpus {corpus.root}")
        for name, recorded, present in (
            ("documents", manifest["inputs"]["clean_sha256"], clean["clean_sha256"]),
            ("tokenizer", index["tokenizer_sha256"], made["sha256"]),
        ):
            if recorded != present:
                raise UserError(
                    f"{folder} was made from another {name}: sha256 {recorded}, now {present}; "
                    "run shard again with --force"
                )
        for split, figures in index["splits"].items():
            _verify_split(ShardReader(folder, split), folder, split, figures["tokens"])
            count = len(figures["files"])
            print(f"verify: {folder.name}/{split}: {figures['rows']:,} rows in {count} files are as recorded")


def _check_strangers(corpus: Corpus) -> None:
    """UserError naming what lies in `clean/` and no stage has put there."""
    known = {MANIFEST_NAME, *(name for split in SPLITS for name in clean_files(corpus, split))}
    # Hidden ones are those of the system, of editors and of file servers.
    strangers = sorted(
        escaped(path.name) for path in corpus.clean.iterdir() if path.name not in known and path.name[0] != "."
    )
    if strangers:
        shown = ", ".join(strangers[:_STRANGERS_SHOWN]) + (", ..." if len(strangers) > _STRANGERS_SHOWN else "")
        raise UserError(
            f"{corpus.clean} holds {len(strangers)} files that its manifest does not list and no stage reads: {shown}; "
            "move them out, and give their text to ingest to train on it"
        )


def _verify_split(reader: ShardReader, folder: Path, split: str, tokens: int) -> None:
    step = max(1, _BATCH_BYTES // (8 * reader.row_length))
    seen = 0
    for start in tqdm(range(0, reader.num_rows, step), desc=f"verify {split}", disable=None):
        ids, lengths = reader.rows(np.arange(start, min(start + step, reader.num_rows)))
        problem = _problem(reader, ids, lengths)
        if problem:
            raise UserError(
                f"{folder / split} rows {start} to {start + len(ids) - 1}: {problem}; run shard again with --force"
            )
        seen += int(lengths.sum())
    if seen != tokens:
        raise UserError(f"{folder / split} holds {seen} tokens, index.json says {tokens}; run shard again with --force")


def _problem(reader: ShardReader, ids: NDArray[np.int64], lengths: NDArray[np.int32]) -> str | None:
    special = reader.special_tokens
    ends = np.cumsum(lengths, axis=1)
    if (ends[:, -1] > reader.row_length).any() or (lengths < 0).any():
        return "a row holds more tokens than its length"
    row, piece = np.nonzero(lengths)
    last = ends[row, piece] - 1
    begins = ids[row, last - lengths[row, piece] + 1] == special["cls"]
    # The second piece of a pair goes on where the first has ended.
    if not begins[(piece == 0) | (reader.packing != "pairs")].all():
        return "a piece does not begin with [CLS]"
    if (ids[row, last] != special["sep"]).any():
        return "a piece does not end with [SEP]"
    if (ids[np.arange(reader.row_length) >= ends[:, -1:]] != special["pad"]).any():
        return "a row holds something behind its last piece"
    return None
