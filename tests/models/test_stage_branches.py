"""Branches that end with the last stages of another net."""

import pytest
import torch
from torch import nn

from kd_lightning.models.classifier import Classifier
from kd_lightning.models.stage_branches import LinearBranch, StudentBranch, stage_pairs


def stages(*sizes: int) -> dict[str, tuple[int, int, int]]:
    return {f"s{n}": (3, size, size) for n, size in enumerate(sizes, 1)}


@pytest.mark.parametrize(
    ("mine", "theirs", "pairs"),
    [
        ((32, 16, 8), (32, 16, 8), ["s1 s1", "s2 s2"]),
        ((32, 16, 8, 4), (32, 16, 8), ["s1 s1", "s2 s2"]),  # 8 is the student's last
        ((32, 16, 8), (16, 16, 16, 8, 4), ["s2 s3"]),
        ((40, 40, 40), (40, 40, 40, 40), ["s1 s2", "s2 s3"]),
        ((32, 16, 8, 4), (30, 15, 7), ["s2 s1", "s3 s2"]),  # no size agrees: from the end
        ((32, 16), (7, 5, 3), ["s1 s2"]),
    ],
)
def test_stages_of_one_size_correspond_the_last_with_the_last(
    mine: tuple, theirs: tuple, pairs: list[str]
) -> None:
    assert stage_pairs(stages(*mine), stages(*theirs)) == [tuple(pair.split()) for pair in pairs]


def small() -> Classifier:
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.Conv2d(6, 7, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Classifier(trunk=trunk, head=nn.Linear(7, 5), dropout=0.0)


def test_a_branch_is_a_convolution_and_the_tail_of_the_other_net() -> None:
    torch.manual_seed(0)
    branch = StudentBranch((9, 8, 8), "trunk.1", (6, 2, 2), small, torch.zeros(1, 3, 8, 8)).eval()
    x = torch.randn(3, 9, 8, 8)
    inside = nn.functional.adaptive_avg_pool2d(branch.transform(x), 2)
    torch.testing.assert_close(branch(x), branch.tail(inside))
    assert branch(x).shape == (3, 5)
    assert branch.transform[0].weight.shape == (6, 9, 1, 1)
    # the transform, the third convolution and the head
    assert {tuple(p.shape) for p in branch.parameters()} == {
        *((6, 9, 1, 1), (6,), (7, 6, 3, 3), (7,), (5, 7), (5,)),
    }


def test_each_branch_has_weights_of_its_own() -> None:
    example = torch.zeros(1, 3, 8, 8)
    one, other = (StudentBranch((9, 2, 2), "trunk.1", (6, 2, 2), small, example) for _ in range(2))
    assert not torch.equal(one.tail.head.weight, other.tail.head.weight)


def test_a_linear_branch_is_a_linear_layer_on_the_mean() -> None:
    branch = LinearBranch((9, 8, 8), 5)
    x = torch.randn(3, 9, 8, 8)
    torch.testing.assert_close(branch(x), branch.head(x.mean((2, 3))))
