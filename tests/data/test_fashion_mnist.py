import gzip

import pytest
import torch
from torchvision import datasets

from kd_lightning.base.errors import UserError
from kd_lightning.data import fashion_mnist
from kd_lightning.data.fashion_mnist import read_idx


@pytest.fixture(autouse=True)
def debian_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    return tmp_path / "debian"


def ready(build, *overrides):
    data = build("fashion_mnist", "data.batch_size=8", *overrides)
    data.prepare_data()
    data.setup()
    return data


def test_torchvisions_files_give_torchvisions_images(build, write_fashion, tmp_path):
    write_fashion(tmp_path / "FashionMNIST" / "raw", gz=False)
    data = ready(build, f"data.root={tmp_path}", "data.val_fraction=0")
    for part, train in (("train", True), ("test", False)):
        theirs = datasets.FashionMNIST(tmp_path, train=train)
        assert torch.equal(data.parts[part].x.squeeze(1), theirs.data)
        assert torch.equal(data.parts[part].y, theirs.targets)
    assert data.class_names == theirs.classes
    assert (data.channels, data.size) == (1, 28)


@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("gz", [True, False])
def test_the_files_may_be_gzipped_and_directly_in_root(build, write_fashion, tmp_path, folder, gz):
    write_fashion(tmp_path / "reference")
    write_fashion(tmp_path / "mine" / folder, gz=gz)
    reference = ready(build, f"data.root={tmp_path / 'reference'}")
    assert ready(build, f"data.root={tmp_path / 'mine'}").fingerprint == reference.fingerprint


def test_without_root_the_debian_package_is_read(build, write_fashion, debian_folder, tmp_path):
    write_fashion(debian_folder)
    assert len(ready(build).parts["test"]) == 20
    with pytest.raises(UserError):  # a wrong root is not replaced
        ready(build, f"data.root={tmp_path / 'nowhere'}")


def test_missing_files_are_named_with_their_folders_and_the_keys(build, write_fashion, tmp_path):
    (write_fashion(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte, each plain or as \.gz") as error:
        ready(build, f"data.root={tmp_path}")
    for text in (
        f"{tmp_path / 'FashionMNIST' / 'raw'} or {tmp_path}",
        "data.root",
        "data.download",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize("name", ["labels", "labels.gz"])
@pytest.mark.parametrize("keep", [0, 3, 20])
def test_a_damaged_file_is_named(tmp_path, name, keep):
    content = bytes([0, 0, 8, 1, 0, 0, 0, 90]) + bytes(range(90))
    content = gzip.compress(content) if name.endswith(".gz") else content
    (tmp_path / name).write_bytes(content)
    assert read_idx(tmp_path / name).tolist() == list(range(90))
    (tmp_path / name).write_bytes(content[:keep])
    with pytest.raises(UserError, match=rf"{name} is not a complete idx file"):
        read_idx(tmp_path / name)


def test_it_is_downloaded_only_on_request(build, write_fashion, tmp_path, monkeypatch):
    def fetch(url, download_root, filename, md5):
        write_fashion(tmp_path / "FashionMNIST" / "raw", gz=False)

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", fetch)
    with pytest.raises(UserError):
        ready(build, f"data.root={tmp_path}")
    assert len(ready(build, f"data.root={tmp_path}", "data.download=true").parts["test"]) == 20
