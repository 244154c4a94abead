"""The laws of stochastic self-distillation (arXiv 2504.14307)."""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from helpers import compose, net, sgd
from torch import Tensor
from torch.nn import functional

from kd_lightning.base.errors import UserError
from kd_lightning.losses.guidance import cosine_similarity, mean_guidance, nearest_guidance
from kd_lightning.methods import stochastic_self_distillation as module
from kd_lightning.methods.stochastic_self_distillation import StochasticSelfDistillation


def guided(**settings: object) -> partial:
    """The paper's guidance with other settings."""
    return partial(module.PAPER, **({"bandwidth": "auto"} | settings))


def make(teacher: torch.nn.Module | None = None, **options: object) -> StochasticSelfDistillation:
    torch.manual_seed(0)
    teacher = teacher or net(dropout=0.5)
    torch.manual_seed(1)
    student = options.pop("student", None) or net(dropout=0.5)
    settings = {"num_passes": 10, "guidance": guided()}
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
    method._passes_differ = True  # the method itself refuses equal passes
    monkeypatch.setattr(
        module, "sample_features", lambda net, x, k, *_: net.features(x).expand(k, -1, -1)
    )
    method.training_step(batch(), 0)
    assert method.running_means.read_epoch()["student/feature"] == pytest.approx(0, abs=1e-12)


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
    with pytest.raises(UserError, match="give it the teacher's architecture"):
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
        options = {"start_from_teacher": False, "hard_weight": 0.0}
        guidance = guided(bandwidth=0.3, percentile=0.0)
        method = make(detach_weights=detach, guidance=guidance, **options)
        method.training_step(batch(), 0).backward()
        gradients.append(method.students["student"].trunk[1].weight.grad)
    assert not torch.allclose(*gradients)


