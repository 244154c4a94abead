"""The laws of student-friendly teachers (arXiv 2102.07650)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compose, sgd
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.student_friendly import StudentFriendly
from kd_lightning.methods.supervised import Supervised
from kd_lightning.models.cifar import resnet
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.perceptron import mlp
from kd_lightning.models.time_series import fcn
from kd_lightning.teachers.own_run import teacher_run
from kd_lightning.teachers.store import shape_hash, shape_of

SHAPE = (3, 8, 8)


def teacher() -> nn.Module:
    torch.manual_seed(0)
    return resnet(depth=8, widths=[4, 6, 8, 10], num_classes=5, in_chans=3, block_dropout=0.1)


def student() -> nn.Module:
    return resnet(depth=8, widths=[3, 3, 4, 5], num_classes=5, in_chans=3, dropout=0.1)


def make(**options: Any) -> StudentFriendly:
    nets = {"students": {"student": teacher()}, "branch_net": student}
    options = {**nets, "input_shape": SHAPE, **options}
    return StudentFriendly(num_classes=5, optimizer=sgd(), **options)


def batch(size: int = 16, shape: tuple = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *shape, generator=generator), torch.arange(size) % 5


def gradients(method: Learner, size: int = 16) -> dict[str, Tensor]:
    method.zero_grad()
    method.train().training_step(batch(size), 0).backward()
    return {n: p.grad.clone() for n, p in method.students.named_parameters()}


def trained(method: Learner, steps: int = 3) -> dict[str, Tensor]:
    method.train()
    optimizer = method.make_optimizer(list(method.parameters()))
    for step in range(steps):
        optimizer.zero_grad()
        method.training_step(batch(8 + step), step).backward()
        optimizer.step()
    return method.students.state_dict()


def branch_logits(method: StudentFriendly, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    with method.stage_outputs["student"].record() as outputs:
        logits = method.forward_student("student", x).logits
    pairs = zip(method.branches["student"], outputs.values(), strict=True)
    return logits, [branch(stage) for branch, stage in pairs]


@pytest.mark.parametrize("kind", ["student", "linear"])
def test_the_loss_is_its_formula(kind: str) -> None:
    weights = {"hard_weight": 0.7, "branch_weight": 0.4, "soft_weight": 2.0}
    method = make(**weights, temperature=2.0, branches=kind).eval()
    x, y = batch()
    z, branches = branch_logits(method, x)
    expected = 0.7 * F.cross_entropy(z, y)
    assert len(branches) == 2
    for one in branches:
        kl = F.kl_div((one / 2).log_softmax(1), (z / 2).softmax(1), reduction="batchmean")
        expected = expected + (0.4 * F.cross_entropy(one, y) + 2.0 * 4 * kl) / 2
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_by_default_the_weights_are_1_1_3_without_softening() -> None:
    method = make()
    assert (method.hard_weight, method.branch_weight, method.soft_weight) == (1, 1, 3)
    assert method.temperature == 1


def test_without_weight_on_branches_it_is_supervised_training_to_the_bit() -> None:
    plain = Supervised(students={"student": teacher()}, num_classes=5, optimizer=sgd())
    ours, theirs = trained(make(branch_weight=0, soft_weight=0)), trained(plain)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert not torch.equal(trained(make())["student.head.weight"], theirs["student.head.weight"])


def test_branches_alone_teach_the_stages_up_to_theirs() -> None:
    found = gradients(make(hard_weight=0))
    assert found["student.trunk.stem.0.weight"].any()
    assert found["student.trunk.stage2.0.main.0.weight"].any()
    assert not found["student.trunk.stage3.0.main.0.weight"].any()
    assert not found["student.head.weight"].any()


def test_a_target_that_is_not_detached_learns_too() -> None:
    found = gradients(make(hard_weight=0, branch_weight=0, detach_target=False))
    assert found["student.head.weight"].any()


def test_the_order_of_branches_changes_nothing() -> None:
    method = make().eval()
    before = method.training_step(batch(), 0)
    logits = branch_logits(method, batch()[0])[1]
    names = list(method.stage_outputs["student"].handles)
    assert len(names) == len(logits) == 2
    other = make(soft_weight=0, hard_weight=0).eval().training_step(batch(), 0)
    y = batch()[1]
    mean = sum(F.cross_entropy(z, y) for z in reversed(logits)) / 2
    torch.testing.assert_close(other, mean)
    assert before > other


def test_branches_have_weights_of_their_own() -> None:
    first, second = make().branches["student"]
    assert not torch.equal(first.tail.head.weight, second.tail.head.weight)
    assert sum(p.numel() for p in first.parameters()) > sum(p.numel() for p in second.parameters())


def test_each_branch_has_the_channels_of_the_student() -> None:
    convs = [branch.transform[0] for branch in make().branches["student"]]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(6, 3), (8, 4)]


def test_linear_branches_do_not_depend_on_the_weights_of_the_students_net() -> None:
    shapes = [[tuple(p.shape) for p in b.parameters()] for b in make(branches="linear").branches[
        "student"]]  # fmt: skip
    assert shapes == [[(5, 6), (5,)], [(5, 8), (5,)]]


@pytest.mark.parametrize("name", ["hard_weight", "branch_weight", "soft_weight", "temperature"])
def test_every_option_changes_the_loss_and_is_checked(name: str) -> None:
    losses = [make(**{name: value}).training_step(batch(), 0) for value in (0.5, 2.0)]
    assert losses[0] != losses[1]
    with pytest.raises(UserError, match=f"method.{name} must be "):
        make(**{name: -1})


def perceptron() -> nn.Module:
    return mlp(num_inputs=192, widths=[8], num_classes=5, in_chans=3)


class Looking(nn.Module):
    """What it does depends on what it computes, so no part of it can be taken out."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1, self.stage2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(x)
        return self.stage2(x if x.sum() > 0 else -x).mean((2, 3))


