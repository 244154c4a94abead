"""The attack in a run's test, on linear nets whose robust accuracy is known."""

import sys
from fractions import Fraction

import pytest
import torch
from evaluation.robustness.test_adversarial import EPSILON, WEIGHTS, images, linear
from helpers import compose

from kd_lightning.base.errors import UserError
from kd_lightning.data.digits import Digits
from kd_lightning.data.loading.batches import Samples
from kd_lightning.evaluation.robustness.adversarial import Attacks
from kd_lightning.evaluation.robustness.of_run import attacks_of, check_attacks, robust_accuracies

pytest.importorskip("foolbox")


def digits(x: torch.Tensor, y: torch.Tensor) -> Digits:
    data = Digits(batch_size=16)
    data.parts = {"test": Samples(x, y)}
    return data


def measured(samples: int) -> dict[str, float]:
    x = images(200)
    y = (x.flatten(1) @ WEIGHTS > 0).long()
    attacks = Attacks(("pgd",), Fraction(1, 10), 10, samples)
    return robust_accuracies({"a": linear(), "b": linear()}, digits(x, y), attacks, x.device)


def test_it_is_the_share_of_images_far_from_the_border_for_every_net() -> None:
    margin = (images(200).flatten(1) @ WEIGHTS).abs()
    expected = (margin > EPSILON * WEIGHTS.abs().sum()).double().mean().item()
    found = measured(1000)
    assert found["a"] == found["b"] == pytest.approx(expected, abs=0.02)
    assert measured(50)["a"] * 50 == pytest.approx(round(measured(50)["a"] * 50))
    assert measured(50) == measured(50)


def test_no_attack_is_the_default_and_its_size_is_exact() -> None:
    assert attacks_of(compose("data=synthetic")) is None
    attacks = attacks_of(compose("data=synthetic", "evaluation.adversarial=0.1"))
    assert attacks == Attacks(("pgd",), Fraction(1, 10), 20, 1000)


def test_without_foolbox_the_command_to_install_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = compose("data=synthetic", "evaluation.adversarial=0.1", "task.shape=[1,8,8]")
    check_attacks(cfg)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(UserError, match=r'pip install "kd_lightning\[robustness\]", or set eval'):
        check_attacks(cfg)
