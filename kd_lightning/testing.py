"""The test of a run's nets: once, after val has chosen. Its result is the body of metrics.json."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import nn

from kd_lightning import evaluation
from kd_lightning.callbacks.best import BestStudents
from kd_lightning.data.classification import ClassificationData
from kd_lightning.losses.soft_targets import mean_log_probs
from kd_lightning.methods.base import Learner
from kd_lightning.models.weights import load_weights
from kd_lightning.teachers import Teacher, describe, load_student


def test_once(
    trainer: Trainer,
    method: Learner,
    data: ClassificationData,
    best: BestStudents,
    others: Mapping[str, nn.Module],
) -> dict[str, Any]:
    """Metrics on test of the students' chosen and last weights, of their ensemble, and of others.

    Args:
        others: name -> further nets, tested in the same pass; "teacher" is what is agreed with.

    Returns:
        ``nets``: name -> ``test``, ``parameters``, ``throughput`` (samples a second) and
        ``agreement``; students also ``last`` (test metrics of the last epoch), ``val`` and
        ``epoch`` of the choice. ``objective``: mean val accuracy of the chosen, None without val.
    """
    chosen, last = {}, {}
    for key, net in method.students.items():
        last[f"{key}/last"] = net
        chosen[key] = deepcopy(net)
        load_weights(chosen[key], best.path(key), "run_dir")
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context
    loader = data.loader("test")
    nets = {**others, **chosen}
    logits, labels = evaluation.predict(
        {**nets, **last}, loader, device=device, precision=precision
    )
    batch = next(iter(loader))[0].to(device)
    report = {}
    for name, net in nets.items():
        with precision():
            rate = evaluation.throughput(net, batch)
        report[name] = {
            "test": evaluation.classification_metrics(logits[name], labels),
            "parameters": evaluation.count_parameters(net),
            "throughput": rate,
        }
    for key in chosen:
        choice = dict(best.chosen.get(key, {"epoch": trainer.current_epoch - 1}))
        report[key]["epoch"] = choice.pop("epoch")
        report[key]["val"] = choice
        report[key]["last"] = evaluation.classification_metrics(logits[f"{key}/last"], labels)
    if len(chosen) > 1:
        logits["ensemble"] = mean_log_probs([logits[key] for key in chosen], temperature=1.0)
        report["ensemble"] = {
            "test": evaluation.classification_metrics(logits["ensemble"], labels),
            "parameters": sum(report[key]["parameters"] for key in chosen),
            "throughput": 1 / sum(1 / report[key]["throughput"] for key in chosen),
        }
    if "teacher" in others:
        for name in report:
            if name != "teacher":
                report[name]["agreement"] = evaluation.agreement(logits[name], logits["teacher"])
    accuracies = [report[key]["val"].get("accuracy") for key in chosen]
    return {
        "nets": report,
        "objective": None if None in accuracies else sum(accuracies) / len(accuracies),
        "has_val": bool(best.chosen),
        "protocol": data.protocol,
        "unit": "series" if batch.ndim == 3 else "images",
        "batch": len(batch),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def test_run(
    trainer: Trainer,
    method: Learner,
    data: ClassificationData,
    best: BestStudents,
    cfg: DictConfig,
    teacher: Teacher | None,
    baseline: Path | None,
) -> dict[str, Any]:
    """The test metrics of every net of the run, with titles, in the order of the table."""
    others = {} if teacher is None else {"teacher": teacher.net}
    titles = {key: title_of(key, net) for key, net in cfg.method.students.items()}
    kept = {}
    if baseline is not None:
        kept = json.loads((baseline / "metrics.json").read_text())["nets"]
        for key in cfg.method.students:
            others[f"{key}, labels only"] = load_student(baseline, key)
            titles[f"{key}, labels only"] = f"{titles[key]}, labels only"
    metrics = test_once(trainer, method, data, best, others)
    nets = metrics["nets"]
    if teacher is not None:
        titles["teacher"] = f"teacher · {teacher.name}"
        nets["teacher"]["origin"] = teacher.origin
    for key in cfg.method.students:
        if baseline is not None:
            nets[f"{key}, labels only"] |= {k: kept[key][k] for k in ("epoch", "val", "last")}
    order = ["teacher", *cfg.method.students, "ensemble", *nets]
    titles["ensemble"] = "ensemble of the students"
    metrics["nets"] = {
        name: {"title": titles[name], **nets[name]} for name in dict.fromkeys(order) if name in nets
    }
    return metrics


def title_of(key: str, net: DictConfig) -> str:
    """A student's row: its key, its net, and what its weights have already seen."""
    seen = "" if net.get("weights", "none") == "none" else f", weights {net.weights}"
    return f"{key} · {describe(net)}{seen}"
