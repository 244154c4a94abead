import warnings

import pytest
import torch
from sklearn import metrics

from kd_lightning.base.confusion import confusion_matrix
from kd_lightning.evaluation.per_class import (
    balanced_accuracy,
    class_rows,
    f1,
    macro_f1,
    precision,
    recall,
)

NAMES = ["cat", "dog", "fox", "owl"]
#                       cat dog fox owl: predicted
MATRIX = torch.tensor([[2, 2, 0, 0], [0, 3, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_values_by_hand() -> None:
    nan = float("nan")
    assert recall(MATRIX).tolist() == pytest.approx([0.5, 0.75, nan, nan], nan_ok=True)
    assert precision(MATRIX).tolist() == pytest.approx([1, 0.6, 0, nan], nan_ok=True)
    assert f1(MATRIX).tolist() == pytest.approx([2 / 3, 2 / 3, 0, nan], nan_ok=True)
    assert balanced_accuracy(MATRIX) == pytest.approx(0.625)
    assert macro_f1(MATRIX) == pytest.approx(4 / 9)


def test_they_agree_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(6, (2, 80), generator=generator)
    labels[labels == 5] = 0  # a class without samples
    matrix = torch.from_numpy(confusion_matrix(predicted, labels, 7))
    assert macro_f1(matrix) == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the class without samples
        expected = metrics.balanced_accuracy_score(labels, predicted)
    assert balanced_accuracy(matrix) == pytest.approx(expected)


def test_a_row_names_the_class_with_which_it_is_confused_most() -> None:
    rows = class_rows(MATRIX, NAMES)
    assert [(row["class"], row["n"], row["confused_with"], row["times"]) for row in rows] == [
        ("cat", 4, "dog", 2),
        ("dog", 4, "fox", 1),
        ("fox", 0, None, None),
        ("owl", 0, None, None),
    ]
    assert [rows[2][key] for key in ("precision", "recall", "f1")] == [0, None, 0]
    assert rows[3]["precision"] is None
