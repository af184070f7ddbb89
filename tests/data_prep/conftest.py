"""Tiny raw texts, and one small finished corpus that tests may read but not change."""

import random
from pathlib import Path

import pytest

from data_prep.__main__ import main

WORDS = ["the", "sea", "ship", "captain", "whale", "night", "storm", "was", "had", "seen", "upon", "deck", "wind", "of"]


def story(seed: int, paragraphs: int) -> str:
    """Hard-wrapped text with blank lines between paragraphs."""
    rng = random.Random(seed)
    blocks = []
    for _ in range(paragraphs):
        words = rng.choices(WORDS, k=60)
        blocks.append("\n".join(" ".join(words[start : start + 10]) for start in range(0, 60, 10)))
    return "\n\n".join(blocks) + "\n"


def article(number: int, seed: int) -> str:
    """One WikiExtractor document."""
    body = story(seed, 4).replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n")
    return f'<doc id="{number}" url="https://x.org/{number}" title="T {number}">\nT {number}\n\n{body}\n</doc>\n'


def write_raw(folder: Path) -> Path:
    """Three books and 30 articles below `folder`."""
    (folder / "books").mkdir(parents=True)
    (folder / "wiki" / "AA").mkdir(parents=True)
    for number in range(3):
        (folder / "books" / f"b{number}.txt").write_text(story(number, 120), encoding="utf-8")
    for number in range(3):
        text = "".join(article(10 * number + n, 1000 + 10 * number + n) for n in range(10))
        (folder / "wiki" / "AA" / f"wiki_{number:02d}").write_text(text, encoding="utf-8")
    return folder


def build_corpus(raw: Path, corpus: Path, row_length: int = 32, vocab_size: int = 160) -> Path:
    """All three stages through the command line."""
    ingest = ["ingest", "--source", str(raw), "--out", str(corpus), "--val-fraction", "0.1", "--filters", "none"]
    assert main([*ingest, "--workers", "1"]) == 0
    assert main(["tokenizer", "--corpus", str(corpus), "--vocab-size", str(vocab_size)]) == 0
    assert main(["shard", "--corpus", str(corpus), "--row-length", str(row_length), "--workers", "1"]) == 0
    return corpus


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def corpus(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_corpus(raw, tmp_path_factory.mktemp("corpora") / "tiny")
