"""Distillation by feature diffusion: DiffKD (arXiv 2305.15712) and DSKD (arXiv 2602.02107).

``target="teacher"`` is DiffKD, as released. The student's feature is a noisy feature of the
teacher. It is denoised by a diffusion model of the teacher's features, and imitates the teacher's:

    L = hard_weight * CE(z, y) + feature_weight * MSE(g(f), h)
        + soft_weight * T^2 KL(softmax(z_t / T) || softmax(g'(z) / T))
        + diffusion_weight * ||eps(x_t, t) - n||^2 + reconstruction_weight * MSE(dec(h), f_t)

h = enc(f_t) is a code of the teacher's feature. g denoises with five DDIM steps; g' is the same for
the logits, without a code. The student's own logits are compared with the labels alone; the soft
term reaches them through g'.

``target="self"`` is DSKD, a reconstruction: neither its code nor its coefficients are known to us.
The student's adapted feature h is denoised under the guidance of the teacher's classifier, and
imitates the result x0, which is a constant:

    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))
        + feature_weight * MSE(h, x0) + hashing_weight * hash(h, x0)
        + diffusion_weight * ||eps(x_t, t) - n||^2

Ours in it: the diffusion model learns the teacher's features, noise is added to h before it is
denoised (without that h and x0 grow without end), the label guides, all coefficients, the number of
bits, and the form of the guidance (arXiv 2105.05233) and of the hash (2011.01424).

Ours in both: the classifier's input as the feature; the released DiffKD takes the last feature map
(``feature="map"``). Ours in DiffKD: two maps are pooled to the smaller size, and the code has half
of the teacher's channels, which is what the released code has where no number is given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_lightning.base.ranges import Count, CountOrZero, NotNegative, Range, Temperature
from kd_lightning.base.streams import seed_stream, stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.hashing import hashing_loss
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.diffusion_settings import (
    check_choices,
    check_feature,
    check_head,
    require_last_map,
)
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.projections import num_features
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.denoisers import IDENTITY, Denoised, SelfImitation, TeacherImitation
from kd_lightning.models.diffusion import (
    NUM_TIMES,
    class_probabilities,
    log_probability_gradient,
)
from kd_lightning.models.layer_outputs import LayerOutputs, Shape

TEMPERATURES = {"teacher": 1.0, "self": 4.0}


class Outputs(NamedTuple):
    """Of a net: logits (B, C) and the feature that is compared, (B, D, *size)."""

    logits: Tensor
    feature: Tensor


class DiffusionDistillation(Distiller):
    """Each student imitates denoised features, by itself.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        target: "teacher" (DiffKD) or "self" (DSKD).
        feature: "vector", the classifier's input, or "map", the last feature map.
        denoiser: "batch_norm", "layer_norm", or "identity": a control without diffusion.
        num_steps: of DDIM.
        temperature: T, of both softmaxes of the soft term; None: 1 for "teacher", 4 for "self".
        hard_weight, soft_weight, feature_weight: of labels, teacher's soft targets, feature.
        diffusion_weight: of the losses of the diffusion models.
        reconstruction_weight: of the autoencoder ("teacher").
        num_latent: channels of its code; None: half of the teacher's; 0: no autoencoder.
        hashing_weight: of the hash's bits ("self").
        num_bits: of the hash.
        diffuse: whose features the diffusion model learns ("self").
        guidance_scale: of the gradient of the teacher's classifier ("self").
        guidance_target: of which class that gradient is: "label", "teacher" (the classes as the
            teacher predicts them) or "random", a control.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        target: str = "teacher",
        feature: str = "vector",
        denoiser: str = "batch_norm",
        num_steps: Annotated[int, Range(least=1, most=NUM_TIMES // 2)] = 5,
        temperature: Temperature | None = None,
        hard_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 1.0,
        feature_weight: NotNegative = 1.0,
        diffusion_weight: NotNegative = 1.0,
        reconstruction_weight: NotNegative = 1.0,
        num_latent: CountOrZero | None = None,
        hashing_weight: NotNegative = 1.0,
        num_bits: Count = 2048,
        diffuse: str = "teacher",
        guidance_scale: NotNegative = 1.0,
        guidance_target: str = "label",
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_choices(target=target, feature=feature, denoiser=denoiser, diffuse=diffuse,
                      guidance_target=guidance_target)  # fmt: skip
        self.hashing_weight = hashing_weight if target == "self" else 0.0
        of_self = {"hashing_weight": hashing_weight} if target == "self" else {}
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight,
                      feature_weight=feature_weight, **of_self)  # fmt: skip
        check_feature(target, feature)
        self.target = target
        self.temperature = TEMPERATURES[target] if temperature is None else temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.feature_weight = feature_weight
        self.diffusion_weight = diffusion_weight
        self.reconstruction_weight = reconstruction_weight
        self.guidance_scale = guidance_scale
        self.guidance_target = guidance_target
        self.maps: dict[str, LayerOutputs] = {}  # of the students, and of "teacher"
        self.imitations = nn.ModuleDict()
        options = {"denoiser": denoiser, "num_steps": num_steps}
        shapes = self._feature_shapes(input_shape, feature) if self.uses_feature else {}
        if target == "teacher" and self.uses_teacher:
            self._build_for_teacher(shapes, num_latent, options)
        elif target == "self" and self.uses_feature:
            if guidance_scale and denoiser != IDENTITY:
                check_head(self.teacher.head)
            self._build_for_self(shapes, num_bits, {**options, "diffuse": diffuse})

    @property
    def uses_feature(self) -> bool:
        return bool(self.feature_weight or self.hashing_weight)

    # What is built

    def _feature_shapes(self, input_shape: Sequence[int], feature: str) -> dict[str, Shape]:
        """Student, and "teacher" -> the shape of the feature of one sample."""
        nets = {**self.students, "teacher": self.teacher}
        if feature == "vector":
            return {key: (num_features(net, input_shape),) for key, net in nets.items()}
        last = {key: require_last_map(net, key, input_shape) for key, net in nets.items()}
        self.maps = {key: LayerOutputs(nets[key], [name]) for key, (name, _) in last.items()}
        return {key: shape for key, (_, shape) in last.items()}

    def _build_for_teacher(
        self, shapes: Mapping[str, Shape], num_latent: int | None, options: dict[str, Any]
    ) -> None:
        for key in self.students:
            seed_stream(self.seed, "diffusion", key)
            self.imitations[key] = nn.ModuleDict()
            if self.feature_weight:
                channels, *size = shapes["teacher"]
                code = max(1, channels // 2) if num_latent is None else num_latent
                self.imitations[key]["feature"] = TeacherImitation(
                    student_channels=shapes[key][0], teacher_channels=channels,
                    num_dims=len(size), num_latent=code, **options,
                )  # fmt: skip
            if self.soft_weight:
                self.imitations[key]["logits"] = TeacherImitation(
                    student_channels=self.num_classes, teacher_channels=self.num_classes,
                    num_dims=0, num_latent=0, **options,
                )  # fmt: skip

    def _build_for_self(
        self, shapes: Mapping[str, Shape], num_bits: int, options: dict[str, Any]
    ) -> None:
        (channels,) = shapes["teacher"]
        for key in self.students:
            seed_stream(self.seed, "diffusion", key)
            self.imitations[key] = SelfImitation(
                student_channels=shapes[key][0], teacher_channels=channels, **options
            )
        planes = torch.randn(num_bits, channels, generator=stream(self.seed, "hashing planes"))
        self.register_buffer("planes", planes, persistent=False)

    def own_modules(self) -> Mapping[str, nn.Module]:
        return dict(self.imitations.items())

    # What is combined

    @property
    def uses_teacher(self) -> bool:
        return bool(self.soft_weight or self.uses_feature)

    @property
    def teacher_rows(self) -> int:
        return 1 if self.uses_teacher else 0

    def cache_keys(self) -> dict[str, Any]:
        return {"logits": None, "features": None} if self.uses_teacher else {}

    def cache_values(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        teacher = self.teacher_output(x)
        return {"logits": teacher.logits, "features": teacher.features}

    def unsupported(self) -> dict[str, str]:
        if self.maps:
            return {"cache": "it needs feature maps of the teacher, which a cache does not hold"}
        if self.target == "teacher" and self.soft_weight:
            return {"cache_top_k": "the diffusion model learns the logits of all classes"}
        return {}

    # A step

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        imitate = self.imitate_teacher if self.target == "teacher" else self.imitate_self
        teacher = self.teacher_outputs(x, cached) if self.uses_teacher else None
        terms = {}
        for key in self.students:
            student = self.student_outputs(key, x)
            terms[f"{key}/hard"] = self.hard_weight * label_cross_entropy(student.logits, y).mean()
            if teacher is None:
                continue
            self.seed_step_stream("diffusion", key)
            for name, term in imitate(key, student, teacher, y).items():
                terms[f"{key}/{name}"] = term
        return Losses(terms)

    def teacher_outputs(self, x: Tensor, cached: Cached) -> Outputs:
        if cached is not None:
            return Outputs(cached["logits"].float(), cached["features"].float())
        if "teacher" not in self.maps:
            return Outputs(*self.teacher_output(x))
        with self.maps["teacher"].record() as maps, torch.no_grad():
            logits = self.teacher(x).logits  # not its fast copy, where layers may be folded away
        return Outputs(logits, *maps.values())

    def student_outputs(self, key: str, x: Tensor) -> Outputs:
        if key not in self.maps:
            return Outputs(*self.forward_student(key, x))
        with self.maps[key].record() as maps:
            logits = self.forward_student(key, x).logits
        return Outputs(logits, *maps.values())

    def imitate_teacher(
        self, key: str, student: Outputs, teacher: Outputs, y: Tensor
    ) -> dict[str, Tensor]:
        """The terms of DiffKD."""
        terms, of = {}, self.imitations[key]
        if "logits" in of:
            found = of["logits"](student.logits, teacher.logits)
            soft = soft_target_kl(found.features, found.target, self.temperature)
            terms["soft"] = self.soft_weight * soft.mean()
            terms |= self.learnt(found, "logit_diffusion")
        if "feature" in of:
            found = of["feature"](student.feature, teacher.feature)
            distance = feature_mse(found.features.flatten(1), found.target.flatten(1))
            terms["feature"] = self.feature_weight * distance.mean()
            terms |= self.learnt(found, "diffusion")
        return terms

    def imitate_self(
        self, key: str, student: Outputs, teacher: Outputs, y: Tensor
    ) -> dict[str, Tensor]:
        """The terms of DSKD."""
        soft = soft_target_kl(student.logits, teacher.logits, self.temperature)
        terms = {"soft": self.soft_weight * soft.mean()}
        if not self.uses_feature:
            return terms
        guide = self.guide(y, teacher.logits) if self.guidance_scale else None
        found = self.imitations[key](student.feature, teacher.feature, guide)
        distance = feature_mse(found.features, found.target)
        bits = hashing_loss(found.features, found.target, self.planes)
        terms["feature"] = self.feature_weight * distance.mean()
        terms["hashing"] = self.hashing_weight * bits.mean()
        return terms | self.learnt(found, "diffusion")

    def learnt(self, found: Denoised, name: str) -> dict[str, Tensor]:
        """The terms by which the networks of the diffusion learn, where there are any."""
        terms = {}
        if found.diffusion is not None:
            terms[name] = self.diffusion_weight * found.diffusion.mean()
        if found.reconstruction is not None:
            terms["reconstruction"] = self.reconstruction_weight * found.reconstruction.mean()
        return terms

    def guide(self, y: Tensor, teacher_logits: Tensor) -> Callable[[Tensor], Tensor]:
        """x_t -> the scaled gradient of the log-probability that the teacher's classifier gives."""
        target = y
        if self.guidance_target == "teacher":
            target = teacher_logits.float().softmax(dim=1)
        elif self.guidance_target == "random":
            target = torch.randint(self.num_classes, (len(y),), device=y.device)
        target = class_probabilities(target, self.num_classes)
        head, scale = self.teacher.head, self.guidance_scale
        return lambda x: scale * log_probability_gradient(x, head, target)
