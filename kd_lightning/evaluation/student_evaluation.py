"""The evaluation of finished students on labelled samples: everything that was asked for, as JSON
and as tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_json
from kd_lightning.base.tables import print_tables
from kd_lightning.evaluation import compare
from kd_lightning.evaluation.data_choice import notes_on_training
from kd_lightning.evaluation.labelled_set import (
    Advance,
    LabelledSet,
    Subject,
    by_form,
    labels_of,
    note_on_classes,
    note_on_form,
    predict_all,
)
from kd_lightning.evaluation.overall import ClassReport, metrics_of, overall_section
from kd_lightning.evaluation.robustness import adversarial, corruptions, out_of_distribution
from kd_lightning.evaluation.robustness.adversarial import Attacks
from kd_lightning.evaluation.robustness.image_corruptions import SEVERITIES
from kd_lightning.evaluation.sections import Section

MOST_CLASSES = 20  # classes of a table on the screen


@dataclass(frozen=True)
class Requests:
    """What is measured beside the metrics on the samples as they are.

    Attributes:
        kinds: corruptions.
        other: data that have none of the students' classes; None: none.
        attacks: None: none.
    """

    kinds: Sequence[str] = ()
    other: LabelledSet | None = None
    attacks: Attacks | None = None


@dataclass(frozen=True)
class Evaluation:
    """The results.

    Attributes:
        report: the content of ``evaluation.json``.
        sections: the tables.
        classes: what each student does with each class.
    """

    report: dict[str, Any]
    sections: Sequence[Section]
    classes: Sequence[ClassReport]

    def print(self, console: Console) -> None:
        tables = [
            self.sections[0].table(),
            *(classes.section(MOST_CLASSES).table() for classes in self.classes),
            *(section.table() for section in self.sections[1:]),
        ]
        print_tables(tables, console, split_heads=False)

    def write(self, folder: Path) -> None:
        """Writes the tables, the confusion matrices and, last, ``evaluation.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in (*self.sections, *self.classes):
            part.write(folder)
        write_json(folder / "evaluation.json", self.report)


def check(subjects: Sequence[Subject], labelled: LabelledSet, requests: Requests) -> None:
    """Raises ``UserError`` for an evaluation that cannot be done, before anything is computed."""
    for subject in subjects:
        labels_of(subject, labelled.samples.y, labelled.data.class_names)
        labelled.loader(subject.form)
        if requests.other is not None:
            requests.other.loader(subject.form)
    if requests.attacks is not None:
        adversarial.check_attacks(requests.attacks, subjects)


def count_passes(subjects: Sequence[Subject], labelled: LabelledSet, requests: Requests) -> int:
    """Number of samples that go through a pass, for the progress."""
    forms = len(by_form(subjects))
    passes = forms * len(labelled) * (1 + len(SEVERITIES) * len(requests.kinds))
    if requests.other is not None:
        passes += forms * len(requests.other)
    if (attacks := requests.attacks) is not None:
        attacked = min(attacks.samples, len(labelled))
        passes += len(subjects) * len(attacks.names) * attacked
    return passes


def evaluate(
    subjects: Sequence[Subject],
    labelled: LabelledSet,
    requests: Requests,
    device: torch.device,
    advance: Advance = int,
) -> Evaluation:
    """Evaluates students on the same samples; the first one is the one that others are compared
    with.

    Args:
        advance: is told of each number of samples that have gone through a pass.
    """
    check(subjects, labelled, requests)
    names = labelled.data.class_names
    logits, labels = predict_all(subjects, labelled, device, advance)
    own = {s.name: labels_of(s, labels, names) for s in subjects}
    metrics = {name: metrics_of(logits[name], own[name]) for name in own}
    forms = [group[0].form for group in by_form(subjects)]
    notes = [note for form in forms for note in note_on_form(labelled, form)]
    notes += note_on_classes(labelled, subjects)
    notes += [f"When the data were read: {note}" for note in labelled.data.notes]
    notes += [*notes_on_training(labelled, subjects)]
    if left_out := len(labelled) - len(labels):
        notes.append(f"{left_out} of {len(labelled)} files could not be read and are left out.")
    classes = [
        ClassReport(s, logits[s.name], labels, names, alone=len(subjects) == 1) for s in subjects
    ]
    sections = [overall_section(metrics, labelled, notes)]
    report: dict[str, Any] = {
        "data": describe_data(labelled, len(labels)),
        "notes": notes,
        "students": {
            s.name: {"source": s.source, **metrics[s.name], "classes": c.rows}
            for s, c in zip(subjects, classes, strict=True)
        },
    }
    if len(subjects) > 1:
        right = {name: logits[name].argmax(1) == own[name] for name in own}
        report["comparison"] = compare.comparison(right)
        sections.append(compare.section(report["comparison"]))
    if requests.kinds:
        results = corruptions.measure(subjects, labelled, requests.kinds, device, advance)
        sections += corruptions.sections(results, metrics, subjects)
        report["corruptions"] = {
            name: {metric: corruptions.mean_of(kinds, metric) for metric in corruptions.METRICS}
            | {"kinds": kinds}
            for name, kinds in results.items()
        }
    if (other := requests.other) is not None:
        rows = out_of_distribution.measure(subjects, logits, other, device, advance)
        sections.append(out_of_distribution.section(rows, subjects, labelled, other))
        report["ood"] = {
            "data": describe_data(other, rows[0]["n_other"]), "scores": rows
        }  # fmt: skip
    if (attacks := requests.attacks) is not None:
        rows = adversarial.measure(subjects, labelled, attacks, device, advance)
        sections.append(adversarial.section(rows, attacks))
        report["adversarial"] = {
            "epsilon": float(attacks.epsilon), "steps": attacks.steps, "results": rows
        }  # fmt: skip
    return Evaluation(report, sections, classes)


def describe_data(labelled: LabelledSet, n: int) -> dict[str, Any]:
    """The data of an evaluation, of which ``n`` samples could be read."""
    return {
        "name": labelled.name,
        "split": labelled.split,
        "n": n,
        "fingerprint": labelled.data.fingerprint,
        "protocol": labelled.data.protocol,
        "class_names": labelled.data.class_names,
    }


def check_folder(out: Path) -> None:
    """Raises ``UserError`` for a folder with files: tables of another evaluation would stay."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"expected a new or an empty folder for the results, got {out} (--out)")
