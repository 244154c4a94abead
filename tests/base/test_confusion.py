import numpy as np
import torch

from kd_lightning.base.confusion import confusion_matrix


def test_a_row_is_a_class_and_a_column_a_prediction() -> None:
    predicted, labels = [1, 1, 0], [0, 0, 2]
    for values in (
        np.array([predicted, labels], dtype=np.int32),
        torch.tensor([predicted, labels]),
    ):
        matrix = confusion_matrix(*values, 3)
        assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_many_classes_do_not_overflow_small_integers() -> None:
    labels = np.array([999], dtype=np.int16)
    assert confusion_matrix(labels, labels, 1000)[999, 999] == 1
