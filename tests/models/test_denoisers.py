"""The networks of feature diffusion, for vectors and for maps."""

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models.denoisers import (
    Autoencoder,
    Denoiser,
    NoiseAdapter,
    SelfImitation,
    TeacherImitation,
    blend,
)

SIZES = [(), (5,), (3, 4)]
DIFFKD = {"student_channels": 5, "teacher_channels": 8, "num_dims": 0, "num_latent": 4,
          "denoiser": "batch_norm", "num_steps": 5}  # fmt: skip
DSKD = {"student_channels": 5, "teacher_channels": 8, "denoiser": "batch_norm", "num_steps": 5,
        "diffuse": "teacher"}  # fmt: skip


def features(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def seeded(make: type[nn.Module], *args: object, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return make(*args, **options)


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [1, 6])
def test_noise_has_the_shape_of_the_feature(size: tuple[int, ...], norm: str, rows: int) -> None:
    x = features(rows, 8, *size)
    found = seeded(Denoiser, 8, len(size), norm)(x, torch.arange(rows))
    assert found.shape == x.shape
    assert found.isfinite().all()


def test_batch_norm_takes_the_time_of_a_ddim_step_away_and_layer_norm_keeps_it() -> None:
    def change(norm: str) -> float:
        denoiser, x = seeded(Denoiser, 8, 0, norm), features(16, 8)
        early, late = (denoiser(x, torch.full((16,), time)) for time in (0, 400))
        return (early - late).abs().max().item()

    assert change("batch_norm") < 1e-4
    assert change("layer_norm") > 1e-2


@pytest.mark.parametrize("size", SIZES)
def test_the_share_that_is_kept_is_one_number_in_0_1_for_each_sample(size: tuple[int, ...]) -> None:
    kept = seeded(NoiseAdapter, 8, len(size))(features(6, 8, *size))
    assert kept.shape == (6,)
    assert ((kept > 0) & (kept < 1)).all()


def test_a_blend_is_by_the_shares_and_not_their_roots() -> None:
    x, noise = features(3, 2, 4), features(3, 2, 4, seed=1)
    mixed = blend(x, noise, torch.tensor([1.0, 0.0, 0.25]))
    assert torch.equal(mixed[0], x[0])
    assert torch.equal(mixed[1], noise[1])
    torch.testing.assert_close(mixed[2], 0.25 * x[2] + 0.75 * noise[2])


@pytest.mark.parametrize("size", SIZES)
def test_an_autoencoder_gives_a_normalized_code_and_the_feature(size: tuple[int, ...]) -> None:
    code, decoded = seeded(Autoencoder, 8, 3, len(size))(features(64, 8, *size))
    assert (code.shape, decoded.shape) == ((64, 3, *size), (64, 8, *size))
    rows = code.transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows.std(1, unbiased=False), torch.ones(3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_teachers_feature_gets_no_gradient_and_all_that_learns_does(size) -> None:
    layer = seeded(TeacherImitation, **DIFFKD | {"num_dims": len(size)})
    student = features(6, 5, *size).requires_grad_()
    teacher = features(6, 8, *(n + 2 for n in size), seed=1).requires_grad_()
    found = layer(student, teacher)
    assert found.features.shape == found.target.shape == (6, 4, *size)
    assert not found.target.requires_grad
    imitation = (found.features - found.target).square().mean()
    (imitation + found.diffusion.mean() + found.reconstruction.mean()).backward()
    assert (student.grad != 0).any()
    assert teacher.grad is None
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


def test_the_imitation_reaches_the_denoiser_through_all_steps_and_never_the_code() -> None:
    layer = seeded(TeacherImitation, **DIFFKD)
    found = layer(features(6, 5), features(6, 8, seed=1))
    found.features.square().mean().backward()
    assert all(p.grad is not None for p in layer.diffusion.parameters())
    assert (layer.diffusion.denoiser.time.weight.grad[[400, 0]].isfinite()).all()
    assert all(p.grad is None for p in layer.autoencoder.parameters())


def test_where_all_is_kept_there_is_no_noise() -> None:
    layer = seeded(TeacherImitation, **DIFFKD)
    ends = [layer(features(6, 5), features(6, 8)).features for _ in range(2)]
    assert not torch.equal(*ends)
    with torch.no_grad():
        layer.noise_adapter.choice.bias.copy_(torch.tensor([1e4, -1e4]))
    ends = [layer(features(6, 5), features(6, 8)).features for _ in range(2)]
    assert torch.equal(*ends)


def test_without_diffusion_it_is_the_adapter_and_the_projection() -> None:
    layer = seeded(TeacherImitation, **DIFFKD | {"denoiser": "identity", "num_latent": 0})
    x, teacher = features(6, 5), features(6, 8)
    found = layer(x, teacher)
    assert found.diffusion is found.reconstruction is None
    assert torch.equal(found.target, teacher)
    torch.testing.assert_close(found.features, layer.projection(layer.adapter(x)))
    assert {name.split(".")[0] for name, _ in layer.named_parameters()} == {"adapter", "projection"}


@pytest.mark.parametrize("diffuse", ["teacher", "student"])
def test_the_student_s_own_target_is_a_constant(diffuse: str) -> None:
    layer = seeded(SelfImitation, **DSKD | {"diffuse": diffuse})
    student = features(6, 5).requires_grad_()
    found = layer(student, features(6, 8), None)
    assert not found.target.requires_grad
    (found.features - found.target).square().mean().backward(retain_graph=True)
    assert (student.grad != 0).any()
    assert all(p.grad is None for p in layer.diffusion.parameters())
    student.grad = None
    found.diffusion.mean().backward()
    assert student.grad is None  # the diffusion learns the features, and does not shape them
    assert all(p.grad is not None for p in layer.diffusion.parameters())


def test_the_diffusion_model_learns_whose_features_it_is_told() -> None:
    def loss(diffuse: str, change: float) -> Tensor:
        layer = seeded(SelfImitation, **DSKD | {"diffuse": diffuse})
        return layer(features(6, 5), features(6, 8) * change, None).diffusion

    assert not torch.equal(loss("teacher", 1), loss("teacher", 2))
    assert torch.equal(loss("student", 1), loss("student", 2))


def test_without_diffusion_the_student_s_target_is_its_own_feature() -> None:
    layer = seeded(SelfImitation, **DSKD | {"denoiser": "identity"})
    found = layer(features(6, 5), features(6, 8), None)
    assert torch.equal(found.features, found.target)
    assert found.diffusion is None


def test_the_student_s_own_target_does_not_grow_with_it() -> None:
    layer = seeded(SelfImitation, **DSKD)
    found = layer(1e4 * features(64, 5), features(64, 8), None)
    torch.testing.assert_close(found.target, found.features, rtol=1e-2, atol=20)
