"""Test samples that are in train or val too are found by their content, and nothing else is."""

import shutil

import numpy as np
import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading import leaks
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.data.loading.leaks import LAST_BYTES, check_leak, find_copies


def tensors(count, seed, dtype=torch.uint8):
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 4, 4), generator=numbers).to(dtype)


def samples(x):
    return Samples(x, torch.zeros(len(x), dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equal_rows_are_found_in_train_and_in_val(dtype):
    train, val, test = (tensors(count, count, dtype) for count in (20, 10, 8))
    assert find_copies(*map(samples, (train, val, test))) == []
    test[1], test[5] = val[3], train[7]
    copies = find_copies(*map(samples, (train, val, test)))
    assert copies == [
        ("number 1 of test", "number 3 of val"),
        ("number 5 of test", "number 7 of train"),
    ]
    assert [copy.test for copy in find_copies(samples(train), None, samples(test))] == [
        "number 5 of test"
    ]


def test_rows_that_are_not_contiguous_are_compared_by_content():
    train = tensors(4, 0)
    turned = train.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    assert len(find_copies(samples(train), None, samples(turned))) == 4


@pytest.fixture
def files(tmp_path):
    """files("train", [b"…"]): samples that are files with this content."""

    def make(part, contents):
        (tmp_path / part).mkdir()
        paths = [tmp_path / part / f"{i}.jpg" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return samples(paths)

    return make


END = bytes(LAST_BYTES)


def test_equal_files_are_found_and_similar_ones_are_not(files):
    train = files("train", [b"abc", b"defg", b"A" + END, b"B" + END])
    test = files("test", [b"abd", b"C" + END, b"B" + END, b"defg", b"efg"])
    copies = find_copies(train, None, test)
    assert [copy.test[-10:] for copy in copies] == ["test/2.jpg", "test/3.jpg"]
    assert [copy.other[-11:] for copy in copies] == ["train/3.jpg", "train/1.jpg"]


def test_every_copy_in_test_counts_and_copies_inside_a_part_do_not(files):
    train, test = files("train", [b"same", b"same"]), files("test", [b"same", b"same", b"that"])
    assert len(find_copies(train, None, test)) == 2


def test_only_files_of_equal_size_are_opened(files):
    train, test = files("train", [b"1", b"22", b"333"]), files("test", [b"22", b"4444"])
    assert len(find_copies(train, None, test, max_files=2)) == 1


def test_with_too_many_files_to_open_nothing_is_claimed(files):
    train, test = files("train", [b"one", b"two"]), files("test", [b"one", b"four"])
    assert find_copies(train, None, test, max_files=2) is None
    assert len(find_copies(train, None, test, max_files=3)) == 1


def test_of_very_many_files_not_even_the_sizes_are_read(files, monkeypatch):
    train, test = files("train", [b"one", b"two"]), files("test", [b"one", b"four"])
    monkeypatch.setattr(leaks, "MAX_SIZES", 3)
    monkeypatch.setattr(leaks, "file_size", None)
    (note,) = check_leak(train, None, test, "warn")
    assert "were not looked for" in note
    monkeypatch.undo()
    monkeypatch.setattr(leaks, "MAX_SIZES", 3)
    with pytest.raises(UserError, match=r"^1 of 2 test samples"):
        check_leak(train, None, test, "error")


def test_a_file_that_is_gone_is_no_copy(files):
    train, test = files("train", [b"one"]), files("test", [b"one"])
    train.x[0].unlink()
    assert find_copies(train, None, test) == []


def test_an_array_on_disk_is_not_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4, 3), dtype=np.uint8))
    x = DiskArray(tmp_path / "x.npy", torch.arange(3), "")
    assert find_copies(samples(x), None, samples(x)) == []


def test_a_leak_is_a_note_an_error_or_ignored():
    train, test = samples(tensors(9, 0)), samples(tensors(9, 0)[3:6])
    (note,) = check_leak(train, None, test, "warn")
    found = (
        "3 of 3 test samples are in train or val too, with the same content (the first: number 0 of"
    )
    assert note.startswith(found)
    assert note.endswith("hide this by data.on_leak=ignore.")
    with pytest.raises(UserError, match=r"^3 of 3 test .*or set data\.on_leak=warn$"):
        check_leak(train, None, test, "error")
    assert check_leak(train, None, test, "ignore") == []


@pytest.mark.parametrize("name", ["digits", "image_folder", "cifar10"])
def test_every_data_set_looks_for_leaks(stand_in, name, tmp_path):
    data = stand_in(name)
    data.setup()
    assert not [note for note in data.notes if "same content" in note]


def test_a_copy_in_a_split_of_one_folder_is_found(build, write_tree, tmp_path):
    write_tree(tmp_path, {"train/a": 10, "train/b": 10}, ending=".jpg")
    for i in range(10):
        shutil.copy(tmp_path / f"train/a/a_{i}.jpg", tmp_path / f"train/a/copy_{i}.jpg")
    words = [f"data.root={tmp_path}", "data.batch_size=2", "data.val_fraction=0"]
    data = build("image_folder", *words)
    data.setup()
    (note,) = [note for note in data.notes if "same content" in note]
    assert "train/a/" in note
    with pytest.raises(UserError, match=r"data\.on_leak=warn"):
        build("image_folder", *words, "data.on_leak=error").setup()


def test_another_word_is_refused(build):
    with pytest.raises(Exception, match=r"unknown choice 'warm': did you mean warn\?"):
        build("digits", "data.on_leak=warm")
