"""A DiskArray behaves like a tensor with the same rows."""

import pickle

import numpy as np
import pytest
import torch

from kd_lightning.data.augmentation import RandomCrop
from kd_lightning.data.loading.batches import Samples, SampleSet
from kd_lightning.data.loading.checks import fingerprint
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.data.loading.loaders import make_loader

ROWS = torch.tensor([5, 0, 3, 9, 7, 8])


@pytest.fixture
def array(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels.transpose(0, 2, 3, 1))
    return torch.from_numpy(pixels)


@pytest.fixture
def x(array, tmp_path):
    return DiskArray(tmp_path / "x.npy", ROWS, "these")


@pytest.mark.parametrize("index", [0, -1, torch.tensor([2, 2, 1]), torch.tensor(4), slice(1, 4)])
def test_it_is_indexed_like_a_tensor(x, array, index):
    assert torch.equal(x[index], array[ROWS][index])


def test_shape_and_size_count_only_the_used_rows(x, array):
    assert (len(x), x.shape, x.nbytes) == (6, array[ROWS].shape, array[ROWS].nbytes)
    assert x.file_shape == (10, 4, 4, 3)


def test_channels_are_last_in_memory_as_in_the_file(x):
    some = torch.tensor([1, 4])
    for found in (x[some], x[:]):
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert x.to(torch.device("cpu")).is_contiguous()


def test_a_subset_has_the_chosen_rows_and_reads_nothing(x, array, tmp_path):
    path = tmp_path / "x.npy"
    found = x.subset(torch.tensor([3, 1]))
    path.write_bytes(path.read_bytes()[:-48] + bytes(48))  # a later read sees the zeros
    assert torch.equal(found[:], torch.stack([torch.zeros(3, 4, 4, dtype=torch.uint8), array[0]]))


def test_writing_to_a_result_does_not_change_the_file(x, array):
    x[:].fill_(0)
    x[0].fill_(0)
    assert torch.equal(x[:], array[ROWS])


def test_all_rows_are_copied_to_a_device_in_small_steps(x, array, monkeypatch):
    monkeypatch.setattr("kd_lightning.data.loading.disk_array.BATCH", 4)
    assert torch.equal(x.to(torch.device("cpu")), array[ROWS])


def test_pickling_sends_the_path_and_not_the_content(tmp_path):
    np.save(tmp_path / "large.npy", np.ones((1000, 32, 32, 1), dtype=np.uint8))
    sent = pickle.dumps(DiskArray(tmp_path / "large.npy", torch.arange(2), ""))
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)[:], torch.ones(2, 1, 32, 32, dtype=torch.uint8))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_batches_equal_those_of_a_tensor(x, array, num_workers, device):
    def batches(samples):
        made = SampleSet(samples, seed=0, transform=RandomCrop(4, padding=1))
        return list(make_loader(made, 3, shuffle=True, num_workers=num_workers, device=device))

    y = torch.arange(6)
    found, expected = batches(Samples(x, y)), batches(Samples(array[ROWS], y))
    assert len(found) == 2
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_the_fingerprint_depends_on_content_id_rows_labels_and_size(x, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((10, 5, 5, 3), dtype=np.uint8))
    y = torch.arange(6)
    path = tmp_path / "x.npy"
    others = [
        Samples(DiskArray(path, ROWS, "others"), y),
        Samples(DiskArray(path, ROWS.flip(0), "these"), y),
        Samples(DiskArray(path, ROWS, "these"), y.flip(0)),
        Samples(DiskArray(tmp_path / "other.npy", ROWS, "these"), y),
    ]
    found = {fingerprint(one) for one in (Samples(x, y), *others)}
    assert len(found) == 5
    assert fingerprint(Samples(DiskArray(path, ROWS, "these"), y)) in found
