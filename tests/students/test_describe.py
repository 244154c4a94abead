"""The description says how images were resized, also for runs of older versions."""

import pytest
import torch

from kd_lightning.evaluation.metrics import classification_metrics
from kd_lightning.students.describe import MEANINGS, resizing_of

KEYS = ("resize", "crop_fraction", "interpolation", "exif")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("squash", 0.5, "bicubic", False), ("squash", 0.5, "bicubic", False)),
        ((None, 0.8, None, None), ("crop", 0.8, "bilinear", False)),  # before these keys existed
        ((None, None, None, None), ("crop", 1.0, "bilinear", True)),  # images in memory
    ],
)
def test_resizing_is_that_of_the_data_set(values: tuple, expected: tuple) -> None:
    found = resizing_of(dict(zip(KEYS, values, strict=True)))
    assert found == dict(zip(KEYS, expected, strict=True))


def test_every_metric_of_the_test_has_a_meaning() -> None:
    metrics = classification_metrics(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    assert {*metrics, "robust_accuracy"} == MEANINGS.keys()
