"""Texts with labels, as a recipe names them: a task of GLUE, or people's own. Knows no torch."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.files import sha256_json
from pipeline.objectives.glue import find_task, read_task, task_named
from pipeline.objectives.own_texts import read_own
from pipeline.objectives.tasks import Example, Task
from pipeline.recipes import sections


@dataclass(frozen=True)
class Texts:
    """A task and its rows, in the order of their files."""

    task: Task
    train: list[Example]
    dev: list[Example]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of what a training reads, a split; of the dev rows with the words for labels and metrics."""
        said = [[*self.task.label_names], [*self.task.metrics]]
        return {
            "train_rows": sha256_json([(e.first, e.second, e.label) for e in self.train]),
            "dev_rows": sha256_json([said, [(e.first, e.second, e.label) for e in self.dev]]),
        }


def read_texts(chosen: sections.Task) -> Texts:
    """The rows of a recipe's [task]: GLUE's by its name, unless columns are named, which GLUE's files do not need.

    Raises UserError naming what is missing or wrong, with its file and line.
    """
    if chosen.source is None or (task_named(chosen.name or "") and not chosen.text):
        task = find_task(chosen.name or "")
        folder = Path(chosen.source) if chosen.source else None
        return Texts(task, read_task(task, "train", folder), read_task(task, "dev", folder))
    read = read_own(chosen.name or "texts", chosen.source, chosen.text, chosen.label, chosen.metrics, chosen.dev)
    return Texts(*read)
