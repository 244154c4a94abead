"""Which classes a net recognizes, and which ones it confuses: from the confusion matrix.

Dimensions: N samples, C classes. Row i, column j of the matrix: samples of class i that are
predicted as class j. A value that has no samples to be computed from is NaN.
"""

import math
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

Matrix = Int[Tensor, "C C"]


def recall(matrix: Matrix) -> Float[Tensor, " C"]:
    """Share of the samples of each class that are predicted as this class."""
    return matrix.diagonal().double() / matrix.sum(1)


def precision(matrix: Matrix) -> Float[Tensor, " C"]:
    """Share of the predictions of each class that are right."""
    return matrix.diagonal().double() / matrix.sum(0)


def f1(matrix: Matrix) -> Float[Tensor, " C"]:
    """Harmonic mean of precision and recall of each class. 0 if the class has samples or
    predictions, and none of them is right.
    """
    return 2 * matrix.diagonal().double() / (matrix.sum(0) + matrix.sum(1))


def balanced_accuracy(matrix: Matrix) -> float:
    """Mean recall of the classes that have samples."""
    return recall(matrix).nanmean().item()


def macro_f1(matrix: Matrix) -> float:
    """Mean F1 of the classes that have samples or predictions."""
    return f1(matrix).nanmean().item()


def class_rows(matrix: Matrix, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each class: n, precision, recall, F1, and the class with which its samples are
    confused most often, with the number of these samples. None: there is no such value.
    """
    wrong = matrix.clone().fill_diagonal_(0)
    most = wrong.max(1)  # of equal counts, the first class
    columns = (precision(matrix), recall(matrix), f1(matrix), most.values, most.indices)
    rows = []
    for name, n, *shares, count, other in zip(
        class_names, matrix.sum(1).tolist(), *(column.tolist() for column in columns), strict=True
    ):
        values = [None if math.isnan(share) else share for share in shares]
        row = dict(zip(("precision", "recall", "f1"), values, strict=True))
        confused = {"confused_with": class_names[other], "times": count} if count else {}
        rows.append(
            {"class": name, "n": n, **row, "confused_with": None, "times": None, **confused}
        )
    return rows
