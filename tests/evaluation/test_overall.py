from pathlib import Path

import pytest
import torch

from kd_lightning.base.proportions import wilson_interval
from kd_lightning.data.digits import Digits
from kd_lightning.evaluation.labelled_set import Form, Subject, take_split
from kd_lightning.evaluation.metrics import classification_metrics
from kd_lightning.evaluation.overall import ClassReport, metrics_of, overall_section
from kd_lightning.students.transform import unchanged

# three of class 0, of which one is taken for class 1; one of class 1, which is right
LABELS = torch.tensor([0, 0, 0, 1])
LOGITS = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])


def subject(names: list[str]) -> Subject:
    return Subject("a/b", "", torch.nn.Identity(), names, Form("image", 1, 8, unchanged), ("", ""))


def test_metrics_by_hand() -> None:
    metrics = metrics_of(LOGITS, LABELS)
    assert metrics["n"] == 4
    assert metrics["accuracy"] == 0.75
    assert metrics["interval"] == wilson_interval(3, 4)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert classification_metrics(LOGITS, LABELS).items() <= metrics.items()


def test_the_table_says_which_samples_and_how_many() -> None:
    data = Digits(batch_size=64)
    data.setup()
    metrics = {"a": metrics_of(LOGITS, LABELS)}
    section = overall_section(metrics, take_split(data, "digits", "val"), ["A note."])
    assert section.title == "digits, val part: 4 samples"  # those that could be read
    table = section.table()
    assert table.rows[0][:4] == ["a", "75.00%", "30.06% to 95.44%", "83.33%"]
    assert table.notes[-1] == "A note."
    assert "all parts" in overall_section(metrics, take_split(data, "digits", "all"), []).title


def test_classes_are_in_the_order_of_the_student_under_their_own_names() -> None:
    report = ClassReport(
        subject(["dog", "cat"]), LOGITS.flip(1), LABELS, ["cat", "dog"], alone=True
    )
    assert [(row["class"], row["n"], row["confused_with"]) for row in report.rows] == [
        ("dog", 1, None),
        ("cat", 3, "dog"),
    ]
    assert report.matrix.tolist() == [[1, 0], [1, 2]]


def test_a_class_that_the_data_lack_may_be_predicted() -> None:
    logits = torch.cat([torch.tensor([[9.0], [0.0], [0.0], [0.0]]), LOGITS], dim=1)
    report = ClassReport(subject(["owl", "cat", "dog"]), logits, LABELS, ["cat", "dog"], alone=True)
    assert report.matrix.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 1]]
    assert report.rows[0] == {
        **{"class": "owl", "n": 0, "precision": 0.0, "recall": None, "f1": 0.0},
        **{"confused_with": None, "times": None},
    }
    assert metrics_of(logits, LABELS + 1)["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)


def test_of_many_classes_only_the_worst_are_shown() -> None:
    names = [f"class {number}" for number in range(30)]
    labels = torch.arange(29)  # the last one has no sample
    logits = torch.eye(30)[labels]
    logits[7] = torch.eye(30)[8]
    report = ClassReport(subject(names), logits, labels, names, alone=False)
    section = report.section(5)
    assert len(section.rows) == 5
    assert section.rows[0]["class"] == "class 7"
    assert section.notes == ["The 5 of 30 classes with the lowest recall."]
    assert len(report.section().rows) == 30


def test_files_have_the_name_of_the_student_unless_it_is_alone(tmp_path: Path) -> None:
    for alone in (True, False):
        report = ClassReport(subject(["0", "1"]), LOGITS, LABELS, ["0", "1"], alone=alone)
        report.write(tmp_path)
    stems = [f"{kind}{name}" for kind in ("classes", "confusion") for name in ("", "-a-b")]
    assert {path.stem for path in tmp_path.iterdir()} == set(stems)
    expected = "class / predicted,0,1\n0,2,1\n1,0,1\n"
    assert (tmp_path / "confusion.csv").read_text().replace("\r\n", "\n") == expected
