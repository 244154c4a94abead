import pytest
import torch
from hydra.errors import InstantiationException
from sklearn.datasets import load_digits


def ready(build, *overrides):
    data = build("digits", *overrides)
    data.setup()
    return data


def test_digits_are_1797_grey_8x8_images(build):
    data = ready(build)
    assert sum(len(part) for part in data.parts.values()) == 1797
    assert (data.num_classes, data.channels, data.size) == (10, 1, 8)
    assert data.class_names == [str(i) for i in range(10)]


def test_the_images_equal_those_of_load_digits(build):
    data = ready(build, "data.val_fraction=0")
    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
    expected = {
        (bytes(x.flatten().tolist()), y) for x, y in zip(images, digits.target, strict=True)
    }
    for part in (data.parts["train"], data.parts["test"]):
        for x, y in zip(part.x, part.y.tolist(), strict=True):
            assert (bytes(x.flatten().tolist()), y) in expected


def test_the_values_use_the_full_range_of_a_byte(build):
    x = ready(build).parts["train"].x
    assert x.dtype == torch.uint8
    assert x.min() == 0
    assert x.max() == 255
    assert len(x.unique()) == 17  # 0..16


def test_the_test_part_is_the_same_for_all_seeds(build):
    def test_part(*overrides):
        return ready(build, *overrides).parts["test"].x

    assert torch.equal(test_part(), test_part("seed=1", "data.split_seed=1"))


def test_the_test_part_is_a_stratified_fifth(build):
    data = ready(build)
    assert abs(len(data.parts["test"]) - 1797 / 5) < 5
    whole = sum(torch.bincount(part.y) for part in data.parts.values())
    share = torch.bincount(data.parts["test"].y) / whole
    assert (share - 0.2).abs().max() < 0.01


def test_a_root_is_refused_by_data_sets_without_files(build):
    for name in ("digits", "synthetic"):
        with pytest.raises(InstantiationException, match=r"reads no files, got data.root=/x"):
            build(name, "data.root=/x", "data.batch_size=4")