def looking() -> nn.Module:
    return Classifier(trunk=Looking(), head=nn.Linear(4, 5), dropout=0.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"branches": "deep"}, r"unknown kind of branches 'deep'.*\(method.branches=…\)"),
        ({"branch_net": None}, r"\(model@method.branch_net=…\)"),
        ({"branch_net": perceptron}, r"has 0: .*\(model@method.branch_net=… or, .*branch_net=…\)"),
        ({"branch_net": looking}, r"taken out: .*\(model@method.branch_net=…\)"),
        (
            {"students": {"a": perceptron()}},
            r"student a .*has 0: .*\(model@method.students.a=… or, .*teacher=…\)",
        ),
    ],
)
def test_bad_values_are_a_sentence_with_their_key(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_one_sample_and_extreme_logits_are_finite() -> None:
    method = make()
    with torch.no_grad():
        method.students["student"].head.weight.mul_(1e5)
    assert all(one.isfinite().all() for one in gradients(method, 1).values())


def test_series_have_branches_too() -> None:
    def small() -> nn.Module:
        return fcn(widths=[3, 4, 5], kernels=[8, 5, 3], num_classes=5, in_chans=2)

    net = fcn(widths=[4, 6, 8], kernels=[8, 5, 3], num_classes=5, in_chans=2)
    method = make(students={"student": net}, branch_net=small, input_shape=(2, 20))
    assert method.training_step(batch(shape=(2, 20)), 0).isfinite()
    assert len(method.branches["student"]) == 2


# As the method that trains the teacher of another

WORDS = ("method=kd", "data=synthetic", "method@teacher.method=student_friendly",
         "model@method.teacher=resnet8", "model@method.students.student=resnet8")  # fmt: skip


def hash_of(*words: str) -> str:
    cfg = compose(*WORDS, *words)
    cfg.task.update(num_classes=10, channels=3, size=16, shape=[3, 16, 16], num_inputs=768,
                    mean=[0.5] * 3, std=[0.5] * 3)  # fmt: skip
    return shape_hash(shape_of(teacher_run(cfg)), "")


def test_another_student_makes_another_teacher_and_nothing_else_of_students_does() -> None:
    plain = hash_of()
    assert hash_of("seed=3", "method.temperature=2", "trainer.max_epochs=7") == plain
    narrow = hash_of("method.students.student.widths=[4,4,8,16]")
    assert narrow != plain
    assert hash_of("teacher.method.branches=linear") != plain
    named = hash_of(
        "model@teacher.method.branch_net=resnet8", "teacher.method.branch_net.widths=[4,4,8,16]"
    )
    assert named == narrow


def test_a_run_trains_a_plain_teacher_once_and_reuses_it(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [*WORDS, *tiny, "method.students.student.widths=[4,4,8,16]", "trainer.max_epochs=1",
             f"teacher.store={tmp_path}/own"]  # fmt: skip
    first = distill(*words)
    assert "trained now" in capsys.readouterr().out
    again = distill(*words, "seed=1")
    assert "reused from" in capsys.readouterr().out
    (kept,) = (tmp_path / "own").glob("*/best-student.ckpt")
    names = torch.load(kept, weights_only=True)["state_dict"]
    assert not [name for name in names if "branch" in name]
    accuracies = [
        result.metrics["nets"]["teacher"]["test"]["accuracy"] for result in (first, again)
    ]
    assert accuracies[0] == accuracies[1]


def test_a_student_without_feature_maps_is_refused_before_a_teacher_trains(
    tiny: list[str], tmp_path: Path
) -> None:
    words = [*WORDS[:4], *tiny, f"outputs={tmp_path}/new", f"teacher.store={tmp_path}/new"]
    with pytest.raises(UserError, match=r"the net of the branches, .* must have two stages"):
        distill(*words)
    assert not (tmp_path / "new").exists()
