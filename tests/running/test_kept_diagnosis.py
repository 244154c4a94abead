"""A diagnosis is made once for each teacher and its data, and says the same when it is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import DAMAGE
from helpers import ridge_net, with_order
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier, Prepare


def passes(check: Callable, net: nn.Module) -> tuple[int, list[str]]:
    """The number of batches that a check has given to the net's head, and what it said."""
    counted = []
    handle = net.head.register_forward_hook(lambda *call: counted.append(1))
    check.said.clear()
    check(net)
    handle.remove()
    return len(counted), list(check.said)


def with_wrong_input(check: Callable) -> Classifier:
    net = ridge_net(check.data)
    net.prepare = Prepare([-1.0], check.data.std)
    return net


def test_the_jobs_of_a_sweep_share_one_diagnosis(make_check: Callable) -> None:
    check = make_check({"teacher.check": "warn"})
    net = with_wrong_input(check)
    many, said = passes(check, net)
    assert ": add method.teacher.mean=[" in said[1]
    other_seed = make_check({"teacher.check": "warn", "seed": 5, "data.batch_size": 32})
    few, again = passes(other_seed, net)
    assert again == said
    assert few < many / 4


@pytest.mark.parametrize("damage", ["half", "one flipped bit", "another text", "not UTF-8"])
def test_a_damaged_diagnosis_is_made_again(
    damage: str, make_check: Callable, tmp_path: Path
) -> None:
    check = make_check({"teacher.check": "warn"})
    net = with_wrong_input(check)
    many, said = passes(check, net)
    (kept,) = tmp_path.glob("outputs/teachers/checks/*.json")
    content = kept.read_text()
    DAMAGE[damage](kept)
    assert passes(check, net) == (many, said)
    assert kept.read_text() == content
    assert passes(check, net)[0] < many / 4


@pytest.mark.parametrize("keys", [{"data.split_seed": 3}, {"method.teacher.input_size": 16}])
def test_other_data_or_another_use_are_diagnosed_anew(keys: dict, make_check: Callable) -> None:
    check = make_check({"teacher.check": "warn"})
    net = with_wrong_input(check)
    many, _ = passes(check, net)
    again, _ = passes(make_check({"teacher.check": "warn", **keys}), net)
    assert again > many / 4


def test_another_teacher_is_diagnosed_anew(make_check: Callable) -> None:
    check = make_check({"teacher.check": "warn"})
    many, first = passes(check, with_wrong_input(check))
    again, second = passes(check, with_order(with_wrong_input(check), torch.arange(10).roll(1)))
    assert again > many / 4
    assert second != first


def test_a_run_that_stops_keeps_nothing_and_one_without_a_finding_does(
    make_check: Callable, tmp_path: Path
) -> None:
    check = make_check()
    with pytest.raises(UserError):
        check(with_wrong_input(check))
    assert not (tmp_path / "outputs").exists()
    net = ridge_net(check.data)
    assert passes(check, net)[0] > passes(check, net)[0]
    assert [path.read_text() for path in tmp_path.glob("outputs/teachers/checks/*.json")] == [
        "null\n"
    ]
