"""The test of the nets of a run: done once, after weights were chosen on val. Its results become
the content of ``metrics.json`` and ``calibration.json``.
"""

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
from kd_lightning.evaluation import test_records
from kd_lightning.evaluation.calibration import calibration_report, scaled_metrics
from kd_lightning.evaluation.majority_vote import majority_vote
from kd_lightning.evaluation.metrics import (
    agreement,
    classification_metrics,
    count_parameters,
    predict,
    throughput,
)
from kd_lightning.evaluation.robustness.adversarial import Attacks
from kd_lightning.evaluation.robustness.of_run import attacks_of, robust_accuracies
from kd_lightning.evaluation.soups import Soup, build_soups
from kd_lightning.losses.soft_targets import mean_log_probs
from kd_lightning.methods.base import Learner
from kd_lightning.models.averages import refresh_batch_norm
from kd_lightning.models.weights import load_weights
from kd_lightning.records.run_directory import read_metrics
from kd_lightning.teachers.baselines import BASELINES
from kd_lightning.teachers.net_names import describe
from kd_lightning.teachers.own_run import sources_of
from kd_lightning.teachers.sources import Teacher, allowed_by, load_student
from kd_lightning.uncertainty.temperature import fit_temperature

Report = dict[str, dict[str, Any]]  # net -> its part of metrics.json


