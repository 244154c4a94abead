"""Single-student distillation, against its formula, with every soft loss."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import compose, net, sgd
from timm.task import LogitDistillationTask
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.losses.dist import dist_soft_loss
from kd_lightning.losses.dkd import dkd_soft_loss
from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.mlkd import mlkd_soft_loss
from kd_lightning.losses.soft_targets import kl_soft_loss, soft_target_kl
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.supervised import Supervised
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.sources import Teacher, build_net

DKD = partial(dkd_soft_loss, target_weight=1.0, nontarget_weight=8.0)
DIST = partial(dist_soft_loss, inter_weight=2.0, intra_weight=1.0)
MLKD = partial(mlkd_soft_loss, factors=[0.5, 1.0], batch_weight=1.0, class_weight=1.0)
SOFT_LOSSES = {"kl": kl_soft_loss, "dkd": DKD, "dist": DIST, "mlkd": MLKD}


def make(**options: object) -> KnowledgeDistillation:
    torch.manual_seed(0)
    return KnowledgeDistillation(
        students=options.pop("students", None) or {"student": net()},
        teacher=options.pop("teacher", None) or net(hidden=5),
        num_classes=3,
        optimizer=sgd(),
        **options,
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 12, generator=generator), torch.arange(8) % 3


def test_loss_is_the_formula() -> None:
    method = make(temperature=3.0, hard_weight=0.1, soft_weight=0.9)
    x, y = batch()
    student, teacher = method.students["student"](x).logits, method.teacher(x).logits
    soft = F.kl_div((student / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="batchmean")
    expected = 0.1 * F.cross_entropy(student, y) + 0.9 * 9 * soft
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


class ForTimm(nn.Module):
    """What timm asks of a net, around one of ours."""

    num_classes = 3
    in_chans = 3
    pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # noqa: RUF012 - timm's own form

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).logits


def test_agrees_with_timm() -> None:
    method = make(temperature=4.0, hard_weight=0.1, soft_weight=0.9)
    task = LogitDistillationTask(
        ForTimm(method.students["student"]),
        ForTimm(method.teacher),
        criterion=nn.CrossEntropyLoss(),
        temperature=4.0,
        task_loss_weight=0.1,
        distill_loss_weight=0.9,
        verbose=False,
    )
    x, y = batch()
    losses = task(x.view(8, 3, 2, 2), y)["loss"], method.training_step((x, y), 0)
    torch.testing.assert_close(*losses)
    parameters = list(method.students.parameters())
    for ours, theirs in zip(
        *(torch.autograd.grad(loss, parameters) for loss in losses), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_every_soft_loss_is_asked_for_what_it_says(name: str, standardized: bool) -> None:
    method = make(
        soft_loss=SOFT_LOSSES[name],
        standardize_logits=standardized,
        temperature=2.0,
        hard_weight=0.3,
        soft_weight=9.0,
    )
    x, y = batch()
    hard = F.cross_entropy(method.students["student"](x).logits, y)
    logits = method.students["student"](x).logits, method.teacher(x).logits
    if standardized:
        logits = tuple((z - z.mean(1, keepdim=True)) / z.std(1, False, True) for z in logits)
    soft = SOFT_LOSSES[name](*logits, y, 2.0)
    assert soft.shape == (8,)
    found = method.training_step((x, y), 0)
    torch.testing.assert_close(found, 0.3 * hard + 9 * soft.mean(), rtol=1e-4, atol=1e-4)


OPTIONS = {
    "soft_loss": DKD,
    "standardize_logits": True,
    "temperature": 1.0,
    "hard_weight": 0.1,
    "soft_weight": 3.0,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    plain, changed = (make(**o).training_step(batch(), 0) for o in ({}, {name: OPTIONS[name]}))
    assert not torch.allclose(plain, changed, rtol=1e-3)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_mixed_labels_are_accepted(name: str) -> None:
    x, y = batch()
    method = make(soft_loss=SOFT_LOSSES[name])
    one_hot = method.training_step((x, F.one_hot(y, 3).float()), 0)
    torch.testing.assert_close(one_hot, method.training_step((x, y), 0))
    mixed = 0.7 * F.one_hot(y, 3) + 0.3 * F.one_hot((y + 1) % 3, 3)
    assert method.training_step((x, mixed), 0).isfinite()


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_finite_at_extreme_logits(name: str, standardized: bool) -> None:
    method = make(soft_loss=SOFT_LOSSES[name], standardize_logits=standardized)
    with torch.no_grad():
        for head in (method.teacher.head, method.students["student"].head):
            head.weight.mul_(1e5)
    loss = method.training_step(batch(), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.students.parameters())


def test_standardized_logits_are_those_of_both_nets() -> None:
    method = make(standardize_logits=True, temperature=2.0)
    student, teacher = torch.randn(8, 3), 5 * torch.randn(8, 3) + 2
    found = method.distance(student, teacher, batch()[1], 2.0)
    expected = soft_target_kl(standardize(student), standardize(teacher), 2.0)
    assert torch.equal(found, expected)
    for one in (
        soft_target_kl(student, standardize(teacher), 2.0),
        soft_target_kl(standardize(student), teacher, 2.0),
    ):
        assert not torch.allclose(found, one)


def test_soft_term_rises_over_its_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    method, whole = make(soft_ramp=0.2, hard_weight=0.0), make(hard_weight=0.0)
    full = whole.training_step(batch(), 0)
    for progress, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)):
        monkeypatch.setattr(KnowledgeDistillation, "progress", progress)
        torch.testing.assert_close(method.training_step(batch(), 0), share * full)
        assert torch.equal(whole.training_step(batch(), 0), full)


@pytest.mark.parametrize(("soft_weight", "calls_a_step"), [(0.0, 0), (1.0, 1)])
def test_a_teacher_that_counts_for_nothing_is_not_asked(
    soft_weight: float, calls_a_step: int
) -> None:
    method = make(soft_weight=soft_weight)
    calls = []
    method.teacher.register_forward_hook(lambda *_: calls.append(1))
    for step in range(3):
        method.training_step(batch(), step)
    assert len(calls) == 3 * calls_a_step


def test_continued_training_is_supervised_training_from_the_teachers_weights() -> None:
    torch.manual_seed(7)
    teacher, twin = net(), net()
    twin.load_state_dict(teacher.state_dict())
    methods = (
        make(teacher=teacher, start_from_teacher=True, soft_weight=0.0),
        Supervised(students={"student": twin}, num_classes=3, optimizer=sgd()),
    )
    for step in range(3):
        for method in methods:
            optimizer = method.make_optimizer(list(method.students.parameters()))
            method.training_step(batch(), step).backward()
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(*(method.students.parameters() for method in methods), strict=True):
        assert torch.equal(p, q)


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
    with pytest.raises(UserError, match=r"method.temperature must be > 0, got "):
        make(temperature=temperature)


def test_weights_all_zero_are_refused() -> None:
    with pytest.raises(UserError, match="must be > 0"):
        make(hard_weight=0.0, soft_weight=0.0)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_ramp_is_a_share_of_the_run(share: float) -> None:
    with pytest.raises(UserError, match=r"method.soft_ramp must be in \[0, 1\], got "):
        make(soft_ramp=share)


def test_what_a_soft_loss_refuses_is_a_sentence_before_training() -> None:
    bad = partial(dkd_soft_loss, target_weight=-1.0, nontarget_weight=8.0)
    with pytest.raises(UserError, match=r"target_weight .* must be >= 0.* got -1.*method\.soft_l"):
        make(soft_loss=bad)


# A temperature that learns


def learned(**options: object) -> KnowledgeDistillation:
    return make(temperature=1.0, temperature_range=20.0, **options)


def test_the_soft_loss_is_that_of_the_temperature_that_is_learned() -> None:
    reached = 1 + 20 * torch.tensor(1.0).sigmoid().item()
    fixed = make(temperature=reached).training_step(batch(), 0)
    torch.testing.assert_close(learned().training_step(batch(), 0), fixed)
    assert make(temperature=1.0).training_step(batch(), 0) != fixed


def test_each_student_has_a_temperature_that_it_learns_against() -> None:
    torch.manual_seed(0)
    students = {"a": net(), "b": net(features=5)}
    method = learned(temperature_ramp=0.0, students=students)
    taus = [method.temperatures[key].tau for key in students]
    with torch.no_grad():
        method.teacher.head.weight.mul_(20)
        for tau in taus:
            tau.fill_(-3.0)  # T = 1.9
    before = method.training_step(batch(), 0)
    before.backward()
    assert 0 != taus[0].grad != taus[1].grad != 0
    groups = {group["name"]: group["params"] for group in method.parameter_groups()}
    assert all(any(p is tau for p in groups[k]) for k, tau in zip(students, taus, strict=True))
    for tau in taus:
        torch.optim.SGD([tau], lr=1.0).step()
    assert method.training_step(batch(), 0) > before + 1e-3


def test_the_temperature_begins_to_learn_over_its_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for progress in (0.0, 0.1, 0.2, 1.0):
        monkeypatch.setattr(KnowledgeDistillation, "progress", progress)
        method = learned(temperature_ramp=0.2)
        method.training_step(batch(), 0).backward()
        gradients.append(method.temperatures["student"].tau.grad)
    shares = torch.stack(gradients) / gradients[-1]
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.5, 1.0, 1.0]))


def test_a_temperature_that_cannot_be_learned_is_refused() -> None:
    for options, said in (
        ({"soft_weight": 0.0}, r"temperature_range=20.0 has no effect with method\.soft_weight=0"),
        ({"mixed_targets": True}, r"at one temperature.*method\.temperature_range=0"),
        ({"temperature_ramp": 2}, r"temperature_ramp must be in \[0, 1\], got 2"),
    ):
        with pytest.raises(UserError, match=said):
            learned(**options)
    with pytest.raises(UserError, match="temperature_range must be >= 0, got -1"):
        make(temperature_range=-1)
    assert "cache_top_k" in learned().unsupported()
    assert "cache_top_k" not in make().unsupported()


def test_a_run_logs_its_temperature_and_the_student_is_its_net(tiny: list[str]) -> None:
    words = ["method=kd", "method.temperature=1", "method.temperature_range=20", *tiny]
    result = distill(*words, "trainer.max_epochs=1")
    logged = (result.directory / "epochs.csv").read_text().splitlines()[0]
    assert "train/temperature/student" in logged
    saved, last = (torch.load(result.directory / name, weights_only=True)["state_dict"]
                   for name in ("best-student.ckpt", "last.ckpt"))  # fmt: skip
    assert "temperatures.student.tau" in last
    assert not any("tau" in name for name in saved)


# The twin as a student


def of_experiment(name: str) -> KnowledgeDistillation:
    cfg = compose(f"experiment={name}", "data=synthetic", "data.num_train=64")
    build_data(cfg)  # says what the nets need to know
    teacher = Teacher(build_net(cfg.method.teacher, 1, "teacher"), "a test", "a net")
    return build_method(cfg, teacher)


@pytest.mark.parametrize(
    ("name", "is_born_with_its_weights"), [("born_again", False), ("continue_training", True)]
)
def test_the_student_is_built_as_its_teacher(name: str, is_born_with_its_weights: bool) -> None:
    method = of_experiment(name)
    student, teacher = method.students["student"].state_dict(), method.teacher.state_dict()
    assert [(k, v.shape) for k, v in student.items()] == [(k, v.shape) for k, v in teacher.items()]
    equal = all(torch.equal(student[key], teacher[key]) for key in teacher)
    assert equal == is_born_with_its_weights


def test_a_generation_is_taught_by_the_one_before(tiny: list[str]) -> None:
    first = distill("experiment=born_again", *tiny)
    own = [word for word in tiny if not word.startswith("teacher.")]
    second = distill("experiment=born_again", *own, "seed=1", f"teacher.source={first.directory}")
    teacher, student = (run.metrics["nets"] for run in (second, first))
    assert teacher["teacher"]["test"] == student["student"]["test"]
    assert str(first.directory) in teacher["teacher"]["origin"]
    assert Path(second.directory / "best-student.ckpt").exists()


def two_classes(**options: object) -> KnowledgeDistillation:
    return KnowledgeDistillation(
        students={"student": net(classes=2)}, teacher=net(classes=2, hidden=5), num_classes=2,
        optimizer=sgd(), **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"standardize_logits": True}, r"always -1 and 1.*method\.standardize_logits=false"),
        ({"soft_loss": partial(DIST, intra_weight=0.0)}, "intra_weight must be > 0"),
        ({"soft_loss": partial(DKD, target_weight=0.0)}, "target_weight must be > 0"),
    ],
)
def test_what_teaches_nothing_of_two_classes_is_refused(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        two_classes(**options)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_every_soft_loss_teaches_two_classes(name: str) -> None:
    method = two_classes(soft_loss=SOFT_LOSSES[name], hard_weight=0.0)
    x, y = batch()
    method.training_step((x, y % 2), 0).backward()
    assert method.students["student"].head.weight.grad.abs().max() > 1e-4


def mixed_batch(share: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A batch whose samples are mixed with the one before, and what it is made of."""
    clean, y = batch()
    partner, shares = torch.arange(8).roll(1), torch.full((8,), share)
    x = (1 - share) * clean + share * clean[partner]
    labels = F.one_hot(y, 3).float()
    return x, labels.lerp(labels[partner], share), {
        "clean": clean, "partner": partner, "share": shares
    }  # fmt: skip


