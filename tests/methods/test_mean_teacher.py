"""The laws of mean teacher (arXiv 1703.01780)."""

import math
from typing import Any

import pytest
import torch
from helpers import net, sgd
from lightning.pytorch import Callback
from methods.test_contract import built, state_of, trainer
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.methods.mean_teacher import MeanTeacher, probability_mse
from kd_lightning.methods.ramp import sigmoid_ramp
from kd_lightning.methods.supervised import Supervised

NETS = {"num_classes": 3, "optimizer": sgd()}


def make(*, dropout: float = 0.0, apart: bool = True, **options: float) -> MeanTeacher:
    """A method whose average is another net than the student, or still the same."""
    torch.manual_seed(0)
    method = MeanTeacher(students={"student": net(dropout=dropout)}, **NETS, **options)
    if apart:
        method.averages["student"].load_state_dict(net().state_dict())
    return method


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 12, generator=generator), torch.arange(8) % 3


def test_the_difference_of_two_predictions_is_known_by_hand_and_teaches_one() -> None:
    z = torch.tensor([[math.log(3.0), 0.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[0.0, 0.0], [5.0, 5.0]], dtype=torch.float64, requires_grad=True)
    found = probability_mse(z, other)  # (3/4, 1/4) and (1/2, 1/2); equal predictions
    torch.testing.assert_close(found, torch.tensor([1 / 16, 0.0]))
    found.sum().backward()
    assert z.grad[0].abs().min() > 0
    assert other.grad is None
    far = probability_mse(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]]))
    assert far.tolist() == [1.0]


def test_the_loss_is_its_formula_and_the_passes_have_masks_of_their_own() -> None:
    method = make(dropout=0.5, hard_weight=0.5, consistency_weight=7.0)
    x, y = batch()
    method.seed_step_stream("dropout", "student")
    logits = method.students["student"](x).logits
    target = method.average_logits("student", x)
    assert not torch.equal(target, method.averages["student"](x).logits)  # a pass with dropout
    hard = F.cross_entropy(logits, y)
    expected = 0.5 * hard + 7 * (logits.softmax(1) - target.softmax(1)).square().mean()
    torch.testing.assert_close(method.training_step((x, y), 0), expected)
    same = make(dropout=0.5, apart=False)
    assert same.training_step((x, y), 0) > F.cross_entropy(logits, y) + 1e-3


def test_an_average_that_is_still_the_student_teaches_nothing() -> None:
    method = make(apart=False)
    torch.manual_seed(0)
    plain = Supervised(students={"student": net()}, **NETS)
    assert torch.equal(method.training_step(batch(), 0), plain.training_step(batch(), 0))
    assert make().training_step(batch(), 0) > method.training_step(batch(), 0)
    labels = make(consistency_weight=0.0).training_step(batch(), 0)
    assert torch.equal(labels, plain.training_step(batch(), 0))


def test_the_gradient_reaches_the_student_and_not_its_average() -> None:
    method = make(hard_weight=0.0).train()
    method.training_step(batch(), 0).backward()
    assert all(p.grad is not None for p in method.students.parameters())
    assert not any(p.requires_grad for p in method.averages.parameters())


def test_samples_without_labels_are_learned_from_the_average() -> None:
    (x, y), method = batch(), make(hard_weight=0.5)
    logits, target = method(x)["student"].logits, method.average_logits("student", x)
    expected = (
        0.5 * F.cross_entropy(logits[:3], y[:3]) + 100 * probability_mse(logits, target).mean()
    )
    torch.testing.assert_close(method.training_step((x, y[:3]), 0), expected)


def test_the_consistency_rises_as_in_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    for progress, share in ((0.0, math.exp(-5)), (0.2, math.exp(-5 / 4)), (0.4, 1.0), (1.0, 1.0)):
        assert sigmoid_ramp(progress, 0.4) == pytest.approx(share)
        assert sigmoid_ramp(torch.tensor(progress), 0.4).item() == pytest.approx(share)
        monkeypatch.setattr(MeanTeacher, "progress", progress)
        terms = [make(hard_weight=0.0, consistency_ramp=ramp).training_step(batch(), 0)
                 for ramp in (0.4, 0.0)]  # fmt: skip
        torch.testing.assert_close(terms[0], share * terms[1])
    assert sigmoid_ramp(0.0, 0.0) == 1


class Recorded(Callback):
    """The students after each step of a run."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(self, trainer: Any, method: Any, *_: Any) -> None:
        self.seen.setdefault(trainer.global_step, state_of(method.students))


WITH_NORM = ("model@method.students.student=resnet8", "method.students.student.dropout=0.2")


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_the_average_is_that_of_all_steps_of_the_optimizer(decay: float, tmp_path: Any) -> None:
    method, data, _ = built("mean_teacher", f"method.decay={decay}", *WITH_NORM)
    recorded, expected = Recorded(), state_of(method.averages)
    run = trainer(tmp_path, callbacks=[recorded], accumulate_grad_batches=2)
    run.fit(method, datamodule=data)  # two epochs of four batches
    for step in range(1, 5):
        share = min(1 - 1 / (step + 1), decay)  # 1/2 and then 0.6, which is less than 2/3
        for name, new in recorded.seen[step].items():
            is_count = not new.is_floating_point()
            old = expected[name].double()
            expected[name] = new if is_count else share * old + (1 - share) * new.double()
    assert any("running_var" in name for name in expected), "the law needs batch norm to bite"
    for name, found in method.averages.state_dict().items():
        torch.testing.assert_close(found.double(), expected[name].double(), rtol=1e-5, atol=1e-6)


def test_no_pass_changes_the_average_or_the_mode_of_its_parts() -> None:
    method, data, _ = built("mean_teacher", *WITH_NORM)
    before = state_of(method.averages)
    assert any("running_mean" in name for name in before), "the law needs batch norm to bite"
    method.train().training_step(next(iter(data.loader("train"))), 0)
    assert all(
        torch.equal(value, before[name]) for name, value in state_of(method.averages).items()
    )
    assert not any(module.training for module in method.averages.modules())
    assert all(module.training for module in method.students.modules())


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_is_a_share_below_one(decay: float) -> None:
    with pytest.raises(UserError, match=r"method.decay must be in \[0, 1\), got "):
        make(decay=decay)
    with pytest.raises(UserError, match=r"consistency_ramp must be in \[0, 1\], got 2"):
        make(consistency_ramp=2)
    with pytest.raises(UserError, match="consistency_weight must be >= 0, got -1"):
        make(consistency_weight=-1)
