"""The laws of teacher evolution (arXiv 2110.00329)."""

import copy
from typing import Any

import pytest
import torch
from helpers import sgd
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.supervised import Supervised
from kd_lightning.methods.teacher_evolution import TeacherEvolution
from kd_lightning.models.cifar import resnet
from kd_lightning.models.perceptron import mlp
from kd_lightning.models.time_series import fcn

SHAPE = (3, 8, 8)
NO_WEIGHTS = dict.fromkeys(("hard_weight", "branch_weight", "soft_weight", "feature_weight"), 0.0)


def student() -> nn.Module:
    torch.manual_seed(0)
    return resnet(depth=8, widths=[4, 4, 6, 8], num_classes=5, in_chans=3, block_dropout=0.1)


def make(**options: Any) -> TeacherEvolution:
    options = {"students": {"student": student()}, "input_shape": SHAPE, **options}
    return TeacherEvolution(num_classes=5, optimizer=sgd(), **options)


def only(name: str, value: float = 1.0, **options: Any) -> TeacherEvolution:
    return make(**{**NO_WEIGHTS, name: value}, **options)


def batch(size: int = 16, shape: tuple = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *shape, generator=generator), torch.arange(size) % 5


def parts(method: TeacherEvolution, x: Tensor) -> tuple[Any, list[Tensor], list[Any]]:
    """Output, maps and branches' outputs of the student."""
    with method.stage_outputs["student"].record() as outputs:
        output = method.forward_student("student", x)
    maps = list(outputs.values())
    return output, maps, method.branches["student"](maps)


def gradients(method: Learner, size: int = 16) -> dict[str, Tensor]:
    method.zero_grad()
    method.training_step(batch(size), 0).backward()
    return {n: p.grad.clone() for n, p in method.students.named_parameters()}


def trained(method: Learner, steps: int = 3) -> dict[str, Tensor]:
    method.train()
    optimizer = method.make_optimizer(list(method.parameters()))
    for step in range(steps):
        optimizer.zero_grad()
        method.training_step(batch(8 + step), step).backward()
        optimizer.step()
    return method.students.state_dict()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_its_formula(reduction: str) -> None:
    weights = {"hard_weight": 0.3, "branch_weight": 0.2, "soft_weight": 0.7, "feature_weight": 0.01}
    method = make(**weights, temperature=2.0, feature_reduction=reduction)
    x, y = batch()
    output, maps, branches = parts(method.eval(), x)
    f = maps[-1].mean((2, 3))
    torch.testing.assert_close(f, output.features)
    expected = 0.3 * F.cross_entropy(output.logits, y)
    p = (output.logits / 2).softmax(1)
    for one in branches:
        q = (one.logits / 2).log_softmax(1)
        squares = (one.features - f).square()
        expected = expected + 0.2 * F.cross_entropy(one.logits, y)
        expected = expected + 0.7 * 4 * F.kl_div(q, p, reduction="batchmean")
        expected = expected + 0.01 * (squares.sum() if reduction == "sum" else squares.mean())
    assert len(branches) == 2
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_by_default_the_weights_are_those_released() -> None:
    method = make()
    weights = [method.hard_weight, method.branch_weight, method.soft_weight, method.feature_weight]
    assert weights == [0.2, 0.2, 0.8, 1e-7]
    assert method.temperature == 4.0
    assert (method.branches["student"].heads[0].head.in_features) == 8


def test_with_the_labels_of_the_student_alone_it_is_supervised_training_to_the_bit() -> None:
    plain = Supervised(students={"student": student()}, num_classes=5, optimizer=sgd())
    ours, theirs = trained(only("hard_weight")), trained(plain)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    other = trained(make())
    assert not torch.equal(other["student.head.weight"], theirs["student.head.weight"])


@pytest.mark.parametrize("detach", [True, False])
def test_the_soft_term_reaches_the_students_head_unless_its_target_is_detached(
    detach: bool,
) -> None:
    found = gradients(only("soft_weight", detach_target=detach).train())
    assert found["student.head.weight"].any() == (not detach)
    assert found["student.trunk.stem.0.weight"].any()  # the stages learn in both cases


