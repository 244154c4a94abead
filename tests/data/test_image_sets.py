"""Properties of all image data sets of ``conf/data``, tested with small files."""

import pytest
import torch

from kd_lightning.data.loading.disk_array import DiskArray

SETS = ["digits", "fashion_mnist", "cifar10", "cifar100", "image_folder", "imagenet", "imagenet100"]
SETS.append("prepared")


@pytest.fixture(params=SETS)
def data(request, stand_in):
    module = stand_in(request.param)
    module.prepare_data()
    module.setup()
    return module


def keys(samples):
    """What identifies each sample: its path or its content."""
    if isinstance(samples.x, torch.Tensor | DiskArray):
        return [tuple(row) for row in samples.x[:].flatten(1).tolist()]
    return samples.x


def test_setup_sets_the_attributes(data):
    assert data.num_classes == len(data.class_names) == len(set(data.class_names))
    assert data.channels == len(data.mean) == len(data.std)
    assert all(0 < mean < 1 for mean in data.mean)
    assert all(0 < std < 1 for std in data.std)
    assert len(data.fingerprint) == 16
    assert "test: " in data.protocol


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_loaders_give_images_of_the_stated_size_and_labels(data, part):
    for x, y in data.loader(part):
        assert x.shape == (len(y), data.channels, data.size, data.size)
        assert x.dtype == torch.uint8
        assert y.dtype == torch.int64
        assert 0 <= y.min() <= y.max() < data.num_classes


def test_parts_are_disjoint(data):
    seen = [key for part in data.parts.values() for key in keys(part)]
    assert len(seen) == len(set(seen))


def test_val_is_split_off_from_train(data):
    if data.protocol.startswith("val: the data set's own"):
        assert type(data).__name__ in ("ImageFolder", "Prepared")  # they have a val folder
        return
    whole = data.load().train
    assert set(keys(data.parts["val"])) < set(keys(whole))
    assert len(data.parts["train"]) + len(data.parts["val"]) == len(whole)
    assert f"{data.val_fraction:.0%} of train" in data.protocol


def test_a_second_setup_changes_nothing(data):
    before = data.fingerprint, dict(data.parts)
    data.setup("test")
    assert (data.fingerprint, data.parts) == before


def test_the_same_seed_gives_the_same_batches(data):
    first, second = (next(iter(data.loader("train"))) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
