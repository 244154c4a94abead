import threading
import time

import pytest
import torch
from torchvision import datasets

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.image_files import download


def ready(build, *overrides):
    data = build("cifar10", "data.batch_size=8", *overrides)
    data.prepare_data()
    data.setup()
    return data


def test_images_equal_torchvisions_with_channels_first(build, write_cifar, tmp_path):
    write_cifar(datasets.CIFAR10, tmp_path)
    data = ready(build, f"data.root={tmp_path}", "data.val_fraction=0")
    assert len(data.parts["train"]) == 200
    for part, train in (("train", True), ("test", False)):
        theirs = datasets.CIFAR10(tmp_path, train=train)
        x = data.parts[part].x
        assert torch.equal(x[7, 2], torch.from_numpy(theirs.data[7, :, :, 2]))
        assert data.parts[part].y.tolist() == theirs.targets
    assert data.class_names == theirs.classes
    assert (data.channels, data.size) == (3, 32)


@pytest.mark.parametrize("damage", ["no root", "no folder", "missing file", "changed file", "meta"])
def test_missing_or_damaged_files_are_refused(build, write_cifar, tmp_path, damage):
    folder = write_cifar(datasets.CIFAR10, tmp_path) / "cifar-10-batches-py"
    root = {"no root": "null", "no folder": tmp_path / "nowhere"}.get(damage, tmp_path)
    if damage == "missing file":
        (folder / "data_batch_3").unlink()
    if damage == "changed file":
        (folder / "test_batch").write_bytes(b"")
    if damage == "meta":
        (folder / "batches.meta").unlink()
    with pytest.raises(UserError, match=r"cifar-10-batches-py.*data\.root=…"):
        ready(build, f"data.root={root}")


def test_it_is_downloaded_only_on_request_and_only_once(build, write_cifar, tmp_path, monkeypatch):
    fetched = []

    def fetch(url, root, filename, md5):
        fetched.append(url)
        write_cifar(datasets.CIFAR10, root)

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", fetch)
    with pytest.raises(UserError, match=r"data\.download=true"):
        ready(build, f"data.root={tmp_path / 'new'}")
    for _ in range(2):
        ready(build, f"data.root={tmp_path / 'new'}", "data.download=true")
    assert fetched == [datasets.CIFAR10.url]


def test_setup_alone_never_downloads(build, write_cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", pytest.fail)
    write_cifar(datasets.CIFAR10, tmp_path)
    build("cifar10", f"data.root={tmp_path}", "data.download=true").setup()


def test_a_download_without_a_folder_or_a_network_is_refused(tmp_path):
    def broken(root, download):
        raise RuntimeError("no route\nto host")

    with pytest.raises(UserError, match=r"needs a folder to download into"):
        download(broken, None)
    with pytest.raises(UserError, match=rf"of broken into {tmp_path} failed: no route to host"):
        download(broken, tmp_path)


def test_two_processes_do_not_download_at_the_same_time(tmp_path):
    events = []

    def slow(root, download):
        events.append("begin")
        time.sleep(0.05)
        events.append("end")

    both = [threading.Thread(target=download, args=(slow, tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert events == ["begin", "end"] * 2
