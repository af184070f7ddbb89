"""What a task of texts is, be it one of GLUE's or somebody's own, and how its predictions are scored.

Knows nothing of files, tokenizers, models or training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from data_prep.errors import UserError


@dataclass(frozen=True)
class Example:
    """One sentence or pair. `label` is the index into the task's labels, or the score of a regression task."""

    first: str
    second: str | None
    label: float


@dataclass(frozen=True)
class Task:
    """Classes of texts, or scores of them.

    `columns` are the names of the one or two columns of texts and `label_column` of the label. `labels` are the words
    in the files, in the order of their class indices, `label_names` what people call them; a task without labels is a
    regression. `metrics` are names of METRICS.
    """

    name: str
    columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]

    @property
    def is_pair(self) -> bool:
        """Whether a row has two texts."""
        return len(self.columns) == 2

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def num_outputs(self) -> int:
        """Logits the classifier has: one a class, or one for a regression."""
        return len(self.labels) or 1


def predictions_of(task: Task, logits: np.ndarray) -> np.ndarray:
    """(n, outputs) logits to (n,) class indices, or scores. Raises UserError where they are not finite."""
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"{broken} of {len(logits)} predictions for {task.name} are not finite: fine-tuning diverged; "
            "lower optimizer.lr, or check the model's weights"
        )
    return logits[:, 0] if task.is_regression else logits.argmax(axis=1)


Metric = Callable[[np.ndarray, np.ndarray], float]


def _correlation(function: Metric) -> Metric:
    """`function` where it is defined; 0, "explains nothing", where labels or predictions are all the same."""

    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        return 0.0 if np.ptp(predictions) == 0 or np.ptp(labels) == 0 else function(labels, predictions)

    return correlation


REGRESSION_METRICS: dict[str, Metric] = {
    "pearson": _correlation(lambda labels, predictions: pearsonr(labels, predictions)[0]),
    "spearman": _correlation(lambda labels, predictions: spearmanr(labels, predictions)[0]),
}
CLASS_METRICS: dict[str, Metric] = {
    "accuracy": accuracy_score,
    "f1": lambda labels, predictions: f1_score(labels, predictions, pos_label=1, zero_division=0.0),
    "f1_macro": lambda labels, predictions: f1_score(labels, predictions, average="macro", zero_division=0.0),
    "matthews": _correlation(matthews_corrcoef),
}
METRICS: dict[str, Metric] = CLASS_METRICS | REGRESSION_METRICS


def score(task: Task, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The task's metrics and their unweighted mean, "headline", all in percent as GLUE reports them.

    predictions, labels: (n,) class indices, or scores. The headline is GLUE's rule for tasks of two metrics (MRPC and
    QQP: accuracy and F1 of class 1; STS-B: Pearson and Spearman); CoLA's is the Matthews correlation. `f1` is that of
    class 1, `f1_macro` the mean of all classes that occur. A correlation with a constant counts as 0.
    """
    values = {name: 100.0 * float(METRICS[name](labels, predictions)) for name in task.metrics}
    return values | {"headline": math.fsum(values.values()) / len(values)}
