"""The laws of stochastic self-distillation (arXiv 2504.14307)."""

from copy import deepcopy

import pytest
import torch
from helpers import net, sgd
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.losses.guidance import cosine_similarity
from kd_lightning.methods import stochastic_self_distillation as module
from kd_lightning.methods.stochastic_self_distillation import StochasticSelfDistillation


def make(teacher: torch.nn.Module | None = None, **options: object) -> StochasticSelfDistillation:
    torch.manual_seed(0)
    teacher = teacher or net(dropout=0.5)
    torch.manual_seed(1)
    student = options.pop("student", None) or net(dropout=0.5)
    settings = {"num_passes": 10, "bandwidth": "auto"}
    return StochasticSelfDistillation(
        students={"student": student}, teacher=teacher, num_classes=3, optimizer=sgd(),
        **(settings | options),
    )  # fmt: skip


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 12, generator=generator), torch.arange(16) % 3


def test_starts_from_the_teachers_weights() -> None:
    method = make()
    for p, q in zip(method.students.parameters(), method.teacher.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(
        make(start_from_teacher=False).students["student"].head.weight, method.teacher.head.weight
    )


def test_equal_passes_and_teacher_weights_give_no_feature_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = make()
    method._proved = True  # the method itself refuses equal passes
    monkeypatch.setattr(
        module, "sample_features", lambda net, x, k, *_: net.features(x).expand(k, -1, -1)
    )
    method.training_step(batch(), 0)
    assert method.ledger.read_epoch()["student/feature"] == pytest.approx(0, abs=1e-12)


def test_a_net_without_dropout_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.teacher\.dropout"):
        make(net(dropout=0.0))


def test_equal_passes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "sample_features", lambda net, x, k, *_: net.features(x).expand(k, -1, -1)
    )
    with pytest.raises(UserError, match="two stochastic passes"):
        make().training_step(batch(), 0)


def test_a_different_student_is_refused_unless_told() -> None:
    with pytest.raises(UserError, match="twin"):
        make(student=net(features=5, dropout=0.5))


def test_masks_are_their_own_stream() -> None:
    method = make()
    first = method.teacher_samples(batch()[0])
    torch.rand(100)
    assert torch.equal(first, method.teacher_samples(batch()[0]))
    method.seed = 1
    assert not torch.equal(first, method.teacher_samples(batch()[0]))


def test_gradient_through_the_weights_only_if_asked() -> None:
    gradients = []
    for detach in (True, False):
        options = {"start_from_teacher": False, "hard_weight": 0.0, "percentile": 0.0}
        method = make(detach_weights=detach, bandwidth=0.3, **options)
        method.training_step(batch(), 0).backward()
        gradients.append(method.students["student"].trunk[1].weight.grad)
    assert not torch.allclose(*gradients)


OPTIONS = {
    "num_passes": 3,
    "bandwidth": 0.1,
    "percentile": 0.0,
    "renormalize": False,
    "similarity": cosine_similarity,
    "start_from_teacher": False,
    "hard_weight": 0.3,
    "feature_weight": 7.0,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    plain, changed = (
        make(**({"bandwidth": 1.0, "percentile": 50.0} | o)).training_step(batch(), 0)
        for o in ({}, {name: OPTIONS[name]})
    )
    assert not torch.allclose(plain, changed)


def test_logs_passes_kept_and_their_entropy() -> None:
    method = make(num_passes=30, percentile=90.0)
    method.training_step(batch(), 0)
    logged = method.ledger.read_epoch()
    assert logged["guidance/passes_kept"] == 3
    assert 0 <= logged["guidance/weight_entropy"] <= 1


def test_teacher_is_never_left_in_train_mode() -> None:
    teacher = net(dropout=0.5, hidden=6)
    teacher.trunk.append(torch.nn.Dropout(0.3))
    teacher.trunk.append(torch.nn.BatchNorm1d(8))
    before = deepcopy(teacher.state_dict())
    method = make(teacher, start_from_teacher=False)
    method.training_step(batch(), 0)
    assert not any(m.training for m in teacher.modules())
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"num_passes": 0}, "num_passes"),
        ({"percentile": 100.0}, "percentile"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"feature_weight": -1.0}, "feature_weight"),
    ],
)
def test_bad_values_name_their_key(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{key}"):
        make(**options)
