import math
from itertools import pairwise

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.running.schedules import constant, cosine, multistep

LR = 0.5


def rates(schedule, steps: int, **options) -> list[float]:
    """The learning rate of every step, as a share of the first."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=LR)
    scheduler = schedule(optimizer, steps, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        scheduler.step()
    return seen


def test_constant_stays():
    assert rates(constant, 5) == [1.0] * 5


def test_cosine_without_warmup_is_half_a_cosine():
    expected = [0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert rates(cosine, 10) == pytest.approx(expected)


def test_cosine_ends_at_the_final_share():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=LR)
    scheduler = cosine(optimizer, 10, final=0.1)
    for _ in range(13):  # also beyond the end
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * LR)


def test_warmup_rises_linearly_and_never_is_zero():
    seen = rates(cosine, 20, warmup=0.2)
    assert seen[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(after < before for before, after in pairwise(seen[4:]))


def test_a_cosine_that_ends_early_is_a_shorter_one_and_then_constant():
    seen = rates(cosine, 20, warmup=0.1, final=0.1, end=0.6)
    assert seen[:12] == pytest.approx(rates(cosine, 12, warmup=2 / 12, final=0.1))
    assert seen[12:] == pytest.approx([0.1] * 8)


def test_schedules_keep_their_shape_in_a_longer_run():
    for schedule, options in ((cosine, {}), (multistep, {"milestones": [0.5, 0.75]})):
        short, long = rates(schedule, 20, **options), rates(schedule, 40, **options)
        assert long[::2] == pytest.approx(short)


def test_multistep_multiplies_at_each_milestone():
    seen = rates(multistep, 8, milestones=[0.5, 0.75], gamma=0.1)
    assert seen == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)


@pytest.mark.parametrize(
    ("schedule", "options", "said"),
    [
        (cosine, {"warmup": 1.0}, r"scheduler.warmup must be in \[0, 1\), got 1.0"),
        (cosine, {"warmup": -0.1}, "scheduler.warmup"),
        (cosine, {"end": 1.5}, r"scheduler.end must be in \(0, 1\], got 1.5"),
        (cosine, {"end": 0.1, "warmup": 0.1}, "scheduler.end must be above"),
        (cosine, {"final": 1.5}, r"scheduler.final must be in \[0, 1\], got 1.5"),
        (
            multistep,
            {"milestones": [0.5, 1.0]},
            r"shares of the run, in \(0, 1\), got \[0.5, 1.0\]",
        ),
        (multistep, {"milestones": [150, 180]}, "scheduler.milestones are shares of the run"),
    ],
)
def test_values_out_of_range_are_refused(schedule, options, said):
    with pytest.raises(UserError, match=said):
        rates(schedule, 10, **options)
