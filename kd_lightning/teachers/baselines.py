"""The runs that train the students of another run without its teacher, for as long."""

from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.config.schema import arguments_of
from kd_lightning.teachers.own_run import one_device, resolved

SUPERVISED = "kd_lightning.methods.supervised.Supervised"
ADVERSARIAL = "kd_lightning.methods.adversarial_training.AdversarialTraining"


def labels_only(run: DictConfig) -> Mapping[str, Any]:
    """The method of a run that trains the students of ``run`` from labels alone."""
    return {
        "_target_": SUPERVISED,
        "students": run.method.students,
        "num_classes": run.task.num_classes,
        "learning_rates": rates_of_students(run),
        "seed": run.seed,
    }


def rates_of_students(run: DictConfig) -> dict[str, float] | None:
    """The learning rates of ``run`` without those of parameters that only its method has."""
    rates = run.method.get("learning_rates") or {}
    return {key: rate for key, rate in rates.items() if key in run.method.students} or None


def adversarial_training(run: DictConfig) -> Mapping[str, Any]:
    """The same, with the attack of the method of ``run``.

    Raises:
        UserError: that method has no attack.
    """
    if "epsilon" not in run.method:
        name = run.method._target_.split(".")[-2]
        raise UserError(
            "baselines=adversarial_training has the attack of the method, and "
            f"method={name} has none: set method=adversarial_distillation, or leave it out"
        )
    known = arguments_of(get_object(ADVERSARIAL)).known
    own = {k: v for k, v in run.method.items() if k in known}
    return {"_target_": ADVERSARIAL, **own, "learning_rates": rates_of_students(run)}


METHODS: Mapping[str, Callable[[DictConfig], Mapping[str, Any]]] = {
    "labels_only": labels_only,
    "adversarial_training": adversarial_training,
}
# value of ``baselines`` -> how the student was trained, after its name in the table
BASELINES = {name: name.replace("_", " ") for name in METHODS}


def baselines_of(cfg: DictConfig) -> list[str]:
    """The values of ``cfg.baselines``, each once."""
    asked = cfg.baselines
    return list(dict.fromkeys(asked if OmegaConf.is_list(asked) else filter(None, [asked])))


def kept_name(cfg: DictConfig, name: str) -> str:
    """The name under which a baseline is kept. In another precision it is another one: a student is
    compared with a control that was trained as it was.
    """
    precision = str(cfg.hardware.precision)
    return "-".join([*name.split("_"), *[precision] * (precision != "32")])


def baseline_run(cfg: DictConfig, name: str = "labels_only") -> DictConfig:
    """The run that trains the students of ``cfg`` as ``name`` says."""
    run = resolved(cfg)
    run.method = METHODS[name](run)
    run.title = BASELINES[name]
    return one_device(run)
