import math

import pytest
import torch
from torch import Tensor

from kd_lightning.evaluation.robustness.out_of_distribution import auroc, fpr95, scores


def numbers(*values: float) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (numbers(3, 4), numbers(1, 2), 1),
        (numbers(1, 2), numbers(3, 4), 0),
        (numbers(1, 1), numbers(1, 1, 1), 0.5),
        (numbers(1, 3), numbers(2, 0), 3 / 4),
        (numbers(2, 3), numbers(2, 0), 3.5 / 4),  # one tie
    ],
)
def test_auroc_counts_the_pairs(own: Tensor, other: Tensor, expected: float) -> None:
    assert auroc(own, other) == pytest.approx(expected)


def test_fpr95_is_at_the_highest_threshold_that_accepts_95_percent() -> None:
    own = torch.arange(1.0, 21)  # of 20 samples 19 must be accepted: the threshold is 2
    assert fpr95(own, numbers(1, 1.9, 2, 30)) == 0.5
    assert fpr95(own[1:], numbers(1, 1.9, 2, 30)) == 0.5  # 19 samples: all of them
    assert fpr95(own, numbers(0, 1)) == 0
    assert fpr95(own.flip(0), numbers(2)) == 1


def test_a_tie_at_the_threshold_is_accepted() -> None:
    assert fpr95(torch.ones(10), torch.ones(3)) == 1


def test_scores_are_their_formulas_and_high_for_certain_predictions() -> None:
    logits = torch.tensor([[4.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = scores(logits)
    assert list(found) == ["max probability", "entropy", "energy"]
    p = logits.softmax(1)
    torch.testing.assert_close(found["max probability"], (p[:, 0] / (1 - p[:, 0])).log())
    torch.testing.assert_close(found["entropy"], (p * p.log()).sum(1))
    assert found["energy"][0].item() == pytest.approx(math.log(math.exp(4) + 2))
    assert all(values[0] > values[1] for values in found.values())


def test_certain_predictions_are_still_told_apart() -> None:
    certain = torch.tensor([[200.0, 0.0], [100.0, 0.0]])
    assert certain.softmax(1)[:, 0].tolist() == [1, 1]
    first, second = scores(certain)["max probability"]
    assert first > second
