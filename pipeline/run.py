"""One run: its recipe, its engine config, its folders. Knows nothing of torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import CorpusFolder, RunFolder, UserError, write_atomically
from pipeline.config import Recipe, parse_recipe


@dataclass(frozen=True)
class Run:
    """One run: its recipe, its engine config and its folders."""

    recipe: Recipe
    engine: dict[str, Any]
    folder: RunFolder
    corpus: CorpusFolder

    @classmethod
    def open(cls, root: Path, name: str) -> "Run":
        """A run that was set up before. Raises UserError when there is none of that name."""
        folder = RunFolder(root / "runs" / name)
        if not folder.recipe.exists():
            known = sorted(path.parent.name for path in (root / "runs").glob("*/recipe.json"))
            raise UserError(f"there is no run {name!r} in {root / 'runs'}; known are: {', '.join(known) or 'none'}")
        values = json.loads(folder.recipe.read_text(encoding="utf-8"))
        recipe = parse_recipe(values["recipe"], origin=str(folder.recipe))
        return cls(recipe, values["engine"], folder, CorpusFolder(root / "corpora" / recipe.corpus.name))

    @classmethod
    def create(cls, root: Path, name: str, recipe: Recipe, engine: dict[str, Any]) -> "Run":
        """Set up a run, or open it again with a recipe: finished stages compare it with the one they were made from."""
        folder = RunFolder(root / "runs" / name)
        folder.root.mkdir(parents=True, exist_ok=True)
        values = {"recipe": recipe.model_dump(mode="json"), "engine": engine}
        write_atomically(folder.recipe, json.dumps(values, indent=1) + "\n")
        return cls(recipe, engine, folder, CorpusFolder(root / "corpora" / recipe.corpus.name))
