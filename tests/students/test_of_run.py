"""A run writes a file of each student and each soup, which says where it comes from."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import TINY

import kd_lightning
from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.students.file import read_student
from kd_lightning.students.of_run import student_of
from kd_lightning.teachers.sources import load_student

NETS = ("a", "b", "uniform_soup", "greedy_soup")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def copied_run(image_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(image_run, tmp_path / "run")


def test_there_is_a_file_of_each_student_and_soup(image_run: Path) -> None:
    assert {path.name for path in (image_run / "students").iterdir()} == set(NETS)
    for name in NETS:
        folder = image_run / "students" / name
        assert {path.name for path in folder.iterdir()} == {"student.safetensors", "student.json"}
        assert read_json(folder / "student.json") == read_student(folder / "student.safetensors")[0]


def test_the_file_has_the_weights_that_were_chosen_on_val(image_run: Path) -> None:
    x = torch.rand(4, 3, 16, 16)
    for key in "ab":
        student = kd_lightning.load(image_run, student=key)
        assert torch.equal(student(x), load_student(image_run, key).eval()(x).logits)
    outputs = {name: kd_lightning.load(image_run / "students" / name)(x) for name in NETS[:3]}
    assert not torch.equal(outputs["a"], outputs["b"])
    assert not torch.equal(outputs["uniform_soup"], outputs["a"])


def test_the_description_is_that_of_the_run(image_run: Path) -> None:
    metrics = read_json(image_run / "metrics.json")
    environment = read_json(image_run / "environment.json")
    for name in NETS:
        info = kd_lightning.load(image_run, student=name).info
        net = metrics["nets"][name]
        assert info["metrics"]["test"] == net["test"]
        assert info["metrics"]["val"] == net["val"]
        assert info["metrics"]["samples"] == 14
        assert info["metrics"]["meaning"].keys() == net["test"].keys()
        assert info["title"] == net["title"]
        assert info["parameters"] == net["parameters"]
        assert info["data"]["fingerprint"] == environment["data"]["fingerprint"]
        assert info["data"]["name"] == "image_folder"
        assert info["class_names"] == ["cat", "dog"]
        assert info["method"]["name"] == "mutual_learning"
        assert info["method"]["settings"]["peer_weight"] > 0
        assert (info["seed"], info["teacher"]) == (3, None)
        assert info["input"] | {"mean": None, "std": None} == {
            **{"kind": "image", "channels": 3, "size": 16, "net_size": None},
            **{"net_interpolation": "bilinear"},
            **{"resize": "crop", "crop_fraction": 0.875, "interpolation": "bilinear"},
            **{"exif": True, "mean": None, "std": None, "dtype": "uint8"},
        }
        assert "mean of the weights" in info["metrics"]["weights"] or name in "ab"


def test_a_distilled_student_names_its_teacher_and_in_memory_images_keep_their_size(
    tiny: list[str],
) -> None:
    run = distill("method=kd", *tiny).directory
    student = kd_lightning.load(run)
    environment, metrics = (read_json(run / f"{n}.json") for n in ("environment", "metrics"))
    teacher = metrics["nets"]["teacher"]
    assert student.info["teacher"] == {
        "title": teacher["title"],
        "fingerprint": environment["teacher"]["fingerprint"],
        "origin": teacher["origin"],
    }
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert torch.equal(student.transform()(image), image)


def test_the_student_of_a_run_is_the_best_on_val_or_the_requested_one(copied_run: Path) -> None:
    metrics = read_json(copied_run / "metrics.json")
    for best, other in ("ab", "ba"):
        metrics["nets"][best]["val"]["accuracy"] = 0.75
        metrics["nets"][other]["val"]["accuracy"] = 0.5
        write_kept(copied_run, {"metrics.json": json.dumps(metrics)})
        assert student_of(copied_run, None) == best
        assert kd_lightning.load(copied_run).info["key"] == best
        assert kd_lightning.load(copied_run, student=other).info["key"] == other
    with pytest.raises(UserError, match=r"unknown student of .* 'c': expected one of a, b, greedy"):
        kd_lightning.load(copied_run, student="c")


def test_a_run_that_has_no_student_files_is_loaded_from_its_checkpoints(copied_run: Path) -> None:
    x = torch.rand(4, 3, 16, 16)
    expected = kd_lightning.load(copied_run, student="b")
    shutil.rmtree(copied_run / "students")
    student = kd_lightning.load(copied_run, student="b")
    assert torch.equal(student(x), expected(x))
    created = {"created": None}
    assert {**student.info, **created, "format": 1} == {**expected.info, **created}


def test_an_unfinished_run_is_one_sentence(copied_run: Path) -> None:
    (copied_run / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"is no finished run: it has no metrics.json .*resume="):
        kd_lightning.load(copied_run)


def test_a_student_that_began_with_weights_for_plain_input_normalizes_nothing(
    tmp_path: Path,
) -> None:
    words = [*TINY, "method=supervised", f"outputs={tmp_path}"]
    words = [word for word in words if not word.startswith("teacher")]
    raw = ["method.students.student.mean=null", "method.students.student.std=null"]
    first = distill(*words, *raw).directory
    start = f"method.students.student.weights={first}/students/student/student.safetensors"
    second = distill(*words, start).directory
    student, net = kd_lightning.load(second), load_student(second, "student")
    assert student.info["input"]["mean"] is net.prepare.mean is None
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(student(x), net.eval()(x).logits)
