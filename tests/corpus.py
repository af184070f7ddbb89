"""A corpus small enough for any test: synthetic sentences through the real data preparation."""

import random
from pathlib import Path

from data_prep.__main__ import main as data_prep

SUBJECTS = ("the captain", "her sister", "an old dog", "the king", "nobody", "my neighbour", "a young sailor")
VERBS = ("saw", "followed", "forgot", "loved", "carried", "painted", "sold")
OBJECTS = ("the letter", "a green boat", "the river", "seven apples", "his house", "the whole town", "a song")


def sentences(count: int, seed: int) -> str:
    pick = random.Random(seed)
    lines = (f"{pick.choice(SUBJECTS)} {pick.choice(VERBS)} {pick.choice(OBJECTS)}." for _ in range(count))
    return " ".join(line.capitalize() for line in lines)


def tiny_corpus(root: Path, documents: int = 40, vocab_size: int = 256, row_length: int = 32) -> Path:
    """The corpus folder, with its clean/, tokenizer/ and shards/."""
    raw, out = root / "raw", root / "corpora" / "tiny"
    raw.mkdir(parents=True)
    for number in range(documents):
        paragraphs = "\n\n".join(sentences(6, seed=number * 10 + i) for i in range(3))
        (raw / f"story{number:03d}.txt").write_text(paragraphs + "\n", encoding="utf-8")
    commands = (
        ["ingest", "--source", str(raw), "--out", str(out), "--val-fraction", "0.2", "--filters", "none"],
        ["tokenizer", "--corpus", str(out), "--vocab-size", str(vocab_size)],
        ["shard", "--corpus", str(out), "--row-length", str(row_length)],
    )
    for command in commands:
        assert data_prep([*command, *(["--workers", "1"] if command[0] != "tokenizer" else [])]) == 0
    return out
