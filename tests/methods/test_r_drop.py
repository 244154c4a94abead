"""The laws of R-Drop (arXiv 2106.14448)."""

import pytest
import torch
from helpers import net, sgd
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.methods.r_drop import RDrop, symmetric_kl
from kd_lightning.methods.supervised import Supervised

NETS = {"num_classes": 3, "optimizer": sgd()}


def make(dropout: float = 0.5, **options: float) -> RDrop:
    torch.manual_seed(0)
    return RDrop(students={"student": net(dropout=dropout)}, **NETS, **options)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 12, generator=generator), torch.arange(8) % 3


def test_the_divergence_is_the_mean_of_both_directions_and_teaches_both() -> None:
    a = torch.tensor([[0.0, 0.0], [2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, 0.0], [2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    p, q = a.softmax(1), b.softmax(1)
    expected = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)) / 2
    found = symmetric_kl(a, b)
    torch.testing.assert_close(found, expected.float())
    assert found[1] == 0
    found.sum().backward()
    assert a.grad[0].abs().min() > 0
    assert b.grad[0].abs().min() > 0
    assert symmetric_kl(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])).isfinite().all()


def test_the_loss_is_its_formula_for_two_passes_with_other_masks() -> None:
    method = make(hard_weight=0.5, consistency_weight=2.0)
    x, y = batch()
    method.seed_step_stream("dropout", "student")
    first, second = method.students["student"](torch.cat([x, x])).logits.chunk(2)
    assert not torch.equal(first, second)
    hard = (F.cross_entropy(first, y) + F.cross_entropy(second, y)) / 2
    expected = 0.5 * hard + 2.0 * symmetric_kl(first, second).mean()
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_without_consistency_and_randomness_it_is_training_from_labels() -> None:
    method = make(consistency_weight=0.0).eval()  # in eval mode both passes are the same
    torch.manual_seed(0)
    plain = Supervised(students={"student": net(dropout=0.5)}, **NETS).eval()
    torch.testing.assert_close(method.training_step(batch(), 0), plain.training_step(batch(), 0))
    assert make().eval().training_step(batch(), 0) == method.training_step(batch(), 0)


def test_a_student_without_dropout_is_refused() -> None:
    with pytest.raises(UserError, match=r"set method\.students\.student\.dropout or"):
        make(dropout=0.0)
    with pytest.raises(UserError, match="consistency_weight must be >= 0, got -1"):
        make(consistency_weight=-1)
