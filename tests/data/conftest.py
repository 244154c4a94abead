"""Small copies of the image data sets, with the file layouts of the real ones."""

import copy
import functools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from torchvision import datasets

from kd_lightning.prepare import prepare

CONF = Path(__file__).parents[2] / "conf"
WNIDS = ["n01440764", "n01443537", "n01484850"]  # classes 0, 1 and 2 of ImageNet-1k


@pytest.fixture
def build():
    """build("cifar10", "data.root=…"): the data set that ``conf/data/cifar10.yaml`` describes."""

    def build_one(name, *overrides):
        choices = [override for override in overrides if "@" in override]
        cfg = copy.deepcopy(composed(name, *choices))
        cfg.merge_with_dotlist([override for override in overrides if override not in choices])
        return instantiate(cfg.data, _convert_="object")

    return build_one


@functools.cache  # composing is the slowest part of these tests
def composed(name, *choices):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+data={name}", "+seed=0", *choices])


@pytest.fixture
def stand_in(build, tmp_path, write_tree, write_fashion, write_cifar):
    """stand_in("cifar10", "data.batch_size=4"): the data set over small files, not yet set up."""

    def make(name, *overrides):
        root, options = tmp_path / name, []
        if name == "fashion_mnist":
            write_fashion(root)
        elif name in ("cifar10", "cifar100"):
            write_cifar(getattr(datasets, name.upper()), root)
        elif name != "digits":
            classes = ["cat", "dog", "owl"] if name in ("image_folder", "prepared") else WNIDS
            write_tree(
                root, {f"{p}/{c}": n for p, n in (("train", 8), ("val", 3)) for c in classes}
            )
            options = ["data.image_size=6", "data.num_workers=0", "data.val_fraction=0.2"]
            if name == "prepared":
                tree, root = root, tmp_path / "prepared_from_it"
                prepare("data=image_folder", f"data.root={tree}", f"out={root}", *options)
            if name == "imagenet100":
                (tmp_path / "three.txt").write_text("\n".join(reversed(WNIDS)))
                options.append(f"data.class_list={tmp_path / 'three.txt'}")
        if name != "digits":  # digits are part of a package
            options.append(f"data.root={root}")
        return build(name, "data.batch_size=8", *options, *overrides)

    return make
