"""Semantic representational distillation: SRD, arXiv 2205.06701; its ancestor is SRRL, ICLR 2021.

    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))
        + feature_weight * mean_d (a - f_t)^2 + semantic_weight * mean_c (h_t(a) - z_t)^2
    a = pool(ReLU(BN(conv(F)))), F: the student's last feature map, (B, D, *size)

The first term is the mean over the labeled samples of a step, the others are means over all of its
samples, also those of ``data.unlabeled``, in one forward pass. The teacher's frozen classifier h_t
judges the student's features: what it does not see costs nothing in the last term. Both last terms
reach the student's body and its adapter, and never the student's own classifier.

As released: the four terms and their weights, the adapter (a convolution of size 1 without bias,
batch norm, ReLU) and its initial values, which is used even where the sizes agree. SRRL is this
with ``soft_weight=0`` and no unlabeled samples.

Ours: vectors in place of maps for nets that have none; without ReLU where the teacher's features
can be negative; ``semantic_loss=kl``; f_t is the input of the teacher's classifier in any net. Not
copied: the second training loop of the released code compares answers for unlabeled samples with
the teacher's for labeled ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import NotNegative, Temperature
from kd_lightning.base.streams import seed_stream, stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.feature_loss import pointwise, pooled
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.projections import num_features
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.layer_outputs import LayerOutputs
from kd_lightning.models.map_layers import BatchNorm
from kd_lightning.models.net_stages import last_map

ADAPTERS = ("auto", "conv", "linear")
SEMANTIC_LOSSES = ("mse", "kl")
PROBES = 8  # inputs on which the sign of the teacher's features is looked at


class Adapter(nn.Module):
    """Features of a student -> features in the teacher's space, pooled over all positions.

    Args:
        shape: of the student's features for one sample: (D), (D, L) or (D, H, W).
        num_out: D of the teacher.
        relu: whether it ends with a ReLU, as the teacher's features do.
    """

    def __init__(self, shape: Sequence[int], num_out: int, *, relu: bool) -> None:
        super().__init__()
        self.project = pointwise(shape[0], num_out, len(shape) - 1, bias=False)
        nn.init.normal_(self.project.weight, std=math.sqrt(2 / num_out))
        self.norm = BatchNorm(num_out)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, features: Float[Tensor, "B D *size"]) -> Float[Tensor, "B E"]:
        return pooled(self.activation(self.norm(self.project(features))))


class SemanticDistillation(Distiller):
    """The teacher's classifier reads each student's features as it reads the teacher's own.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        adapter: ``conv``: on the student's last feature map, as released; ``linear``: on the input
            of its classifier; ``auto``: conv for students that have feature maps.
        adapter_relu: whether the adapter ends with a ReLU; ``auto``: if no feature of the teacher
            is negative.
        semantic_loss: of the logits h_t(a) and z_t: ``mse``, or ``kl`` at the temperature.
        temperature: T, of the soft term and of ``kl``.
        hard_weight, soft_weight: of the labels and of the teacher's soft targets.
        feature_weight: of the features; as released 1, and 10 for ShuffleNetV1.
        semantic_weight: of the logits that the teacher's classifier gives to the features.
    """

    takes_unlabeled = True

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        adapter: str = "auto",
        adapter_relu: bool | Literal["auto"] = "auto",
        semantic_loss: str = "mse",
        temperature: Temperature = 4.0,
        hard_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 0.0,
        feature_weight: NotNegative = 1.0,
        semantic_weight: NotNegative = 1.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        if adapter not in ADAPTERS:
            raise unknown("adapter", adapter, ADAPTERS, "method.adapter")
        if semantic_loss not in SEMANTIC_LOSSES:
            raise unknown("loss", semantic_loss, SEMANTIC_LOSSES, "method.semantic_loss")
        check_weights(
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            feature_weight=feature_weight,
            semantic_weight=semantic_weight,
        )
        self.temperature = temperature
        self.semantic_loss = semantic_loss
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.feature_weight = feature_weight
        self.semantic_weight = semantic_weight
        if adapter_relu == "auto":
            adapter_relu = not has_negative_features(self.teacher, input_shape, self.seed)
        self.maps: dict[str, LayerOutputs] = {}
        self.layers: dict[str, str] = {}
        self.adapters = nn.ModuleDict()
        for key in self.students:
            self._add_adapter(key, input_shape, adapter, relu=bool(adapter_relu))

    def _add_adapter(self, key: str, input_shape: Sequence[int], kind: str, *, relu: bool) -> None:
        student = self.students[key]
        found = last_map(student, input_shape) if kind != "linear" else None
        if kind == "conv" and found is None:
            raise UserError(
                f"student {key} has no feature map for method.adapter=conv: set "
                f"method.adapter=linear, or choose another net (model@method.students.{key}=…)"
            )
        shape: Sequence[int]
        if found is None:
            shape = (num_features(student, input_shape),)
        else:
            self.layers[key], shape = found
            self.maps[key] = LayerOutputs(student, [self.layers[key]])
        num_out = num_features(self.teacher, input_shape)
        seed_stream(self.seed, "adapter", key)
        self.adapters[key] = Adapter(shape, num_out, relu=relu)

    def own_modules(self) -> Mapping[str, nn.Module]:
        return dict(self.adapters.items())

    def cache_keys(self) -> dict[str, Any]:
        return {"logits": None, "features": None}

    def cache_values(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self.teacher_output(x)._asdict()

    def unsupported(self) -> dict[str, str]:
        reasons = {}
        if self.semantic_loss == "mse":
            reasons["cache_top_k"] = "method.semantic_loss=mse compares the logits of all classes"
        if not (self.soft_weight or self.feature_weight or self.semantic_weight):
            reasons["unlabeled"] = "labels alone teach nothing with samples that have none"
        return reasons

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        teacher = self.teacher_output(x)._asdict() if cached is None else cached
        terms = {}
        for key in self.students:
            logits, adapted = self.adapted_features(key, x)
            hard = label_cross_entropy(logits[: len(y)], y)
            soft = soft_target_kl(logits, teacher["logits"], self.temperature)
            feature = feature_mse(adapted, teacher["features"])
            semantic = self.semantic_distance(self.teacher_head(adapted), teacher["logits"])
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            terms[f"{key}/feature"] = self.feature_weight * feature.mean()
            terms[f"{key}/semantic"] = self.semantic_weight * semantic.mean()
        return Losses(terms)

    def adapted_features(
        self, key: str, x: Tensor
    ) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B D"]]:
        """The student's own logits, and its features in the teacher's space."""
        if key not in self.maps:
            student = self.forward_student(key, x)
            return student.logits, self.adapters[key](student.features)
        with self.maps[key].record() as outputs:
            student = self.forward_student(key, x)
        return student.logits, self.adapters[key](outputs[self.layers[key]])

    def semantic_distance(
        self, logits: Float[Tensor, "B C"], teacher_logits: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B"]:
        if self.semantic_loss == "mse":
            return feature_mse(logits, teacher_logits)
        return soft_target_kl(logits, teacher_logits, self.temperature)


@torch.no_grad()
def has_negative_features(teacher: nn.Module, input_shape: Sequence[int], seed: int) -> bool:
    """Whether some feature of the teacher is below 0 for random inputs in [0, 1]."""
    x = torch.rand(PROBES, *input_shape, generator=stream(seed, "probe of the teacher"))
    return bool((teacher(x).features < 0).any())