FOUND = {"bandwidth": 1.0, "percentile": 50.0}
OPTIONS = {
    "fewer passes": {"num_passes": 3},
    "a random pass": {"num_passes": 1},
    "a narrow bandwidth": {"guidance": guided(**{**FOUND, "bandwidth": 0.1})},
    "all passes": {"guidance": guided(**{**FOUND, "percentile": 0.0})},
    "two passes": {"guidance": guided(**{**FOUND, "percentile": None, "top_k": 2})},
    "shrunk": {"guidance": guided(**FOUND, renormalize=False)},
    "cosine": {"guidance": guided(**FOUND, similarity=cosine_similarity)},
    "mean": {"guidance": mean_guidance},
    "nearest": {"guidance": nearest_guidance},
    "deterministic": {"stochastic": False},
    "random start": {"start_from_teacher": False},
    "fewer labels": {"hard_weight": 0.3},
    "more features": {"feature_weight": 7.0},
    "no features": {"feature_weight": 0.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    losses = [
        make(**({"guidance": guided(**FOUND)} | options)).training_step(batch(), 0)
        for options in ({}, OPTIONS[name])
    ]
    assert not torch.allclose(*losses)


def test_without_stochastic_passes_the_target_is_the_teachers_feature() -> None:
    method = make(net(dropout=0.0), student=net(dropout=0.0), stochastic=False, num_passes=30,
                  start_from_teacher=False)  # fmt: skip
    x, y = batch()
    expected = method.teacher(x).features
    assert torch.equal(method.teacher_samples(x), expected.unsqueeze(0))
    method.training_step((x, y), 0)
    found = (method.students["student"](x).features - expected).square().mean()
    assert method.running_means.read_epoch()["student/feature"] == pytest.approx(found.item())


def test_without_a_feature_loss_no_teacher_is_asked() -> None:
    method = make(net(dropout=0.0), student=net(dropout=0.0), feature_weight=0.0)
    asked = []
    method.teacher.trunk.register_forward_hook(lambda *_: asked.append(1))
    method.training_step(batch(), 0)
    assert not asked
    assert set(method.running_means.read_epoch()) == {"student/hard"}


@pytest.mark.parametrize("top_k", [2, 5])
def test_top_k_passes_are_kept(top_k: int) -> None:
    wide = net(features=64, dropout=0.5)  # of few features two masks may be equal
    method = make(wide, student=deepcopy(wide), guidance=guided(percentile=None, top_k=top_k))
    method.training_step(batch(), 0)
    assert method.running_means.read_epoch()["guidance/passes_kept"] == top_k


def test_logs_passes_kept_and_their_entropy() -> None:
    method = make(num_passes=30, guidance=guided(percentile=90.0))
    method.training_step(batch(), 0)
    logged = method.running_means.read_epoch()
    assert 0 < logged["guidance/similarity"] <= 1  # the student starts as its teacher
    assert logged["guidance/passes_kept"] == 3
    assert 0 <= logged["guidance/weight_entropy"] <= 1


def test_what_is_logged_of_the_guidance_is_what_it_says() -> None:
    method = make(num_passes=30, guidance=guided(percentile=90.0, bandwidth=0.5))
    x, y = batch()
    samples = method.teacher_samples(x)
    features = method.students["student"](x).features
    weights, attention = (found.detach() for found in method.guidance(features, samples))
    method.training_step((x, y), 0)
    logged = method.running_means.read_epoch()

    def entropy(shares: Tensor) -> float:
        return (torch.special.entr(shares).sum(1) / math.log(30)).mean().item()

    assert logged["guidance/attention_entropy"] == pytest.approx(entropy(attention), rel=1e-5)
    assert logged["guidance/weight_entropy"] == pytest.approx(entropy(weights), rel=1e-5)
    assert entropy(attention) > entropy(weights) + 0.1
    nearness = functional.cosine_similarity(features, samples, dim=-1).T
    chosen = (weights * nearness).sum(1).mean().item()
    assert logged["guidance/similarity"] == pytest.approx(chosen, rel=1e-5)
    assert chosen > nearness.mean().item() + 0.01


def test_each_rank_has_masks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make()
    first = method.teacher_samples(batch()[0])
    monkeypatch.setattr(StochasticSelfDistillation, "global_rank", 1)
    assert not torch.equal(first, method.teacher_samples(batch()[0]))


def test_the_rows_of_a_teacher_pass_are_as_few_as_asked_for() -> None:
    teacher = net(dropout=0.5)
    teacher.trunk.append(torch.nn.Dropout(0.3))
    rows = []
    teacher.trunk[1].register_forward_pre_hook(lambda layer, given: rows.append(len(given[0])))
    for max_rows, calls in ((32, [32] * 5), (1000, [160])):
        method = make(teacher, student=deepcopy(teacher), max_rows=max_rows)
        method.teacher_for = lambda x, method=method: method.teacher
        method.teacher_samples(batch()[0])
        found = [count for count in rows if count > 2]
        assert found[: len(calls)] == calls
        rows.clear()


def test_the_datas_dropout_is_the_teachers() -> None:
    words = ("method=stochastic_self_distillation", "data=ucr", "data.name=GunPoint")
    teacher = compose(*words, "dropout.head=0.35", "dropout.blocks=0.15").method.teacher
    assert (teacher.dropout, teacher.block_dropout) == (0.35, 0.15)


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
        ({"guidance": guided(percentile=101.0)}, "guidance"),
        ({"guidance": guided(top_k=3)}, "guidance"),
        ({"guidance": guided(bandwidth=0.0)}, "guidance"),
        ({"feature_weight": -1.0}, "feature_weight"),
    ],
)
def test_bad_values_name_their_key(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{key}"):
        make(**options)


def test_the_presets_are_the_papers_text_and_what_its_code_computes() -> None:
    published = compose("experiment=ssd_as_published").method
    assert (published.num_passes, published.guidance.percentile) == (30, 90)
    assert (published.stochastic, published.start_from_teacher) == (True, True)
    assert (published.guidance.bandwidth, published.guidance.renormalize) == (5, False)
    released = compose("experiment=ssd_as_released").method
    assert (released.stochastic, released.start_from_teacher) == (False, False)
    assert (released.hard_weight, released.feature_weight) == (0.5, 0.5)
    assert not released.detach_weights
