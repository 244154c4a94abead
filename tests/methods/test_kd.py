"""Single-student distillation, against its formula."""

import pytest
import torch
from helpers import net, sgd
from torch.nn import functional as F

from kd_lightning.errors import UserError
from kd_lightning.methods.kd import KnowledgeDistillation


def make(**options: object) -> KnowledgeDistillation:
    torch.manual_seed(0)
    return KnowledgeDistillation(
        students={"student": net()},
        teacher=net(hidden=5),
        num_classes=3,
        optimizer=sgd(),
        **options,
    )


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 12, generator=generator), torch.arange(8) % 3


def test_loss_is_the_formula() -> None:
    method = make(temperature=3.0, hard_weight=0.1, soft_weight=0.9)
    x, y = batch()
    student, teacher = method.students["student"](x).logits, method.teacher(x).logits
    soft = F.kl_div((student / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="batchmean")
    expected = 0.1 * F.cross_entropy(student, y) + 0.9 * 9 * soft
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_teacher_gets_no_gradient() -> None:
    method = make()
    method.training_step(batch(), 0).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.students.parameters())


def test_teacher_follows_the_module_and_stays_in_eval_mode() -> None:
    method = make().double()
    method.train()
    assert method.teacher.head.weight.dtype == torch.float64
    assert not method.teacher.training
    assert not any("teacher" in name for name in method.state_dict())
    assert not any(p is q for p in method.parameters() for q in method.teacher.parameters())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(UserError, match=r"temperature must be > 0, got .* \(method\.temperature"):
        make(temperature=temperature)


def test_weights_all_zero_are_refused() -> None:
    with pytest.raises(UserError, match="must be > 0"):
        make(hard_weight=0.0, soft_weight=0.0)
