"""GLUE's tasks: what they are, what their files look like, and how their labels read.

Tasks are rows of one table. Knows nothing of tokenizers, models or training.
Source: Wang et al. 2019, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding".
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_prep.errors import UserError
from pipeline.objectives.tasks import Example, Task
from pipeline.objectives.text_lines import read_lines

Split = Literal["train", "dev"]
HUB_DATASET = "nyu-mll/glue"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GlueTask(Task):
    """One row of the table: a task, and what its files and the hub's rows look like.

    A task whose files have no header names its columns by position, in `header`. `label_names` are the hub's words for
    the labels; a task without labels is a regression over `score_range`.
    """

    hub_config: str
    hub_columns: tuple[str, ...]
    header: tuple[str, ...] | None = None
    dev_files: tuple[str, ...] = ("dev",)
    hub_dev_split: str = "validation"
    score_range: tuple[float, float] = (0.0, 5.0)
    drops_short_rows: bool = False


_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")

TASKS: dict[str, GlueTask] = {
    task.name: task
    for task in (
        GlueTask(
            "SST-2", ("sentence",), "label", ("0", "1"), ("negative", "positive"), ("accuracy",), "sst2",
            ("sentence",),
        ),
        GlueTask(
            "CoLA", ("sentence",), "label", ("0", "1"), ("unacceptable", "acceptable"), ("matthews",), "cola",
            ("sentence",), header=("source", "label", "star", "sentence"),
        ),
        GlueTask(
            "MRPC", ("#1 String", "#2 String"), "Quality", ("0", "1"), ("not_equivalent", "equivalent"),
            ("accuracy", "f1"), "mrpc", _PAIR,
        ),
        GlueTask("RTE", _PAIR, "label", _ENTAILMENT, _ENTAILMENT, ("accuracy",), "rte", _PAIR),
        GlueTask("STS-B", _PAIR, "score", (), (), ("pearson", "spearman"), "stsb", _PAIR),
        GlueTask(
            "QNLI", ("question", "sentence"), "label", _ENTAILMENT, _ENTAILMENT, ("accuracy",), "qnli",
            ("question", "sentence"),
        ),
        # GLUE's own QQP files hold a few rows that a line break inside a question cut in two; every reader drops them.
        GlueTask(
            "QQP", ("question1", "question2"), "is_duplicate", ("0", "1"), ("not_duplicate", "duplicate"),
            ("accuracy", "f1"), "qqp", ("question1", "question2"), drops_short_rows=True,
        ),
        # The 80/20 cut of a partial copy is plain train.tsv and dev.tsv, hence the second name.
        GlueTask(
            "MNLI", _PAIR, "gold_label", ("entailment", "neutral", "contradiction"),
            ("entailment", "neutral", "contradiction"), ("accuracy",), "mnli", ("premise", "hypothesis"),
            dev_files=("dev_matched", "dev"), hub_dev_split="validation_matched",
        ),
    )
}  # fmt: skip


def find_task(name: str) -> GlueTask:
    """The task of this name, as `task_named` finds it. Raises UserError listing all names."""
    task = task_named(name)
    if task is None:
        raise UserError(f"there is no task {name!r}; known are {', '.join(TASKS)}")
    return task


def task_named(name: str) -> GlueTask | None:
    """The task of this name, upper or lower case, with or without its hyphen; None where GLUE has none."""
    wanted = name.lower().replace("-", "")
    return next((task for task in TASKS.values() if task.name.lower().replace("-", "") == wanted), None)


def read_task(task: GlueTask, split: Split, folder: Path | None) -> list[Example]:
    """The examples of a split, in the files' order.

    From GLUE's files in `folder` (the folder that holds SST-2/, CoLA/, ..., or the task's own), or from the hub where
    no folder is given. Raises UserError naming file and line of a bad row, or what is missing.
    """
    examples = _read_hub(task, split) if folder is None else list(_read_file(task, find_file(task, split, folder)))
    if not examples:
        raise UserError(f"{task.name} has no {split} rows in {folder or HUB_DATASET}")
    return examples


def find_file(task: GlueTask, split: Split, folder: Path) -> Path:
    """The TSV of a split, plain or gzipped. Raises UserError listing where it was looked for."""
    stems = task.dev_files if split == "dev" else ("train",)
    places = [folder / task.name, folder]
    for place in places:
        for stem in stems:
            for path in (place / f"{stem}.tsv", place / f"{stem}.tsv.gz"):
                if path.is_file():
                    return path
    names = " or ".join(f"{stem}.tsv[.gz]" for stem in stems)
    raise UserError(
        f"{task.name} has no {split} file: looked for {names} in {' and '.join(map(str, places))}; "
        "--data is a folder of GLUE's TSV files, or leave it out to take them from the hub"
    )


def _read_file(task: GlueTask, path: Path) -> Iterator[Example]:
    lines = read_lines(path)
    header = list(task.header or next(lines, (1, ""))[1].split("\t"))
    missing = [name for name in (*task.columns, task.label_column) if name not in header]
    if missing:
        raise UserError(
            f"{path}, line 1: a {task.name} file has columns {', '.join(missing)}, found {', '.join(header)}"
        )
    texts = [header.index(name) for name in task.columns]
    label = header.index(task.label_column)
    dropped = 0
    for number, line in lines:
        # No quoting: GLUE's texts hold single quotation marks that open nothing.
        cells = line.split("\t")
        if len(cells) < len(header) and task.drops_short_rows:
            dropped += 1
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(cells)} columns, expected {len(header)} ({', '.join(header)})"
            )
        try:
            value = parse_label(task, cells[label])
        except ValueError as error:
            raise UserError(f"{path}, line {number}, column {task.label_column}: {error}") from None
        yield Example(cells[texts[0]], cells[texts[1]] if len(texts) > 1 else None, value)
    if dropped:
        _log.warning("%s: %d rows with too few columns left out (GLUE's %s has such rows)", path, dropped, task.name)


def parse_label(task: GlueTask, text: str) -> float:
    """The class index, or the score, that a file's word stands for. Raises ValueError for any other word."""
    if not task.is_regression:
        if text not in task.labels:
            raise ValueError(f"label {text!r} is none of {', '.join(task.labels)}")
        return task.labels.index(text)
    low, high = task.score_range
    try:
        score = float(text)
    except ValueError:
        raise ValueError(f"score {text!r} is not a number") from None
    if not low <= score <= high:
        raise ValueError(f"score {text!r} is not between {low:g} and {high:g}")
    return score


def _read_hub(task: GlueTask, split: Split) -> list[Example]:
    import datasets

    hub_split = task.hub_dev_split if split == "dev" else "train"
    try:
        rows = datasets.load_dataset(HUB_DATASET, task.hub_config, split=hub_split)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{task.name} ({hub_split}) could not be taken from the hub's {HUB_DATASET} "
            f"({type(error).__name__}: {error}); where there is no network, pass --data FOLDER with GLUE's TSV files"
        ) from error
    texts = [rows[name] for name in task.hub_columns]
    seconds = texts[1] if len(texts) > 1 else [None] * len(rows)
    # The hub keeps scores as 32-bit floats: 3.8 comes as 3.7999999523.
    labels = [round(value, 6) for value in rows["label"]]
    return [Example(*row) for row in zip(texts[0], seconds, labels, strict=True)]
