"""Knowledge review: its terms, where their gradients go, its stages, its wrong settings."""

from copy import deepcopy

import pytest
import torch
from helpers import net, sgd
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.losses.hierarchical_context import hierarchical_context_loss
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.knowledge_review import KnowledgeReview
from kd_lightning.models.cifar import resnet, vgg
from kd_lightning.models.time_series import fcn

IMAGES = {"num_classes": 3, "in_chans": 1}


def seeded(make, seed: int, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make(**options)


def make(*keys: str, **options: object) -> KnowledgeReview:
    students = {
        key: seeded(resnet, ord(key[0]), depth=8, widths=[4, 4, 6, 8], **IMAGES)
        for key in keys or ("student",)
    }
    teacher = seeded(resnet, 0, depth=8, widths=[4, 5, 7, 9], **IMAGES)
    nets = {"students": students, "teacher": teacher}
    settings = {"input_shape": (1, 8, 8), "num_classes": 3, "optimizer": sgd()}
    return KnowledgeReview(**(nets | settings | options))


def batch(*shape: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, *(shape or (1, 8, 8)), generator=generator), torch.arange(size) % 3


def stages(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The maps of the stages, and the mean of the last one."""
    trunk = net.trunk
    first = trunk.stage1(trunk.stem(x))
    second = trunk.stage2(first)
    third = trunk.stage3(second)
    return [first, second, third, third.mean(dim=(2, 3), keepdim=True)]


def test_the_loss_is_the_formula() -> None:
    weights = {"hard_weight": 0.5, "soft_weight": 0.9, "review_weight": 7.0}
    method, (x, y) = make(temperature=2.0, **weights).eval(), batch()
    student, teacher = method.students["student"], method.teacher
    made = method.fusions["student"](stages(student, x))
    pairs = zip(made, stages(teacher, x), strict=True)
    z, z_t = student(x).logits, teacher(x).logits
    soft = F.kl_div((z / 2).log_softmax(1), (z_t / 2).softmax(1), reduction="batchmean")
    expected = {
        "student/hard": 0.5 * F.cross_entropy(z, y),
        "student/soft": 0.9 * 4 * soft,
        "student/review": 7 * sum(hierarchical_context_loss(*pair) for pair in pairs).mean(),
    }
    torch.testing.assert_close(method.losses(x, y, None, 1.0).terms, expected)


def test_without_review_it_is_kd_to_the_bit() -> None:
    method = make(review_weight=0.0, soft_weight=0.7)
    plain = KnowledgeDistillation(
        students=deepcopy(dict(method.students)), teacher=deepcopy(method.teacher), num_classes=3,
        optimizer=sgd(), soft_weight=0.7,
    )  # fmt: skip
    losses = [m.training_step(batch(), 0) for m in (method, plain)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for p, q in zip(method.students.parameters(), plain.students.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_the_trunk_and_the_fusions_learn_from_the_teacher_and_no_classifier_does() -> None:
    method = make()
    method.losses(*batch(), None, 1.0).terms["student/review"].backward()
    student = method.students["student"]
    assert all(p.grad is None for p in (*student.head.parameters(), *method.teacher.parameters()))
    for module in (student.trunk, method.fusions):
        assert all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_the_fusions_of_a_student_follow_from_its_key_and_are_in_its_group() -> None:
    alone, both = make("a"), make("b", "a")
    for p, q in zip(alone.fusions["a"].parameters(), both.fusions["a"].parameters(), strict=True):
        assert torch.equal(p, q)
    groups = {g["name"]: set(g["params"]) for g in both.configure_optimizers().param_groups}
    for key in "ab":
        assert groups[key] == {*both.students[key].parameters(), *both.fusions[key].parameters()}


def test_the_ramp_is_a_factor_of_the_review_term() -> None:
    method = make(review_ramp=0.5).eval()
    early, late = (method.losses(*batch(), None, progress).terms for progress in (0.25, 1.0))
    torch.testing.assert_close(early["student/review"], late["student/review"] / 2)
    assert torch.equal(early["student/hard"], late["student/hard"])


def test_nets_with_different_numbers_of_stages_share_the_last_ones() -> None:
    student = seeded(vgg, 1, widths=[[4], [4], [4], [6], [6]], **IMAGES)
    method = make(students={"student": student}, input_shape=(1, 16, 16))
    channels = [one.reduce[0].in_channels for one in method.fusions["student"].fusions]
    assert channels == [4, 6, 6, 6]
    loss = method.training_step(batch(1, 16, 16), 0)
    loss.backward()
    assert loss.isfinite()


def test_series_have_stages_too() -> None:
    options = {"kernels": [3, 3, 3], "num_classes": 3, "in_chans": 2}
    method = make(
        students={"student": seeded(fcn, 1, widths=[4, 6, 4], **options)},
        teacher=seeded(fcn, 0, widths=[6, 8, 6], **options),
        input_shape=(2, 32),
    )
    assert method.training_step(batch(2, 32), 0).isfinite()


def test_a_batch_of_one_sample_has_finite_losses_and_gradients() -> None:
    method = make()
    loss = method.train().training_step(batch(size=1), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("review", False), ("fusion_width", 3), ("review_weight", 2.0), ("hard_weight", 2.0),
     ("soft_weight", 1.0), ("seed", 1)],
)  # fmt: skip
def test_every_option_changes_the_loss(name: str, value: object) -> None:
    plain, changed = (make(**o).training_step(batch(), 0) for o in ({}, {name: value}))
    assert not torch.allclose(plain, changed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"review_weight": -1}, r"method.review_weight must be >= 0, got -1"),
        ({"review_ramp": 2}, r"review_ramp must be in \[0, 1\], got 2"),
        ({"temperature": 0}, "temperature must be > 0"),
        ({"fusion_width": 0}, "method.fusion_width must be >= 1 or null, got 0"),
    ],
)
def test_wrong_settings_name_their_key(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(**options)


def test_a_net_without_maps_is_told_with_its_key() -> None:
    said = r"student student must have two stages .* it has 0: .*\(model@method.students.student=…"
    with pytest.raises(UserError, match=said):
        make(students={"student": net(inputs=64)})
