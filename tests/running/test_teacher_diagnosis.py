"""A teacher that is used wrongly is right again with the setting that the diagnosis names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ridge_net
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.image_files import IMAGENET_MEAN, IMAGENET_STD
from kd_lightning.models.assemble import CheckedPrepare
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.running.teacher_diagnosis import Trial
from kd_lightning.teachers.alternatives import AS_IT_IS
from kd_lightning.teachers.significance import is_clearly_better


def advice(check: Callable, net: Classifier) -> str:
    with pytest.raises(UserError, match=r"the teacher's accuracy is .*, but ") as caught:
        check(net)
    return (
        str(caught.value)
        .partition(": ")[2]
        .removesuffix(" (teacher.check=warn trains all the same)")
    )


def with_prepare(net: Classifier, prepare: Prepare) -> Classifier:
    net.prepare = prepare
    return net


@pytest.fixture(scope="session")
def colours(files: Path) -> Path:
    """Digits in red, and other digits in blue that say nothing about the class."""
    digits = np.load(files / "digits.npz")
    x, y = digits["x"], digits["y"]
    other = np.random.default_rng(0).permutation(len(x))
    np.savez(files / "colours.npz", x=np.concatenate([x, x // 2 + x[other] // 2, x[other]], 1), y=y)
    return files / "colours.npz"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ((IMAGENET_MEAN, IMAGENET_STD), ((1.5,) * 3, (0.5,) * 3)),
        (((0.5,) * 3, (0.5,) * 3), ((-1.0,) * 3, (0.5,) * 3)),
        (((0.0,) * 3, (1 / 255,) * 3), (IMAGENET_MEAN, IMAGENET_STD)),
    ],
)
def test_the_right_normalization_is_found(
    right: tuple, wrong: tuple, make_check: Callable, colours: Path
) -> None:
    check = make_check({"data.root": str(colours)})
    net = with_prepare(ridge_net(check.data, prepare=Prepare(*right)), Prepare(*wrong))
    mean, std = (",".join(f"{value:.6g}" for value in row) for row in right)
    expected = f"add method.teacher.mean=[{mean}] method.teacher.std=[{std}]"
    assert advice(check, net) == expected


def test_bgr_is_found(make_check: Callable, colours: Path) -> None:
    check = make_check({"data.root": str(colours)})
    net = ridge_net(check.data)
    with torch.no_grad():  # of the weights for (channels, 8, 8) pixels
        weight = net.head.weight.view(10, 3, 64).flip(1).flatten(1)
        net.head.weight.copy_(weight)
    expected = "reverse the input channels of its first convolution in the file (weight.flip(1))"
    assert advice(check, net) == expected


class Window(nn.Module):
    """Sees the central 24 x 24 pixels, with zeros around smaller images."""

    def forward(self, x: Tensor) -> Tensor:
        return v2.functional.center_crop(x, [24, 24]).flatten(1)


def test_the_right_size_is_found(make_check: Callable) -> None:
    check = make_check({"method.teacher.input_size": None})
    prepare = CheckedPrepare(1, 2, mean=check.data.mean, std=check.data.std, size=32)
    net = ridge_net(check.data, prepare=prepare, trunk=Window())
    assert check(net)["val"]["accuracy"] > 0.8
    prepare.size = None
    assert advice(check, net) == "add method.teacher.input_size=32"


def test_a_net_for_one_size_is_tried_with_no_other(make_check: Callable) -> None:
    check = make_check()
    prepare = Prepare([-1.0], check.data.std)  # wrong, and flat pixels do not fit another size
    net = with_prepare(ridge_net(check.data), prepare)
    assert advice(check, net).startswith("add method.teacher.mean=[0.")


@pytest.fixture(scope="session")
def wide(files: Path) -> Path:
    """An image tree of pictures 32 x 16: a digit on the left, and one of any class on the right."""
    digits = np.load(files / "digits.npz")
    x, y = digits["x"][:, 0].repeat(2, 1).repeat(2, 2), digits["y"]
    other = np.random.default_rng(0).permutation(len(x))
    for i in range(700):
        path = files / "wide" / "train" / str(y[i]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([x[i], x[other[i]]], 1)).save(path)
    return files / "wide"


def image_folder(root: Path, **options: Any) -> dict[str, Any]:
    return {"_target_": "kd_lightning.data.image_folder.ImageFolder", "root": str(root),
            "batch_size": 64, "image_size": 16, "val_fraction": 0.4, **options}  # fmt: skip


@pytest.mark.parametrize("normalizes", [True, False])
def test_the_right_resize_is_found(normalizes: bool, make_check: Callable, wide: Path) -> None:
    net = ridge_net(make_check(data=image_folder(wide, resize="squash")).data)
    check = make_check(data=image_folder(wide))
    if normalizes:
        assert advice(check, net) == "add data.resize=squash"
        return
    with_prepare(net, Prepare([0.9] * 3, [0.226] * 3))
    # 0.485 of ImageNet or 0.4914 of CIFAR-10
    assert advice(check, net).startswith("add data.resize=squash method.teacher.mean=[0.4")


def write_series(path: Path, files: Path, *, is_loud: bool = False) -> str:
    """The digits, row by row, as series with two channels of different units."""
    digits = np.load(files / "digits.npz")
    x = digits["x"].reshape(len(digits["x"]), 2, 32).astype("float32") / 255
    if is_loud:  # each series at its own level and volume
        numbers = np.random.default_rng(0)
        shape = (len(x), 2, 1)
        x = x * numbers.lognormal(0, 2, shape) + numbers.normal(0, 50, shape)
    else:
        x = x * [[[3.0], [500.0]]] + [[[7.0], [-40.0]]]
    np.savez(path, x=x.astype("float32"), y=digits["y"])
    return str(path)


def test_series_get_the_statistics_of_the_data(
    make_check: Callable, files: Path, tmp_path: Path
) -> None:
    check = make_check({"data.root": write_series(tmp_path / "x.npz", files)})
    net = with_prepare(ridge_net(check.data), Prepare())
    mean, std = (
        ",".join(f"{value:.5g}" for value in row) for row in (check.data.mean, check.data.std)
    )
    assert advice(check, net) == f"add method.teacher.mean=[{mean}] method.teacher.std=[{std}]"


class EachNormalized(Prepare):
    """What a person's own code may do to a series."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp_min(1e-6)


