"""Stage `ingest`: raw files to clean documents, split into train and val.

Knows nothing of tokens or rows.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.clean import MIN_CHARACTERS, RULES, RULES_VERSION, clean_text, table
from data_prep.corpus import Corpus, check_file, is_made, lock, required_manifest, staged_folder
from data_prep.documents import SECTION_CHARACTERS, SPLITS, Document, DocumentSorter, cut_sections
from data_prep.formats import RawDocument, parse_documents
from data_prep.manifest import UserError, sha256_file, sha256_json, write_manifest
from data_prep.sources import SourceFile, find_files, read_lines

# Bytes on disk behind one sorting bucket; unpacked and in memory they are some five times as much.
_BUCKET_BYTES = 64 << 20
_NAMES_SHOWN = 5
_FEW_VAL_DOCUMENTS = 10


def ingest(corpus: Corpus, sources: Sequence[Path], val_fraction: float, force: bool = False) -> None:
    """Make `clean/` from all recognised files in or below `sources`.

    Raises UserError for bad sources (see data_prep.sources) and where train or val would be empty.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction is {val_fraction}, wanted a number between 0 and 1 such as 0.01")
    started = time.time()
    files, unrecognised = find_files(sources)
    corpus.root.mkdir(parents=True, exist_ok=True)
    with lock(corpus):
        raw = [
            {"kind": file.kind, "name": file.name, "sha256": sha256_file(file.path)}
            for file in tqdm(files, desc="hashing", unit="file", disable=None, leave=False)
        ]
        settings = {
            "val_fraction": val_fraction,
            "rules_version": RULES_VERSION,
            "min_characters": MIN_CHARACTERS,
            "section_characters": SECTION_CHARACTERS,
        }
        inputs = {"files": len(raw), "raw_sha256": sha256_json(sorted((f["kind"], f["sha256"]) for f in raw))}
        if is_made(corpus.clean, "ingest", settings, inputs, force):
            print(f"ingest: {corpus.clean} is done and unchanged, skipped")
            return
        with staged_folder(corpus.clean) as folder:
            counts, splits = _write_documents(files, folder, val_fraction)
            results = {
                "rules": {key: counts[key] for key in RULES},
                "splits": splits,
                "raw_files": raw,
                "unrecognised_files": unrecognised,
            }
            write_manifest(folder, "ingest", settings, inputs, started, results)
    print(f"ingest: {len(files)} files, {_unrecognised_line(unrecognised)}")
    print(table(counts))
    for split, figures in splits.items():
        print(f"  {split}: {figures['documents']:,} documents or sections, {figures['characters']:,} characters")
    if splits["val"]["documents"] < _FEW_VAL_DOCUMENTS:
        print("  val is so small that losses on it will be noisy; --val-fraction makes it larger")


def clean_inputs(corpus: Corpus) -> dict[str, Any]:
    """What a later stage depends on: a digest over the clean files, each checked against its recorded hash."""
    manifest = required_manifest(corpus.clean, f"ingest --source ... --out {corpus.root}")
    hashes = {
        name: sha256 for figures in manifest["results"]["splits"].values() for name, sha256 in figures["files"].items()
    }
    for name, sha256 in hashes.items():
        check_file(corpus.clean / name, sha256, "run ingest again with --force")
    return {"clean_sha256": sha256_json(hashes)}


def _write_documents(
    files: Sequence[SourceFile], folder: Path, val_fraction: float
) -> tuple[Counter[str], dict[str, Any]]:
    counts: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    total = sum(file.path.stat().st_size for file in files)
    sorter = DocumentSorter(folder / "scratch", min(256, 1 + total // _BUCKET_BYTES), val_fraction)
    try:
        for raw in _raw_documents(files, total):
            counts["boilerplate_stripped"] += raw.stripped
            text = clean_text(raw.paragraphs, counts)
            for document in _sections(raw, text) if text is not None else ():
                split = sorter.add(document)
                documents[split] += 1
                characters[split] += len(document.text)
        if not documents:
            raise UserError(
                f"no document is left of {len(files)} files: {counts['documents_read']} read, "
                f"{counts['empty_documents_dropped']} empty, {counts['short_documents_dropped']} shorter than "
                f"{MIN_CHARACTERS} characters; give --source more text"
            )
        for split in SPLITS:
            if not documents[split]:
                raise UserError(
                    f"{split} would be empty: {documents.total()} documents or sections, --val-fraction "
                    f"{val_fraction}; {'raise' if split == 'val' else 'lower'} it, or give --source more text"
                )
        written = sorter.write(folder)
    finally:
        sorter.abandon()
    return counts, {
        split: {
            "documents": documents[split],
            "characters": characters[split],
            "files": {path.name: sha256_file(path) for path in written[split]},
        }
        for split in SPLITS
    }


def _raw_documents(files: Sequence[SourceFile], total_bytes: int) -> Iterator[RawDocument]:
    with tqdm(total=total_bytes, desc="ingest", unit="B", unit_scale=True, disable=None) as bar:
        for file in files:
            yield from parse_documents(read_lines(file.path, bar.update), file.kind, str(file.path))


def _sections(raw: RawDocument, text: str) -> Iterator[Document]:
    if raw.kind != "book":
        yield Document(raw.kind, raw.id, text)
        return
    for number, section in enumerate(cut_sections(text)):
        yield Document(raw.kind, f"{raw.id}/{number:04d}", section)


def _unrecognised_line(names: Sequence[str]) -> str:
    if not names:
        return "none left out"
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return f"{len(names)} left out as not recognised: {shown}"