def test_a_mixed_target_is_the_mix_of_two_clean_answers() -> None:
    method = make(mixed_targets=True, temperature=2.0, hard_weight=0.0)
    x, y, made_of = mixed_batch(0.3)
    p = (method.teacher(made_of["clean"]).logits / 2).softmax(1)
    target = 0.7 * p + 0.3 * p[made_of["partner"]]
    student = (method.students["student"](x).logits / 2).log_softmax(1)
    expected = 4 * F.kl_div(student, target, reduction="batchmean")
    torch.testing.assert_close(method.training_step((x, y, made_of), 0), expected)
    outputs = {"logits": method.teacher(made_of.pop("clean")).logits}  # as from a cache
    torch.testing.assert_close(method.training_step((x, y, made_of | outputs), 0), expected)
    assert make(hard_weight=0.0, temperature=2.0).training_step((x, y), 0) != expected


def test_samples_without_a_partner_have_the_target_of_the_sample_itself() -> None:
    x, y, made_of = mixed_batch(0.0)
    losses = [make().training_step((x, y), 0),
              make(mixed_targets=True).training_step((x, y, made_of), 0)]  # fmt: skip
    torch.testing.assert_close(*losses)


def test_a_mix_of_predictions_is_not_standardized() -> None:
    with pytest.raises(UserError, match=r"no logits to standardize: set method.mixed_targets"):
        make(mixed_targets=True, standardize_logits=True)


