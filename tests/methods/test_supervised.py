"""Training from labels alone."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers import net, sgd
from lightning.pytorch import Trainer
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.methods import optimization
from kd_lightning.methods.supervised import Supervised


def make(*keys: str, **options: object) -> Supervised:
    nets = {}
    for seed, key in enumerate(keys or ("student",)):
        torch.manual_seed(seed)
        nets[key] = net(dropout=0.5)
    return Supervised(students=nets, num_classes=3, optimizer=sgd(), **options)


def test_loss_is_the_sum_of_cross_entropies() -> None:
    method = make("a", "b", label_smoothing=0.1).eval()
    x, y = torch.randn(8, 12), torch.arange(8) % 3
    expected = sum(
        F.cross_entropy(s(x).logits, y, label_smoothing=0.1) for s in method.students.values()
    )
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_adding_a_student_changes_nothing_for_the_others() -> None:
    x = torch.randn(8, 12)
    alone, together = make("a"), make("a", "b")
    assert torch.equal(alone(x)["a"].logits, together(x)["a"].logits)  # dropout included


def test_each_student_has_its_own_parameter_group_and_learning_rate() -> None:
    method = make("a", "b", learning_rates={"b": 0.5})
    optimizer = method.configure_optimizers()
    assert [(g["name"], g["lr"]) for g in optimizer.param_groups] == [("a", 0.1), ("b", 0.5)]


def test_each_student_is_clipped_by_itself() -> None:
    method = make("a", "b")
    optimizer = method.configure_optimizers()
    for key, size in (("a", 100.0), ("b", 1e-3)):
        for p in method.students[key].parameters():
            p.grad = torch.full_like(p, size)
    method.configure_gradient_clipping(optimizer, 1.0, "norm")
    norms = {
        k: torch.cat([p.grad.flatten() for p in s.parameters()]).norm().item()
        for k, s in method.students.items()
    }
    assert norms["a"] == pytest.approx(1.0, rel=1e-3)
    assert all((p.grad == 1e-3).all() for p in method.students["b"].parameters())


@pytest.mark.parametrize(
    ("make", "is_fused"),
    [
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), True),
        (partial(torch.optim.Adam, lr=0.1), True),
        (partial(torch.optim.AdamW, lr=0.1), True),
        (partial(torch.optim.SGD, lr=0.1, fused=False), False),
        (partial(torch.optim.SGD, lr=0.1, foreach=True), False),
        (partial(torch.optim.RMSprop, lr=0.1), False),  # torch has no such kernel
        (lambda groups: torch.optim.SGD(groups, lr=0.1), False),
    ],
)
def test_optimizers_are_fused_on_a_gpu_and_learn_the_same(
    make: Callable, is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for devices in (("cuda",), ("cpu",)):
        monkeypatch.setattr(optimization, "FUSED_ON", devices)
        method = Supervised(students={"student": net()}, num_classes=3, optimizer=make)
        optimizer = method.configure_optimizers()
        assert (optimizer.defaults.get("fused") is True) == (is_fused and devices == ("cpu",))
        for weight in method.parameters():
            torch.nn.init.constant_(weight, 0.5)
            weight.grad = torch.full_like(weight, 0.25)
        for _ in range(3):
            optimizer.step()
        ends.append([weight.detach().clone() for weight in method.parameters()])
    torch.testing.assert_close(ends[0], ends[1])


def test_with_scaled_gradients_they_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "FUSED_ON", ("cpu",))
    method = Supervised(
        students={"student": net()}, num_classes=3, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    method.trainer = trainer
    assert method.configure_optimizers().defaults["fused"]
    trainer.precision_plugin.scaler = torch.amp.GradScaler("cpu")
    assert not method.configure_optimizers().defaults["fused"]


def test_gradients_whose_scale_only_the_optimizer_knows_are_not_clipped() -> None:
    method = make("a")
    fused = torch.optim.SGD(method.students.parameters(), lr=0.1, fused=True)
    plugin = SimpleNamespace(scaler=torch.amp.GradScaler("cpu"))
    method.fit_trainer = SimpleNamespace(precision_plugin=plugin)
    for optimizer in (method.configure_optimizers(), fused):
        method.configure_gradient_clipping(optimizer, None)
    method.configure_gradient_clipping(method.configure_optimizers(), 1.0)
    with pytest.raises(UserError, match=r"gradient_clip_val .* \(optimizer\.fused=false, or"):
        method.configure_gradient_clipping(fused, 1.0)
    plugin.scaler = None  # bf16
    method.configure_gradient_clipping(fused, 1.0)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_is_a_share(smoothing: float) -> None:
    with pytest.raises(UserError, match="label_smoothing"):
        make(label_smoothing=smoothing)


@pytest.mark.parametrize("name", ["resnet.18", "ensemble", "confidence"])
def test_students_have_short_names_that_nothing_else_has(name: str) -> None:
    with pytest.raises(UserError, match=f"short name such as a or b, got '{name}'"):
        make(name)
