"""Checks the settings of ``diffusion_distillation``, and finds the layer that they mean."""

from collections.abc import Sequence

from torch import nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.models.denoisers import IDENTITY, NORMS
from kd_lightning.models.layer_outputs import Shape
from kd_lightning.models.net_stages import last_map

CHOICES = {
    "target": ("teacher", "self"),
    "feature": ("vector", "map"),
    "denoiser": (*NORMS, IDENTITY),
    "diffuse": ("teacher", "student"),
    "guidance_target": ("label", "teacher", "random"),
}


def check_choices(**values: str) -> None:
    """Raises ``UserError`` for a value that is not among ``CHOICES``."""
    for name, value in values.items():
        if value not in CHOICES[name]:
            raise unknown(name, value, CHOICES[name], f"method.{name}")


def check_head(head: nn.Module) -> None:
    """Raises ``UserError`` for a classifier whose gradient is not that of one linear layer."""
    if not isinstance(head, nn.Linear):
        raise UserError(
            "with target=self the teacher's classifier guides by its gradient, so it must be one "
            f"linear layer, got {type(head).__name__}: set method.guidance_scale=0 or "
            "method.target=teacher"
        )


def check_feature(target: str, feature: str) -> None:
    """Raises ``UserError`` for a feature that the teacher's classifier cannot read."""
    if (target, feature) == ("self", "map"):
        raise UserError(
            "with target=self the teacher's classifier reads the student's feature, so that must "
            "be a vector, got feature=map: set method.feature=vector"
        )


def require_last_map(net: nn.Module, key: str, input_shape: Sequence[int]) -> tuple[str, Shape]:
    """``last_map`` of a net that must have feature maps.

    Args:
        key: of a student, or "teacher".

    Raises:
        UserError: the net has none.
    """
    found = last_map(net, input_shape)
    if found is None:
        whose, place = f"student {key}", f"method.students.{key}"
        if key == "teacher":
            whose, place = "the teacher", "method.teacher"
        raise UserError(
            f"feature=map needs feature maps, and {whose} has none: set method.feature=vector, or "
            f"choose another net (model@{place}=…)"
        )
    return found
