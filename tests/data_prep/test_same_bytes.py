"""A corpus has the same bytes for any number of workers and machines, and whatever was killed on the way."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.corpus import Corpus, lock
from data_prep.files import sha256_file
from data_prep.manifest import MANIFEST_NAME
from tests.data_prep.conftest import article, story

REPOSITORY = Path(__file__).parent.parent.parent
KILLS = int(os.environ.get("EARLYBIRD_KILLS", "3"))

pytestmark = pytest.mark.dist


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books and articles, some of them twice, and a line that stands in many."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(24):
        (folder / f"b{number:02d}.txt").write_text(story(number % 20, 60), encoding="utf-8")
    for number in range(12):
        text = "".join(article(10 * number + n, 1000 + 10 * number + n) for n in range(12))
        text = text.replace("\n</doc>", "\nThis page is a part of the log of the ship.\n</doc>")
        (folder / f"wiki_{number:02d}").write_text(text, encoding="utf-8")
    return folder


def command(corpus: Path, stage: str, *more: str) -> list[str]:
    words = [sys.executable, "-m", "tests.data_prep.small_tasks", stage]
    return [*words, "--out" if stage == "ingest" else "--corpus", str(corpus), *more]


def stages(raw: Path, workers: int) -> dict[str, list[str]]:
    work = ["--workers", str(workers)]
    return {
        "ingest": ["--source", str(raw), "--val-fraction", "0.1", "--filters", "none", *work],
        "tokenizer": ["--vocab-size", "160"],
        "shard": ["--row-length", "32", *work],
    }


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(words: list[str]) -> str:
    process = start(words)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def build(raw: Path, corpus: Path, workers: int) -> Path:
    for stage, more in stages(raw, workers).items():
        run(command(corpus, stage, *more))
    return corpus


def content(corpus: Path) -> dict[str, str]:
    """Hashes of all files but manifests, which tell the time, and the memory of raw files' hashes."""
    return {
        str(path.relative_to(corpus)): sha256_file(path)
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST_NAME, "raw_files.json")
    }


@pytest.fixture(scope="module")
def reference(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = content(build(raw, tmp_path_factory.mktemp("one"), workers=1))
    assert sum(name.startswith("clean/train") for name in found) >= 8
    assert sum(name.startswith("shards/documents-32/train") and name.endswith(".arrow") for name in found) >= 8
    return found


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers(raw: Path, reference: dict[str, str], workers: int, tmp_path: Path) -> None:
    assert content(build(raw, tmp_path, workers)) == reference


def test_several_machines(raw: Path, reference: dict[str, str], tmp_path: Path) -> None:
    """Parts run at the same time and nobody coordinates them; the last one to end finishes the stage."""
    options = stages(raw, workers=1)
    for stage in ("ingest", "tokenizer", "shard"):
        if stage == "tokenizer":
            run(command(tmp_path, stage, *options[stage]))
            continue
        parts = [start(command(tmp_path, stage, *options[stage], "--part", f"{n}/3")) for n in (1, 2, 3)]
        for part in parts:
            said, _ = part.communicate()
            assert part.returncode == 0, said
    assert content(tmp_path) == reference


def test_parts_one_after_another(raw: Path, reference: dict[str, str], tmp_path: Path) -> None:
    options = stages(raw, workers=1)
    assert "part 2/2 is done" in run(command(tmp_path, "ingest", *options["ingest"], "--part", "2/2"))
    assert "part 2/2 is done" in run(command(tmp_path, "ingest", *options["ingest"], "--part", "2/2"))
    assert not (tmp_path / "clean").exists()
    run(command(tmp_path, "ingest", *options["ingest"], "--part", "1/2"))
    assert content(tmp_path) == {k: v for k, v in reference.items() if k.startswith("clean/")}


def test_a_part_that_comes_late_waits_for_the_one_that_ends_the_stage(
    raw: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    words = command(tmp_path, "ingest", *stages(raw, workers=1)["ingest"])
    with lock(Corpus(tmp_path)):
        late = start([*words, "--part", "1/1"])
        assert late.stdout is not None
        assert "waiting for it to end" in late.stdout.readline()
        assert late.poll() is None
    said, _ = late.communicate()
    assert late.returncode == 0, said
    assert content(tmp_path) == {k: v for k, v in reference.items() if k.startswith("clean/")}


def test_killed_at_random_moments(raw: Path, reference: dict[str, str], tmp_path: Path) -> None:
    pick = random.Random(KILLS)
    options = stages(raw, workers=2)
    for stage in ("ingest", "tokenizer", "shard"):
        words = command(tmp_path, stage, *options[stage])
        began = time.monotonic()
        kills = 0 if stage == "tokenizer" else KILLS
        for _ in range(kills):
            process = start(words)
            try:
                process.wait(timeout=pick.uniform(0.3, 3.0))
            except subprocess.TimeoutExpired:
                # The first process alone: its workers have to notice by themselves.
                os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        said = run(words)
        assert "error" not in said, (said, time.monotonic() - began)
    assert content(tmp_path) == reference
    assert not list(tmp_path.rglob(".*.partial*"))
