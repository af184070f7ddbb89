"""Predictions of tasks, and their metrics against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.objectives.glue import TASKS
from pipeline.objectives.tasks import METRICS, Task, predictions_of, score

# 3 of 5 right; of class 1: 2 found, 1 missed, 1 false.
LABELS, GUESSES = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])


def test_accuracy_and_f1_by_hand() -> None:
    assert score(TASKS["MRPC"], GUESSES, LABELS) == pytest.approx(
        {"accuracy": 60.0, "f1": 200 / 3, "headline": (60 + 200 / 3) / 2}
    )
    assert score(TASKS["SST-2"], GUESSES, LABELS) == pytest.approx({"accuracy": 60.0, "headline": 60.0})


def test_matthews_by_hand() -> None:
    # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (2*1 - 1*1) / sqrt(3*3*2*2)
    assert score(TASKS["CoLA"], GUESSES, LABELS) == pytest.approx({"matthews": 100 / 6, "headline": 100 / 6})


def test_correlations_by_hand() -> None:
    # Deviations (-1.5, -.5, .5, 1.5) and (-3.5, -2.5, .5, 5.5): 15 / sqrt(5 * 49); the order is the same.
    labels = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    found = score(TASKS["STS-B"], np.array([0.0, 1.0, 4.0, 9.0]), labels)
    pearson = 100 * 15 / math.sqrt(245)
    assert found == pytest.approx({"pearson": pearson, "spearman": 100.0, "headline": (pearson + 100) / 2})
    # Ranks swapped once: 1 - 6 * 2 / (4 * 15).
    assert score(TASKS["STS-B"], np.array([1.0, 0.0, 2.0, 3.0]), labels)["spearman"] == pytest.approx(80.0)


def test_one_answer_for_everything_scores_nothing() -> None:
    assert score(TASKS["STS-B"], np.full(4, 2.5), np.arange(4.0)) == {"pearson": 0, "spearman": 0, "headline": 0}
    assert score(TASKS["CoLA"], np.ones(5, int), LABELS)["headline"] == 0
    assert score(TASKS["QQP"], np.zeros(5, int), LABELS)["f1"] == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_scores_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    guesses, labels = (np.array(values) for values in zip(*pairs, strict=True))
    tp, fp, fn, tn = (pairs.count(pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    found = score(TASKS["QQP"], guesses, labels) | score(TASKS["CoLA"], guesses, labels)
    assert found["accuracy"] == pytest.approx(100 * (tp + tn) / len(pairs))
    assert found["f1"] == pytest.approx(200 * tp / (2 * tp + fp + fn) if tp else 0.0)
    assert found["matthews"] == pytest.approx(100 * (tp * tn - fp * fn) / below if below else 0.0)


def test_predictions_of_logits() -> None:
    logits = np.array([[0.1, 0.2, -1.0], [3.0, 2.0, 2.9]])
    assert predictions_of(TASKS["MNLI"], logits).tolist() == [1, 0]
    assert predictions_of(TASKS["STS-B"], np.array([[3.5], [-0.5]])).tolist() == [3.5, -0.5]
    logits[1, 2] = np.nan
    with pytest.raises(UserError, match=r"1 of 2 predictions for MNLI are not finite"):
        predictions_of(TASKS["MNLI"], logits)


THREE = Task("topics", ("text",), "label", ("a", "b", "c"), ("a", "b", "c"), ("accuracy", "f1_macro"))


def test_what_a_task_has() -> None:
    scores = Task("alike", ("first", "second"), "score", (), (), ("pearson",))
    assert (THREE.is_pair, THREE.is_regression, THREE.num_outputs) == (False, False, 3)
    assert (scores.is_pair, scores.is_regression, scores.num_outputs) == (True, True, 1)
    assert {metric for task in TASKS.values() for metric in task.metrics} | {"f1_macro"} == METRICS.keys()


def test_f1_of_many_classes_by_hand() -> None:
    # a: 1 found, 1 missed, 0 false; b: 2 found, 0 missed, 2 false; c: 0 found, 1 missed.
    labels, guesses = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1])
    macro = 100 * (2 / 3 + 4 / 6 + 0) / 3
    assert score(THREE, guesses, labels) == pytest.approx(
        {"accuracy": 60.0, "f1_macro": macro, "headline": (60 + macro) / 2}
    )