def test_the_features_of_the_student_are_a_target_and_its_stages_learn() -> None:
    method = only("feature_weight").eval()  # so that dropout does not differ
    found = gradients(method)
    assert not found["student.head.weight"].any()
    assert found["student.trunk.stage3.0.main.0.weight"].any()
    method.zero_grad()
    output, _, branches = parts(method, batch()[0])
    target = output.features.detach()
    sum((one.features - target).square().sum() for one in branches).backward()
    for name, parameter in method.students.named_parameters():
        if "head" not in name:
            torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 2), ("mean", 1)])
def test_twice_the_batch_doubles_the_feature_term_under_sum_alone(
    reduction: str, factor: int
) -> None:
    method = only("feature_weight", feature_reduction=reduction).eval()
    x, y = batch()
    once = method.training_step((x, y), 0)
    twice = method.training_step((torch.cat([x, x]), torch.cat([y, y])), 0)
    torch.testing.assert_close(twice, factor * once)


def test_the_labels_of_the_branches_alone_are_deep_supervision() -> None:
    found = gradients(only("branch_weight").train())
    assert found["student.trunk.stem.0.weight"].any()
    assert not found["student.head.weight"].any()


@pytest.mark.parametrize("name", [*NO_WEIGHTS, "temperature"])
def test_every_option_changes_the_loss_and_is_checked(name: str) -> None:
    losses = [make(**{name: value}).training_step(batch(), 0) for value in (0.5, 1.0)]
    assert losses[0] != losses[1]
    with pytest.raises(UserError, match=f"method.{name} must be "):
        make(**{name: -1})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"branch_width": 0}, r"method.branch_width must be >= 1 or null, got 0"),
        ({"feature_reduction": "max"}, r"unknown reduction 'max'.*\(method.feature_reduction=…\)"),
        ({"input_shape": (1, 8, 8)}, r"student student takes none of \(1, 8, 8\)"),
    ],
)
def test_bad_values_are_a_sentence_with_their_key(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_a_net_without_feature_maps_is_a_sentence() -> None:
    net = mlp(num_inputs=192, widths=[8], num_classes=5, in_chans=3)
    with pytest.raises(UserError, match=r"has 0: choose .*\(model@method.students.student=…\)"):
        make(students={"student": net})


def test_evaluation_never_runs_the_branches() -> None:
    method = make()
    calls = []
    method.branches["student"].register_forward_hook(lambda *_: calls.append(1))
    method.eval()(batch()[0])
    method.validation_step(batch(), 0)
    assert not calls
    method.training_step(batch(), 0)
    assert len(calls) == 1


def test_another_student_changes_nothing() -> None:
    alone = trained(make())
    both = trained(make(students={"other": student(), "student": student()}))
    assert all(torch.equal(both[name], value) for name, value in alone.items())


def test_one_sample_and_extreme_logits_are_finite() -> None:
    method = make()
    with torch.no_grad():
        method.students["student"].head.weight.mul_(1e5)
    assert all(one.isfinite().all() for one in gradients(method.train(), 1).values())


def test_series_have_branches_too() -> None:
    net = fcn(widths=[4, 6, 8], kernels=[8, 5, 3], num_classes=5, in_chans=2)
    method = make(students={"student": net}, input_shape=(2, 20), branch_width=3)
    x, y = batch(shape=(2, 20))
    _, maps, branches = parts(method, x)
    assert {one.shape[2:] for one in maps} == {(20,)}
    assert [tuple(one.features.shape) for one in branches] == [(16, 8)] * 2
    assert method.training_step((x, y), 0).isfinite()


def test_a_deep_copy_trains_by_itself() -> None:
    method = make()
    assert torch.equal(
        copy.deepcopy(method).students["student"].head.weight,
        method.students["student"].head.weight,
    )


def test_a_run_of_two_students_keeps_nets_without_branches(tmp_path: Any) -> None:
    result = distill(
        "method=teacher_evolution", "data=synthetic", "data.num_train=48", "data.num_test=16",
        "data.batch_size=16", "data.kind=series", "trainer.max_epochs=1", "hardware=cpu",
        "callbacks=quiet", "logger=none", "model@method.students.student=fcn",
        "method.students.student.widths=[4,6,8]", "+model@method.students.b=resnet1d",
        "method.students.b.widths=[4,4,6]", "method.branch_width=4", f"outputs={tmp_path}",
    )  # fmt: skip
    for key in ("student", "b"):
        saved = torch.load(result.directory / f"best-{key}.ckpt", weights_only=True)
        assert not [name for name in saved["state_dict"] if "branch" in name]
        assert result.metrics["nets"][key]["test"]["accuracy"] >= 0
