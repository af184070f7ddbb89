"""Tasks of people's own texts: which columns hold them, and what classes or scores the labels are.

Knows nothing of how files are read, of tokenizers, models or training.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.errors import UserError
from pipeline.objectives.own_tables import Table, listed, read_tables
from pipeline.objectives.tasks import CLASS_METRICS, METRICS, REGRESSION_METRICS, Example, Task

# What columns of texts are called where nobody says so: a pair, or one text.
_COMMON = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "answer"), ("question", "context"), ("question", "passage"), ("query", "passage"),
    ("claim", "evidence"), ("text1", "text2"), ("text_a", "text_b"),
    ("text",), ("sentence",), ("content",), ("review",), ("comment",), ("tweet",), ("question",),
)  # fmt: skip
# Numbers as people and programs write them: "007" is a word.
_NUMBER = re.compile(
    r"[+-]?(?:(?:(?:0|[1-9][0-9]{0,16})(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf(?:inity)?)", re.IGNORECASE
)
# What would part a line of predictions.
_LINE_ENDS = frozenset("\t\r\n")
_NAME = re.compile(r"\w[\w.-]*")


def read_own(
    name: str, source: str, text: Sequence[str], label: str, metrics: Sequence[str], dev: str | None
) -> tuple[Task, list[Example], list[Example]]:
    """The task that somebody's own texts are, its train and its dev examples, in the order of their rows.

    `source` and `dev` are those of `read_tables`. `text` names the one or two columns of texts, none: those of a
    common name; `label` that of the labels. Words and integers are classes, in the order of the hub's class names,
    of numbers, or of words; numbers with fractions are scores, as are all if `metrics` are of scores. Without
    `metrics` these are accuracy and f1 (two classes) or f1_macro (more), or pearson and spearman.
    Raises UserError naming file and row for a text or label that is missing or cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"a task cannot be called {name!r}: wanted letters, digits, '_', '-' and '.', for a folder")
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise UserError(f"there is no metric {unknown[0]!r}; known are {', '.join(METRICS)}")
    train, dev_table = read_tables(source, dev)
    label = _column(train, label)
    columns = _text_columns(train, text, label)
    texts = [[_texts(table, column) for column in columns] for table in (train, dev_table)]
    wants_scores = any(metric in REGRESSION_METRICS for metric in metrics)
    classes, *labels = _targets(_read_labels(train, label), _read_labels(dev_table, label), wants_scores)
    task = Task(name, columns, label, classes, classes, _metrics(metrics, classes, train.origin))
    examples = [
        [Example(*row) for row in zip(own[0], own[1] if task.is_pair else [None] * len(own[0]), values, strict=True)]
        for own, values in zip(texts, labels, strict=True)
    ]
    return task, examples[0], examples[1]


# Columns


def _column(table: Table, wanted: str) -> str:
    """The column of this name, or of the one that differs from it by capitals only."""
    alike = [name for name in table.columns if name.casefold() == wanted.casefold()]
    if wanted in alike or len(alike) != 1:
        table.column(wanted)
        return wanted
    return alike[0]


def _text_columns(table: Table, wanted: Sequence[str], label: str) -> tuple[str, ...]:
    if wanted:
        found = tuple(_column(table, name) for name in wanted)
        if len(found) > 2 or len({*found, label}) != len(found) + 1:
            raise UserError(
                f"a row has one or two texts and a label, each in a column of its own; asked for are the texts "
                f"{', '.join(found)} and the label {label}"
            )
        return found
    by_name = {name.casefold(): name for name in table.columns if name != label}
    there = [names for names in _COMMON if by_name.keys() >= {*names}]
    # A pair's columns may be common names of a single text too.
    whole = [names for names in there if not any({*names} < {*others} for others in there)]
    if len(whole) != 1:
        told = " or ".join("+".join(by_name[name] for name in names) for names in whole)
        raise UserError(
            f"{table.origin}: which columns hold the texts is not clear{f' ({told})' if told else ''}; name one or two "
            f"of {listed(table.columns)}"
        )
    return tuple(by_name[name] for name in whole[0])


def _texts(table: Table, column: str) -> list[str]:
    values = list(table.column(column))
    for row, value in enumerate(values):
        if problem := _problem_of(value):
            raise UserError(f"{table.place(row)}, column {column}: {problem}")
    return values


def _problem_of(value: object) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "the text is missing; fill it in, or leave the row out"
    if not isinstance(value, str):
        return f"found {type(value).__name__}, wanted a text; name another column"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"the text holds half a character ({error.reason}); mend it"
    return None