def test_series_that_should_be_normalized_one_by_one_are_reported(
    make_check: Callable, files: Path, tmp_path: Path
) -> None:
    check = make_check({"data.root": write_series(tmp_path / "x.npz", files, is_loud=True)})
    net = with_prepare(ridge_net(check.data, prepare=EachNormalized()), Prepare())
    assert advice(check, net) == "normalize each series of the files to mean 0 and std 1"


@pytest.mark.parametrize(("classes", "explains"), [(2, False), (4, False), (6, True)])
def test_a_few_classes_that_are_right_by_luck_explain_nothing(classes: int, explains: bool) -> None:
    labels = torch.arange(200) % 10
    nothing = Trial(AS_IT_IS, torch.zeros_like(labels), labels)
    some = Trial(AS_IT_IS, torch.where(labels < classes, labels, (labels + 1) % 10), labels)
    assert is_clearly_better(some.right, nothing.right)
    assert some.explains(nothing) == explains


def test_a_net_that_prepares_its_input_in_its_own_way_is_checked_too(check: Callable) -> None:
    net = ridge_net(check.data)
    net.prepare = nn.Sequential(net.prepare)
    assert check(net)["val"]["accuracy"] > 0.9
    with torch.no_grad():  # the same class for every sample
        net.head.weight.zero_()
    with pytest.raises(UserError, match="not significantly above"):
        check(net)
