"""Each student gets the samples in its own form, in one order, with its own numbers for classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import net
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.data.arrays import Arrays
from kd_lightning.data.image_folder import ImageFolder
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.evaluation.labelled_set import (
    Form,
    LabelledSet,
    Subject,
    by_form,
    fitting,
    labels_of,
    note_on_classes,
    note_on_form,
    predict_all,
    take_split,
)
from kd_lightning.students.transform import ImageTransform, unchanged


def image_form(channels: int, size: int) -> Form:
    return Form("image", channels, size, ImageTransform(channels, Resizing(size, "crop", 1.0)))


def subject(names: list[str], form: Form, name: str = "a", inputs: int = 12) -> Subject:
    torch.manual_seed(0)
    return Subject(name, "a file", net(inputs, classes=len(names)), names, form, ("arrays", "f"))


def arrays(tmp_path: Path, x: np.ndarray, split: str = "test") -> LabelledSet:
    y = np.arange(len(x)) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y)
    data = Arrays(root=str(tmp_path / "data.npz"), batch_size=4, val_fraction=0.25)
    data.setup()
    return take_split(data, "arrays", split)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, *shape), dtype=np.uint8)


def test_labels_follow_the_names_of_the_classes() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    student = subject(["fox", "cat", "dog"], image_form(1, 2))
    assert labels_of(student, labels, ["cat", "dog", "fox"]).tolist() == [1, 2, 0, 1]
    assert labels_of(student, labels, ["fox", "cat", "dog"]).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["cat", "dog", "fox", "owl"], "a does not know owl"),
        (["cat", "emu"], "a does not know emu, and the data lack dog, fox"),
    ],
)
def test_other_classes_are_refused(names: list[str], sentence: str) -> None:
    labels = torch.arange(len(names))
    with pytest.raises(UserError, match=f"must be one of a's, by name: {sentence} "):
        labels_of(subject(["cat", "dog", "fox"], image_form(1, 2)), labels, names)


def test_a_class_without_samples_may_be_unknown_or_absent(tmp_path: Path) -> None:
    labelled = arrays(tmp_path, images(1, 6, 6))  # the classes 0, 1 and 2
    some = labelled.subset((labelled.samples.y != 1).nonzero().flatten())
    student = subject(["2", "0", "owl"], image_form(1, 6))
    own = labels_of(student, some.samples.y, some.data.class_names)
    assert own.tolist() == [{0: 1, 2: 0}[label] for label in some.samples.y.tolist()]
    all_three = subject(["0", "1", "2"], image_form(1, 6))
    (note,) = note_on_classes(some, [all_three])
    assert note.startswith("arrays has no samples of 1: ")
    with pytest.raises(UserError, match="does not know 1, and the data lack owl "):
        labels_of(student, labelled.samples.y, labelled.data.class_names)


def test_data_may_lack_classes_of_the_student(tmp_path: Path) -> None:
    labelled = arrays(tmp_path, images(1, 6, 6))  # the classes 0, 1 and 2
    all_three = subject(["0", "1", "2"], image_form(1, 6))
    with_others = subject(["fox", "2", "0", "1", "owl"], image_form(1, 6))
    own = labels_of(with_others, torch.tensor([0, 2]), labelled.data.class_names)
    assert own.tolist() == [2, 1]
    assert note_on_classes(labelled, [all_three]) == []
    (note,) = note_on_classes(labelled, [all_three, with_others])
    assert note.startswith("arrays has no samples of fox, owl: ")


def test_samples_that_fit_are_used_as_they_are(tmp_path: Path) -> None:
    labelled = arrays(tmp_path, images(1, 6, 6))
    assert fitting(labelled, image_form(1, 6)) is None
    batches = list(labelled.loader(image_form(1, 6)))
    assert torch.equal(torch.cat([x for x, _ in batches]), labelled.samples.x)
    assert torch.equal(torch.cat([y for _, y in batches]), labelled.samples.y)
    assert note_on_form(labelled, image_form(1, 6)) == []


def test_images_get_the_channels_and_the_size_of_the_student(tmp_path: Path) -> None:
    labelled, form = arrays(tmp_path, images(1, 6, 6)), image_form(3, 4)
    x, _ = next(iter(labelled.loader(form)))
    assert x.shape == (4, 3, 4, 4)
    assert x.dtype == torch.uint8
    assert torch.equal(x[0], form.transform(labelled.samples.x[0]))
    (note,) = note_on_form(labelled, form)
    assert note.startswith("arrays: the images of 1 x 6 x 6 (channels, height, width) become 3 x 4")


def test_images_of_the_students_size_get_its_channels_and_are_not_cropped_again(
    tmp_path: Path,
) -> None:
    labelled = arrays(tmp_path, images(1, 6, 6))
    form = Form("image", 3, 6, ImageTransform(3, Resizing(6, "crop", 0.5)))
    x, _ = next(iter(labelled.loader(form)))
    assert torch.equal(x, labelled.samples.x[:4].expand(4, 3, 6, 6))


@pytest.mark.parametrize(
    ("x", "form", "sentence"),
    [
        (images(2, 6, 6), image_form(3, 6), "the data arrays have images of 2 channels"),
        (images(3, 9), image_form(3, 6), "takes images of 3 x 6 x 6, .* have series of 3 channels"),
        (
            images(3, 9).astype(np.float32),
            Form("series", 3, 10, unchanged),
            "takes series of 3 channels x 10 values, the data arrays have series of 3 channels x 9",
        ),
        (images(3, 6, 6), Form("series", 3, 6, unchanged), "have images of 3 x 6 x 6"),
    ],
)
def test_samples_that_cannot_fit_are_refused(
    x: np.ndarray, form: Form, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        arrays(tmp_path, x if x.ndim == 4 else x.astype(np.float32)).loader(form)


def test_image_files_are_resized_as_the_student_says(write_tree, tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", {"train/cat": 4, "train/dog": 4})
    data = ImageFolder(root=str(tmp_path / "photos"), batch_size=2, image_size=20, val_fraction=0)
    data.setup()
    labelled = take_split(data, "image_folder", "all")
    form = image_form(1, 5)
    x = torch.cat([x for x, _ in labelled.loader(form)])
    decoded = [data.decode(path) for path in labelled.samples.x]
    assert torch.equal(x, torch.stack([form.transform(image) for image in decoded]))
    assert len(x) == 8


@pytest.mark.parametrize(("split", "count"), [("test", 12), ("val", 12), ("train", 36)])
def test_a_split_is_that_of_the_data_in_order_and_not_augmented(
    split: str, count: int, tmp_path: Path
) -> None:
    labelled = arrays(tmp_path, images(1, 6, 6), split)
    labelled.data.augmentation = torch.nn.Identity()
    x = torch.cat([x for x, _ in labelled.loader(image_form(1, 6))])
    assert len(x) == count
    assert torch.equal(x, labelled.data.parts[split].x)


def test_all_are_the_samples_of_every_part(tmp_path: Path) -> None:
    x = images(1, 6, 6)
    labelled = arrays(tmp_path, x, "all")
    rows = {(sample.numpy().tobytes(), int(label)) for sample, label in zip(
        labelled.samples.x, labelled.samples.y, strict=True)}  # fmt: skip
    assert rows == {(sample.tobytes(), i % 3) for i, sample in enumerate(x)}


def test_students_of_one_form_see_one_pass() -> None:
    small, large = image_form(1, 6), image_form(3, 6)
    subjects = [subject(["a", "b"], form, str(i)) for i, form in enumerate((small, large, small))]
    assert [[s.name for s in group] for group in by_form(subjects)] == [["0", "2"], ["1"]]
    assert image_form(1, 6) == small  # of two files


def test_all_students_are_predicted_and_progress_is_told(tmp_path: Path) -> None:
    labelled = arrays(tmp_path, images(1, 6, 6))
    names = ["0", "1", "2"]
    subjects = [
        subject(names, image_form(3, 2), "b"),
        subject(names, image_form(1, 6), "a", inputs=36),
    ]
    told: list[int] = []
    logits, labels = predict_all(subjects, labelled, torch.device("cpu"), told.append)
    assert list(logits) == ["b", "a"]
    assert sum(told) == 2 * len(labelled)
    assert torch.equal(labels, labelled.samples.y)
    x = labelled.samples.x
    fitted = torch.stack([subjects[0].form.transform(image) for image in x])
    for student, values in zip(subjects, (fitted, x), strict=True):
        with torch.no_grad():
            expected = student.net(values / 255).logits
        other = replace(student, net=student.net)
        assert other == student
        torch.testing.assert_close(logits[student.name], expected, atol=1e-5, rtol=0)


def add_noise(x: Tensor) -> Tensor:
    return x.float() + torch.rand(x.shape)


@pytest.mark.parametrize("change", ["batch size", "workers", "generator"])
def test_random_numbers_follow_from_the_sample_alone(change: str, tmp_path: Path) -> None:
    labelled, form = arrays(tmp_path, images(1, 6, 6)), image_form(1, 6)

    def noisy(seed: int = 5) -> Tensor:
        return torch.cat([x for x, _ in labelled.loader(form, add_noise, seed)])

    first = noisy()
    assert not torch.equal(noisy(seed=6), first)
    assert not torch.equal(first[0] - first[0].floor(), first[1] - first[1].floor())
    if change == "batch size":
        labelled.data.batch_size = 7
    elif change == "workers":
        labelled.data.num_workers = 1
    else:
        torch.rand(3)
    assert torch.equal(noisy(), first)
