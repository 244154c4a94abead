"""Multi-granularity distillation (MAG and MAS), Shao et al. 2021 (arXiv 2108.06681).

A stage fits two pairs of an encoder and a decoder on the features f_t of the frozen teacher. The
narrow code is abstract, the wide one detailed; each decoder explains the teacher's own logits:

    L_stage = sum over both codes of T_c^2 KL(softmax(z_t / T_c) || softmax(dec(enc(f_t)) / T_c))
              + CE(dec(enc(f_t)), y)

Each student then has two encoders on its own features, and imitates the codes:

    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(target / T) || softmax(z / T))
      + granularity_weight * sum over both codes of
        T_c^2 KL(softmax(enc_t(f_t) / T_c) || softmax(enc(f) / T_c))

The softmax of a code is over its dimensions, which are no classes. The target is z_t (MAG), or the
mean of z_t and the logits of both decoders: "stable excitation" (MAS).

As released, with the weights of its KD script. Ours: the stage is a quarter of the run's epochs,
which is the released 60 for a run of 240. Not copied: the choice of the best epoch on the test part
(the last state of the stage is kept), decoders of the students, which get no gradient, and an
evaluation that compares codes of different sizes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Count, NotNegative, Temperature
from kd_lightning.base.streams import seed_stream
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.projections import num_features, two_layers
from kd_lightning.methods.stage import Stage
from kd_lightning.methods.stage_recipe import RecipeStage, StageRecipe
from kd_lightning.methods.step import Cached, Losses

SOFT_TARGETS = ("teacher", "mean")


class MultiGranularity(Distiller):
    """Each student imitates the teacher's logits, and a narrow and a wide code of its features.

    Args:
        input_shape: of one sample.
        stage_recipe: of the stage that fits the codecs; share 0: they stay random.
        narrow_size, wide_size: numbers in a code.
        narrow_temperature, wide_temperature: T_c of each code.
        soft_target: "teacher": its logits; "mean": of its logits and those of both decoders.
        temperature: T, of the logits.
        hard_weight: of the labels.
        soft_weight: of the soft targets.
        granularity_weight: of each code; 0: the students have no encoders.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        stage_recipe: StageRecipe,
        narrow_size: Count = 64,
        wide_size: Count = 256,
        narrow_temperature: Temperature = 2.0,
        wide_temperature: Temperature = 8.0,
        soft_target: Literal["teacher", "mean"] = "teacher",
        temperature: Temperature = 4.0,
        hard_weight: NotNegative = 0.2,
        soft_weight: NotNegative = 0.8,
        granularity_weight: NotNegative = 1.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_weights(
            hard_weight=hard_weight, soft_weight=soft_weight, granularity_weight=granularity_weight
        )
        if soft_target not in SOFT_TARGETS:
            raise unknown("soft target", soft_target, SOFT_TARGETS, "method.soft_target")
        self.has_mean = soft_target == "mean" and soft_weight > 0
        if self.has_mean and not stage_recipe.epochs:
            raise UserError(
                "soft_target=mean needs decoders that were fitted, and there is no stage: raise "
                "method.stage_recipe.share, or set method.soft_target=teacher"
            )
        self.stage_recipe = stage_recipe
        self.sizes = {"narrow": narrow_size, "wide": wide_size}
        self.temperatures = {"narrow": narrow_temperature, "wide": wide_temperature}
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.granularity_weight = granularity_weight
        self._build_codecs(input_shape)

    def _build_codecs(self, input_shape: Sequence[int]) -> None:
        """The teacher's codecs and the students' encoders, where they count."""
        self.codecs, self.encoders = nn.ModuleDict(), nn.ModuleDict()
        if self.granularity_weight or self.has_mean:
            width = num_features(self.teacher, input_shape)
            for name, size in self.sizes.items():
                seed_stream(self.seed, "codec", name)
                self.codecs[name] = Codec(width, size, self.num_classes)
        if self.granularity_weight:
            for key, student in self.students.items():
                width = num_features(student, input_shape)
                seed_stream(self.seed, "encoders", key)
                self.encoders[key] = nn.ModuleDict(
                    {name: two_layers(width, width, size) for name, size in self.sizes.items()}
                )
        if not self.stage_recipe.epochs:
            self.freeze_module(self.codecs)

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.encoders.items())

    def stage(self) -> Stage | None:
        if not self.codecs or not self.stage_recipe.epochs:
            return None
        return FitCodecs(
            codecs=self.codecs,
            temperatures=self.temperatures,
            recipe=self.stage_recipe,
            teacher=self.teacher,
        )

    @property
    def teacher_rows(self) -> int:
        return 1 if self.soft_weight or self.granularity_weight else 0

    def unsupported(self) -> dict[str, str]:
        reason = "method.soft_target=mean needs the decoders' logits of all classes"
        return {"cache_top_k": reason} if self.has_mean else {}

    def cache_keys(self) -> dict[str, Any]:
        codecs = sha256_of(self.codecs)  # after the stage, all that shapes the codes
        keys = {"logits": codecs if self.has_mean else None} if self.soft_weight else {}
        return keys | (dict.fromkeys(self.sizes, codecs) if self.granularity_weight else {})

    @torch.no_grad()
    def cache_values(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The target's logits (B, C), and the narrow and the wide codes."""
        teacher = self.teacher_output(x)
        codes = {name: codec.encoder(teacher.features) for name, codec in self.codecs.items()}
        values = codes if self.granularity_weight else {}
        if self.soft_weight:
            logits = [teacher.logits.float()]
            if self.has_mean:
                logits += [self.codecs[name].decoder(code).float() for name, code in codes.items()]
            values["logits"] = torch.stack(logits).mean(dim=0)
        return values

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        if cached is None:
            cached = self.cache_values(x, y) if self.teacher_rows else {}
        terms = {}
        for key, student in self(x).items():
            hard = label_cross_entropy(student.logits, y)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            if self.soft_weight:
                soft = soft_target_kl(student.logits, cached["logits"], self.temperature)
                terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            if self.granularity_weight:
                for name, encoder in self.encoders[key].items():
                    code = encoder(student.features)
                    distance = soft_target_kl(code, cached[name], self.temperatures[name])
                    terms[f"{key}/{name}"] = self.granularity_weight * distance.mean()
        return Losses(terms)


class Codec(nn.Module):
    """An encoder of features and a decoder of its codes to logits, each of two layers.

    Args:
        num_features: D, of the net that is explained.
        size: numbers in a code.
        num_classes: C.
    """

    def __init__(self, num_features: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = two_layers(num_features, num_features, size)
        self.decoder = two_layers(size, num_features, num_classes)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The logits that the decoder gives to the codes."""
        return self.decoder(self.encoder(features))


class FitCodecs(RecipeStage):
    """Fits codecs to the logits of the teacher and to the labels, each by itself.

    Args:
        codecs: name -> ``Codec``.
        temperatures: name -> T_c.
    """

    def __init__(
        self, *, codecs: nn.ModuleDict, temperatures: Mapping[str, float], **stage: Any
    ) -> None:
        super().__init__(name="codecs", **stage)
        self.codecs = codecs
        self.temperatures = temperatures

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        x, y = batch[:2]
        with torch.no_grad():
            teacher = self.teacher(x)
        losses = []
        for name, codec in self.codecs.items():
            logits = codec(teacher.features)
            soft = soft_target_kl(logits, teacher.logits, self.temperatures[name])
            losses.append((soft + label_cross_entropy(logits, y)).mean())
            agrees = (logits.argmax(dim=1) == teacher.logits.argmax(dim=1)).float().mean()
            self.log(f"{name}/loss", losses[-1].detach(), on_step=False, on_epoch=True)
            self.log(f"{name}/agreement", agrees, on_step=False, on_epoch=True)
        return torch.stack(losses).sum()

    def settings(self) -> Any:
        return {"recipe": super().settings(), "temperatures": dict(self.temperatures)}