def test_a_mix_of_predictions_is_not_compared_at_several_temperatures() -> None:
    with pytest.raises(UserError, match=r"MLKD compares them at several: set method.mixed_targets"):
        make(
            mixed_targets=True,
            soft_loss=partial(mlkd_soft_loss, factors=[1.0], batch_weight=1, class_weight=1),
        )


@pytest.mark.parametrize("more", [[], ["teacher.cache=1"], ["mixing@data.mixing=cutmix"]])
def test_a_run_with_mixed_targets_ends(more: list[str], tiny: list[str]) -> None:
    words = ["method=kd", "mixing@data.mixing=mixup", *more, "method.mixed_targets=true", *tiny]
    result = distill(*words, "trainer.max_epochs=1")
    assert 0 <= result.objective <= 1


def test_mixed_targets_of_samples_that_are_not_mixed_are_refused(tiny: list[str]) -> None:
    with pytest.raises(UserError, match=r"mixed_targets=true has no effect without mixed samples"):
        distill("method=kd", "method.mixed_targets=true", *tiny)


def test_mixed_targets_that_count_for_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"no effect with method\.soft_weight=0"):
        make(mixed_targets=True, soft_weight=0)
    assert "unlabeled" in make(mixed_targets=True).unsupported()
    assert "unlabeled" not in make().unsupported()


def test_a_student_that_begins_with_its_teachers_weights_sees_images_of_their_size() -> None:
    teacher = net()
    teacher.prepare.size = 16
    with pytest.raises(UserError, match=r"for input_size=16, and has None: set method.teacher.inp"):
        make(teacher=teacher, start_from_teacher=True)
    make(teacher=teacher, start_from_teacher=False)
