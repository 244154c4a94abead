"""Writes sweeps to disk as after real training, with numbers that the test chooses."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kd_lightning.records import jobs

SPLIT, TEACHER = 0, 0.98


def quality(accuracy: float) -> dict[str, float]:
    """The test metrics of a net; no two are equal."""
    return {"accuracy": accuracy, "nll": 2 - accuracy, "ece": accuracy / 10, "brier": accuracy / 5}


def metrics(
    accuracies: dict[str, float],
    val: float | None = 0.9,
    *,
    teacher: float | None = TEACHER,
    origin: str = "trained, /home/somebody/outputs/teachers/teacher-mlp-1234",
    title: str = "kd on digits",
    seed: int = 0,
) -> dict[str, Any]:
    """The content of a ``metrics.json``.

    Args:
        accuracies: test accuracies by student key, or ``ensemble``. Those of the last epoch are one
            percentage point lower.
        val: the validation accuracy; None: there is no validation set.
    """
    nets = {}
    if teacher is not None:
        nets["teacher"] = {"title": "teacher · mlp", "test": quality(teacher), "parameters": 4000,
                           "throughput": 10.0, "origin": origin}  # fmt: skip
    for key, accuracy in accuracies.items():
        nets[key] = {"title": f"{key} · mlp", "test": quality(accuracy), "parameters": 1000,
                     "throughput": 30.0, "agreement": 0.5 + accuracy / 10}  # fmt: skip
        if key != "ensemble":
            nets[key] |= {"epoch": 3, "last": quality(accuracy - 0.01),
                          "val": {} if val is None else {"accuracy": val, "nll": 0.25}}  # fmt: skip
    return {"title": title, "seed": seed, "epochs": 4, "nets": nets, "objective": val,
            "has_val": val is not None, "protocol": "some", "unit": "images", "batch": 64,
            "device": "cpu"}  # fmt: skip


def config(
    seed: int = 0,
    split: int = SPLIT,
    teacher_seed: int = 0,
    resample: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    data = {"_target_": "kd_lightning.data.digits.Digits", "split_seed": split}
    return {
        "seed": seed,
        "data": data if resample is None else {**data, "resample": resample},
        "method": {"_target_": "kd_lightning.methods.kd.KD"},
        "teacher": {"seed": teacher_seed},
        **more,
    }


def job(
    sweep: Path,
    variant: str,
    axes: dict[str, Any],
    outcome: dict[str, Any] | str | None,
    *,
    overrides: Sequence[str] = (),
    **seeds: int,
) -> jobs.Job:
    """Writes the next job of a sweep.

    Args:
        outcome: metrics: the job is done; a text: it failed with this error; None: it is waiting.
    """
    number = len(list(sweep.glob("jobs/*")))
    made = jobs.create_job(
        sweep / "jobs" / f"{number:04d}",
        jobs.JobSpec(
            number=number,
            variant=variant,
            axes=axes,
            overrides=[*overrides, *(f"{key}={value}" for key, value in axes.items())],
            sweep=sweep.name,
        ),
    )
    if outcome is not None:
        text = yaml.safe_dump(config(axes.get("seed", 0), **seeds))
        (made.directory / "config.yaml").write_text(text)
    if isinstance(outcome, str):
        (made.directory / "error.txt").write_text(outcome)
    elif outcome is not None:
        (made.directory / "metrics.json").write_text(json.dumps(outcome))
    if not (sweep / "sweep.yaml").exists():
        settings(sweep)
    return made


def settings(sweep: Path, **values: Any) -> Path:
    """Writes the ``sweep.yaml`` of a sweep."""
    sweep.mkdir(parents=True, exist_ok=True)
    content = {"title": None, "overrides": [], "pairs": [], "columns": None, "search": None}
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(content | values))
    return sweep


def rows_over_seeds(sweep: Path, rows: dict[str, Sequence[float | str | None]]) -> Path:
    """Writes a sweep of named rows with one student ``a``.

    Args:
        rows: name -> for seed 0, 1, …: its test accuracy, which is also its validation accuracy; or
            a text: the job failed with this error; or None: the job has not run.
    """
    for seed in range(max(map(len, rows.values()))):
        for name, values in rows.items():
            if seed < len(values):
                value = values[seed]
                done = isinstance(value, float)
                outcome = metrics({"a": value}, value, seed=seed) if done else value
                job(sweep, name, {"variant": name, "seed": seed}, outcome)
    return sweep
