"""How accurate and how well calibrated students are on corrupted samples, by kind and severity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.base.errors import unknown
from kd_lightning.base.streams import stream_seed
from kd_lightning.evaluation.labelled_set import (
    Advance,
    Form,
    LabelledSet,
    Subject,
    labels_of,
    predict_all,
)
from kd_lightning.evaluation.metrics import classification_metrics
from kd_lightning.evaluation.robustness import image_corruptions, series_corruptions
from kd_lightning.evaluation.robustness.image_corruptions import SEVERITIES, SMALL
from kd_lightning.evaluation.sections import Section, file_stem, number, percent

METRICS = ("accuracy", "ece", "nll")
# name -> kind -> the metrics of each severity
Results = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


@dataclass(frozen=True)
class ImageCorruption:
    """Corrupts an image (C, H, W), uint8 or float in [0, 1]; the result is of the same type.

    It draws from torch's global generator.
    """

    kind: str
    severity: int

    def __call__(self, x: Tensor) -> Tensor:
        is_uint8 = x.dtype == torch.uint8
        image = x.permute(1, 2, 0).numpy().astype(np.float64) / (255 if is_uint8 else 1)
        result = image_corruptions.corrupt_image(image, self.kind, self.severity, numpy_random())
        result = np.rint(result * 255) if is_uint8 else result
        return torch.from_numpy(np.ascontiguousarray(result.transpose(2, 0, 1))).to(x.dtype)


@dataclass(frozen=True)
class SeriesCorruption:
    """Corrupts a series (C, L), and draws from torch's global generator.

    Attributes:
        mean, std: of each channel over the train part of the data.
    """

    kind: str
    severity: int
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, x: Tensor) -> Tensor:
        mean, std = (np.array(values)[:, None] for values in (self.mean, self.std))
        series = x.numpy().astype(np.float64)
        result = series_corruptions.corrupt_series(
            series, self.kind, self.severity, mean, std, numpy_random()
        )
        return torch.from_numpy(result).to(x.dtype)


def numpy_random() -> np.random.Generator:
    """A generator whose seed is drawn from torch's."""
    return np.random.default_rng(int(torch.randint(2**62, ())))


def choose_kinds(words: str, form: Form) -> list[str]:
    """The kinds that the user has chosen.

    Args:
        words: names of kinds, separated by commas, or "all".

    Raises:
        UserError: such samples have no such kind.
    """
    if form.kind == "image":
        valid = list(image_corruptions.KINDS)
    else:
        valid = series_corruptions.kinds_for(form.channels)
    if words == "all":
        return valid
    chosen = [word.strip() for word in words.split(",")]
    for word in chosen:
        if word not in valid:
            raise unknown(f"corruption of {form.kind} samples", word, valid, "--corruptions")
    return list(dict.fromkeys(chosen))


def corruption_of(labelled: LabelledSet, subject: Subject, kind: str, severity: int) -> Callable:
    if subject.form.kind == "image":
        return ImageCorruption(kind, severity)
    return SeriesCorruption(kind, severity, labelled.data.mean, labelled.data.std)


def measure(
    subjects: Sequence[Subject],
    labelled: LabelledSet,
    kinds: Sequence[str],
    device: torch.device,
    advance: Advance,
) -> Results:
    """The metrics of each student under each corruption. All students see the same samples, and a
    sample has the same random numbers in all severities.
    """
    results: dict[str, dict[str, list]] = {s.name: {kind: [] for kind in kinds} for s in subjects}
    for kind in kinds:
        for severity in SEVERITIES:
            corrupt = corruption_of(labelled, subjects[0], kind, severity)
            seed = stream_seed("corruption", kind)
            logits, labels = predict_all(subjects, labelled, device, advance, corrupt, seed)
            for subject in subjects:
                own = labels_of(subject, labels, labelled.data.class_names)
                metrics = classification_metrics(logits[subject.name], own)
                results[subject.name][kind].append({name: metrics[name] for name in METRICS})
    return results


def mean_of(by_severity: Mapping[str, Sequence[Mapping[str, float]]], metric: str) -> float:
    """Mean of a metric over all kinds and severities."""
    return fmean(fmean(cell[metric] for cell in cells) for cells in by_severity.values())


def sections(
    results: Results, clean: Mapping[str, Mapping[str, Any]], subjects: Sequence[Subject]
) -> list[Section]:
    """One table for each student.

    Args:
        clean: the metrics without corruption, by name.
    """
    return [
        Section(
            file_stem("corruptions", subject.name if len(subjects) > 1 else ""),
            f"Accuracy under corruption: {subject.name}",
            rows_of(results[subject.name], clean[subject.name]),
            {
                "kind": ("corruption", str),
                **{f"severity_{s}": (f"severity {s}", percent) for s in SEVERITIES},
                "accuracy": ("mean", percent),
                "ece": ("ECE", number),
            },
            notes(subject),
        )
        for subject in subjects
    ]


def rows_of(
    kinds: Mapping[str, Sequence[Mapping[str, float]]], clean: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row a kind, between those of the clean samples and of the mean over all kinds."""
    no_values = {f"severity_{s}": None for s in SEVERITIES}
    rows = [{"kind": "none", **no_values, **{name: clean[name] for name in METRICS}}]
    for kind, cells in kinds.items():
        severities = {
            f"severity_{s}": cell["accuracy"] for s, cell in zip(SEVERITIES, cells, strict=True)
        }
        means = {name: fmean(cell[name] for cell in cells) for name in METRICS}
        rows.append({"kind": kind, **severities, **means})
    if len(kinds) > 1:
        severities = {
            f"severity_{s}": fmean(cells[s - 1]["accuracy"] for cells in kinds.values())
            for s in SEVERITIES
        }
        means = {name: mean_of(kinds, name) for name in METRICS}
        rows.append({"kind": "mean of all kinds", **severities, **means})
    return rows


def notes(subject: Subject) -> list[str]:
    if subject.form.kind == "series":
        return ["The levels are this package's own (evaluation/robustness/series_corruptions.py)."]
    family = "CIFAR-10-C" if subject.form.size <= SMALL else "ImageNet-C"
    return [
        f"Kinds and parameters of {family} (arXiv 1903.12261), applied to images of "
        f"{subject.form.size} pixels; frost is left out, and the images are not bit for bit the "
        "published ones. mean: over the severities; it is no mCE, which divides by AlexNet's "
        "errors."
    ]
