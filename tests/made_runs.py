"""Writes the run directories of finished runs, with numbers that the test chooses."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from made_sweeps import config, job
from torch import Tensor

from kd_lightning.data.loading.batches import Samples, SampleSet
from kd_lightning.data.loading.loaders import make_loader
from kd_lightning.evaluation import calibration, table, test_records
from kd_lightning.evaluation.metrics import agreement, classification_metrics

NETS = ("teacher", "a", "b", "ensemble")
PARAMETERS = {"teacher": 300_000, "a": 5_000, "b": 2_400, "ensemble": 7_400}


def logits_of(labels: Tensor, num_classes: int, seed: int, skill: float) -> Tensor:
    """Random logits (N, C), higher for the right class."""
    noise = torch.randn(len(labels), num_classes, generator=torch.Generator().manual_seed(seed))
    return noise + skill * torch.nn.functional.one_hot(labels, num_classes)


def write_run(
    directory: Path,
    *,
    seed: int = 0,
    names: Sequence[str] = ("cat", "dog", "owl"),
    samples: Tensor | None = None,
    num_test: int = 90,
    epochs: int = 5,
    title: str = "kd on digits",
    scaled: bool = True,
    **more: Any,
) -> Path:
    """Writes all files of a run that a page reads.

    Args:
        names: of the classes.
        samples: the test part, (N, C, H, W) or (N, C, L); None: small grey images.
        scaled: whether temperatures were fitted.
        more: further keys of its configuration.
    """
    directory.mkdir(parents=True, exist_ok=True)
    labels = torch.arange(num_test) % len(names)
    x = torch.zeros(num_test, 1, 8, 8, dtype=torch.uint8) + labels[:, None, None, None].byte()
    x = x if samples is None else samples
    logits = {
        net: logits_of(labels, len(names), 10 * seed + i, 4.0 - i) for i, net in enumerate(NETS)
    }
    temperatures = dict.fromkeys(NETS, 1.5) if scaled else {}
    metrics = metrics_of(logits, labels, epochs, title, seed)
    loader = make_loader(SampleSet(Samples(x, labels), seed=0), 32, shuffle=False,
                         rank=0, ranks=1, num_workers=0, pin_memory=False)  # fmt: skip
    (directory / "config.yaml").write_text(json.dumps(config(seed, title=title, **more)))
    (directory / "environment.json").write_text(json.dumps(environment(names)))
    write_epochs(directory / "epochs.csv", epochs)
    test_records.write(directory, logits, labels, loader, student="a")
    calibration.write(
        calibration.calibration_report(logits, labels, temperatures), directory, plots=False
    )
    (directory / "table.md").write_text(table.markdown(metrics))
    (directory / "table.csv").write_text(table.as_csv(metrics))
    (directory / "metrics.json").write_text(json.dumps(metrics))
    return directory


def metrics_of(
    logits: Mapping[str, Tensor], labels: Tensor, epochs: int, title: str, seed: int
) -> dict[str, Any]:
    nets: dict[str, Any] = {}
    for net, net_logits in logits.items():
        test = classification_metrics(net_logits, labels)
        nets[net] = {"title": f"{net} · mlp", "test": test, "parameters": PARAMETERS[net],
                     "throughput": 1e9 / PARAMETERS[net]}  # fmt: skip
        if net == "teacher":
            nets[net]["origin"] = "trained, /somewhere/teachers/teacher-mlp-1234"
        else:
            nets[net]["agreement"] = agreement(net_logits, logits["teacher"])
        if net in ("a", "b"):
            val = {"accuracy": test["accuracy"], "nll": test["nll"]}
            nets[net] |= {"epoch": epochs - 2, "val": val, "last": test}
    return {"title": title, "seed": seed, "epochs": epochs, "nets": nets,
            "objective": nets["a"]["val"]["accuracy"], "has_val": True,
            "protocol": "val: 10%; test: its own", "unit": "images", "batch": 64,
            "device": "cpu"}  # fmt: skip


def environment(names: Sequence[str]) -> dict[str, Any]:
    return {
        "command": ["run.py", "method=kd", "method.temperature=4", "title=a b"],
        "versions": {"python": "3.11.7", "kd_lightning": "0.1.0", "torch": "2.15.0"},
        "git": {"commit": "0123456789" * 4, "dirty": True},
        "machine": {"cpus": 2, "gpus": []},
        "data": {"class_names": list(names), "notes": ["3 files were skipped."]},
    }


def write_epochs(path: Path, epochs: int) -> None:
    rows = []
    for epoch in range(epochs):
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": 10 * epoch,
            "val/accuracy": 1 - 1 / (2 + epoch),
        }
        for net in ("a", "b"):
            row |= {f"val/{net}/accuracy": 1 - 1 / (2 + epoch), f"val/{net}/nll": 1 / (1 + epoch),
                    f"train/{net}/hard": 100 * 0.4**epoch, f"train/{net}/soft": 2.0}  # fmt: skip
        rows.append(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_job(sweep: Path, run: Path, axes: Mapping[str, Any]) -> Path:
    """Makes the next job of a sweep from a written run."""
    name = " ".join(f"{key}={value}" for key, value in axes.items() if key != "seed")
    metrics = json.loads((run / "metrics.json").read_text())
    made = job(sweep, name, dict(axes), metrics, overrides=["method=kd", "outputs=/a b"])
    for path in run.iterdir():
        if path.name not in ("metrics.json", "config.yaml"):
            shutil.copy(path, made.directory)
    return made.directory
