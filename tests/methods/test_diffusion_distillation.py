"""Distillation by feature diffusion: the laws of DiffKD and of DSKD, its choices and mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import compose, net, sgd
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.methods.diffusion_distillation import DiffusionDistillation
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.supervised import Supervised
from kd_lightning.models.cifar import resnet
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.time_series import fcn
from kd_lightning.running.build import build_data
from kd_lightning.running.preflight import check_run

NONE = {"feature_weight": 0.0, "soft_weight": 0.0, "hashing_weight": 0.0}


def seeded(make_net: Callable[..., nn.Module], seed: int, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make_net(**options)


def nets(*keys: str) -> dict[str, object]:
    """Students of flat inputs with 6 features, a teacher with 9."""
    students = {key: seeded(net, ord(key[0]), features=6) for key in keys or ("student",)}
    return {"students": students, "teacher": seeded(net, 0, features=9, hidden=5)}


def make(*keys: str, **options: object) -> DiffusionDistillation:
    settings = nets(*keys) | {"input_shape": (12,), "num_classes": 3, "optimizer": sgd()}
    return DiffusionDistillation(**settings | options).train()


IMAGES = {"depth": 8, "in_chans": 3, "num_classes": 3}
SERIES = {"in_chans": 2, "num_classes": 3}
MAPS = {
    "image": {
        "students": {"student": seeded(resnet, 1, widths=[4, 4, 4, 6], **IMAGES)},
        "teacher": seeded(resnet, 0, widths=[4, 4, 8, 16], **IMAGES),
        "input_shape": (3, 16, 16),
        "feature": "map",
    },
    "series": {
        "students": {"student": seeded(fcn, 1, widths=[4, 6], kernels=[5, 3], **SERIES)},
        "teacher": seeded(fcn, 0, widths=[8, 12], kernels=[5, 3], **SERIES),
        "input_shape": (2, 15),
        "feature": "map",
    },
}


def batch(*shape: int, size: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, *(shape or (12,)), generator=torch.Generator().manual_seed(1))
    return x, torch.arange(size) % 3


def terms(method: DiffusionDistillation, *more: Tensor) -> dict[str, Tensor]:
    x, y = more or batch()
    return method.losses(x, y, None, 1.0).terms


# The laws


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_without_distillation_it_is_supervised_learning_to_the_bit(target: str) -> None:
    method = make(target=target, hard_weight=0.7, **NONE)
    plain = Supervised(students=nets()["students"], num_classes=3, optimizer=sgd())
    loss = method.training_step(batch(), 0)
    assert torch.equal(loss, 0.7 * plain.training_step(batch(), 0))
    assert method.teacher_rows == 0
    assert not method.own_modules()


def test_the_self_target_without_features_is_kd_to_the_bit() -> None:
    method = make(target="self", **NONE | {"soft_weight": 0.3})
    kd = KnowledgeDistillation(
        **nets(), num_classes=3, optimizer=sgd(), temperature=4.0, soft_weight=0.3
    )
    assert torch.equal(method.training_step(batch(), 0), kd.training_step(batch(), 0))


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_the_teacher_gets_no_gradient_and_the_student_and_the_method_do(target: str) -> None:
    method = make(target=target)
    method.training_step(batch(), 0).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


def test_diffkd_teaches_the_features_and_the_labels_alone_teach_the_head() -> None:
    method = make(hard_weight=0.0, soft_weight=0.0)
    method.training_step(batch(), 0).backward()
    student = method.students["student"]
    assert all((p.grad != 0).any() for p in student.trunk.parameters())
    assert all(p.grad is None or not p.grad.any() for p in student.head.parameters())


def test_the_self_target_is_a_constant_for_the_diffusion_model() -> None:
    method = make(target="self", diffusion_weight=0.0)
    method.training_step(batch(), 0).backward()
    of = method.imitations["student"]
    assert all(not p.grad.any() for p in of.diffusion.parameters())
    assert all(p.grad.any() for p in of.adapter.parameters())


def test_the_terms_of_diffkd_without_diffusion_are_their_formulas() -> None:
    method = make(denoiser="identity", num_latent=0, temperature=2.0, soft_weight=0.5,
                  feature_weight=3.0)  # fmt: skip
    found = terms(method)
    x, y = batch()
    student, teacher = method.students["student"](x), method.teacher(x)
    feature, logits = (method.imitations["student"][name] for name in ("feature", "logits"))
    adapted = feature.projection(feature.adapter(student.features))
    denoised = logits.projection(logits.adapter(student.logits))
    soft = F.kl_div((denoised / 2).log_softmax(1), (teacher.logits / 2).softmax(1),
                    reduction="batchmean")  # fmt: skip
    expected = {
        "student/hard": F.cross_entropy(student.logits, y),
        "student/feature": 3 * F.mse_loss(adapted, teacher.features),
        "student/soft": 0.5 * 4 * soft,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_terms_of_the_self_target_without_diffusion_are_its_hash() -> None:
    method = make(target="self", denoiser="identity")
    found = terms(method)
    assert found.keys() == {f"student/{name}" for name in ("hard", "soft", "feature", "hashing")}
    assert found["student/feature"] == 0
    h = method.imitations["student"].adapter(method.students["student"](batch()[0]).features)
    expected = F.softplus(-(h @ method.planes.T).abs()).mean()
    torch.testing.assert_close(found["student/hashing"], expected)


def guided(**options: object) -> Tensor:
    """Log-probability of the labels under the teacher's classifier, after denoising."""
    method = make(target="self", denoiser="layer_norm", **options)
    x, y = batch(size=64)
    features = method.students["student"](x).features
    torch.manual_seed(0)
    with torch.no_grad():
        guide = method.guide(y, method.teacher(x).logits)
        found = method.imitations["student"](features, method.teacher(x).features, guide)
        logits = method.teacher_head(found.target)
    return logits.log_softmax(1)[torch.arange(64), y].mean()