def test_run(
    trainer: Trainer,
    method: Learner,
    data: ClassificationData,
    best: BestStudents,
    cfg: DictConfig,
    teacher: Teacher | None,
    baselines: Mapping[str, Path],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tests every net of a run.

    Args:
        best: has chosen the students' weights.
        baselines: how the students were also trained without a teacher -> the run directory.

    Returns:
        The content of ``metrics.json``, with a title for each net, and that of
        ``calibration.json``; both in the order of the table's rows. The predictions are written
        into the run directory (``test_records.py``).
    """
    students = cfg.method.students
    others = {} if teacher is None else {"teacher": teacher.net}
    for how, run in baselines.items():
        nets = {key: load_student(run, key, allow=allowed_by(cfg)) for key in students}
        others |= {f"{key}, {how}": net for key, net in nets.items()}
    metrics, curves, logits, labels = test_once(
        trainer,
        method,
        data,
        best,
        others,
        temperature_scaling=cfg.evaluation.temperature_scaling,
        soups=cfg.evaluation.soups,
        attacks=attacks_of(cfg),
    )
    nets = metrics["nets"]
    if cfg.evaluation.temperature_scaling and (doubts := doubts_about_val(cfg, data)):
        metrics["doubts"] = doubts
    if teacher is not None:
        nets["teacher"]["origin"] = teacher.origin
    for how, run in baselines.items():
        trained = read_metrics(run)["nets"]
        for key in students:
            nets[f"{key}, {how}"] |= {k: trained[key][k] for k in ("epoch", "val", "last")}
    titles = titles_of(nets, students, teacher)
    metrics["nets"] = {name: {"title": title, **nets[name]} for name, title in titles.items()}
    test_records.write(
        best.directory,
        {name: logits[name] for name in titles},
        labels,
        data.loader("test"),
        student=next(iter(students)),
        without_probabilities=frozenset(name for name in titles if "nll" not in nets[name]["test"]),
    )
    return metrics, {name: curves[name] for name in titles if name in curves}


def test_once(
    trainer: Trainer,
    method: Learner,
    data: ClassificationData,
    best: BestStudents,
    others: Mapping[str, nn.Module],
    *,
    temperature_scaling: bool,
    soups: bool,
    attacks: Attacks | None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor], torch.Tensor]:
    """Tests the students, their combinations (ensemble, soups, and the vote of three or more
    students) and other nets.

    Args:
        others: name -> further nets, tested in the same pass. Every net's agreement with the one
            named "teacher" is measured.
        temperature_scaling: also fit each net's temperature on val, and test with it.
        soups: also make, save and test the soups of the chosen weights.
        attacks: also measure the accuracy of each net under this attack, as ``robust_accuracy``.

    Returns:
        The content of ``metrics.json``; name -> the net's part of ``calibration.json``; name -> its
        logits on test (N, C); and the labels (N,).

        ``nets``: name -> ``test`` (metrics), ``parameters``, ``throughput`` (samples per second),
        ``agreement`` (with the teacher) and, with ``temperature_scaling``, ``scaled`` (metrics).
        A student also has ``epoch`` and ``val`` (the epoch of its chosen weights and their metrics
        on val) and ``last`` (test metrics of the last epoch). A soup has ``val`` and ``members``.
        ``objective``: mean val accuracy of the chosen weights; None without a val part.
        ``attack``: epsilon, steps and number of images of the attack, if there was one.
        ``averaging``: how the students' weights were averaged during training, if they were.
    """
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context
    last = {f"{key}/last": student for key, student in method.students.items()}
    chosen = load_chosen(method, best)
    loader = data.loader("test", device=device)
    soup_by_name = make_soups(chosen, trainer, data, best) if soups else {}
    nets = {**others, **chosen, **{name: soup.net for name, soup in soup_by_name.items()}}
    logits, labels = predict({**nets, **last}, loader, device=device, precision=precision)

    batch = next(iter(loader))[0].to(device)
    report: Report = {}
    for name, net in nets.items():
        with precision():
            samples_per_second = throughput(net, batch)
        report[name] = {
            "test": classification_metrics(logits[name], labels),
            "parameters": count_parameters(net),
            "throughput": samples_per_second,
        }
    for key in chosen:
        choice = dict(best.chosen.get(key, {"epoch": trainer.current_epoch - 1}))
        report[key]["epoch"] = choice.pop("epoch")
        report[key]["val"] = choice
        report[key]["last"] = classification_metrics(logits[f"{key}/last"], labels)
    for name, soup in soup_by_name.items():
        report[name]["val"] = {} if soup.accuracy is None else {"accuracy": soup.accuracy}
        report[name]["members"] = list(soup.members)

    if attacks is not None:
        for name, accuracy in robust_accuracies(nets, data, attacks, device).items():
            report[name]["test"]["robust_accuracy"] = accuracy
    if len(chosen) > 1:
        add_ensemble(report, logits, labels, list(chosen))
    temperatures = fit_temperatures(nets, chosen, trainer, data) if temperature_scaling else {}
    for name, temperature in temperatures.items():
        report[name]["scaled"] = scaled_metrics(logits[name], labels, temperature)
    curves = calibration_report({name: logits[name] for name in report}, labels, temperatures)
    if len(chosen) > 2:
        add_vote(report, logits, labels, list(chosen), data.num_classes)
    if "teacher" in others:
        for name in report:
            if name != "teacher":
                report[name]["agreement"] = agreement(logits[name], logits["teacher"])

    accuracies = [report[key]["val"].get("accuracy") for key in chosen]
    metrics = {
        "nets": report,
        "objective": None if None in accuracies else sum(accuracies) / len(accuracies),
        "has_val": bool(best.chosen),
        "tested": len(labels),
        "protocol": data.protocol,
        "unit": "series" if batch.ndim == 3 else "images",
        "batch": len(batch),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    if attacks is not None:
        metrics["attack"] = {
            "epsilon": float(attacks.epsilon),
            "steps": attacks.steps,
            "samples": min(attacks.samples, len(labels)),
        }
    if (averaging := averaging_of(trainer)) is not None:
        metrics["averaging"] = averaging.describe()
    return metrics, curves, logits, labels


def load_chosen(method: Learner, best: BestStudents) -> dict[str, nn.Module]:
    """Copies of the students with the weights that were chosen on val."""
    chosen = {}
    for key, student in method.students.items():
        chosen[key] = deepcopy(student)
        load_weights(chosen[key], best.path(key), "run_dir")
    return chosen


def add_ensemble(
    report: Report, logits: dict[str, torch.Tensor], labels: torch.Tensor, members: list[str]
) -> None:
    """Adds the ensemble to ``logits`` and ``report``: the mean of the members' probabilities."""
    logits["ensemble"] = mean_log_probs([logits[key] for key in members], temperature=1.0)
    report["ensemble"] = {
        "test": classification_metrics(logits["ensemble"], labels),
        "parameters": sum(report[key]["parameters"] for key in members),
        "throughput": 1 / sum(1 / report[key]["throughput"] for key in members),
    }


def add_vote(
    report: Report,
    logits: dict[str, torch.Tensor],
    labels: torch.Tensor,
    members: list[str],
    num_classes: int,
) -> None:
    """Adds the majority vote to ``logits`` (one-hot: it has no probabilities) and ``report``."""
    vote = majority_vote([logits[key] for key in members])
    logits["vote"] = F.one_hot(vote, num_classes).float()
    accuracy = (vote == labels).float().mean().item()
    report["vote"] = {**report["ensemble"], "test": {"accuracy": accuracy}}
    report["vote"].pop("scaled", None)


def fit_temperatures(
    nets: Mapping[str, nn.Module],
    members: Iterable[str],
    trainer: Trainer,
    data: ClassificationData,
) -> dict[str, float]:
    """The temperature of each net, fitted on val, and that of the ensemble of two or more members.

    The logits of the ensemble are the log of its mean probabilities.
    """
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context
    logits, labels = predict(nets, data.loader("val"), device=device, precision=precision)
    member_logits = [logits[key] for key in members]
    if len(member_logits) > 1:
        logits["ensemble"] = mean_log_probs(member_logits, temperature=1.0)
    return {name: fit_temperature(net_logits, labels) for name, net_logits in logits.items()}


def make_soups(
    nets: Mapping[str, nn.Module], trainer: Trainer, data: ClassificationData, best: BestStudents
) -> dict[str, Soup]:
    """Makes the soups of ``nets`` and saves each as ``<name>.ckpt``. Without a val part there is no
    greedy soup.
    """
    device = trainer.strategy.root_device
    precision = trainer.precision_plugin.forward_context

    def refresh(net: nn.Module) -> None:
        batches = data.loader("train", device=device)
        refresh_batch_norm([net.to(device)], batches, device=device, precision=precision)

    def score(net: nn.Module) -> float:
        loader = data.loader("val", device=device)
        logits, labels = predict({"soup": net}, loader, device=device, precision=precision)
        return (logits["soup"].argmax(-1) == labels).float().mean().item()

    accuracies = {key: best.chosen[key]["accuracy"] for key in nets if best.chosen}
    soups = build_soups(nets, accuracies, refresh=refresh, score=score if best.chosen else None)
    for name, soup in soups.items():
        path = best.directory / f"{name}.ckpt"
        save_student(soup.net, path, key=name, members=list(soup.members))
    return soups


def titles_of(nets: Report, students: DictConfig, teacher: Teacher | None) -> dict[str, str]:
    """Net -> its title in the table, in the order of the table's rows."""
    titles = {"teacher": f"teacher · {teacher.name}"} if teacher is not None else {}
    titles |= {key: title_of(key, net) for key, net in students.items()}
    titles |= {"ensemble": "ensemble of the students", "vote": "vote of the students"}
    for name in ("uniform_soup", "greedy_soup"):
        members = ", ".join(nets.get(name, {}).get("members", []))
        titles[name] = f"{name.replace('_', ' ')} of {members}"
    for how in BASELINES.values():
        titles |= {f"{key}, {how}": f"{titles[key]}, {how}" for key in students}
    return {name: title for name, title in titles.items() if name in nets}


def doubts_about_val(cfg: DictConfig, data: ClassificationData) -> list[str]:
    """Why a temperature fitted on val may be wrong for test."""
    doubts = []
    if data.val_has_wrong_labels:
        doubts.append("T is fitted to val's labels, of which as many are wrong as of train's.")
    pretrained = [key for key, net in cfg.method.students.items()
                  if net.get("weights") == "pretrained"]  # fmt: skip
    if "teacher" in cfg.method and "pretrained" in sources_of(cfg):
        pretrained.insert(0, "teacher")
    if pretrained and data.imagenet_rows is not None:
        doubts.append(
            f"T of {', '.join(pretrained)} is fitted to images of ImageNet's training part, which "
            "pretrained weights have seen."
        )
    return doubts


def title_of(key: str, net: DictConfig) -> str:
    """A student's title: its key, its net, and the weights that its training began from."""
    weights = "" if net.get("weights", "none") == "none" else f", weights {net.weights}"
    return f"{key} · {describe(net)}{weights}"
