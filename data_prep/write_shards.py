"""Stage `shard`: clean documents to packed rows on disk, one task and one Arrow file for each file of `clean/`.

Knows nothing of raw files or of training.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.corpus import Corpus, discard, is_made, lock, publish, required_manifest, unless_others_finish
from data_prep.documents import SPLITS, Document, Split, digest, read_file
from data_prep.errors import UserError
from data_prep.files import sha256_file, sha256_json, write_atomically
from data_prep.ingest import check_clean_file, clean_files, clean_inputs
from data_prep.manifest import write_manifest
from data_prep.rows.arrow_files import write_dataset_files, write_file
from data_prep.rows.pack import MIN_ROW_LENGTH, Packing, pack_rows
from data_prep.rows.sentences import split_sentences
from data_prep.rows.shards import INDEX_FORMAT, INDEX_NAME
from data_prep.tokenization.encoder import Encoder
from data_prep.tokenizer import continuation_ids, finished_tokenizer, open_tokenizer
from data_prep.work import Part, Report, Task, Workers, task_name

VOCAB_MULTIPLE = 64
MAX_ROW_LENGTH = 1 << 16
_BATCH_CHARACTERS = 1 << 19
_FIGURES = ("rows", "tokens", "documents")


@dataclass(frozen=True)
class WriteShard:
    corpus: Corpus
    split: Split
    clean_name: str
    clean_sha256: str
    packing: Packing
    row_length: int
    weights: tuple[tuple[str, float], ...]
    language: str
    vocab_size: int
    special_tokens: tuple[tuple[str, int], ...]
    tokenizer_sha256: str
    out: Path


def shard(
    corpus: Corpus,
    row_length: int,
    packing: Packing,
    weights: Mapping[str, float],
    workers: int,
    part: Part | None = None,
    force: bool = False,
) -> None:
    """Make `shards/<packing>-<row_length>/`: `train/`, `val/` and `index.json`.

    weights: how many times the train documents of a source are taken, by its name; 1 where nothing is said. 2.5
    means every document twice and half of them, chosen by a hash, once more; validation documents are taken once.
    With `part`, make only this machine's share; whoever finds all shares done goes on to the end.
    Raises UserError for a row length out of bounds, weights of unknown sources, and for stages before this one that
    are missing or corrupt.
    """
    if not MIN_ROW_LENGTH <= row_length <= MAX_ROW_LENGTH:
        raise UserError(f"--row-length is {row_length}, wanted a number from {MIN_ROW_LENGTH} to {MAX_ROW_LENGTH}")
    started = time.time()
    inputs = clean_inputs(corpus)
    manifest = required_manifest(corpus.clean, "ingest")
    _check_weights(weights, set(manifest["results"]["sources"]))
    tokenizer, made = finished_tokenizer(corpus)
    inputs["tokenizer_sha256"] = made["sha256"]
    language = manifest["settings"]["language"] or "en"
    settings = {
        "packing": packing,
        "row_length": row_length,
        "weights": dict(weights),
        "format": INDEX_FORMAT,
        "language": language,
    }
    final = corpus.shards(packing, row_length)
    workspace = final.with_name(f".{final.name}.partial")
    # A folder of its own for all that decides the result: what another attempt left is not taken for this one's.
    out = workspace / f"out-{sha256_json([settings, inputs])[:12]}"
    index: dict[str, Any] = {
        "format": INDEX_FORMAT,
        "packing": packing,
        "row_length": row_length,
        "vocab_size": -(-made["vocab_size"] // VOCAB_MULTIPLE) * VOCAB_MULTIPLE,
        "tokenizer_vocab_size": made["vocab_size"],
        "special_tokens": made["special_tokens"],
        "tokenizer_sha256": made["sha256"],
        "continuation_ids": continuation_ids(tokenizer),
        "splits": {},
    }
    tasks = {split: _tasks(corpus, split, settings, index, out) for split in SPLITS}
    everything = [task for split in SPLITS for task in tasks[split]]

    with lock(corpus, shared=part is not None):
        if is_made(final, "shard", settings, inputs, force):
            discard(workspace, part is None)
            print(f"shard: {final} is done and unchanged, skipped")
            return
        discard(workspace, force)
        for split in SPLITS:
            (out / split).mkdir(parents=True, exist_ok=True)
        with Workers(workspace / "units", workers) as pool:
            pool.run(write_shard, part.share(everything) if part else everything, f"shard {final.name}")
            done = sum(pool.result(task) is not None for task in everything)
    if part and done < len(everything):
        print(f"shard: part {part.number}/{part.of} is done; {done} of {len(everything)} files are made in all")
        return

    with unless_others_finish(corpus, part is not None) as ours:
        if not ours or is_made(final, "shard", settings, inputs, force):
            print("shard: all parts are made; another process brings the stage to its end")
            return
        pool = Workers(workspace / "units", 1)
        records = {split: [pool.result(task) for task in tasks[split]] for split in SPLITS}
        for split in SPLITS:
            index["splits"][split] = _finish_split(corpus, split, out, index, [r for r in records[split] if r])
        write_atomically(out / INDEX_NAME, json.dumps(index) + "\n")
        results: dict[str, Any] = {split: {k: index["splits"][split][k] for k in _FIGURES} for split in SPLITS}
        for split in SPLITS:
            made_of = [record for record in records[split] if record]
            for figure in ("tokens_left_out", "unknown_tokens"):
                results[split][figure] = sum(record[figure] for record in made_of)
        results["tokens_by_source"] = {
            split: dict(sum((Counter(r["tokens_by_source"]) for r in records[split] if r), Counter()))
            for split in SPLITS
        }
        _check_unknown(corpus, results)
        write_manifest(out, "shard", settings, inputs, started, results)
        publish(out, final)
        discard(workspace)
    for split in SPLITS:
        figures = results[split]
        filled = figures["tokens"] / (figures["rows"] * row_length)
        left_out = f", {figures['tokens_left_out']:,} tokens left out" if figures["tokens_left_out"] else ""
        share = figures["unknown_tokens"] / figures["tokens"]
        unknown = f", {figures['unknown_tokens']:,} of them ({share:.2%}) unknown" if share else ""
        print(
            f"shard: {split} {figures['rows']:,} rows, {figures['tokens']:,} tokens{unknown}, {1 - filled:.2%} padding"
            f"{left_out}"
        )


def write_shard(task: WriteShard, report: Report) -> dict[str, Any]:
    """Tokenise and pack one clean file, as one Arrow file; its entry for the index."""
    check_clean_file(task.corpus, task.clean_name, task.clean_sha256)
    weights = dict(task.weights) if task.split == "train" else {}
    documents: list[list[NDArray[np.int32]]] = []
    copies: list[int] = []
    tokens_by_source: Counter[str] = Counter()
    for document, count, ids in _encoded(task, weights, report):
        tokens_by_source[document.source] += count * sum(map(len, ids))
        documents.append(ids)
        copies.append(count)
    # Copies of a document stand apart, one in each pass over the file.
    passes = [
        document
        for number in range(max(copies, default=0))
        for document, count in zip(documents, copies, strict=True)
        if number < count and document
    ]
    dtype = np.dtype(np.uint16 if task.vocab_size <= 1 << 16 else np.int32)
    rows = pack_rows(passes, task.packing, task.row_length, dict(task.special_tokens), dtype)
    entry: dict[str, Any] = {
        "rows": len(rows.ids),
        "tokens": int(rows.lengths.sum()),
        "documents": len(passes),
        "max_pieces": int(np.diff(rows.offsets).max(initial=0)),
        "longest_document": rows.longest_document,
        "tokens_left_out": rows.left_out,
        "unknown_tokens": int((rows.ids == dict(task.special_tokens)["unk"]).sum()),
        "tokens_by_source": tokens_by_source,
    }
    if len(rows.ids):
        name = f"{task.split}/{task.clean_name.removesuffix('.jsonl.zst')}.arrow"
        path = task.out / name
        write_file(path, rows)
        entry |= {"name": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return entry


@lru_cache(maxsize=1)
def _encoder(path: Path, sha256: str) -> Encoder:
    return Encoder(open_tokenizer(path, sha256))


def _encoded(
    task: WriteShard, weights: Mapping[str, float], report: Report
) -> Iterator[tuple[Document, int, list[NDArray[np.int32]]]]:
    """Each document, how many times it is taken, and the ids of its sentences; of all of it where rows mind none."""
    encoder = _encoder(task.corpus.tokenizer_file, task.tokenizer_sha256)
    for documents in _batches(task.corpus.clean / task.clean_name):
        report(sum(len(document.text) for document in documents))
        taken = [(document, _copies(document, weights)) for document in documents]
        taken = [(document, copies) for document, copies in taken if copies]
        texts = [
            [document.text] if task.packing == "documents" else split_sentences(document.text, task.language)
            for document, _ in taken
        ]
        ids = iter(encoder.encode([text for group in texts for text in group]))
        for (document, copies), group in zip(taken, texts, strict=True):
            yield document, copies, [sentence for sentence in islice(ids, len(group)) if len(sentence)]


def _batches(path: Path) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in read_file(path):
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _copies(document: Document, weights: Mapping[str, float]) -> int:
    weight = weights.get(document.source, 1.0)
    whole = math.floor(weight)
    place = int.from_bytes(digest(document.text)[24:], "big") / 2**64
    return whole + (place < weight - whole)


def _check_weights(weights: Mapping[str, float], sources: set[str]) -> None:
    unknown = sorted(weights.keys() - sources)
    if unknown:
        raise UserError(
            f"--weight names {', '.join(unknown)}, this corpus has the sources {', '.join(sorted(sources))}; "
            "a source is named with --source 'PATH?name=NAME'"
        )
    for name, weight in weights.items():
        if not (0 <= weight <= 100):
            raise UserError(f"--weight {name}={weight}: wanted a number from 0 to 100, the copies of each document")


def _check_unknown(corpus: Corpus, results: Mapping[str, Any]) -> None:
    for split in SPLITS:
        words = sum(results["tokens_by_source"][split].values()) - results[split]["tokens_left_out"]
        if results[split]["unknown_tokens"] >= words:
            raise UserError(
                f"all {words:,} tokens of the {split} split are unknown to {corpus.tokenizer_file}: there is nothing "
                "to learn; make another tokenizer, such as byte-level BPE (tokenizer --kind bpe --force)"
            )


def _tasks(corpus: Corpus, split: Split, settings: dict[str, Any], index: dict[str, Any], out: Path) -> list[Task]:
    tasks = []
    for clean_name, entry in sorted(clean_files(corpus, split).items()):
        identity = {
            "clean": entry["sha256"], "name": clean_name, "tokenizer": index["tokenizer_sha256"], "settings": settings
        }  # fmt: skip
        argument = WriteShard(
            corpus, split, clean_name, entry["sha256"], settings["packing"], settings["row_length"],
            tuple(sorted(settings["weights"].items())), settings["language"], index["vocab_size"],
            tuple(sorted(index["special_tokens"].items())), index["tokenizer_sha256"], out,
        )  # fmt: skip
        tasks.append(Task(task_name(identity), argument, entry["characters"]))
    return tasks


def _finish_split(
    corpus: Corpus, split: Split, out: Path, index: dict[str, Any], records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    files = [{k: record[k] for k in ("name", "rows", "bytes", "sha256")} for record in records if record["rows"]]
    if not files:
        raise UserError(f"the {split} split of {corpus.clean} yields no row; give ingest more text")
    names = [Path(file["name"]).name for file in files]
    dtype = np.dtype(np.uint16 if index["vocab_size"] <= 1 << 16 else np.int32)
    content = sha256_json([file["sha256"] for file in files])
    write_dataset_files(out / split, names, index["row_length"], dtype, content)
    return {
        **{key: sum(record[key] for record in records) for key in _FIGURES},
        "max_pieces": max(record["max_pieces"] for record in records),
        "longest_document": max(record["longest_document"] for record in records),
        "files": files,
    }
