"""Uncertainty-aware mixup: its loss against the formula, and what the teacher is asked."""

from pathlib import Path

import pytest
import torch
from helpers import net, sgd
from methods.test_contract import built, state_of, trainer
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.uncertainty_mixup import UncertaintyMixup
from kd_lightning.models.classifier import Classifier


def make(students: int = 1, **options: object) -> UncertaintyMixup:
    torch.manual_seed(0)
    keys = ("student", "b", "c")[:students]
    nets = {"teacher": net(hidden=5), "students": {key: net() for key in keys}}
    method = UncertaintyMixup(**nets, num_classes=3, optimizer=sgd(), **options)
    return method.train()


def batch(size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 12, generator=generator), torch.arange(size) % 3


def gradients(method: Learner, key: str = "student") -> list[Tensor]:
    loss = method.training_step(batch(), 0)
    return list(torch.autograd.grad(loss, list(method.students[key].parameters())))


def asked_rows(method: UncertaintyMixup, x: Tensor, y: Tensor) -> list[int]:
    """The sizes of the batches that go through the teacher in a step."""
    rows: list[int] = []
    hook = method.teacher.trunk.register_forward_hook(lambda m, x, out: rows.append(len(x[0])))
    method.training_step((x, y), 0)
    hook.remove()
    return rows


def test_loss_is_the_formula() -> None:
    method = make(hard_weight=0.3, soft_weight=2.0, temperature=3.0, steepness=6.0)
    x, y = batch()
    lam, partners, _ = method.draws(x)
    student = method.students["student"]
    p = student(x).logits.softmax(1).double()
    order = (p * p.log()).sum(1).argsort()[:6]
    share = lam * torch.sigmoid(6 * (torch.arange(6) / 8 - 7 / 16))
    other = partners[:6]
    mixed = (1 - share)[:, None] * x[order] + share[:, None] * x[other]
    z, z_t = student(mixed).logits, method.teacher(mixed).logits
    hard = (1 - share) * F.cross_entropy(z, y[order], reduction="none")
    hard = hard + share * F.cross_entropy(z, y[other], reduction="none")
    soft = F.kl_div((z / 3).log_softmax(1), (z_t / 3).softmax(1), reduction="batchmean")
    torch.testing.assert_close(method.training_step((x, y), 0), 0.3 * hard.mean() + 18 * soft)
    torch.testing.assert_close(hard.mean(), mixed_labels(z, y[order], y[other], share))


