"""Predictions are those of the run's own test, for every kind of file, whatever is damaged."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from student_files import make_student, net_config, samples

import kd_lightning
from kd_lightning.base.errors import UserError
from kd_lightning.data.image_folder import ImageFolder
from kd_lightning.predictions.predict import Counts, predict_files
from kd_lightning.predictions.samples import find_files
from kd_lightning.students.load import Student


def rows_of(student: Student, *inputs: Path, capsys: pytest.CaptureFixture, **options) -> list:
    predict_files(student, list(map(str, inputs)), **options)
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.fixture(scope="module")
def photos(image_run: Path) -> Path:
    return image_run.parent / "photos"


@pytest.fixture(scope="module")
def series_student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    config = net_config("fcn", "one channel", widths=[4, 4, 4])
    return kd_lightning.load(make_student(tmp_path_factory.mktemp("s"), config, "one channel")[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_accuracy_on_the_test_images_is_that_of_the_run(
    image_run: Path, photos: Path, workers: int, capsys: pytest.CaptureFixture
) -> None:
    nets = json.loads((image_run / "metrics.json").read_text())["nets"]
    for key in "ab":
        student = kd_lightning.load(image_run, student=key)
        options = {"batch_size": 3, "workers": workers}
        rows = rows_of(student, photos / "test", capsys=capsys, **options)
        right = [row["class"] == Path(row["file"]).parent.name for row in rows]
        assert len(right) == 14
        assert torch.tensor(right).float().mean().item() == nets[key]["test"]["accuracy"]


def test_the_probabilities_are_those_of_the_data_sets_own_test_batches(
    image_run: Path, photos: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ImageFolder(root=str(photos), image_size=16, exif=True, batch_size=8, val_fraction=0.3)
    data.setup()
    student = kd_lightning.load(image_run)
    x, _ = next(iter(data.loader("test")))
    rows = rows_of(student, photos / "test", capsys=capsys, batch_size=8)[: len(x)]
    values = student(x).softmax(1)
    found = torch.tensor([float(row["probability"]) for row in rows])
    assert torch.equal(found, values.max(1).values)
    assert [row["class"] for row in rows] == [data.class_names[i] for i in values.argmax(1)]
    assert [row["class_2"] for row in rows] == [data.class_names[i] for i in values.argmin(1)]


def test_one_bad_file_ends_nothing(
    image_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    student = kd_lightning.load(image_run)
    good = sorted((photos / "test" / "cat").iterdir())[:2]
    (tmp_path / "broken.png").write_bytes(b"no image")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good[0].read_bytes()[:200])
    files = [tmp_path / "broken.png", good[0], cut, good[1]]
    for batch_size in (1, 2, 4):
        rows = rows_of(student, *files, capsys=capsys, batch_size=batch_size)
        assert [row["file"] for row in rows] == list(map(str, files))
        assert [bool(row["error"]) for row in rows] == [True, False, True, False]
        assert [bool(row["class"]) for row in rows] == [False, True, False, True]
        # the reason alone: the file has its own column
        assert rows[0]["error"] == "not an image: cannot identify image file"
        assert rows[2]["error"].startswith("not an image: ")
        assert "cut.jpg" not in rows[2]["error"]
    counts = predict_files(student, list(map(str, files)))
    assert counts == Counts(predicted=2, failed=2)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_a_name_that_is_not_utf_8_is_written(suffix: str, image_run: Path, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    file.write_bytes(b"no image")
    out = tmp_path / f"p{suffix}"
    counts = predict_files(kd_lightning.load(image_run), [str(file)], str(out))
    assert counts == Counts(predicted=0, failed=1)
    assert b"xe9.png" in out.read_bytes()


def test_predictions_never_replace_their_input(series_student: Student, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    np.savetxt(file, samples("one channel", 2)[:, 0].numpy(), delimiter=",")
    before = file.read_bytes()
    with pytest.raises(UserError, match="would replace an input"):
        predict_files(series_student, [str(file)], str(tmp_path / "." / "x.csv"))
    assert file.read_bytes() == before


def test_files_of_all_kinds_keep_their_order(
    image_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 3, 16, 16), np.uint8))
    first, second = sorted((photos / "test" / "dog").iterdir())[:2]
    student = kd_lightning.load(image_run)
    rows = rows_of(student, first, tmp_path / "x.npz", second, capsys=capsys, batch_size=2)
    assert [Path(row["file"]).name for row in rows] == [first.name, *["x.npz"] * 3, second.name]
    assert [row["index"] for row in rows] == ["", "0", "1", "2", ""]


def test_a_folder_is_its_images_at_any_depth_in_order(photos: Path) -> None:
    given = {"kind": "image", "channels": 3, "size": 16}
    files = find_files([str(photos)], given)
    assert len(files) == 38
    assert files == sorted(files)


def test_series_from_text_and_from_arrays_have_the_same_predictions(
    series_student: Student, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    x = samples("one channel", 5)
    np.savetxt(tmp_path / "x.csv", x[:, 0].numpy(), delimiter=",", fmt="%.9g")
    np.savez(tmp_path / "x.npz", x=x[:, 0].numpy())
    text, arrays = (
        rows_of(series_student, tmp_path / name, capsys=capsys, top_k=9, batch_size=2)
        for name in ("x.csv", "x.npz")
    )
    assert [{**row, "file": ""} for row in text] == [{**row, "file": ""} for row in arrays]
    total = sum(float(text[0][name]) for name in ("probability", "probability_2", "probability_3"))
    assert total == pytest.approx(1)
    assert "probability_4" not in text[0]


def test_embeddings_are_the_features(series_student: Student, tmp_path: Path) -> None:
    x = samples("one channel", 5)
    np.savez(tmp_path / "x.npz", x=x.numpy())
    out = tmp_path / "p.json"
    predict_files(series_student, [str(tmp_path / "x.npz")], str(out), embeddings=True, top_k=1)
    rows = json.loads(out.read_text())
    assert list(rows[0]) == ["file", "index", "class", "probability", "embedding", "error"]
    assert torch.equal(torch.tensor([row["embedding"] for row in rows]), series_student.features(x))


def test_a_sample_without_a_number_as_output_has_an_error_and_no_class(
    series_student: Student, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    x = samples("one channel", 4).numpy().astype(np.float64)
    x[1] *= 3e38  # finite, and too large for the net
    x[3] *= 1e300  # too large for float32
    np.savez(tmp_path / "x.npz", x=x)
    rows = rows_of(series_student, tmp_path / "x.npz", capsys=capsys)
    assert [bool(row["class"]) for row in rows] == [True, False, True, False]
    assert "the student's output for it is no number" in rows[1]["error"]
    assert "finite" in rows[3]["error"]
    np.savez(tmp_path / "fine.npz", x=x[[0, 2]])
    fine = rows_of(series_student, tmp_path / "fine.npz", capsys=capsys)
    assert [row["class"] for row in fine] == [rows[0]["class"], rows[2]["class"]]


def test_every_sample_may_be_bad(series_student: Student, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2\n3\n")
    assert predict_files(series_student, [str(tmp_path / "x.csv")]) == Counts(0, 2)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("none.jpg", {"kind": "image", "channels": 3}, "there is no file or folder .*none.jpg"),
        (".", {"kind": "image", "channels": 3}, "there is no image .* in "),
        ("a.csv", {"kind": "image", "channels": 3}, "takes images: give image files or .npz, got"),
        ("a.jpg", {"kind": "image", "channels": 4}, "images of 4 channels, which image files lack"),
        ("a.jpg", {"kind": "series", "channels": 1}, "give .npz, .csv or .tsv, got .*a.jpg"),
        (
            ".",
            {"kind": "series", "channels": 1},
            "series of 1 channels x 9 values: give .npz",
        ),
        ("a.csv", {"kind": "series", "channels": 2}, "give .npz, .*a.csv has one channel"),
    ],
)
def test_files_that_the_student_cannot_take_are_one_sentence(
    name: str, given: dict, message: str, tmp_path: Path
) -> None:
    files, empty = tmp_path / "files", tmp_path / "empty"
    for folder in (files, empty):
        folder.mkdir()
    for file in ("a.csv", "a.jpg"):
        (files / file).touch()
    path = empty if name == "." else files / name
    with pytest.raises(UserError, match=message):
        find_files([str(path)], {"size": 9, **given})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, r"--top-k >= 1, .* got 0, 64 and 0"),
        ({"batch_size": 0}, r"--batch-size >= 1 .* got 5, 0 and 0"),
        ({"workers": -1}, r"--workers >= 0, got 5, 64 and -1"),
        ({"device": "gpu"}, r"--device must be auto, cpu or a GPU of this machine, got gpu"),
        ({"out": "p.txt"}, r"--out must end with"),
        ({"out": "a folder.csv"}, r"--out .*a folder.csv is a folder: name a file"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(
    series_student: Student,
    tmp_path: Path,
    options: dict,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "x.csv").write_text("1\n")
    (tmp_path / "a folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        predict_files(series_student, ["x.csv"], **options)
