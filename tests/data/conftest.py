"""Small stand-ins for the image data sets, in exactly the layouts of the real ones."""

import copy
import functools
import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image
from torchvision import datasets

CONF = Path(__file__).parents[2] / "conf"
WNIDS = ["n01440764", "n01443537", "n01484850"]  # rows 0, 1 and 2 of a 1000-class head


@pytest.fixture
def build():
    """build("cifar10", "data.root=…"): the data module as ``conf/data/cifar10.yaml`` has it."""

    def build_one(name, *overrides):
        choices = [override for override in overrides if "@" in override]
        cfg = copy.deepcopy(composed(name, *choices))
        cfg.merge_with_dotlist([override for override in overrides if override not in choices])
        return instantiate(cfg.data, _convert_="object")

    return build_one


@functools.cache  # composing takes longer than all else in these tests
def composed(name, *choices):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+data={name}", "+seed=0", *choices])


@pytest.fixture
def write_tree():
    """write_tree(root, {"train/cat": 3}): that many JPEGs, of different sizes, in each folder."""

    def write(root, counts, ending=".JPEG"):
        numbers = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for i in range(count):
                pixels = numbers.integers(0, 256, (8 + i % 3, 9 + i % 2, 3), dtype=np.uint8)
                path = root / folder / f"{Path(folder).name}_{i}{ending}"
                Image.fromarray(pixels).save(path, "JPEG")
        return root

    return write


@pytest.fixture
def write_fashion():
    """write_fashion(folder): the four idx files, 40 + 20 images; gzipped or as they are."""

    def write(folder, gz=True):
        folder.mkdir(parents=True, exist_ok=True)
        numbers = np.random.default_rng(0)
        for part, count in (("train", 40), ("t10k", 20)):
            images = numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            for name, array in (
                (f"{part}-images-idx3-ubyte", images),
                (f"{part}-labels-idx1-ubyte", labels),
            ):
                sizes = np.array(array.shape, ">i4").tobytes()
                data = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
                if gz:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(data))
                else:
                    (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def write_cifar(monkeypatch):
    """write_cifar(datasets.CIFAR10, root): its pickles, whose md5 torchvision is told to expect."""

    def write(source, root):
        folder = root / source.base_folder
        folder.mkdir(parents=True)
        classes = 10 if source is datasets.CIFAR10 else 100
        key = "labels" if classes == 10 else "fine_labels"
        numbers = np.random.default_rng(0)

        def dump(name, content):
            (folder / name).write_bytes(pickle.dumps(content))
            return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

        def batch(name, count):
            pixels = numbers.integers(0, 256, (count, 3072), dtype=np.uint8)
            return dump(name, {"data": pixels, key: [i % classes for i in range(count)]})

        train = [batch(name, 4 * classes) for name, _ in source.train_list]
        test = [batch(name, classes) for name, _ in source.test_list]
        names = dump(
            source.meta["filename"], {source.meta["key"]: [f"c{i}" for i in range(classes)]}
        )
        monkeypatch.setattr(source, "train_list", train)
        monkeypatch.setattr(source, "test_list", test)
        monkeypatch.setattr(source, "meta", {**source.meta, "md5": names[1]})
        return root

    return write


@pytest.fixture
def stand_in(build, tmp_path, write_tree, write_fashion, write_cifar):
    """stand_in("cifar10", "data.batch_size=4"): the module over its stand-in, not yet set up."""

    def make(name, *overrides):
        root, more = tmp_path / name, []
        if name == "fashion_mnist":
            write_fashion(root)
        elif name in ("cifar10", "cifar100"):
            write_cifar(getattr(datasets, name.upper()), root)
        elif name != "digits":
            classes = ["cat", "dog", "owl"] if name == "image_folder" else WNIDS
            write_tree(
                root, {f"{p}/{c}": n for p, n in (("train", 8), ("val", 3)) for c in classes}
            )
            more = ["data.image_size=6", "data.num_workers=0", "data.val_fraction=0.2"]
            if name == "imagenet100":
                (tmp_path / "three.txt").write_text("\n".join(reversed(WNIDS)))
                more.append(f"data.class_list={tmp_path / 'three.txt'}")
        return build(name, "data.batch_size=8", f"data.root={root}", *more, *overrides)

    return make
