"""The laws of student-oriented teacher knowledge refinement (arXiv 2409.18785)."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import net, sgd
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.base.errors import UserError
from kd_lightning.losses.score_function import score_function_mean
from kd_lightning.methods.base import Learner
from kd_lightning.methods.student_oriented import StudentOriented
from kd_lightning.methods.supervised import Supervised
from kd_lightning.models.areas import area_distance, area_mask, class_logits
from kd_lightning.models.cifar import resnet
from kd_lightning.models.time_series import fcn

IMAGES, SERIES = (3, 16, 16), (2, 24)
PLAIN = {"policy": "none", "areas": "none"}


def image_net(seed: int, *widths: int) -> nn.Module:
    torch.manual_seed(seed)
    return resnet(depth=8, widths=list(widths), num_classes=4, in_chans=3, dropout=0.1)


def series_net(seed: int, width: int) -> nn.Module:
    torch.manual_seed(seed)
    return fcn(widths=[width] * 3, kernels=[5, 3, 3], num_classes=4, in_chans=2)


def make(*keys: str, **options: Any) -> StudentOriented:
    keys = keys or ("student",)
    students = {key: image_net(ord(key[0]), 3, 3, 4, 5) for key in keys}
    nets = {"students": students, "teacher": image_net(0, 4, 4, 6, 8), "input_shape": IMAGES}
    return StudentOriented(**{**nets, "num_classes": 4, "optimizer": sgd(), **options})


def batch(size: int = 8, shape: tuple = IMAGES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *shape, generator=generator), torch.arange(size) % 4


def terms_of(method: StudentOriented, size: int = 8, shape: tuple = IMAGES) -> dict[str, Tensor]:
    return dict(method.losses(*batch(size, shape), None, 1.0).terms)


def maps_of(method: StudentOriented, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """The student's logits, its map after the regressor, and the teacher's map."""
    x, _ = batch(size)
    with (
        method.student_layers["student"].record() as outputs,
        method.teacher_layers.record() as targets,
    ):
        logits = method.forward_student("student", x).logits
        method.teacher(x)
    made = method.regressors["student"](outputs[method.student_names["student"]])
    return logits, made, targets[method.teacher_name]


def gradients(method: Learner, size: int = 8) -> dict[str, Tensor]:
    method.zero_grad()
    method.training_step(batch(size), 0).backward()
    return {name: p.grad.clone() for name, p in method.students.named_parameters()}


# The loss


def test_without_policy_and_areas_it_is_labels_and_the_mean_square_of_the_last_maps() -> None:
    method = make(hard_weight=0.7, feature_weight=3.0, **PLAIN).eval()
    logits, made, target = maps_of(method)
    assert made.shape == target.shape == (8, 8, 4, 4)
    terms = terms_of(method)
    expected = {
        "student/hard": 0.7 * F.cross_entropy(logits, batch()[1]),
        "student/feature": 3 * F.mse_loss(made, target),
    }
    torch.testing.assert_close(terms, expected)
    assert set(method.own_modules()) == {"student"}


@pytest.mark.parametrize("is_searching", [True, False])
def test_the_loss_is_its_formula(is_searching: bool) -> None:
    weights = {"feature_weight": 3.0, "area_weight": 2.0, "area_supervision": 0.5}
    method = make(**weights, num_areas=2).eval()
    method.is_searching = is_searching
    logits, made, target = maps_of(method)
    mine, theirs = (method.areas["student"](maps) for maps in (made, target))
    mask = area_mask(mine, 2)
    assert 0 < mask.float().mean() < 1
    method.seed_step_stream("policy", "student")
    policy = method.policies["student"]
    draw = policy.draw(8)
    squares = (mask * made - mask * policy(target, draw)).square().flatten(1).mean(1)
    y = batch()[1]
    expected = {
        "student/hard": F.cross_entropy(logits, y),
        "student/area": 2 * area_distance(mine, theirs).mean(),
        "student/area_supervision": 0.5 * F.cross_entropy(class_logits(theirs), y),
        "student/feature": 3 * (squares[:4] if is_searching else squares).mean(),
    }
    policy_loss = 3 * score_function_mean(squares[4:], draw.log_probs[4:])
    expected["student/policy"] = policy_loss if is_searching else torch.zeros(())
    terms = terms_of(method)
    torch.testing.assert_close(terms, expected)
    coverage = method.losses(*batch(), None, 1.0).metrics["areas/coverage_student"]
    torch.testing.assert_close(coverage, mask.float().mean())


def test_equal_maps_leave_nothing_to_imitate() -> None:
    teacher = image_net(0, 4, 4, 6, 8)
    method = make(students={"student": deepcopy(teacher)}, teacher=teacher, policy="none").eval()
    method.regressors["student"] = nn.Identity()
    terms = terms_of(method)
    assert terms["student/feature"] == terms["student/area"] == 0
    assert terms["student/hard"] > 0


@pytest.mark.parametrize("policy", ["none", "random", "learned"])
def test_without_features_and_areas_it_is_supervised_to_the_bit(policy: str) -> None:
    method = make(policy=policy, feature_weight=0.0, area_weight=0.0).train()
    students = {"student": image_net(ord("s"), 3, 3, 4, 5)}
    plain = Supervised(students=students, num_classes=4, optimizer=sgd()).train()
    ours, theirs = gradients(method), gradients(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "name", ["hard_weight", "feature_weight", "area_weight", "area_supervision"]
)
def test_every_weight_multiplies_its_term(name: str) -> None:
    term = f"student/{name.removesuffix('_weight')}"
    terms = [terms_of(make(**{name: value}).eval()) for value in (1.0, 2.0)]
    changed = {key for key in terms[0] if not torch.equal(terms[0][key], terms[1][key])}
    of_policy = {"student/policy"} if name == "feature_weight" else set()
    assert changed == {term} | of_policy
    torch.testing.assert_close(terms[1][term], 2 * terms[0][term])


@pytest.mark.parametrize("key", ["a", "b"])
def test_another_student_changes_nothing_for_the_first(key: str) -> None:
    alone, both = (terms_of(make(*keys).train()) for keys in (key, "ab"))
    assert all(torch.equal(both[name], value) for name, value in alone.items())
    assert len(both) == 2 * len(alone)


def test_a_batch_of_one_sample_is_finite() -> None:
    method = make().train()
    assert all(term.isfinite() for term in terms_of(method, size=1).values())
    assert all(gradient.isfinite().all() for gradient in gradients(method, size=1).values())
    assert all(p.grad.isfinite().all() for p in method.parameters())


# Where gradients go


def reached(method: StudentOriented, term: Tensor) -> set[str]:
    """The modules of the method that a term gives a gradient."""
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    parts = {
        "student": method.students,
        "regressor": method.regressors,
        "areas": method.areas,
        "policy": method.policies,
    }
    return {
        name
        for name, part in parts.items()
        if any(p.grad is not None and p.grad.any() for p in part.parameters())
    }


def test_gradients_go_where_they_should_and_nowhere_else() -> None:
    method = make().train()
    terms = terms_of(method)
    assert {name.split("/")[1]: reached(method, term) for name, term in terms.items()} == {
        "hard": {"student"},
        "feature": {"student", "regressor"},
        "area": {"student", "regressor", "areas"},
        "area_supervision": {"areas"},
        "policy": {"policy"},
    }
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize(("policy", "rows"), [("learned", 5), ("random", 5), ("none", 9)])
def test_in_the_search_the_second_half_of_a_batch_teaches_no_features(
    policy: str, rows: int
) -> None:
    method = make(policy=policy, areas="none").eval()
    x, y = batch(9)
    x.requires_grad_()
    terms = method.losses(x, y, None, 1.0).terms
    (gradient,) = torch.autograd.grad(terms["student/feature"], x)
    assert gradient.flatten(1).any(1).tolist() == [True] * rows + [False] * (9 - rows)


def test_a_policy_that_is_random_is_the_learned_ones_control_with_the_same_rows() -> None:
    learned, random = make(), make(policy="random")
    assert learned.is_searching
    assert random.is_searching
    assert set(terms_of(learned)) - set(terms_of(random)) == {"student/policy"}
    assert set(learned.own_modules()) - set(random.own_modules()) == {"policy_student"}
    assert not random.has_unused_parameters
    assert not make(search_share=0).is_searching


def test_relax_trains_a_control_variate_beside_the_policy_and_changes_nothing_else() -> None:
    usual, relaxed = make().train(), make(estimator="relax").train()
    terms = terms_of(relaxed)
    assert set(terms) - set(terms_of(usual)) == {"student/control"}
    for name in ("control", "policy"):
        assert reached(relaxed, terms[f"student/{name}"]) == {"policy"}
    assert set(relaxed.own_modules()) == set(usual.own_modules())
    assert "compile" in relaxed.unsupported()
    assert "compile" not in {**usual.unsupported(), **make(**PLAIN).unsupported()}
    assert "compile" not in make(policy="random", estimator="relax").unsupported()


# The search


class PolicyAfterEpochs(Callback):
    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.states.append(deepcopy(method.policies.state_dict()))


@pytest.mark.parametrize("estimator", ["leave_one_out", "relax"])
def test_a_policy_learns_in_its_search_and_stays_as_it_is_afterwards(
    estimator: str, tmp_path: Path
) -> None:
    method, seen = make(search_share=0.5, estimator=estimator), PolicyAfterEpochs()
    seen.states.append(deepcopy(method.policies.state_dict()))
    teacher = deepcopy(method.teacher.state_dict())
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        default_root_dir=tmp_path, callbacks=[seen],
    )  # fmt: skip
    trainer.fit(method, DataLoader(TensorDataset(*batch(16)), batch_size=8))
    same = [
        all(torch.equal(before[name], after[name]) for name in before)
        for before, after in zip(seen.states, seen.states[1:], strict=False)
    ]
    assert same == [False, False, True, True]
    assert all(torch.equal(value, method.teacher.state_dict()[n]) for n, value in teacher.items())
    terms = terms_of(method)
    assert terms["student/policy"] == 0
    method.policies["student"] = make(seed=1).policies["student"]
    assert terms_of(method)["student/feature"] != terms["student/feature"]  # it still augments


# What it takes


def test_series_are_refined_too() -> None:
    method = make(
        students={"student": series_net(1, 5)}, teacher=series_net(0, 6), input_shape=SERIES
    ).train()
    assert "rotate" not in method.policies["student"].operations
    terms = terms_of(method, shape=SERIES)
    assert all(term.isfinite() for term in terms.values())
    assert reached(method, sum(terms.values())) == {"student", "regressor", "areas", "policy"}


def test_layers_can_be_named() -> None:
    method = make(student_layer="trunk.stage2", teacher_layer="trunk.stage1", **PLAIN)
    assert method.regressors["student"](torch.randn(2, 4, 8, 8)).shape == (2, 4, 16, 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "searched"}, r"unknown policy 'searched'.*\(method.policy=…"),
        ({"estimator": "best"}, r"unknown estimator 'best'.*\(method.estimator=…"),
        ({"areas": "all"}, r"unknown choice of areas 'all'.*\(method.areas=…"),
        ({"search_share": -1}, r"search_share must be in \[0, 1\], got -1"),
        ({"num_areas": 0}, r"method.num_areas must be >= 1 or null, got 0"),
        ({"area_supervision": -1.0}, r"method.area_supervision must be >= 0, got -1.0"),
        ({"area_weight": -1.0}, r"method.area_weight must be >= 0, got -1.0"),
        (
            {"teacher_layer": "trunk.stag1"},
            r"unknown layer 'trunk.stag1' of the teacher.*\(method.te",
        ),
        (
            {"student_layer": "trunk"},
            r"layer trunk of student student must give a feature map of several cells, got the "
            r"shape \(5,\): choose an earlier layer \(method.student_layer=…\)",
        ),
        ({"input_shape": (3, 5)}, r"a net takes none of \(3, 5\) \(method.input_shape=…\)"),
    ],
)
def test_bad_values_name_their_key(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(**options)


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_a_net_without_feature_maps_is_refused_with_the_key(whose: str) -> None:
    flat = net(inputs=3 * 16 * 16, classes=4)
    nets = {"teacher": flat} if whose == "teacher" else {"students": {"student": flat}}
    key = "teacher" if whose == "teacher" else "students.student"
    name = "the teacher" if whose == "teacher" else "student student"
    with pytest.raises(UserError) as refused:
        make(**nets)
    assert str(refused.value) == (
        f"{name} has no feature map, which this method needs: choose a convolutional net "
        f"(model@method.{key}=…)"
    )
