"""What a method cannot be combined with: declared by the method, refused here in one sentence."""

from collections.abc import Mapping
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.distiller import Distiller


class Option(NamedTuple):
    """An option that a method may not support.

    Attributes:
        key: of the configuration.
        off: its value where it is not used, as a person types it.
    """

    key: str
    off: str


OPTIONS = {
    "cache": Option("teacher.cache", "null"),
    "cache_top_k": Option("teacher.cache_top_k", "null"),
    "mixing": Option("data.mixing", "null"),
    "unlabeled": Option("data.unlabeled", "null"),
    "compile": Option("hardware.compile", "false"),
    "cuda_graphs": Option("hardware.cuda_graphs", "false"),
    "accumulate": Option("trainer.accumulate_grad_batches", "1"),
    "clip": Option("trainer.gradient_clip_val", "null"),
    "max_steps": Option("trainer.max_steps", "-1"),
}
MANUAL = ("compile", "accumulate", "clip", "max_steps")


def unsupported_by(method: Learner) -> Mapping[str, str]:
    """What a method declares, and what follows from the rest of its declarations."""
    reasons = {}
    if isinstance(method, Distiller) and method.cache_keys() is None:
        reasons["cache"] = "its losses read no cached teacher outputs"
    if not method.takes_unlabeled:
        reasons["unlabeled"] = "its losses need the label of every sample"
    if not method.automatic_optimization:
        reasons |= dict.fromkeys(MANUAL, "it has several optimizers and steps them itself")
    reasons |= method.unsupported()
    if "compile" in reasons:  # what cannot be compiled cannot be recorded either
        reasons["cuda_graphs"] = reasons["compile"]
    return reasons


def check_support(cfg: DictConfig, method: Learner) -> None:
    """Raises ``UserError`` for an option that is used and that the method does not support."""
    name = cfg.method._target_.split(".")[-2]
    for option, reason in unsupported_by(method).items():
        key, off = OPTIONS[option]
        value = OmegaConf.select(cfg, key)
        if value is None or str(value).lower() in (off, "null", "auto"):
            continue
        shown = "" if OmegaConf.is_config(value) else f"={str(value).lower()}"
        raise UserError(f"method={name} does not support {key}{shown}: {reason} (set {key}={off})")
