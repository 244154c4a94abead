"""The samples of a check: evenly spaced, as val and test see them, from the run or from a path."""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from student_files import make_student, net_config

import kd_lightning
from kd_lightning.base.errors import UserError
from kd_lightning.data.digits import Digits
from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.exports.samples import image_reader, noise, of_part, of_path, spread
from kd_lightning.exports.write_export import as_classes, samples_of

NAMES = [*"abcdef"]


def test_samples_are_evenly_spaced() -> None:
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 10).tolist() == [0, 1, 2]


def test_a_part_gives_its_samples_without_augmentation() -> None:
    data = Digits(batch_size=64, augmentation=lambda x: x * 0)
    data.setup()
    train = data.parts["train"]
    samples = of_part(data, "train", 100)
    chosen = spread(len(train), 100)
    assert torch.equal(samples.x, train.x[chosen])
    assert torch.equal(samples.y, train.y[chosen])
    assert samples.about == f"100 of {len(train)} train samples of the run"
    assert of_part(data, "test", 9999).about == "all 359 test samples of the run"
    assert set(data.parts) == {"train", "val", "test"}


def test_a_folder_of_images_is_read_and_transformed(tmp_path: Path, write_tree) -> None:
    write_tree(tmp_path, {"a": 3, "b": 2})

    def read(path: Path) -> torch.Tensor:
        return read_rgb(path)[:, :8, :8]

    samples = of_path(tmp_path, (3, 8, 8), NAMES, read, "--samples", 4)
    assert samples.x.shape == (4, 3, 8, 8)
    assert samples.x.dtype == torch.uint8
    assert samples.y is None


@pytest.mark.parametrize("exif", [True, False])
def test_an_image_is_turned_if_those_of_the_run_were(tmp_path: Path, exif: bool) -> None:
    class Turning:
        info: ClassVar = {"input": {"exif": exif}}

        def transform(self):
            return torch.clone

    tag = Image.Exif()
    tag[0x0112] = 6  # a quarter turn
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png", exif=tag)
    shape = image_reader(Turning())(tmp_path / "a.png").shape
    assert shape == ((3, 4, 2) if exif else (3, 2, 4))


def test_an_npz_file_gives_samples_and_labels_if_it_has_them(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(6, 2, 30)), np.arange(6)
    path = tmp_path / "some.npz"
    np.savez(path, x=x, y=y)
    samples = of_path(path, (2, 30), NAMES, torch.clone, "--samples", 3)
    assert samples.x.dtype == torch.float32
    assert samples.y.tolist() == [0, 2, 4]
    np.savez(path, x=x)
    assert of_path(path, (2, 30), NAMES, torch.clone, "--samples", 3).y is None


@pytest.mark.parametrize("labels", [[*"facade"], [5, 0, 2, 0, 3, 4]])
def test_labels_are_names_or_indices_of_the_classes(tmp_path: Path, labels: list) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, x=np.zeros((6, 2, 30)), y=labels)
    samples = of_path(path, (2, 30), NAMES, torch.clone, "--samples", 6)
    assert samples.y.tolist() == [5, 0, 2, 0, 3, 4]
    np.savez(path, x=np.zeros((2, 2, 30)), y=["a", "z"])
    with pytest.raises(UserError, match="the label 'z', which is no class of the student"):
        of_path(path, (2, 30), NAMES, torch.clone, "--samples", 6)


def test_what_is_no_sample_is_one_sentence(tmp_path: Path) -> None:
    def read(path: Path, shape: tuple[int, ...] = (2, 30)) -> None:
        of_path(path, shape, NAMES, torch.clone, "--samples", 3)

    with pytest.raises(UserError, match=r"--samples must be a folder of images or an .npz file"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match=r"there is no image in .*--samples"):
        read(tmp_path)
    path = tmp_path / "some.npz"
    np.savez(path, z=np.zeros(3))
    with pytest.raises(UserError, match="must hold x, it holds z"):
        read(path)
    np.savez(path, x=np.full((2, 2, 30), np.nan))
    with pytest.raises(UserError, match=r"x has NaN .*\(--samples …\)"):
        read(path)
    for count in (1, 3):
        np.savez(path, x=np.zeros((2, 2, 30)), y=np.zeros(count, int))
        with pytest.raises(UserError, match=f"has 2 samples and {count} labels"):
            read(path)
    np.savez(path, x=np.zeros((2, 2, 29)))
    with pytest.raises(UserError, match=r"shape \(2, 29\), the student takes \(2, 30\)"):
        read(path)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 4, 4), torch.uint8), ((3, 4, 4), torch.float32), ((2, 9), torch.float32)],
)
def test_noise_has_the_type_of_the_samples_and_is_said(shape, dtype) -> None:
    samples = noise(shape, dtype)
    assert samples.x.shape[1:] == shape
    assert samples.x.dtype == dtype
    assert samples.is_noise
    assert "random noise" in samples.about


def test_noise_of_series_has_the_units_of_the_training_data(tmp_path: Path) -> None:
    """Other noise may saturate a net, and then every file gives the same answers."""
    _, path = make_student(tmp_path, net_config("fcn", "series", widths=[4, 4, 4]), "series")
    student = kd_lightning.load(path)
    student.info["input"] |= {"mean": [1e5, -3.0], "std": [700.0, 0.01]}
    request = SimpleNamespace(samples=None, calibration=None, formats=["onnx"])
    x = samples_of(request, student, None).x
    assert x.mean(dim=(0, 2)).tolist() == pytest.approx([1e5, -3.0], rel=1e-3)
    assert x.std(dim=(0, 2)).tolist() == pytest.approx([700.0, 0.01], rel=0.1)


def test_labels_of_the_data_are_the_students_classes_by_name() -> None:
    student = SimpleNamespace(class_names=["cat", "dog", "eel"])
    y = torch.tensor([0, 1, 2, 0])
    assert as_classes(y, ["cat", "dog", "eel"], student).tolist() == [0, 1, 2, 0]
    assert as_classes(y, ["eel", "cat", "dog"], student).tolist() == [2, 0, 1, 2]
    assert as_classes(y[y < 2], ["dog", "cat"], student).tolist() == [1, 0, 1]
    assert as_classes(y, ["ant", "cat", "dog"], student) is None
