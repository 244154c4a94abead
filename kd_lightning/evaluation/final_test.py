"""The test of a run's nets: once, after val has chosen. Its result is the body of metrics.json,
and the curves of calibration.json.
"""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional as F

from kd_lightning.callbacks.averaging import averaging_of
from kd_lightning.callbacks.best_students import BestStudents, save_student
from kd_lightning.data.classification import ClassificationData
from kd_lightning.evaluation import metrics as evaluation
from kd_lightning.evaluation.calibration import curves_of_nets, scaled_metrics
from kd_lightning.evaluation.soups import Soup, soups_of
from kd_lightning.evaluation.votes import majority_vote
from kd_lightning.losses.soft_targets import mean_log_probs
from kd_lightning.methods.base import Learner
from kd_lightning.models.averages import refresh_batch_norm
from kd_lightning.models.weights import load_weights
from kd_lightning.teachers.sources import Teacher, describe, load_student
from kd_lightning.uncertainty.temperature import fit_temperature


def test_once(
    trainer: Trainer,
    method: Learner,
    data: ClassificationData,
    best: BestStudents,
    others: Mapping[str, nn.Module],
    *,
    temperature_scaling: bool,
    soups: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics on test of the students' chosen and last weights, of what the chosen ones make
    together (ensemble, vote of three or more, soups), and of others.

    Args:
        others: name -> further nets, tested in the same pass; "teacher" is what is agreed with.
        temperature_scaling: fit each net's temperature on val, and test it with that too.
        soups: make and keep the soups of the chosen weights.

    Returns:
        ``nets``: name -> ``test``, ``parameters``, ``throughput`` (samples a second) and
        ``agreement``; students also ``last`` (test metrics of the last epoch), ``val`` and
        ``epoch`` of the choice; soups ``val`` and ``members``; ``scaled``, where it is asked for.
        ``averaging``: what the students' weights are, if they were averaged while they trained.
        ``objective``: mean val accuracy of the chosen, None without val. Then the curves: name ->
        those of ``calibration_report``.
    """
    chosen, last = {}, {}
    for key, net in method.students.items():
        last[f"{key}/last"] = net
        chosen[key] = deepcopy(net)
        load_weights(chosen[key], best.path(key), "run_dir")
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context
    loader = data.loader("test")
    made = make_soups(chosen, trainer, data, best) if soups else {}
    nets = {**others, **chosen, **{name: soup.net for name, soup in made.items()}}
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
    for name, soup in made.items():
        report[name]["val"] = {} if soup.accuracy is None else {"accuracy": soup.accuracy}
        report[name]["members"] = list(soup.members)
    if len(chosen) > 1:
        logits["ensemble"] = mean_log_probs([logits[key] for key in chosen], temperature=1.0)
        report["ensemble"] = {
            "test": evaluation.classification_metrics(logits["ensemble"], labels),
            "parameters": sum(report[key]["parameters"] for key in chosen),
            "throughput": 1 / sum(1 / report[key]["throughput"] for key in chosen),
        }
    temperatures = fit_temperatures(nets, chosen, trainer, data) if temperature_scaling else {}
    for name, temperature in temperatures.items():
        report[name]["scaled"] = scaled_metrics(logits[name], labels, temperature)
    curves = curves_of_nets({name: logits[name] for name in report}, labels, temperatures)
    if len(chosen) > 2:
        vote = majority_vote([logits[key] for key in chosen])
        logits["vote"] = F.one_hot(vote, data.num_classes).float()  # a class, no probabilities
        accuracy = (vote == labels).float().mean().item()
        report["vote"] = {**report["ensemble"], "test": {"accuracy": accuracy}}
        report["vote"].pop("scaled", None)
    if "teacher" in others:
        for name in report:
            if name != "teacher":
                report[name]["agreement"] = evaluation.agreement(logits[name], logits["teacher"])
    accuracies = [report[key]["val"].get("accuracy") for key in chosen]
    metrics = {
        "nets": report,
        "objective": None if None in accuracies else sum(accuracies) / len(accuracies),
        "has_val": bool(best.chosen),
        "protocol": data.protocol,
        "unit": "series" if batch.ndim == 3 else "images",
        "batch": len(batch),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    if (averaging := averaging_of(trainer)) is not None:
        metrics["averaging"] = averaging.in_words()
    return metrics, curves


def fit_temperatures(
    nets: Mapping[str, nn.Module],
    members: Iterable[str],
    trainer: Trainer,
    data: ClassificationData,
) -> dict[str, float]:
    """Each net's temperature, fitted on val, and that of the ensemble of several members: its
    logits are the log of the mean probabilities.
    """
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context
    logits, labels = evaluation.predict(
        nets, data.loader("val"), device=device, precision=precision
    )
    of_members = [logits[key] for key in members]
    if len(of_members) > 1:
        logits["ensemble"] = mean_log_probs(of_members, temperature=1.0)
    return {name: fit_temperature(of_net, labels) for name, of_net in logits.items()}


def make_soups(
    nets: Mapping[str, nn.Module], trainer: Trainer, data: ClassificationData, best: BestStudents
) -> dict[str, Soup]:
    """The soups of ``nets``, kept as ``<name>.ckpt``; a greedy one where val can choose."""
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context

    def refresh(net: nn.Module) -> None:
        batches = data.loader("train")
        refresh_batch_norm([net.to(device)], batches, device=device, precision=precision)

    def score(net: nn.Module) -> float:
        logits, labels = evaluation.predict(
            {"soup": net}, data.loader("val"), device=device, precision=precision
        )
        return (logits["soup"].argmax(-1) == labels).float().mean().item()

    accuracies = {key: best.chosen[key]["accuracy"] for key in nets if best.chosen}
    soups = soups_of(nets, accuracies, refresh=refresh, score=score if best.chosen else None)
    for name, soup in soups.items():
        path = best.directory / f"{name}.ckpt"
        save_student(soup.net, path, key=name, members=list(soup.members))
    return soups


def test_run(
    trainer: Trainer,
    method: Learner,
    data: ClassificationData,
    best: BestStudents,
    cfg: DictConfig,
    teacher: Teacher | None,
    baseline: Path | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The test metrics of every net of the run, with titles, and the curves, in the order of the
    table.
    """
    others = {} if teacher is None else {"teacher": teacher.net}
    titles = {key: title_of(key, net) for key, net in cfg.method.students.items()}
    kept = {}
    if baseline is not None:
        kept = json.loads((baseline / "metrics.json").read_text())["nets"]
        for key in cfg.method.students:
            others[f"{key}, labels only"] = load_student(baseline, key)
            titles[f"{key}, labels only"] = f"{titles[key]}, labels only"
    metrics, curves = test_once(
        trainer,
        method,
        data,
        best,
        others,
        temperature_scaling=cfg.evaluation.temperature_scaling,
        soups=cfg.evaluation.soups,
    )
    nets = metrics["nets"]
    if cfg.evaluation.temperature_scaling and (doubts := doubts_about_val(cfg, data)):
        metrics["doubts"] = doubts
    if teacher is not None:
        titles["teacher"] = f"teacher · {teacher.name}"
        nets["teacher"]["origin"] = teacher.origin
    for key in cfg.method.students:
        if baseline is not None:
            nets[f"{key}, labels only"] |= {k: kept[key][k] for k in ("epoch", "val", "last")}
    together = {"ensemble": "ensemble of the students", "vote": "vote of the students"}
    for name in ("uniform_soup", "greedy_soup"):
        members = ", ".join(nets.get(name, {}).get("members", []))
        together[name] = f"{name.replace('_', ' ')} of {members}"
    order = ["teacher", *cfg.method.students, *together, *nets]
    titles |= together
    metrics["nets"] = {
        name: {"title": titles[name], **nets[name]} for name in dict.fromkeys(order) if name in nets
    }
    return metrics, {name: curves[name] for name in metrics["nets"] if name in curves}


def doubts_about_val(cfg: DictConfig, data: ClassificationData) -> list[str]:
    """Why a temperature that is fitted on val may be wrong for test."""
    doubts = []
    if data.label_noise:
        doubts.append("T is fitted to val's labels, of which as many are wrong as of train's.")
    pretrained = [key for key, net in cfg.method.students.items()
                  if net.get("weights") == "pretrained"]  # fmt: skip
    if "teacher" in cfg.method and cfg.teacher.source == "pretrained":
        pretrained.insert(0, "teacher")
    if pretrained and data.imagenet_rows is not None:
        doubts.append(
            f"T of {', '.join(pretrained)} is fitted to images of ImageNet's training part, which "
            "pretrained weights have seen."
        )
    return doubts


def title_of(key: str, net: DictConfig) -> str:
    """A student's row: its key, its net, and what its weights have already seen."""
    seen = "" if net.get("weights", "none") == "none" else f", weights {net.weights}"
    return f"{key} · {describe(net)}{seen}"