def test_guidance_raises_the_probability_of_the_label_and_random_classes_do_not() -> None:
    none = guided(guidance_scale=0.0)
    assert guided(guidance_scale=4.0) > guided(guidance_scale=1.0) > none
    assert guided(guidance_target="random", guidance_scale=4.0) < guided(guidance_scale=4.0)


def test_guidance_of_scale_0_changes_no_bit() -> None:
    plain = make(target="self", guidance_scale=0.0)
    step = plain.training_step(batch(), 0)
    plain.guidance_target = "teacher"  # is not asked for
    assert torch.equal(step, plain.training_step(batch(), 0))
    guide = plain.guide(batch()[1], torch.zeros(8, 3))
    assert not guide(torch.randn(8, 9)).any()


def test_the_teacher_can_say_which_classes_guide() -> None:
    method = make(target="self", guidance_target="teacher")
    x, y = batch()
    logits = method.teacher(x).logits
    h = torch.randn(8, 9, requires_grad=True)
    value = (logits.softmax(1) * method.teacher_head(h).log_softmax(1)).sum()
    torch.testing.assert_close(
        method.guide(y, logits)(h.detach()), torch.autograd.grad(value, h)[0]
    )


@pytest.mark.parametrize("target", ["teacher", "self"])
@pytest.mark.parametrize("size", [1, 2])
def test_small_batches_are_finite(target: str, size: int) -> None:
    method = make(target=target)
    method.training_step(batch(size=size), 0).backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_mixed_labels_are_taken(target: str) -> None:
    x, _ = batch()
    mixed = torch.randn(8, 3).softmax(1)
    assert make(target=target).training_step((x, mixed), 0).isfinite()


