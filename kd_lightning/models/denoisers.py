"""The networks of feature diffusion: denoiser, noise adapter, autoencoder, and what they make.

They are those of the code released for DiffKD (arXiv 2305.15712), for vectors and for feature maps.
A layer before batch norm has no bias here, which would have no effect. Dimensions: B batch, D
features.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.losses.feature_loss import CONVS, pointwise, pool_to_smaller
from kd_lightning.models.diffusion import NUM_TIMES, FeatureDiffusion, Features
from kd_lightning.models.map_layers import BatchNorm

IDENTITY = "identity"  # the denoiser that leaves everything as it is: a control


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch_norm": BatchNorm,
    "layer_norm": partial(nn.GroupNorm, 1),
}


class Bottleneck(nn.Module):
    """x + main(x), for maps: convolutions of size 1, 3 and 1 through fewer channels."""

    def __init__(self, num_features: int, reduction: int, num_dims: int, norm: str) -> None:
        super().__init__()
        inner = max(1, num_features // reduction)
        self.main = nn.Sequential(
            pointwise(num_features, inner, num_dims, bias=False),
            NORMS[norm](inner),
            nn.ReLU(),
            CONVS[num_dims](inner, inner, 3, padding=1, bias=False),
            NORMS[norm](inner),
            nn.ReLU(),
            pointwise(inner, num_features, num_dims, bias=False),
            NORMS[norm](num_features),
        )

    def forward(self, x: Features) -> Features:
        return x + self.main(x)


def wide_layers(num_features: int, factor: int, norm: str) -> list[nn.Module]:
    """For vectors: to ``factor`` times as many features, with ReLU, and back."""
    wide = factor * num_features
    return [
        nn.Linear(num_features, wide, bias=False),
        NORMS[norm](wide),
        nn.ReLU(),
        nn.Linear(wide, num_features, bias=False),
    ]


class Denoiser(nn.Module):
    """Finds the noise in features.

    A learnt vector for the time is added to the input. Then come two bottlenecks and a convolution
    of size 1 for maps, and four linear layers for vectors. All samples of a DDIM step have one
    time, and so batch norm takes that vector away again with the mean of the batch: the released
    denoiser knows the time in ``loss`` alone. ``norm="layer_norm"``, which is ours, keeps it.

    Args:
        num_features: D.
        num_dims: of a map: 1 or 2; 0: vectors.
        norm: of ``NORMS``.
    """

    def __init__(self, num_features: int, num_dims: int, norm: str = "batch_norm") -> None:
        super().__init__()
        # the released table has 1280 rows, of which the last 280 are never read
        self.time = nn.Embedding(NUM_TIMES, num_features)
        if num_dims:
            blocks = [Bottleneck(num_features, 4, num_dims, norm) for _ in range(2)]
            last = pointwise(num_features, num_features, num_dims, bias=False)
            self.layers = nn.Sequential(*blocks, last, NORMS[norm](num_features))
        else:
            first, second = (wide_layers(num_features, 4, norm) for _ in range(2))
            second[-1] = nn.Linear(4 * num_features, num_features)
            self.layers = nn.Sequential(*first, NORMS[norm](num_features), *second)

    def forward(self, x: Features, times: Tensor) -> Features:
        of_time = self.time(times)
        return self.layers(x + of_time.view(*of_time.shape, *[1] * (x.ndim - 2)))


class NoiseAdapter(nn.Module):
    """gamma in (0, 1) of each sample: how much of a feature is kept where noise is added to it,
    ``gamma f + (1 - gamma) n``. As released for DiffKD: not the square roots, so the variance
    becomes smaller.
    """

    def __init__(self, num_features: int, num_dims: int) -> None:
        super().__init__()
        if num_dims:
            layers: list[nn.Module] = [Bottleneck(num_features, 8, num_dims, "batch_norm")]
        else:
            layers = [*wide_layers(num_features, 2, "batch_norm"), BatchNorm(num_features)]
        self.layers = nn.Sequential(*layers)
        self.choice = nn.Linear(num_features, 2)

    def forward(self, x: Features) -> Float[Tensor, "B"]:
        pooled = self.layers(x)
        if pooled.ndim > 2:
            pooled = pooled.flatten(2).mean(dim=2)
        return self.choice(pooled).float().softmax(dim=1)[:, 0]


def blend(x: Features, noise: Features, kept: Float[Tensor, "B"]) -> Features:
    """``kept x + (1 - kept) noise``."""
    kept = kept.view(-1, *[1] * (x.ndim - 1))
    return kept * x + (1 - kept) * noise


class Autoencoder(nn.Module):
    """Fewer or more channels for a feature, and back: linear, with batch norm behind the encoder.

    Args:
        num_latent: channels of the code.
    """

    def __init__(self, num_features: int, num_latent: int, num_dims: int) -> None:
        super().__init__()
        encode = pointwise(num_features, num_latent, num_dims, bias=False)
        self.encoder = nn.Sequential(encode, BatchNorm(num_latent))
        self.decoder = pointwise(num_latent, num_features, num_dims)

    def forward(self, x: Features) -> tuple[Features, Features]:
        """The code, and x from the code."""
        code = self.encoder(x)
        return code, self.decoder(code)


class Denoised(NamedTuple):
    """A student's features and what they are compared with.

    Attributes:
        features: of the student.
        target: for them, without a gradient.
        diffusion: loss of the diffusion model, (B,); None: there is none.
        reconstruction: loss of the autoencoder, (B,); None: there is none.
    """

    features: Features
    target: Features
    diffusion: Float[Tensor, "B"] | None
    reconstruction: Float[Tensor, "B"] | None = None


class TeacherImitation(nn.Module):
    """DiffKD for one layer: the student's feature is a noisy feature of the teacher. It is brought
    to the teacher's channels, mixed with noise, and denoised; then it imitates the teacher's.

    Args:
        student_channels, teacher_channels: of the layer.
        num_dims: of a map: 1 or 2; 0: vectors.
        num_latent: channels of an autoencoder's code of the teacher's feature; 0: no autoencoder.
        denoiser: norm of the denoiser, or "identity".
        num_steps: of DDIM.
    """

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        num_dims: int,
        num_latent: int,
        denoiser: str,
        num_steps: int,
    ) -> None:
        super().__init__()
        channels = num_latent or teacher_channels
        self.autoencoder = (
            Autoencoder(teacher_channels, num_latent, num_dims) if num_latent else None
        )
        self.adapter = pointwise(student_channels, channels, num_dims)
        self.diffusion = self.noise_adapter = None
        if denoiser != IDENTITY:
            self.diffusion = FeatureDiffusion(Denoiser(channels, num_dims, denoiser), num_steps)
            self.noise_adapter = NoiseAdapter(channels, num_dims)
        projection = pointwise(channels, channels, num_dims, bias=False)
        self.projection = nn.Sequential(projection, BatchNorm(channels))

    def forward(self, student: Features, teacher: Features) -> Denoised:
        if student.ndim > 2:
            student, teacher = pool_to_smaller(student, teacher)
        target, reconstruction = teacher.detach().float(), None
        if self.autoencoder is not None:
            code, decoded = self.autoencoder(target)
            reconstruction = (decoded.float() - target).square().flatten(1).mean(dim=1)
            target = code.detach().float()
        x = self.adapter(student).float()
        diffusion = None
        if self.diffusion is not None:
            kept = self.noise_adapter(x)
            x = self.diffusion.sample(blend(x, torch.randn_like(x), kept))
            diffusion = self.diffusion.loss(target)
        return Denoised(self.projection(x).float(), target, diffusion, reconstruction)


class SelfImitation(nn.Module):
    """DSKD, a reconstruction: the student's feature is denoised by a diffusion model, guided by the
    teacher's classifier, and then imitates its own denoised form.

    Noise is added to the feature before it is denoised (as in SDEdit, arXiv 2108.01073), which is
    ours. If the feature were taken as the noisy one, as in DiffKD, its denoised form would be about
    1 / sqrt(alpha_bar) = 2.3 times as large, and a feature that imitates it would grow without end.

    Args:
        student_channels, teacher_channels: of the classifiers' inputs.
        denoiser: norm of the denoiser, or "identity", which has no guidance either.
        num_steps: of DDIM.
        diffuse: whose features the diffusion model learns: "teacher" or "student".
    """

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        denoiser: str,
        num_steps: int,
        diffuse: str,
    ) -> None:
        super().__init__()
        self.adapter = nn.Linear(student_channels, teacher_channels)
        self.diffusion = None
        if denoiser != IDENTITY:
            self.diffusion = FeatureDiffusion(Denoiser(teacher_channels, 0, denoiser), num_steps)
        self.diffuse = diffuse

    def forward(
        self,
        student: Float[Tensor, "B D"],
        teacher: Float[Tensor, "B E"],
        guide: Callable[[Features], Features] | None,
    ) -> Denoised:
        x = self.adapter(student).float()
        if self.diffusion is None:
            return Denoised(x, x.detach(), None)
        with torch.no_grad():
            target = self.diffusion.sample(self.diffusion.start(x), guide)
        return Denoised(x, target, self.diffusion.loss(x if self.diffuse == "student" else teacher))
