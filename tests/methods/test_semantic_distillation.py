"""Semantic distillation: its terms, where their gradients go, its adapter, its wrong settings."""

import pytest
import torch
from helpers import compose, net, sgd
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.methods.semantic_distillation import (
    Adapter,
    SemanticDistillation,
    has_negative_features,
)
from kd_lightning.models.cifar import resnet
from kd_lightning.models.time_series import fcn
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.sources import Teacher, build_net

IMAGES = {"num_classes": 3, "in_chans": 1}


def seeded(make, seed: int, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make(**options)


def make(**options: object) -> SemanticDistillation:
    """Convolutional nets: the last maps have 8 channels of 2 x 2, and 12 of the teacher."""
    nets = {
        "students": {"student": seeded(resnet, 1, depth=8, widths=[4, 4, 6, 8], **IMAGES)},
        "teacher": seeded(resnet, 0, depth=8, widths=[4, 4, 8, 12], **IMAGES),
    }
    settings = {"input_shape": (1, 8, 8), "num_classes": 3, "optimizer": sgd()}
    return SemanticDistillation(**(nets | settings | options))


def of_vectors(**options: object) -> SemanticDistillation:
    nets = {"students": {"student": seeded(net, 1)}, "teacher": seeded(net, 0, features=9)}
    return make(**(nets | {"input_shape": (12,)} | options))


def batch(*shape: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, *(shape or (1, 8, 8)), generator=generator), torch.arange(size) % 3


def terms(method: SemanticDistillation, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    found = method.losses(x, y, None, 1.0).terms
    return {name.removeprefix("student/"): value for name, value in found.items()}


# The loss


def test_the_loss_is_the_formula() -> None:
    method = make(hard_weight=0.5, soft_weight=0.9, feature_weight=7, semantic_weight=2)
    (x, y), student, teacher = batch(), method.students["student"].eval(), method.teacher
    project, norm = method.adapters["student"].project, method.adapters["student"].norm
    maps = student.trunk.stage3(student.trunk.stage2(student.trunk.stage1(student.trunk.stem(x))))
    made = F.conv2d(maps, project.weight)
    mean, variance = made.mean((0, 2, 3), keepdim=True), made.var((0, 2, 3), False, keepdim=True)
    adapted = F.relu((made - mean) / (variance + norm.eps).sqrt()).mean((2, 3))
    z, z_t = student(x).logits, teacher(x).logits
    read = adapted @ teacher.head.weight.T + teacher.head.bias
    soft = F.kl_div((z / 4).log_softmax(1), (z_t / 4).softmax(1), reduction="batchmean")
    expected = {
        "hard": 0.5 * F.cross_entropy(z, y),
        "soft": 0.9 * 16 * soft,
        "feature": 7 * F.mse_loss(adapted, teacher(x).features),
        "semantic": 2 * F.mse_loss(read, z_t),
    }
    torch.testing.assert_close(terms(method, x, y), expected)


def test_the_semantic_loss_can_be_a_divergence_at_the_temperature() -> None:
    method = make(semantic_loss="kl", temperature=2.0, soft_weight=0.0)
    x, y = batch()
    _, adapted = method.adapted_features("student", x)
    read, z_t = method.teacher.head(adapted), method.teacher(x).logits
    expected = 4 * F.kl_div((read / 2).log_softmax(1), (z_t / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(terms(method, x, y)["semantic"], expected)


def test_equal_features_without_an_adapter_cost_nothing() -> None:
    teacher = seeded(net, 0, features=9)
    method = of_vectors(teacher=teacher, students={"student": seeded(net, 0, features=9)})
    method.adapters["student"] = nn.Identity()
    found = terms(method, *batch(12))
    assert found["feature"] == 0
    assert found["semantic"] < 1e-12


def test_what_the_teachers_classifier_does_not_see_costs_nothing() -> None:
    method = of_vectors().double()
    features, z_t = torch.rand(4, 9).double(), torch.rand(4, 3).double()
    unseen = torch.linalg.svd(method.teacher.head.weight).Vh[3:].sum(0)
    losses = [
        method.semantic_distance(method.teacher_head(f), z_t)
        for f in (features, features + 5 * unseen)
    ]
    torch.testing.assert_close(*losses)
    assert not torch.allclose(losses[0], method.semantic_distance(features[:, :3], z_t))


# Where the gradient goes


@pytest.mark.parametrize("term", ["feature", "semantic"])
def test_the_body_and_the_adapter_learn_from_the_teacher_and_no_classifier_does(term: str) -> None:
    method = make()
    terms(method, *batch())[term].backward()
    student = method.students["student"]
    assert all(p.grad is None for p in (*student.head.parameters(), *method.teacher.parameters()))
    for module in (student.trunk, method.adapters["student"]):
        assert all(p.grad is not None for p in module.parameters())
        assert any(p.grad.abs().sum() > 0 for p in module.parameters())


def test_labels_and_soft_targets_alone_leave_the_adapter_as_it_is() -> None:
    method = make(feature_weight=0, semantic_weight=0, soft_weight=1)
    method.training_step(batch(), 0).backward()
    assert all(not p.grad.any() for p in method.adapters.parameters())


def test_labels_alone_train_as_supervised_to_the_last_bit(tmp_path) -> None:
    ends = []
    zero = [f"method.{name}_weight=0" for name in ("soft", "feature", "semantic")]
    for words in (["method=supervised"], ["method=semantic_distillation", *zero]):
        cfg = compose(*words, "data=synthetic", "data.num_train=64", "data.num_test=16",
                      "data.batch_size=16", "model@method.students.student=resnet8")  # fmt: skip
        data = build_data(cfg)
        has_teacher = "teacher" in cfg.method
        teacher = Teacher(build_net(cfg.method.teacher, 1, "t"), "", "") if has_teacher else None
        learner = build_method(cfg, teacher)
        trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, barebones=False,
                          enable_checkpointing=False, enable_progress_bar=False,
                          enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
        trainer.fit(learner, datamodule=data)
        ends.append(learner.students["student"].state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


# The adapter


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 3, 3)])
def test_an_adapter_does_not_see_where_in_a_map_something_is(shape: tuple[int, ...]) -> None:
    adapter = Adapter(shape, 4, relu=True)
    maps = torch.randn(6, *shape)
    order = torch.randperm(maps[0, 0].numel())
    moved = maps.flatten(2)[..., order].view_as(maps) if len(shape) > 1 else maps
    assert adapter(maps).shape == (6, 4)
    torch.testing.assert_close(adapter(maps), adapter(moved))
    assert adapter(maps).min() >= 0


def test_an_adapter_starts_as_released() -> None:
    adapter = seeded(lambda: Adapter((100, 2, 2), 200, relu=True), 0)
    assert adapter.project.weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.03)
    assert adapter.project.bias is None
    assert adapter.norm.weight.eq(1).all()
    assert adapter.norm.bias.eq(0).all()


def test_a_batch_of_one_sample_has_finite_losses() -> None:
    for method, shape in ((make(), (1, 8, 8)), (of_vectors(), (12,))):
        loss = method.train().training_step(batch(*shape, size=1), 0)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_the_adapter_has_a_relu_if_no_feature_of_the_teacher_is_negative() -> None:
    method, tanh = make(), of_vectors()
    assert isinstance(method.adapters["student"].activation, nn.ReLU)
    assert isinstance(tanh.adapters["student"].activation, nn.Identity)
    assert has_negative_features(tanh.teacher, (12,), 0)
    forced = of_vectors(adapter_relu=True)
    assert isinstance(forced.adapters["student"].activation, nn.ReLU)


def test_nets_without_maps_and_nets_of_series_have_an_adapter_too() -> None:
    options = {"kernels": [3, 3, 3], "num_classes": 3, "in_chans": 2}
    vectors = of_vectors()
    series = make(
        students={"student": seeded(fcn, 1, widths=[4, 6, 4], **options)},
        teacher=seeded(fcn, 0, widths=[6, 8, 6], **options),
        input_shape=(2, 32),
    )
    assert isinstance(vectors.adapters["student"].project, nn.Linear)
    assert isinstance(series.adapters["student"].project, nn.Conv1d)
    assert isinstance(make(adapter="linear").adapters["student"].project, nn.Linear)
    assert series.training_step(batch(2, 32), 0).isfinite()


def test_cached_outputs_give_the_same_loss() -> None:
    method = make(soft_weight=1.0).eval()
    x, y = batch()
    cached = {name: value.half() for name, value in method.cache_values(x, y).items()}
    assert cached.keys() == method.cache_keys().keys()
    online = method.losses(x, y, None, 1.0).terms
    method.teacher_output = None  # is not asked
    from_cache = method.losses(x, y, cached, 1.0).terms
    torch.testing.assert_close(online, from_cache, rtol=1e-2, atol=1e-3)


# What a person gets wrong


@pytest.mark.parametrize("name", ["hard", "soft", "feature", "semantic"])
def test_every_weight_changes_the_loss_and_is_checked(name: str) -> None:
    losses = [make(**{f"{name}_weight": value}).training_step(batch(), 0) for value in (0.5, 1.5)]
    assert losses[0] != losses[1]
    with pytest.raises(UserError, match=rf"{name}_weight must be >= 0, got -1"):
        make(**{f"{name}_weight": -1})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"adapter": "con"}, r"unknown adapter 'con': did you mean conv.*method.adapter=…"),
        ({"semantic_loss": "l2"}, r"unknown loss .l2.: did you mean kl\? \(method.semantic_loss=…"),
        ({"temperature": 0}, r"temperature must be > 0"),
    ],
)
def test_wrong_settings_name_their_key(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_a_convolution_for_a_net_without_maps_is_refused() -> None:
    sentence = r"student student has no feature map for method.adapter=conv: .*adapter=linear"
    with pytest.raises(UserError, match=sentence):
        of_vectors(adapter="conv")


def test_the_highest_logits_alone_are_enough_for_a_divergence_only() -> None:
    assert "cache_top_k" in make().unsupported()
    assert not make(semantic_loss="kl").unsupported()


# Samples without labels


def test_labels_of_the_first_rows_are_the_only_ones_and_each_row_has_its_own_target() -> None:
    method = make(soft_weight=1.0).eval()
    (x, y), (more, _) = batch(), batch(size=12)
    more = 1 - more
    both = torch.cat([x, more])
    found = terms(method, both, y)
    alone, others = (terms(method, part, y[: len(part)]) for part in (x, more))
    torch.testing.assert_close(found["hard"], alone["hard"])
    for name in ("soft", "feature", "semantic"):
        torch.testing.assert_close(found[name], (8 * alone[name] + 12 * others[name]) / 20)


def test_rows_without_a_label_teach_nothing_to_the_students_classifier() -> None:
    method, (x, y) = make(), batch()
    heads = []
    for rows in (x, torch.cat([x, 1 - x])):
        method.zero_grad()
        method.eval().training_step((rows, y), 0).backward()
        heads.append(method.students["student"].head.weight.grad.clone())
    torch.testing.assert_close(*heads)


def test_a_step_with_rows_without_labels_is_one_graph() -> None:
    torch._dynamo.reset()
    method, (x, y) = of_vectors(), batch(12)
    rows = torch.cat([x, 1 - x])
    method.compile_step = lambda step: torch.compile(step, fullgraph=True, backend="eager")
    compiled = method.train().training_step((rows, y), 0)
    torch.testing.assert_close(compiled, of_vectors().train().training_step((rows, y), 0))


def test_samples_without_labels_are_refused_where_only_labels_teach() -> None:
    assert "unlabeled" not in make().unsupported()
    of_labels = make(soft_weight=0, feature_weight=0, semantic_weight=0)
    assert "unlabeled" in of_labels.unsupported()
