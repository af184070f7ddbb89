"""The folder of one corpus: where each stage keeps its results, and how a stage takes its place there.

Knows nothing of texts, tokens or rows.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import fsync_folder, sha256_file
from data_prep.manifest import is_done, read_manifest


@dataclass(frozen=True)
class Corpus:
    """Paths below `corpora/<name>/`."""

    root: Path

    @property
    def clean(self) -> Path:
        return self.root / "clean"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def tokenizer_file(self) -> Path:
        return self.tokenizer / "tokenizer.json"

    def shards(self, packing: str, row_length: int) -> Path:
        """The rows of one packing and length; one corpus may have several."""
        return self.root / "shards" / f"{packing}-{row_length}"


@contextmanager
def lock(corpus: Corpus, shared: bool = False) -> Iterator[None]:
    """Hold the corpus folder for this process; UserError when another process is working on it.

    `shared`: beside others that do their parts of the same stage. A part that comes when another one is bringing the
    stage to its end waits for that.
    """
    descriptor = os.open(corpus.root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not shared:
                raise UserError(
                    f"another process is preparing {corpus.root}; wait for it to end or use another corpus name"
                ) from error
            print(f"another process holds {corpus.root}; waiting for it to end", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_made(folder: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Any], force: bool) -> bool:
    """True when the stage can be skipped; the rules of `is_done`, and never when it is forced.

    Raises UserError where the folder holds files that no stage has left there.
    """
    if force:
        return False
    if is_done(folder, stage, settings, inputs):
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} exists but holds no finished '{stage}' stage (no manifest.json); "
            "move it away, or pass --force to replace it"
        )
    return False


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """An empty sibling of `final` to write into; it takes the place of `final` when the block succeeds.

    Call it while holding the corpus lock: what an interrupted run left there is removed.
    """
    partial = final.with_name(f".{final.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        publish(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def publish(made: Path, final: Path) -> None:
    """Put the finished folder `made` in the place of `final`, without what killed processes left half-written in it."""
    for leftover in made.rglob(".*.partial"):
        leftover.unlink()
    previous = final.with_name(f".{final.name}.previous")
    if previous.exists():
        shutil.rmtree(previous)
    if final.exists():
        os.rename(final, previous)
    os.rename(made, final)
    fsync_folder(final.parent)
    if previous.exists():
        shutil.rmtree(previous)


def discard(workspace: Path, wanted: bool = True) -> None:
    """Remove the folder of a stage's unfinished work, if it is there and that is wanted."""
    if wanted and workspace.exists():
        shutil.rmtree(workspace)


def required_manifest(folder: Path, command: str) -> dict[str, Any]:
    """The manifest of a stage that has to be finished first; UserError naming the command that makes it."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is missing or unfinished; run `python -m data_prep {command}` first")
    return manifest


def check_file(path: Path, sha256: str, remedy: str) -> None:
    """UserError, naming the file and both hashes, unless it is there with exactly the recorded bytes."""
    if not path.is_file():
        raise UserError(f"{path} is missing (recorded sha256 {sha256}); {remedy}")
    found = sha256_file(path)
    if found != sha256:
        raise UserError(f"{path} is corrupt: sha256 recorded {sha256}, found {found}; {remedy}")


@contextmanager
def unless_others_finish(corpus: Corpus, is_part: bool) -> Iterator[bool]:
    """Hold the corpus folder to bring a stage to its end; False where another part of the stage is at it.

    All parts are done when this is called, so the last one to ask always gets True.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lock(corpus))
        except UserError:
            if not is_part:
                raise
            yield False
            return
        yield True
