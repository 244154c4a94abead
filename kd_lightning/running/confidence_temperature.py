"""Sets the temperature of the teacher's confidence by its calibration, before the training."""

from collections.abc import Callable

from omegaconf import DictConfig

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.evaluation.metrics import predict
from kd_lightning.methods.base import Learner
from kd_lightning.methods.dual_student import CALIBRATED
from kd_lightning.models.modes import in_mode
from kd_lightning.running.trainer import bare_trainer
from kd_lightning.uncertainty.temperature import fit_temperature

DIGITS = 4  # ranks may differ in later ones, and must agree


def check_calibration(data: ClassificationData, method: Learner) -> None:
    """Raises ``UserError`` if the confidence is to be calibrated and there is no val part."""
    if is_to_be_calibrated(method) and data.parts["val"] is None:
        raise UserError(
            f"method.confidence_temperature={CALIBRATED} is chosen on val, and these data have "
            "none: set data.val_fraction, or a number"
        )


def is_to_be_calibrated(method: Learner) -> bool:
    return getattr(method, "confidence_temperature", None) == CALIBRATED


def calibrate_confidence(
    cfg: DictConfig, data: ClassificationData, method: Learner, say: Callable[[str], None]
) -> None:
    """Replaces ``confidence_temperature="calibrated"`` of a method by the temperature at which its
    teacher's NLL on val is least (Guo et al., arXiv 1706.04599), in the method and in ``cfg``. A
    resumed run finds the number there. Any other method stays as it is.

    Raises:
        UserError: there is no val part.
    """
    if not is_to_be_calibrated(method):
        return
    check_calibration(data, method)
    val = data.parts["val"]
    trainer = bare_trainer(cfg, logger=False, enable_checkpointing=False)
    home = next(method.teacher.parameters()).device
    with in_mode(method.teacher, "eval"):
        logits, labels = predict(
            {"teacher": method.teacher},
            batches_of(data, val),
            device=trainer.strategy.root_device,
            precision=trainer.precision_plugin.forward_context,
        )
    method.teacher.to(home)
    temperature = float(f"{fit_temperature(logits['teacher'], labels):.{DIGITS}g}")
    method.confidence_temperature = cfg.method.confidence_temperature = temperature
    say(f"Confidence: at temperature {temperature:g}, which calibrates the teacher best on val")