CHANGES = {
    "teacher": {
        "hard_weight": 0.5, "soft_weight": 0.5, "feature_weight": 0.5, "diffusion_weight": 0.5,
        "reconstruction_weight": 0.5, "temperature": 2.0, "num_steps": 3, "num_latent": 3,
        "denoiser": "layer_norm", "seed": 1,
    },
    "self": {
        "hard_weight": 0.5, "soft_weight": 0.5, "feature_weight": 0.5, "diffusion_weight": 0.5,
        "hashing_weight": 0.5, "temperature": 2.0, "num_steps": 3, "num_bits": 64,
        "denoiser": "layer_norm", "diffuse": "student", "guidance_scale": 4.0,
        "guidance_target": "random", "seed": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_every_setting_changes_the_loss(target: str) -> None:
    plain = make(target=target).training_step(batch(), 0)
    assert torch.equal(plain, make(target=target).training_step(batch(), 0))
    for name, value in CHANGES[target].items():
        assert make(target=target, **{name: value}).training_step(batch(), 0) != plain, name


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_a_further_student_changes_nothing_for_the_first(target: str) -> None:
    alone, both = (terms(make(*keys, target=target)) for keys in ("a", "ab"))
    for name, value in alone.items():
        assert torch.equal(value, both[name]), name


def test_noise_and_initial_weights_have_streams_of_their_own() -> None:
    def found(seed: int, dropout: float) -> tuple[dict[str, Tensor], Tensor]:
        students = {"student": seeded(net, 1, features=6, dropout=dropout)}
        settings = nets() | {"students": students, "input_shape": (12,), "num_classes": 3}
        torch.manual_seed(seed)
        method = DiffusionDistillation(**settings, optimizer=sgd()).train()
        return dict(method.imitations.named_parameters()), terms(method)["student/diffusion"]

    (weights, loss), (others, same_loss) = found(0, 0.0), found(1, 0.5)
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert torch.equal(loss, same_loss)


def test_the_default_temperatures_are_those_of_the_two_methods() -> None:
    assert (make().temperature, make(target="self").temperature) == (1.0, 4.0)


# Feature maps


@pytest.mark.parametrize("kind", MAPS)
def test_the_last_map_is_denoised(kind: str) -> None:
    method = make(**MAPS[kind], soft_weight=0.0)
    shape = MAPS[kind]["input_shape"]
    found = terms(method, *batch(*shape))
    expected = ("hard", "feature", "diffusion", "reconstruction")
    assert found.keys() == {f"student/{name}" for name in expected}
    loss = method.training_step(batch(*shape), 0)
    loss.backward()
    assert loss.isfinite()
    convolutions = {nn.Conv1d if kind == "series" else nn.Conv2d}
    of = method.imitations["student"]["feature"]
    assert {type(of.adapter), type(of.projection[0])} == convolutions
    assert all(p.grad is not None for p in of.parameters())
    assert "cache" in method.unsupported()


def test_one_image_and_bf16_are_finite_with_maps() -> None:
    method = make(**MAPS["image"])
    assert method.training_step(batch(3, 16, 16, size=1), 0).isfinite()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = terms(method, *batch(3, 16, 16))
    assert all(term.dtype == torch.float32 and term.isfinite() for term in found.values())


# A cache


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_cached_outputs_of_the_teacher_give_the_same_loss(target: str) -> None:
    method, (x, y) = make(target=target), batch()
    cached = method.cache_values(x, y)
    assert cached.keys() == method.cache_keys().keys()
    plain, kept = (method.losses(x, y, of, 1.0).terms for of in (None, cached))
    assert all(torch.equal(value, kept[name]) for name, value in plain.items() if "hard" in name)
    assert torch.equal(method.training_step((x, y), 0), method.training_step((x, y, cached), 0))
    assert not make(target=target, **NONE).cache_keys()


# Mistakes


class TwoLayers(nn.Sequential):
    in_features = 9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "selff"}, r"unknown target 'selff': did you mean self\? \(method.target=…\)"),
        ({"denoiser": "none"}, "unknown denoiser 'none'.*method.denoiser"),
        ({"guidance_target": "labels"}, r"did you mean label\? \(method.guidance_target=…\)"),
        ({"diffuse": "both"}, "method.diffuse"),
        ({"feature": "maps"}, r"did you mean map\? \(method.feature=…\)"),
        ({"num_steps": 0}, r"method.num_steps must be in \[1, 500\], got 0"),
        ({"num_steps": 501}, r"in \[1, 500\], got 501"),
        ({"num_bits": 0}, "num_bits must be >= 1"),
        ({"temperature": 0.0}, r"method\.temperature"),
        ({"feature_weight": -1.0}, r"method.feature_weight must be >= 0, got -1.0"),
        ({"hashing_weight": -1.0}, r"hashing_weight must be >= 0, got -1.0"),
        ({"diffusion_weight": -1.0}, r"diffusion_weight must be >= 0, got -1.0"),
        ({"reconstruction_weight": -1.0}, r"reconstruction_weight must be >= 0"),
        ({"guidance_scale": -1.0}, r"guidance_scale must be >= 0, got -1.0"),
        ({"num_latent": -1}, r"method.num_latent must be >= 0 or null, got -1"),
        (NONE | {"hard_weight": 0.0}, "one of hard_weight, soft_weight, feature_weight must be"),
        ({"feature": "map"}, "feature=map needs feature maps, and student student has none: set "
         r"method.feature=vector, or choose another net \(model@method.students.student=…\)"),
        ({"feature": "map", "target": "self"}, "it must be a vector|that must be a vector"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(**options)


def test_a_teacher_without_maps_is_told() -> None:
    shape = {"input_shape": (3, 16, 16)}
    flat = net(inputs=3 * 16 * 16)
    with pytest.raises(UserError, match=r"the teacher has none: .*\(model@method.teacher=…\)"):
        make(**MAPS["image"] | shape | {"teacher": flat})


def test_a_head_that_is_not_linear_cannot_guide_and_is_not_asked_to_elsewhere() -> None:
    def teacher() -> Classifier:
        found = nets()["teacher"]
        found.head = TwoLayers(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 3))
        return found

    with pytest.raises(UserError, match="must be one linear layer, got TwoLayers: set"):
        make(target="self", teacher=teacher())
    for options in ({"target": "self", "guidance_scale": 0.0}, {"target": "teacher"}):
        assert make(teacher=teacher(), **options).training_step(batch(), 0).isfinite()


