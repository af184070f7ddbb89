"""The run folder: where each stage reads and writes. Knows nothing of torch.

Stages speak to each other only through these files.
"""

from dataclasses import dataclass
from pathlib import Path

from data_prep.manifest import (
    MANIFEST_NAME,
    UserError,
    differing_keys,
    fsync_folder,
    git_commit,
    is_done,
    read_manifest,
    sha256_file,
    sha256_json,
    write_atomically,
    write_manifest,
)

__all__ = [
    "MANIFEST_NAME",
    "CorpusFolder",
    "RunFolder",
    "UserError",
    "differing_keys",
    "fsync_folder",
    "git_commit",
    "is_done",
    "read_manifest",
    "sha256_file",
    "sha256_json",
    "write_atomically",
    "write_manifest",
]


@dataclass(frozen=True)
class CorpusFolder:
    """corpora/NAME: made once from raw text, shared by runs."""

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

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def index(self) -> Path:
        return self.shards / "index.json"


@dataclass(frozen=True)
class RunFolder:
    """runs/NAME: one folder a stage, each with its manifest written last."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.json"

    @property
    def search(self) -> Path:
        return self.root / "search"

    @property
    def scores(self) -> Path:
        return self.search / "scores"

    @property
    def draw(self) -> Path:
        return self.root / "draw"

    @property
    def ticket(self) -> Path:
        return self.root / "ticket.json"

    @property
    def pretrain(self) -> Path:
        return self.root / "pretrain"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def model_expanded(self) -> Path:
        return self.root / "model-expanded"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def finetune(self, task: str, seed: int) -> Path:
        return self.root / "finetune" / task / f"seed-{seed}"
