"""One run: its recipe, its engine config, its folders. Knows nothing of torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.corpus import Corpus as CorpusFolder
from pipeline.runs.folder import RunFolder
from data_prep.errors import UserError
from data_prep.files import write_atomically
from pipeline.recipes.recipe import Recipe, parse_recipe


@dataclass(frozen=True)
class Run:
    """One run: its recipe, its engine config and its folders."""

    recipe: Recipe
    engine: dict[str, Any]
    folder: RunFolder
    corpus: CorpusFolder

    @property
    def shards(self) -> Path:
        """The rows that the run trains and validates on."""
        return self.corpus.shards(self.recipe.corpus.packing, self.recipe.corpus.row_length)

    @property
    def long_shards(self) -> Path | None:
        """The longer rows of its last steps, where the recipe has them."""
        length = self.recipe.corpus.long_row_length
        return None if length is None else self.corpus.shards(self.recipe.corpus.packing, length)

    @property
    def search(self) -> RunFolder:
        """The run folder whose search this run draws its ticket from: its own, or that of `search.run`."""
        other = self.recipe.search.run
        return self.folder if other is None else self.folder.beside(other)

    @classmethod
    def open(cls, root: Path, name: str) -> "Run":
        """A run that was set up before. Raises UserError when there is none of that name."""
        folder = RunFolder(root / "runs" / name)
        if not folder.recipe.exists():
            known = sorted(path.parent.name for path in (root / "runs").glob("*/recipe.json"))
            raise UserError(f"there is no run {name!r} in {root / 'runs'}; known are: {', '.join(known) or 'none'}")
        values = json.loads(folder.recipe.read_text(encoding="utf-8"))
        recipe = parse_recipe(values["recipe"], origin=str(folder.recipe))
        return cls.of(root, name, recipe, values["engine"])

    @classmethod
    def of(cls, root: Path, name: str, recipe: Recipe, engine: dict[str, Any]) -> "Run":
        """A run by its name, new or not; nothing is written before `save`."""
        corpus = CorpusFolder(root / "corpora" / recipe.corpus.name)
        return cls(recipe, engine, RunFolder(root / "runs" / name), corpus)

    def save(self) -> "Run":
        """Keep recipe and engine config in the run folder, where the stages' processes read them."""
        self.folder.root.mkdir(parents=True, exist_ok=True)
        values = {"recipe": self.recipe.model_dump(mode="json"), "engine": self.engine}
        write_atomically(self.folder.recipe, json.dumps(values, indent=1) + "\n")
        return self
