"""Sums on the device, read rarely; the first value that was not finite is named."""

import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.methods.ledger import Ledger


def test_means_over_interval_and_epoch() -> None:
    ledger = Ledger()
    for step, value in enumerate([1.0, 3.0]):
        ledger.add({"a": torch.tensor(value), "b": torch.tensor(-value)}, step)
    assert ledger.read_interval() == {"a": 2.0, "b": -2.0}
    ledger.add({"a": torch.tensor(5.0), "b": torch.tensor(0.0)}, 2)
    assert ledger.read_interval() == {"a": 5.0, "b": 0.0}
    assert ledger.read_epoch() == {"a": 3.0, "b": pytest.approx(-4 / 3)}


def test_epochs_are_separate() -> None:
    ledger = Ledger()
    ledger.add({"a": torch.tensor(1.0)}, 0)
    ledger.read_epoch()
    ledger.add({"a": torch.tensor(9.0)}, 1)
    assert ledger.read_epoch() == {"a": 9.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_first_bad_step_and_term_are_named(bad: float) -> None:
    ledger = Ledger()
    for step in range(6):
        ledger.add(
            {
                "a/hard": torch.tensor(bad if step > 3 else 1.0),
                "a/soft": torch.tensor(bad if step > 2 else 1.0),
            },
            step,
        )
    with pytest.raises(UserError, match=r"a/soft was not finite at step 3"):
        ledger.read_interval()


def test_nothing_is_kept_of_the_graph() -> None:
    ledger = Ledger()
    ledger.add({"a": torch.ones((), requires_grad=True) * 2}, 0)
    assert not ledger._epoch.requires_grad
