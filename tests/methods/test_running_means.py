"""Sums on the device, read rarely; the first value that was not finite is named."""

from collections.abc import Mapping

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.methods.running_means import RunningMeans


def add(means: RunningMeans, values: Mapping[str, float], step: int) -> None:
    means.add(list(values), torch.tensor(list(values.values())), step)


def test_means_over_interval_and_epoch() -> None:
    means = RunningMeans()
    for step, value in enumerate([1.0, 3.0]):
        add(means, {"a": value, "b": -value}, step)
    assert means.read_interval() == {"a": 2.0, "b": -2.0}
    add(means, {"a": 5.0, "b": 0.0}, 2)
    assert means.read_interval() == {"a": 5.0, "b": 0.0}
    assert means.read_epoch() == {"a": 3.0, "b": pytest.approx(-4 / 3)}


def test_epochs_are_separate() -> None:
    means = RunningMeans()
    add(means, {"a": 1.0}, 0)
    means.read_epoch()
    add(means, {"a": 9.0}, 1)
    assert means.read_epoch() == {"a": 9.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_first_bad_step_and_term_are_named(bad: float) -> None:
    means = RunningMeans()
    for step in range(6):
        add(means, {"a/hard": bad if step > 3 else 1.0, "a/soft": bad if step > 2 else 1.0}, step)
    with pytest.raises(UserError, match=r"a/soft was not finite at step 3: .*lower optimizer.lr"):
        means.read_interval()


def test_the_learning_rate_is_no_cause_at_the_first_step() -> None:
    means = RunningMeans()
    add(means, {"a": float("nan")}, 0)
    with pytest.raises(UserError, match="nothing was learnt before, so look for values") as caught:
        means.check_finite()
    assert "optimizer.lr" not in str(caught.value)


def test_a_known_cause_is_named() -> None:
    means = RunningMeans()
    means.cause = lambda: "the teacher is wrong"
    add(means, {"a": float("nan")}, 5)
    with pytest.raises(UserError, match="last good checkpoint; the teacher is wrong"):
        means.check_finite()
