"""A frozen teacher: never changed, yet a gradient can pass through its head."""

from collections.abc import Mapping

import pytest
import torch
from helpers import net, sgd
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.step import Cached, Losses


class WithCritic(Distiller):
    """The student's features under the teacher's head, and a critic in a group of its own."""

    def __init__(self, **distiller: object) -> None:
        super().__init__(**distiller)
        self.critic = nn.Linear(3, 1)

    def own_modules(self) -> Mapping[str, nn.Module]:
        return {"critic": self.critic}

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        student = self(x)["student"]
        logits = self.teacher_head(student.features)
        return Losses({"student/semantic": self.critic(logits).square().mean()})


def make(**options: object) -> WithCritic:
    torch.manual_seed(0)
    nets = {"students": {"student": net()}, "teacher": net()}
    return WithCritic(**nets, num_classes=3, optimizer=sgd(), **options)


def test_the_gradient_passes_through_the_teachers_head_and_changes_nothing_in_it() -> None:
    method = make()
    features = torch.randn(4, 8, requires_grad=True)
    logits = method.teacher_head(features)
    torch.testing.assert_close(logits, method.teacher.head(features))
    logits.sum().backward()
    expected = method.teacher.head.weight.sum(0).expand(4, 8)
    torch.testing.assert_close(features.grad, expected)
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_students_own_head_gets_no_gradient_from_the_teachers() -> None:
    method = make()
    method.training_step((torch.randn(4, 12), torch.arange(4) % 3), 0).backward()
    student = method.students["student"]
    assert all(p.grad is None for p in student.head.parameters())
    assert all((p.grad != 0).any() for p in student.trunk.parameters())


def test_a_group_of_its_own_has_its_own_learning_rate() -> None:
    groups = make(learning_rates={"critic": 0.5}).configure_optimizers().param_groups
    assert {group["name"]: group["lr"] for group in groups} == {"student": 0.1, "critic": 0.5}


def test_a_learning_rate_of_no_group_is_refused() -> None:
    with pytest.raises(UserError, match="names 'critik', the parameter groups are student, critic"):
        make(learning_rates={"critik": 0.5}).parameter_groups()


def test_each_group_is_clipped_by_itself() -> None:
    method = make()
    optimizer = method.configure_optimizers()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 10.0)
    method.configure_gradient_clipping(optimizer, 1.0, "norm")
    for group in optimizer.param_groups:
        norm = torch.cat([p.grad.flatten() for p in group["params"]]).norm()
        torch.testing.assert_close(norm, torch.tensor(1.0), rtol=1e-4, atol=0)


def test_a_frozen_module_stays_in_eval_mode_without_a_gradient() -> None:
    method = make()
    method.freeze_module(method.critic)
    assert method.train().students["student"].training
    assert not method.critic.training
    assert not any(p.requires_grad for p in method.critic.parameters())
    assert method.parameter_groups()[1]["params"] == []