# Labels


@dataclass(frozen=True)
class _Labels:
    """A table's labels as words, and as numbers where they are some."""

    table: Table
    column: str
    words: list[str]
    numbers: list[float | None]

    def where(self, row: int) -> str:
        return f"{self.table.place(row)}, column {self.column}: label {self.words[row]!r}"


def _read_labels(table: Table, column: str) -> _Labels:
    words = []
    for row, value in enumerate(table.column(column)):
        word = _word(value)
        if not word or not _LINE_ENDS.isdisjoint(word):
            what = "the label is missing" if word == "" else f"{value!r} is no word or number to be a label"
            raise UserError(f"{table.place(row)}, column {column}: {what}; mend it, or leave the row out")
        words.append(word)
    numbers = [float(word) if _NUMBER.fullmatch(word) else None for word in words]
    return _Labels(table, column, words, numbers)


def _word(value: object) -> str | None:
    """A label as a word, "" where there is none, None for what can be no label."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    return value.strip() if isinstance(value, str) else None


def _targets(train: _Labels, dev: _Labels, wants_scores: bool) -> tuple[tuple[str, ...], list[float], list[float]]:
    """(classes, train labels, dev labels): indices into the classes, or scores where there are no classes."""
    hub_names = train.table.class_names.get(train.column)
    if None in train.numbers:
        names = keys = tuple(sorted(set(train.words)))
        found = [train.words, dev.words]
    elif hub_names is None and (wants_scores or _has_fraction(train) or _has_fraction(dev)):
        return (), _scores(train), _scores(dev)
    else:
        found = [_integers(labels) for labels in (train, dev)]
        keys = tuple(sorted(set(found[0]), key=int)) if hub_names is None else tuple(map(str, range(len(hub_names))))
        if keys != ("-1", "1"):
            for labels, integers in zip((train, dev), found, strict=True):
                _refuse_hidden(labels, integers)
        names = hub_names or keys
    if len(names) < 2:
        raise UserError(f"{train.table.origin}, column {train.column}: every label is {names[0]!r}; wanted two or more")
    indices = {key: float(index) for index, key in enumerate(keys)}
    for labels, own in zip((train, dev), found, strict=True):
        unknown = next((row for row, key in enumerate(own) if key not in indices), None)
        if unknown is not None:
            raise UserError(f"{labels.where(unknown)} is none of those of {train.table.origin}: {listed(names)}")
    return names, [indices[key] for key in found[0]], [indices[key] for key in found[1]]


def _has_fraction(labels: _Labels) -> bool:
    return any(value is not None and not value.is_integer() for value in labels.numbers)


def _integers(labels: _Labels) -> list[str]:
    """ "1", "+1" and "1.0" are the same class."""
    pairs = zip(labels.words, labels.numbers, strict=True)
    return [word if number is None else str(int(number)) for word, number in pairs]


def _refuse_hidden(labels: _Labels, words: list[str]) -> None:
    if "-1" in words:
        raise UserError(
            f"{labels.where(words.index('-1'))} stands for a hidden or missing one, as in the hub's test splits; name "
            "another table for dev, or leave such rows out (if it is a class of yours, write words for the classes)"
        )


def _scores(labels: _Labels) -> list[float]:
    scores = []
    for row, value in enumerate(labels.numbers):
        if value is None or not math.isfinite(value):
            raise UserError(f"{labels.where(row)} is not a finite number, as the scores in {labels.table.origin} are")
        scores.append(value)
    if {*scores} == {-1.0}:
        _refuse_hidden(labels, ["-1"])
    return scores


def _metrics(wanted: Sequence[str], classes: tuple[str, ...], origin: str) -> tuple[str, ...]:
    if not wanted:
        return ("accuracy", "f1" if len(classes) == 2 else "f1_macro") if classes else tuple(REGRESSION_METRICS)
    fitting = CLASS_METRICS if classes else REGRESSION_METRICS
    for name in wanted:
        if name not in fitting:
            told = f"classes ({listed(classes)})" if classes else "scores"
            raise UserError(f"{name} is no metric of {told}, as the labels of {origin} are; take {', '.join(fitting)}")
        if name == "f1" and len(classes) != 2:
            raise UserError(f"f1 is of two classes, {origin} has {len(classes)} ({listed(classes)}); take f1_macro")
    return tuple(dict.fromkeys(wanted))
