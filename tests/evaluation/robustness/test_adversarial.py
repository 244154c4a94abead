"""Attacks on a linear net, whose robust accuracy is known: |margin| > epsilon x sum |weights|."""

import sys
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.data.digits import Digits
from kd_lightning.data.loading.batches import Samples
from kd_lightning.evaluation.labelled_set import Form, LabelledSet, Subject
from kd_lightning.evaluation.robustness import adversarial
from kd_lightning.evaluation.robustness.adversarial import (
    Attacks,
    attacked,
    check_attacks,
    choose,
    measure,
)
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.students.transform import unchanged

pytest.importorskip("foolbox")
FORM = Form("image", 1, 2, unchanged)
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 0.5])
EPSILON = 0.1
ATTACKS = Attacks(["fgsm", "pgd"], Fraction(1, 10), 10, 100)


def linear() -> nn.Module:
    """Class 1 if the weighted sum of the pixels is above 0."""
    net = Classifier(trunk=nn.Flatten(), head=nn.Linear(4, 2, bias=False), dropout=0.0)
    net.head.weight.data = torch.stack([-WEIGHTS, WEIGHTS])
    return net.requires_grad_(False).eval()


def images(count: int) -> Tensor:
    """With room for the attack on both sides."""
    generator = torch.Generator().manual_seed(0)
    return EPSILON + (1 - 2 * EPSILON) * torch.rand(count, 1, 2, 2, generator=generator)


def labelled(x: Tensor, y: Tensor) -> LabelledSet:
    data = Digits(batch_size=16)
    data.class_names = ["no", "yes"]
    return LabelledSet(data, "made up", "test", Samples(x, y))


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_the_robust_images_of_a_linear_net_are_those_far_from_the_border(name: str) -> None:
    x = images(200)
    margin = x.flatten(1) @ WEIGHTS
    y = (margin > 0).long()
    y[:20] = 1 - y[:20]  # wrong before any attack
    robust = attacked(linear(), x, y, name, EPSILON, 10)
    expected = (margin.abs() > EPSILON * WEIGHTS.abs().sum()) & (torch.arange(200) >= 20)
    clear = (margin.abs() - EPSILON * WEIGHTS.abs().sum()).abs() > 1e-3
    assert clear.sum() > 190
    assert 20 < expected.sum() < 150
    assert torch.equal(robust[clear], expected[clear])


class Threshold(nn.Module):
    """A net that is wrong about a bright image."""

    def forward(self, x: Tensor) -> ModelOutput:
        mean = x.float().flatten(1).mean(1)
        return ModelOutput(torch.stack([0.55 - mean, mean - 0.55], 1), x.flatten(1))


def test_a_larger_epsilon_fools_more_and_uint8_is_in_the_same_unit() -> None:
    x = torch.full((40, 1, 2, 2), 127, dtype=torch.uint8)  # 0.498: 0.052 below the threshold
    subject = Subject("a", "", Threshold(), ["no", "yes"], FORM, ("", ""))
    data = labelled(x, torch.zeros(40, dtype=torch.int64))
    for epsilon, robust in ((Fraction(5, 100), 1), (Fraction(6, 100), 0)):
        attacks = Attacks(["fgsm"], epsilon, 10, 100)
        (row,) = measure([subject], data, attacks, torch.device("cpu"), int)
        assert (row["accuracy"], row["robust_accuracy"], row["n"]) == (1, robust, 40)


class Wave(nn.Module):
    """A net that is right about an image of mean m where sin(20 m) > 0."""

    def forward(self, x: Tensor) -> ModelOutput:
        height = (20 * x.float().flatten(1).mean(1)).sin()
        return ModelOutput(torch.stack([height, -height], 1), x.flatten(1))


def test_an_image_that_was_wrong_is_not_robust_where_the_attack_makes_it_right() -> None:
    x, y = torch.full((1, 1, 2, 2), 0.2), torch.zeros(1, dtype=torch.int64)
    assert Wave()(x + 0.15).logits.argmax(1) == y  # where the only step of fgsm ends
    assert not attacked(Wave(), x, y, "fgsm", 0.15, 1)


def test_rows_are_of_each_attack_and_of_all_of_them_and_repeat() -> None:
    x = torch.full((200, 1, 2, 2), 0.15)  # fgsm jumps over the valley that pgd falls into
    subject = Subject("a", "", Wave(), ["no", "yes"], FORM, ("", ""))
    data = labelled(x, torch.zeros(200, dtype=torch.int64))
    attacks = Attacks(["fgsm", "pgd"], Fraction(1, 4), 10, 200)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    rows = measure([subject], data, attacks, torch.device("cpu"), int)
    assert torch.equal(torch.get_rng_state(), state)
    assert [row["attack"] for row in rows] == ["fgsm", "pgd", "all of them"]
    fgsm, pgd, both = (row["robust_accuracy"] for row in rows)
    assert 0.02 < pgd < 0.9
    assert (fgsm, both) == (1, pgd)
    assert rows[1]["interval"][0] < pgd < rows[1]["interval"][1]
    torch.manual_seed(1)
    assert measure([subject], data, attacks, torch.device("cpu"), int) == rows


def test_labels_follow_the_names_of_the_classes() -> None:
    x = images(50)
    y = (x.flatten(1) @ WEIGHTS > 0).long()
    turned = Subject("a", "", linear(), ["yes", "no"], FORM, ("", ""))
    rows = measure([turned], labelled(x, y), ATTACKS, torch.device("cpu"), int)
    assert rows[0]["accuracy"] == 0


def test_some_samples_are_always_the_same_and_not_the_first() -> None:
    data = labelled(torch.arange(100.0).view(100, 1, 1, 1), torch.arange(100) % 2)
    chosen = choose(data, 10).samples.x.flatten().tolist()
    assert chosen == choose(data, 10).samples.x.flatten().tolist() == sorted(chosen)
    assert max(chosen) > 50
    assert len(choose(data, 1000)) == 100


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"names": ["pgdd"]}, "unknown attack 'pgdd': did you mean pgd"),
        ({"epsilon": Fraction(0)}, r"expected --epsilon in \(0, 1\].* got 0, 10 and 100"),
        ({"steps": 0}, "--steps >= 1"),
        ({"samples": 0}, "--samples >= 1"),
    ],
)
def test_what_cannot_be_is_refused(change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_attacks(Attacks(**{**vars(ATTACKS), **change}), [])


def test_series_are_refused() -> None:
    subject = Subject("a", "", linear(), [], Form("series", 1, 4, unchanged), ("", ""))
    with pytest.raises(UserError, match="--adversarial is for images"):
        check_attacks(ATTACKS, [subject])


def test_without_foolbox_the_command_to_install_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(UserError, match=r'pip install "kd_lightning\[robustness\]"'):
        check_attacks(ATTACKS, [])


def test_the_table_says_what_the_attacker_may_do() -> None:
    x = images(10)
    subject = Subject("a", "", linear(), ["no", "yes"], FORM, ("", ""))
    data = labelled(x, torch.zeros(10, dtype=torch.int64))
    rows = measure([subject], data, ATTACKS, torch.device("cpu"), int)
    table = adversarial.section(rows, ATTACKS).table()
    assert "changes by 1/10 at most" in table.notes[0]
    assert "10 steps of 2.5 x epsilon / steps" in table.notes[0]