def mixed_labels(z: Tensor, own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy with one distribution over the classes for each mixed sample."""
    shares = (1 - share)[:, None] * F.one_hot(own, 3) + share[:, None] * F.one_hot(other, 3)
    return F.cross_entropy(z, shares)


@pytest.mark.parametrize("same", [{"mix": False}, {"steepness": 1e6, "boundary": 1.0}])
def test_the_whole_batch_without_mixup_is_kd(same: dict[str, float]) -> None:
    weights = {"hard_weight": 0.1, "soft_weight": 0.9}
    method = make(teacher_share=1.0, **weights, **same)
    torch.manual_seed(0)
    nets = {"teacher": net(hidden=5), "students": {"student": net()}}
    plain = KnowledgeDistillation(**nets, num_classes=3, optimizer=sgd(), **weights).train()
    for ours, theirs in zip(gradients(method), gradients(plain), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("share", "size", "rows"), [(0.75, 64, 48), (0.75, 10, 8), (0.5, 9, 4), (0.1, 1, 1), (1, 7, 7)]
)
def test_the_teacher_is_asked_for_exactly_k_samples(share: float, size: int, rows: int) -> None:
    assert asked_rows(make(teacher_share=share), *batch(size)) == [rows]
    assert asked_rows(make(students=2, teacher_share=share), *batch(size)) == [rows, rows]


def test_without_soft_targets_the_teacher_is_not_asked() -> None:
    method = make(hard_weight=1.0, soft_weight=0.0)
    assert asked_rows(method, *batch()) == []
    assert method.teacher_rows == 0
    assert make(students=2, teacher_share=0.5).teacher_rows == 1.0


def with_batch_norm() -> Classifier:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    return Classifier(trunk=trunk, head=nn.Linear(8, 3), dropout=0.5)


@pytest.mark.parametrize(("scoring", "moves"), [("batch", False), ("eval", False), ("train", True)])
def test_scoring_leaves_no_gradient_and_moves_averages_in_train_mode_alone(
    scoring: str, moves: bool
) -> None:
    method = make(scoring=scoring)
    method.students["student"] = with_batch_norm().train()
    before = state_of(method.students)
    logits = method.scoring_logits("student", batch()[0])
    assert not logits.requires_grad
    assert method.students["student"].training
    same = [torch.equal(v, before[name]) for name, v in method.students.state_dict().items()]
    assert all(same) != moves


def test_a_step_moves_running_averages_once() -> None:
    method = make(score="random")
    method.students["student"] = with_batch_norm().train()
    scored = make()
    scored.students["student"] = with_batch_norm().train()
    for one in (method, scored):
        one.training_step(batch(), 0)
        assert one.students["student"].trunk[1].num_batches_tracked == 1


def test_a_step_leaves_the_batch_and_the_mode_as_they_were() -> None:
    method, (x, y) = make(), batch()
    was = x.clone()
    method.training_step((x, y), 0)
    assert torch.equal(x, was)
    assert all(module.training for module in method.students.modules())


def test_sure_students_have_finite_losses_and_gradients() -> None:
    method = make(hard_weight=1.0)
    with torch.no_grad():
        method.students["student"].head.weight.mul_(1e5)
    assert all(gradient.isfinite().all() for gradient in gradients(method))


def test_a_batch_of_one_is_finite() -> None:
    x, y = batch(1)
    assert make().training_step((x, y), 0).isfinite()


def test_images_and_series_are_mixed_as_they_are_stored() -> None:
    x, y = torch.randint(256, (8, 3, 2, 2), dtype=torch.uint8), torch.arange(8) % 3
    losses = [make().training_step((images, y), 0) for images in (x, x.float() / 255)]
    assert torch.equal(*losses)
    assert make().training_step((torch.randn(8, 2, 6), y), 0).isfinite()


def test_another_student_changes_nothing_for_the_first() -> None:
    for alone, beside in zip(gradients(make()), gradients(make(students=2)), strict=True):
        assert torch.equal(alone, beside)


def test_draws_follow_from_seed_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = batch()
    first = make().draws(x)
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(first, make().draws(x), strict=True))
    assert sorted(first.partners.tolist()) == list(range(8))
    assert first.strength.ndim == 0
    others = [make(seed=1).draws(x).strength]
    monkeypatch.setattr(Learner, "_batches_started", 1)
    others.append(make().draws(x).strength)
    assert first.strength not in others


OPTIONS = {
    "score": "random",
    "mix": False,
    "teacher_share": 0.5,
    "boundary": 0.2,
    "steepness": 0.0,
    "temperature": 1.0,
    "hard_weight": 0.5,
    "soft_weight": 0.5,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    losses = [m.training_step(batch(), 0) for m in (make(), make(**{name: OPTIONS[name]}))]
    assert losses[0] != losses[1]


def test_the_mode_of_scoring_changes_the_order() -> None:
    orders = []
    for scoring in ("batch", "eval"):
        method = make(scoring=scoring)
        method.students["student"] = with_batch_norm().train()
        scores = method.score(method.scoring_logits("student", batch()[0]))
        orders.append(scores.argsort().tolist())
    assert orders[0] != orders[1]


WRONG = {
    "score": ("entropie", "unknown score 'entropie'.*method.score"),
    "scoring": ("frozen", "unknown mode 'frozen'.*method.scoring"),
    "teacher_share": (0.0, r"method.teacher_share must be in \(0, 1\], got 0.0"),
    "boundary": (1.5, r"method.boundary must be in \[0, 1\], got 1.5"),
    "steepness": (-1.0, "steepness must be >= 0, got -1.0"),
    "temperature": (0.0, "temperature must be > 0, got 0.0"),
    "hard_weight": (-1.0, "hard_weight must be >= 0, got -1.0"),
    "soft_weight": (0.0, "one of hard_weight, soft_weight must be > 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_name_their_key(name: str) -> None:
    value, sentence = WRONG[name]
    with pytest.raises(UserError, match=sentence):
        make(**{name: value})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("teacher.cache=2", r"mixup does not support teacher.cache=2: its teacher sees"),
        ("mixing@data.mixing=mixup", r"not support data.mixing: it mixes samples itself"),
    ],
)
def test_neither_a_cache_nor_other_mixing_is_supported(words: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        built("uncertainty_mixup", words)


def test_an_epoch_logs_how_many_samples_the_teacher_was_asked(tmp_path: Path) -> None:
    learner, data, _ = built("uncertainty_mixup", "data.batch_size=10")
    sizes = [len(y) for _, y in data.loader("train")]
    run = trainer(tmp_path)
    run.fit(learner, datamodule=data)  # two epochs: the count starts anew
    expected = sum(max(1, round(0.75 * size)) for size in sizes)
    assert run.callback_metrics["train/teacher_samples"] == expected
