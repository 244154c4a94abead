"""Checks of the settings of ``diffusion_distillation``."""

from torch import nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.methods.checks import check_weights
from kd_lightning.models.denoisers import IDENTITY, NORMS
from kd_lightning.models.diffusion import NUM_TIMES

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


def check_not_negative(**values: float) -> None:
    """Raises ``UserError`` for the first value that is negative; all may be 0."""
    for name, value in values.items():
        check_weights(**{name: value, "": 1.0})


def check_steps(num_steps: int) -> None:
    """Raises ``UserError`` for a number of DDIM steps that the schedule does not have."""
    if not 1 <= num_steps <= NUM_TIMES // 2:
        raise UserError(
            f"num_steps must be from 1 to {NUM_TIMES // 2}, got {num_steps} (method.num_steps=…)"
        )


def check_head(head: nn.Module) -> None:
    """Raises ``UserError`` for a classifier whose gradient is not that of one linear layer."""
    if not isinstance(head, nn.Linear):
        raise UserError(
            "with target=self the teacher's classifier guides by its gradient, so it must be one "
            f"linear layer, got {type(head).__name__}: set method.guidance_scale=0 or "
            "method.target=teacher"
        )
