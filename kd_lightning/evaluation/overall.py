"""The metrics of students on labelled samples: of all samples together, and of each class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.base.confusion import confusion_matrix
from kd_lightning.base.files import atomic_write, write_text
from kd_lightning.base.proportions import wilson_interval
from kd_lightning.base.tables import csv_text
from kd_lightning.evaluation.labelled_set import LabelledSet, Subject, labels_of
from kd_lightning.evaluation.metrics import classification_metrics
from kd_lightning.evaluation.per_class import class_rows
from kd_lightning.evaluation.sections import (
    Section,
    file_stem,
    interval_text,
    number,
    percent,
    whole,
)


def metrics_of(logits: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> dict[str, Any]:
    """``classification_metrics``, with n and the 95 % interval of the accuracy."""
    right = int((logits.argmax(1) == labels).sum())
    metrics = classification_metrics(logits, labels)
    return {
        "n": len(labels),
        "accuracy": metrics.pop("accuracy"),
        "interval": wilson_interval(right, len(labels)),
        **metrics,
    }


def overall_section(
    metrics: Mapping[str, Mapping[str, Any]], labelled: LabelledSet, notes: Sequence[str]
) -> Section:
    columns = {
        "student": ("student", str),
        "accuracy": ("accuracy", percent),
        "interval": ("95 % interval", interval_text),
        "balanced_accuracy": ("balanced accuracy", percent),
        "macro_f1": ("macro F1", percent),
        "nll": ("NLL", number),
        "ece": ("ECE", number),
        "overconfidence_error": ("OE", number),
        "confidence_gap": ("gap", number),
        "aurc": ("AURC", number),
    }
    rows = [{"student": name, **values} for name, values in metrics.items()]
    part = "all parts" if labelled.split == "all" else f"{labelled.split} part"
    title = f"{labelled.name}, {part}: {next(iter(metrics.values()))['n']:,} samples"
    notes = [
        "95 % interval: Wilson's, for the choice of the samples. balanced accuracy: mean recall of "
        "the classes.",
        "OE: overconfidence error. gap: mean confidence minus accuracy, above 0 if overconfident.",
        *notes,
    ]
    return Section("evaluation", title, rows, columns, notes)


class ClassReport:
    """What one student does with each class.

    Args:
        subject: the student.
        logits: its logits.
        labels: of the data.
        class_names: of the data.
        alone: whether no other student is evaluated: then the files do not have its name.
    """

    def __init__(
        self,
        subject: Subject,
        logits: Float[Tensor, "N C"],
        labels: Int[Tensor, " N"],
        class_names: Sequence[str],
        *,
        alone: bool,
    ) -> None:
        own = labels_of(subject, labels, class_names)
        self.subject = subject
        self.suffix = "" if alone else subject.name
        self.matrix = torch.from_numpy(confusion_matrix(logits.argmax(1), own, logits.shape[1]))
        self.rows = class_rows(self.matrix, subject.class_names)

    def section(self, most: int | None = None) -> Section:
        """The table.

        Args:
            most: if there are more classes, only this number, those with the lowest recall.
        """
        rows, notes = self.rows, []
        if most is not None and len(rows) > most:
            with_samples = [row for row in rows if row["n"]]
            rows = sorted(with_samples, key=lambda row: row["recall"])[:most]
            notes = [f"The {most} of {len(self.rows)} classes with the lowest recall."]
        columns = {
            "class": ("class", str),
            "n": ("n", whole),
            "precision": ("precision", percent),
            "recall": ("recall", percent),
            "f1": ("F1", percent),
            "confused_with": ("most confused with", str),
            "times": ("times", whole),
        }
        stem = file_stem("classes", self.suffix)
        return Section(stem, f"Classes: {self.subject.name}", rows, columns, notes)

    def write(self, folder: Path) -> None:
        """Writes the table, and the confusion matrix as a picture and as CSV."""
        from kd_lightning.evaluation.confusion_plot import draw  # matplotlib is slow to import

        self.section().write(folder)
        names, stem = self.subject.class_names, file_stem("confusion", self.suffix)
        rows = [
            {"class / predicted": name, **dict(zip(names, counts, strict=True))}
            for name, counts in zip(names, self.matrix.tolist(), strict=True)
        ]
        write_text(folder / f"{stem}.csv", csv_text(rows))
        with atomic_write(folder / f"{stem}.png") as unfinished:
            draw(self.matrix, names, self.subject.name).savefig(unfinished, format="png")
