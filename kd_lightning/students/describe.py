"""The description of a student, made from the records of its run: what is in ``student.json``."""

import time
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.records.resumed_config import EARLIER_READING
from kd_lightning.records.run_directory import chosen_by
from kd_lightning.students.architecture import describe_architecture, net_size, statistics

MEANINGS = {
    "accuracy": "share of samples whose class is predicted correctly; 0 to 1, higher is better",
    "balanced_accuracy": "mean of this share over the classes; 0 to 1, higher is better",
    "macro_f1": "mean over the classes of the F1 of precision and recall; 0 to 1, higher is better",
    "robust_accuracy": "share of samples that are right unchanged and under attack; 0 to 1, higher "
    "is better",
    "nll": "negative log-likelihood of the correct class, mean in nats; lower is better",
    "ece": "expected calibration error, 15 bins of equal width; 0 to 1, lower is better",
    "adaptive_ece": "expected calibration error, 15 bins of equal mass; 0 to 1, lower is better",
    "overconfidence_error": "expected excess of confidence over accuracy, weighted by confidence, "
    "15 bins of equal width; 0 to 1, lower is better",
    "confidence_gap": "mean confidence minus accuracy; -1 to 1, 0 is best, above it overconfident",
    "brier": "squared distance of the probabilities to the correct class; 0 to 2, lower is better",
    "aurc": "mean error over all coverages, the most confident first; 0 to 1, lower is better",
    "entropy": "mean entropy of the predicted probabilities, in nats; neither is better",
}
# How images get the size that the net was tested with. In-memory images have it already: what a
# person brings is cropped to it.
RESIZING = {"resize": "crop", "crop_fraction": 1.0, "interpolation": "bilinear", "exif": True}


def describe(
    key: str,
    cfg: DictConfig,
    state: Mapping[str, Tensor],
    resizing: Mapping[str, Any],
    metrics: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """The description of one student, or of a soup of students, as plain JSON values.

    Args:
        key: of the net in ``metrics.json``.
        cfg: the configuration of the run.
        state: the weights, with the names of the net.
        resizing: how the data set resizes images, see ``resizing_of``.
        metrics, environment: the content of ``metrics.json`` and ``environment.json``.
    """
    net, students = metrics["nets"][key], cfg.method.students
    config = plain(students[key] if key in students else next(iter(students.values())))
    return {
        "key": key,
        "title": net["title"],
        "run": metrics["title"],
        "architecture": describe_architecture(config, state),
        "class_names": environment["data"]["class_names"],
        "input": {
            **describe_input(cfg.task, config, state, resizing),
            "dtype": environment["data"].get("dtype"),  # unknown of a run of an older version
        },
        "parameters": net["parameters"],
        "data": {
            "name": data_name(cfg),
            **{k: environment["data"][k] for k in ("fingerprint", "classes_sha256", "protocol")},
        },
        "metrics": describe_metrics(net, metrics, cfg),
        "method": describe_method(cfg, metrics),
        "teacher": describe_teacher(metrics, environment),
        "seed": cfg.seed,
        "versions": {
            name: environment["versions"][name]
            for name in ("kd_lightning", "torch", "timm", "python")
        },
        "command": environment["command"],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)


def data_name(cfg: DictConfig) -> str:
    return str(cfg.data.get("name") or cfg.data._target_.split(".")[-2])


def resizing_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """How a data set resizes images: its own values, or ``RESIZING`` if it reads no image files.

    Args:
        values: the attributes of the data set, or its configuration.
    """
    if values.get("crop_fraction") is None:
        return dict(RESIZING)
    own = {key: values[key] for key in RESIZING if values.get(key) is not None}
    return RESIZING | EARLIER_READING | own


def describe_input(
    task: DictConfig,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    resizing: Mapping[str, Any],
) -> dict[str, Any]:
    """What the student takes: a batch of samples of this kind, with so many channels and this size.

    ``size`` is that of the samples, ``net_size`` that to which the net itself resizes them by
    ``net_interpolation``.
    ``mean`` and ``std``, by which the net itself normalizes, are in units of a [0, 1] image or of
    the raw series.
    """
    mean, std = statistics(state)
    is_series = len(task.shape) == 2
    return {
        "kind": "series" if is_series else "image",
        "channels": task.channels,
        "size": task.size,
        "mean": mean,
        "std": std,
        **(dict.fromkeys(RESIZING) if is_series else resizing),
        "net_size": net_size(config),
        "net_interpolation": config.get("interpolation") or "bilinear",
    }


def describe_metrics(
    net: Mapping[str, Any], metrics: Mapping[str, Any], cfg: DictConfig
) -> dict[str, Any]:
    """The metrics on test and on val, and what each of them means."""
    weights = "the last epoch's, as there is no val part"
    if metrics["has_val"]:
        by = chosen_by(cfg.method)
        weights = f"those that were best on val: highest {by}, then lowest nll"
    if "averaging" in metrics:
        weights += f"; {metrics['averaging']}"
    if "members" in net:
        weights = f"the mean of the weights of {', '.join(net['members'])}"
    return {
        "test": net["test"],
        "samples": metrics.get("tested"),  # a run of an older version does not say it
        "val": net["val"],
        "epoch": net.get("epoch"),
        "meaning": {name: MEANINGS[name] for name in net["test"] if name in MEANINGS},
        "weights": weights,
        "measured": f"{metrics['device']}, precision {cfg.hardware.precision}",
        "protocol": metrics["protocol"],
    }


def describe_method(cfg: DictConfig, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The method and its settings, without the nets."""
    others = ("_target_", "students", "teacher", "num_classes", "seed")
    settings = {k: v for k, v in plain(cfg.method).items() if k not in others}
    return {
        "name": cfg.method._target_.split(".")[-2],
        "settings": settings,
        "epochs": metrics["epochs"],
        "batch_size": cfg.data.batch_size,
        "optimizer": plain(cfg.optimizer),
    }


def describe_teacher(
    metrics: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The teacher's title, weights and origin; None if the method has no teacher."""
    teacher = metrics["nets"].get("teacher")
    if teacher is None:
        return None
    return {
        "title": teacher["title"],
        "fingerprint": environment["teacher"]["fingerprint"],
        "origin": teacher["origin"],
    }
