"""From a plain PyTorch teacher on photos to an ONNX student, as a user does it, and every wrong way
on it.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import own_teacher
import pytest
import torch
from helpers import ROOT

from kd_lightning import distill, evaluate, export, predict, report
from kd_lightning.base.errors import UserError
from kd_lightning.running.run import Result

pytestmark = pytest.mark.slow
SQUASH = ["data.resize=squash", f"data.image_size={own_teacher.SIDE}"]


class Own(NamedTuple):
    """A user's photos and teacher: its weights as the script saved them, its statistics, and the
    accuracy on val that the script itself measures.
    """

    photos: Path
    weights: Path
    state: dict[str, torch.Tensor]
    statistics: list[str]
    accuracy: float


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    folder = tmp_path_factory.mktemp("own")
    photos = own_teacher.write_photos(folder / "photos")
    net, mean, std = own_teacher.train_plainly(photos)
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save({"epoch": 6, "model_state_dict": state}, folder / "teacher.pt")
    statistics = [
        f"method.teacher.{name}=[{','.join(f'{value:.4f}' for value in values)}]"
        for name, values in (("mean", mean), ("std", std))
    ]
    accuracy = own_teacher.accuracy(net, photos / "val", mean, std)
    return Own(photos, folder / "teacher.pt", state, statistics, accuracy)


def distilled(own: Own, outputs: Path, *words: str, weights: Path | None = None) -> Result:
    return distill(
        "method=kd", "data=image_folder", f"data.root={own.photos}", "data.num_workers=0",
        "model@method.teacher=resnet18", f"teacher.source={weights or own.weights}",
        "model@method.students.student=resnet8", "trainer.max_epochs=1", "threads=1",
        "hardware=cpu", "callbacks=quiet", f"outputs={outputs}", *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(own: Own, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return distilled(own, tmp_path_factory.mktemp("outputs"), *SQUASH, *own.statistics)


def test_the_teacher_is_as_good_as_its_own_script_says(own: Own, run: Result) -> None:
    record = json.loads((run.directory / "environment.json").read_text())
    assert own.accuracy > 0.6
    assert record["teacher"]["val"]["accuracy"] == pytest.approx(own.accuracy, abs=0.02)


def saved(own: Own, folder: Path, **changed: torch.Tensor) -> Path:
    torch.save(own.state | {f"module.{name}": value for name, value in changed.items()}, folder)
    return folder


def test_a_teacher_with_the_statistics_of_others_stops_the_run(own: Own, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"add method.teacher.mean=\[\S+\] method.teacher.std=\[\S+\]"
    ):
        distilled(own, tmp_path, *SQUASH)
    assert not list(tmp_path.glob("*_kd-*"))


def test_permuted_classes_stop_the_run_and_the_named_order_repairs_it(
    own: Own, tmp_path: Path
) -> None:
    rows = torch.arange(10).roll(3)
    changed = {name: own.state[f"module.{name}"][rows] for name in ("fc.weight", "fc.bias")}
    path = saved(own, tmp_path / "permuted.pt", **changed)
    with pytest.raises(UserError, match=r"teacher\.class_order=\[7,8,9,0,1,2,3,4,5,6\]"):
        distilled(own, tmp_path, *SQUASH, *own.statistics, weights=path)
    order = "teacher.class_order=[7,8,9,0,1,2,3,4,5,6]"
    result = distilled(own, tmp_path, *SQUASH, *own.statistics, order, weights=path)
    record = json.loads((result.directory / "environment.json").read_text())
    assert record["teacher"]["val"]["accuracy"] == pytest.approx(own.accuracy, abs=0.02)


def test_a_teacher_of_nan_is_refused_with_its_file(own: Own, tmp_path: Path) -> None:
    weight = torch.full_like(own.state["module.fc.weight"], torch.nan)
    path = saved(own, tmp_path / "nan.pt", **{"fc.weight": weight})
    with pytest.raises(UserError, match=r"nan\.pt.*fc\.weight"):
        distilled(own, tmp_path, *SQUASH, *own.statistics, weights=path)


def test_the_student_goes_to_onnx_and_predicts_the_same_classes(
    own: Own, run: Result, tmp_path: Path
) -> None:
    export.main([str(run.directory), "--format", "onnx", "--out", str(tmp_path / "onnx")])
    predict.main([str(run.directory), str(own.photos / "test"), "--out", str(tmp_path / "p.csv")])
    with open(tmp_path / "p.csv") as file:
        rows = list(csv.DictReader(file))
    import kd_lightning
    from kd_lightning.data.loading.decoding import read_rgb

    student = kd_lightning.load(tmp_path / "onnx")
    files = sorted((own.photos / "test").rglob("*.jpg"))
    images = torch.stack([student.transform()(read_rgb(path, exif=True)) for path in files])
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "student.onnx")
    (probabilities,) = session.run(None, {"images": images.numpy()})
    classes = [student.class_names[i] for i in probabilities.argmax(1)]
    assert [row["class"] for row in rows] == classes
    names = np.array([path.parent.name for path in files])
    accuracy = run.metrics["nets"]["student"]["test"]["accuracy"]
    assert np.mean(names == np.array(classes)) == pytest.approx(accuracy, abs=1e-6)
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert f"{accuracy:.2%}".rstrip("%").strip() in card


def test_the_page_and_the_evaluation_are_there(own: Own, run: Result, tmp_path: Path) -> None:
    report.main([str(run.directory), "--html", str(tmp_path / "page.html")])
    assert "motorcycle_left" in (tmp_path / "page.html").read_text()
    evaluate.main([str(run.directory), "--out", str(tmp_path / "evaluation")])
    assert list((tmp_path / "evaluation").rglob("confusion*.png"))


def test_the_readme_shows_what_comes_after_training_in_its_first_screens() -> None:
    start = (ROOT / "README.md").read_text()[:5000]
    for command in ("predict", "export"):
        assert f"python -m kd_lightning.{command} outputs/" in start