# From the command line


def test_wrong_choices_are_told_before_a_teacher_is_trained() -> None:
    cfg = compose("method=diffusion_distillation", "data=synthetic", "method.feature=map")
    with pytest.raises(UserError, match="feature=map needs feature maps"):
        check_run(cfg, build_data(cfg))
    cfg = compose("method=diffusion_distillation", "data=synthetic", "teacher.cache=1",
                  "teacher.cache_top_k=2")  # fmt: skip
    with pytest.raises(UserError, match="the diffusion model learns the logits of all classes"):
        check_run(cfg, build_data(cfg))


def test_the_diffusion_model_learns(tmp_path: Path, store: Path) -> None:
    words = ("data=digits", "trainer.max_epochs=3", "teacher.trainer.max_epochs=1", "logger=none",
             "teacher.check=warn", "hardware=cpu", "callbacks=quiet", "model@method.teacher=mlp",
             "model@method.students.student=mlp", f"teacher.store={store}",
             f"outputs={tmp_path}")  # fmt: skip
    run = distill("method=diffusion_distillation", "method.target=self", *words)
    columns = (run.directory / "epochs.csv").read_text().splitlines()
    place = columns[0].split(",").index("train/student/diffusion")
    first, *_, last = (float(row.split(",")[place]) for row in columns[1:])
    assert last < min(first, 0.95)
