"""Stage `ingest`: raw sources to clean documents, split into train and val, without duplicates, in the order of a hash.

Plans the tasks, has the workers do them, and puts their results in place. Knows nothing of tokens or rows.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.assembly import Assembly
from data_prep.buckets import Cleaning, Layout
from data_prep.cleaning.filters import check_language
from data_prep.cleaning.tally import Tally
from data_prep.corpus import (
    Corpus,
    check_file,
    discard,
    is_made,
    lock,
    publish,
    required_manifest,
    unless_others_finish,
)
from data_prep.documents import SPLITS, Split
from data_prep.errors import UserError
from data_prep.files import sha256_file, sha256_json, write_atomically
from data_prep.ingest_tasks import ReadUnit, read_unit
from data_prep.manifest import write_manifest
from data_prep.raw.sources import RawFile, Source, find_files, plan_units
from data_prep.raw.streams import BadInput
from data_prep.work import Part, Task, Workers, task_name

_NAMES_SHOWN, _PROBLEMS_SHOWN = 5, 20
_FEW_VAL_DOCUMENTS = 10


def ingest(
    corpus: Corpus,
    sources: Sequence[Source],
    cleaning: Cleaning,
    workers: int,
    part: Part | None = None,
    force: bool = False,
) -> None:
    """Make `clean/` from all recognised files in or below `sources`.

    With `part`, read only this machine's share of the units; whoever finds all shares done goes on to the end.
    Raises UserError for bad sources (see data_prep.raw.sources), for bad input unless it is to be skipped, and where
    train or val would be empty.
    """
    if not 0 < cleaning.val_fraction < 1:
        raise UserError(f"--val-fraction is {cleaning.val_fraction}, wanted a number between 0 and 1 such as 0.01")
    if cleaning.repeated_lines < 0 or cleaning.repeated_lines == 1:
        raise UserError(
            f"--repeated-lines is {cleaning.repeated_lines}, wanted is 2 or more, the documents that a line has to "
            "stand in to be dropped, or 0 to keep all lines"
        )
    check_language(cleaning.rules.language)
    started = time.time()
    _check_places(corpus, sources)
    files, unrecognised = find_files(sources)
    for file in files:
        if file.problem and cleaning.on_bad_input == "stop":
            raise BadInput(file.problem)
    if all(file.is_empty for file in files):
        raise UserError(f"no text found: {len(files)} files are empty: {_shown([file.path for file in files])}")
    if corpus.root.exists() and not corpus.root.is_dir():
        raise UserError(f"--out {corpus.root} is a file, wanted a folder such as corpora/NAME")
    corpus.root.mkdir(parents=True, exist_ok=True)
    hashes = raw_hashes(corpus.root / "raw_files.json", files)
    settings = cleaning.settings()
    described = [_identity(file, hashes[file.on_disk]) for file in files]
    inputs = {"files": len(files), "raw_sha256": sha256_json(sorted(described))}
    layout = Layout.of(files, cleaning.val_fraction)
    workspace = corpus.clean.with_name(".clean.partial")
    units = workspace / "units"
    tasks = _read_tasks(files, hashes, units, cleaning, layout)

    with lock(corpus, shared=part is not None):
        if is_made(corpus.clean, "ingest", settings, inputs, force):
            discard(workspace, part is None)
            print(f"ingest: {corpus.clean} is done and unchanged, skipped")
            return
        discard(workspace, force)
        with Workers(units, workers) as pool:
            pool.run(read_unit, part.share(tasks) if part else tasks, "ingest: read")
            done = sum(pool.result(task) is not None for task in tasks)
    if part and done < len(tasks):
        print(f"ingest: part {part.number}/{part.of} is done; {done} of {len(tasks)} units are read in all")
        return

    with unless_others_finish(corpus, part is not None) as ours:
        if not ours or is_made(corpus.clean, "ingest", settings, inputs, force):
            print("ingest: all parts are read; another process brings the stage to its end")
            return
        # A folder of its own for all that decides the result: what another attempt left is not taken for this one's.
        upstream = sha256_json([task.name for task in tasks])
        out = workspace / f"out-{upstream[:12]}"
        out.mkdir(exist_ok=True)
        with Workers(units, workers) as pool:
            results = Assembly(pool, cleaning, layout, upstream, units, out).finish(tasks)
        results |= {"sources": sorted({file.source for file in files}), "unrecognised_files": unrecognised}
        write_manifest(out, "ingest", settings, inputs, started, results)
        publish(out, corpus.clean)
        discard(workspace)
    _say(files, unrecognised, results)


def clean_inputs(corpus: Corpus) -> dict[str, Any]:
    """What a later stage depends on: a digest over the recorded hashes of all clean files."""
    manifest = required_manifest(corpus.clean, f"ingest --source ... --out {corpus.root}")
    hashes = {name: entry["sha256"] for split in SPLITS for name, entry in _files(manifest, split).items()}
    return {"clean_sha256": sha256_json(hashes)}


def clean_files(corpus: Corpus, split: Split) -> dict[str, dict[str, Any]]:
    """The files of one split: name to sha256, documents and characters."""
    return _files(required_manifest(corpus.clean, f"ingest --source ... --out {corpus.root}"), split)


def check_clean(corpus: Corpus, split: Split) -> None:
    """UserError unless all files of a split have the bytes that were recorded."""
    for name, entry in tqdm(clean_files(corpus, split).items(), desc=f"checking {split}", unit="file", disable=None):
        check_clean_file(corpus, name, entry["sha256"])


def check_clean_file(corpus: Corpus, name: str, sha256: str) -> None:
    """UserError unless a clean file has the bytes that were recorded."""
    check_file(corpus.clean / name, sha256, "run ingest again with --force")


def _files(manifest: dict[str, Any], split: Split) -> dict[str, dict[str, Any]]:
    return manifest["results"]["splits"][split]["files"]


def raw_hashes(cache: Path, files: Sequence[RawFile]) -> dict[str, str]:
    """SHA-256 by path on disk; a file with the size and modification time of the last look is not read again."""
    known = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    found: dict[str, dict[str, Any]] = {}
    with tqdm(total=sum(f.size for f in files), desc="hashing", unit="B", unit_scale=True, disable=None) as bar:
        for file in files:
            if file.format == "hub":
                found[file.path] = {"stamp": None, "sha256": file.fingerprint}
                continue
            if file.on_disk not in found:
                found[file.on_disk] = _raw_hash(Path(file.on_disk), known.get(file.on_disk))
            bar.update(file.size)
    write_atomically(cache, json.dumps(found, indent=0) + "\n")
    return {path: entry["sha256"] for path, entry in found.items()}


def _identity(file: RawFile, sha256: str) -> list[Any]:
    # Stretches of running text go to train or val by their place in a file, which its name is part of.
    name = file.name if file.format == "lines" or file.rows_are_lines else ""
    member = [file.inside.member] if file.inside else []
    return [file.rank, file.source, file.format, file.text, file.rows_are_lines, name, sha256, *member]


def _raw_hash(path: Path, known: dict[str, Any] | None) -> dict[str, Any]:
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        if known is not None and known["stamp"] == stamp:
            return known
        return {"stamp": stamp, "sha256": sha256_file(path)}
    except OSError:
        # Reading it will say what is wrong, and --on-bad-input what follows.
        return {"stamp": None, "sha256": "unreadable"}


def _check_places(corpus: Corpus, sources: Sequence[Source]) -> None:
    """UserError where the next run would read what this one writes."""
    out = os.path.realpath(corpus.root)
    for source in sources:
        place = os.path.realpath(source.location)
        if not source.is_hub and os.path.commonpath([out, place]) in (out, place):
            raise UserError(
                f"--out {corpus.root} and source {source.location} lie in one another: the next time the corpus "
                "would be read as text; keep them apart"
            )


def _read_tasks(
    files: Sequence[RawFile], hashes: dict[str, str], units: Path, cleaning: Cleaning, layout: Layout
) -> list[Task]:
    tasks = []
    for unit in plan_units(files):
        description = {
            "read": [
                [*_identity(span.file, hashes[span.file.on_disk]), span.file.name, span.start, span.end]
                for span in unit
            ],
            "settings": cleaning.settings(),
            "layout": [layout.buckets, layout.ranges, layout.line_ranges],
        }
        name = task_name(description)
        size = sum(span.size for span in unit)
        tasks.append(Task(name, ReadUnit(unit, units / name, cleaning, layout), size))
    return tasks


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")


def _say(files: Sequence[RawFile], unrecognised: Sequence[str], results: dict[str, Any]) -> None:
    left_out = "none left out"
    if unrecognised:
        left_out = f"{len(unrecognised)} left out as not recognised: {_shown(unrecognised)}"
    read = [file for file in files if not file.problem]
    print(f"ingest: {len(read)} files, {left_out}")
    if empty := [file.name for file in read if file.is_empty]:
        print(f"  {len(empty)} of them are empty: {_shown(empty)}")
    hints = [f"{file.name}: {file.hint}" for file in files if file.hint]
    for hint in hints[:_NAMES_SHOWN]:
        print(f"  hint: {hint}")
    if len(hints) > _NAMES_SHOWN:
        print(f"  and {len(hints) - _NAMES_SHOWN} more such files")
    for problem in results["problems"][:_PROBLEMS_SHOWN]:
        print(f"  left out: {problem}")
    if results["num_problems"] > _PROBLEMS_SHOWN:
        print(f"  and {results['num_problems'] - _PROBLEMS_SHOWN} more such inputs")
    print(Tally.from_json(results["tally"]).table())
    for split, figures in results["splits"].items():
        print(f"  {split}: {figures['documents']:,} documents or sections, {figures['characters']:,} characters")
    if results["held_out"]:
        print(f"  drawing by --val-fraction left a split empty, so val is {results['held_out']}")
    if results["splits"]["val"]["documents"] < _FEW_VAL_DOCUMENTS:
        print("  val is so small that losses on it will be noisy; --val-fraction makes it larger")
