"""What was prepared is what the tree is: the same parts, and in evaluation the same bytes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.disk_array import OnDisk
from kd_lightning.prepare import prepared

SMALL = ["data.batch_size=8", "data.num_workers=0"]


@pytest.fixture
def write_images(tmp_path):
    """write_images(sides): two classes of noise of these heights and widths, in train and test."""

    def write(sides):
        numbers = np.random.default_rng(0)
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                folder = tmp_path / "tree" / part / name
                folder.mkdir(parents=True)
                for i, (height, width) in enumerate(sides):
                    pixels = numbers.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i:02}.png")
        return f"data.root={tmp_path / 'tree'}"

    return write


@pytest.fixture
def both(build, write_images, tmp_path):
    """both(sides, overrides): the tree's module and that of what was prepared of it, set up."""

    def make(sides, *overrides, prepare=(), load=()):
        root, out = write_images(sides), tmp_path / "out"
        prepared(
            "data=image_folder", root, f"out={out}", "data.num_workers=0", *overrides, *prepare
        )
        modules = [
            build("image_folder", root, *SMALL, *overrides),
            build("prepared", f"data.root={out}", *SMALL, *overrides, *load),
        ]
        for module in modules:
            module.setup()
        return modules

    return make


def all_of(data, part):
    return [torch.cat(values) for values in zip(*data.loader(part), strict=True)]


def assert_equal_parts(tree, found, parts=("val", "test")):
    for part in parts:
        for one, other in zip(all_of(tree, part), all_of(found, part), strict=True):
            assert torch.equal(one, other)


# with sides of 7 and 6 squares and crops differ by an odd number, by twice an odd one, and by four
@pytest.mark.parametrize("sizes", [(6, 6 / 7), (5, 5 / 7), (4, 4 / 7), (4, 0.5), (8, 1.0)])
@pytest.mark.parametrize("resident", [False, True])
def test_evaluation_shows_the_very_bytes_of_the_tree(both, sizes, resident):
    image_size, crop_fraction = sizes
    side = round(image_size / crop_fraction)
    as_large = [(side, side + more) for more in range(5)]  # nothing is resized, only cut
    sides = [
        *as_large,
        *(one[::-1] for one in as_large),
        (20, 31),
        (33, 18),
        (3, 5),
        (9, 40),
        (64, 64),
    ]
    size = [f"data.image_size={image_size}", f"data.crop_fraction={crop_fraction}"]
    tree, found = both(sides, *size, "data.val_fraction=0.3", load=[f"data.resident={resident}"])
    assert isinstance(found.parts["test"].x, OnDisk)
    assert_equal_parts(tree, found)
    assert found.protocol == tree.protocol
    tree.augmentation = found.augmentation = None
    assert_equal_parts(tree, found, ["train"])


SIDES = [(12 + i % 3, 11 + i % 4) for i in range(12)]


def test_val_is_the_trees_own_share_unless_another_is_asked_for(both, build, tmp_path):
    size = ["data.image_size=8"]
    tree, found = both(SIDES, *size, prepare=["data.val_fraction=0.25"])
    assert len(tree.parts["val"]) == 2  # a tenth, its own default
    assert len(found.parts["val"]) == 6
    other = build(
        "prepared", f"data.root={tmp_path / 'out'}", *SMALL, *size, "data.val_fraction=0.5"
    )
    other.setup()
    assert len(other.parts["val"]) == 12
    assert "50% of train" in other.protocol


def test_a_val_folder_and_a_test_part_that_was_cut_are_kept(build, write_tree, tmp_path):
    counts = {f"{p}/{c}": n for p, n in (("train", 10), ("val", 3)) for c in ("cat", "dog")}
    root, out = write_tree(tmp_path / "tree", counts), tmp_path / "out"
    overrides = [f"data.root={root}", "data.test_fraction=0.3", "data.split_seed=3"]
    prepared(
        "data=image_folder", *overrides, f"out={out}", "data.image_size=6", "data.num_workers=0"
    )
    tree = build("image_folder", *SMALL, *overrides, "data.image_size=6")
    found = build("prepared", *SMALL, f"data.root={out}", "data.image_size=6")
    for data in (tree, found):
        data.setup()
    assert found.protocol == tree.protocol
    assert "(split_seed 3)" in found.protocol
    assert_equal_parts(tree, found)


@pytest.mark.parametrize("split_seed", [0, 5])
def test_a_tree_of_train_alone_is_cut_as_it_was(build, write_tree, tmp_path, split_seed):
    root, out = write_tree(tmp_path / "tree", {"train/cat": 20, "train/dog": 20}), tmp_path / "out"
    words = ["data.image_size=6", "data.num_workers=0"]
    of_tree = [f"data.root={root}", f"data.split_seed={split_seed}", *words]
    prepared("data=image_folder", *of_tree, f"out={out}")
    tree = build("image_folder", *of_tree, "data.batch_size=8")
    of_found = ["prepared", f"data.root={out}", *words, "data.batch_size=8"]
    found, stated = build(*of_found), build(*of_found, f"data.split_seed={split_seed}")
    for data in (tree, found, stated):
        data.setup()
        assert (data.protocol, data.split_seed) == (tree.protocol, split_seed)
    assert found.fingerprint == stated.fingerprint
    assert_equal_parts(tree, found)
    tree.augmentation = found.augmentation = None
    assert_equal_parts(tree, found, ["train"])
    said = rf"cut from train by split_seed={split_seed} .* got data\.split_seed=3: leave it out"
    with pytest.raises(UserError, match=said):
        build(*of_found, "data.split_seed=3").setup()


def test_val_is_cut_by_another_split_seed_where_test_has_a_folder(both):
    words = ["data.image_size=6", "data.val_fraction=0.25"]
    tree, found = both(SIDES, *words, prepare=["data.split_seed=5"], load=["data.split_seed=0"])
    assert "(split_seed 0)" in found.protocol
    assert_equal_parts(tree, found)  # whose own is 0


def test_what_the_tree_knows_of_its_classes_is_kept(stand_in, build, tmp_path):
    tree = stand_in("imagenet100")
    tree.setup()
    out = tmp_path / "out"
    words = [f"data.class_list={tree.class_list}", "data.image_size=6", "data.num_workers=0"]
    prepared("data=imagenet100", f"data.root={tree.root}", *words, f"out={out}")
    found = build("prepared", f"data.root={out}", *SMALL, "data.image_size=6")
    found.setup()
    for fact in (
        "class_names",
        "imagenet_rows",
        "class_list_sha256",
        "classes_sha256",
        "mean",
        "std",
    ):
        assert getattr(found, fact) == getattr(tree, fact), fact
    assert found.imagenet_rows == [0, 1, 2]
    assert found.fingerprint != tree.fingerprint


def test_smaller_images_are_made_of_larger_ones_and_larger_ones_refused(both, build, tmp_path):
    _, found = both(SIDES, "data.crop_fraction=0.5", prepare=["data.image_size=6", "size=16"],
                    load=["data.image_size=4"])  # fmt: skip
    x, _ = all_of(found, "test")
    assert x.shape[1:] == (3, 4, 4)
    resized = torch.nn.functional.interpolate(
        found.parts["test"].x[:].float(), 8, mode="bilinear", antialias=True
    )
    assert (x - resized[:, :, 2:6, 2:6]).abs().max() <= 1
    larger = build("prepared", f"data.root={tmp_path / 'out'}", *SMALL, "data.image_size=16")
    with pytest.raises(UserError, match=r"need images of 18 pixels, these have 16: .* size=18"):
        larger.setup()


def test_training_parts_are_random_parts_of_the_squares(both):
    _, found = both(SIDES, "data.image_size=6")
    x, y = next(iter(found.loader("train")))
    assert x.shape == (8, 3, 6, 6)
    assert x.dtype == torch.uint8
    again = [next(iter(found.loader("train")))[0] for _ in range(2)]
    assert torch.equal(*again)
    held = found.loader("train", device=torch.device("cpu"))  # auto: on a CPU nothing is held
    assert not hasattr(held, "device")
    found.resident = True
    held, labels = next(iter(found.loader("train", device=torch.device("cpu"))))
    assert torch.equal(held, x)
    assert torch.equal(labels, y)


def test_an_augmentation_of_single_samples_is_not_for_what_is_held(both):
    single = "augmentation@data.augmentation=randaugment"
    _, found = both(SIDES, "data.image_size=6", load=[single])
    x, _ = next(iter(found.loader("train")))
    assert x.shape == (8, 3, 6, 6)
    found.resident = True
    with pytest.raises(UserError, match=r"augmented one by one: set data\.resident=auto"):
        found.loader("train", device=torch.device("cpu"))


def test_few_and_wrong_labels_are_those_of_the_tree(both):
    words = ["data.train_per_class=6", "data.label_noise=0.25"]
    tree, found = both(SIDES, "data.image_size=6", prepare=(), load=words)
    again = type(tree)(
        root=tree.root, batch_size=4, image_size=6, train_per_class=6, label_noise=0.25
    )
    again.setup()
    assert found.protocol == again.protocol
    assert torch.equal(found.parts["train"].y, again.parts["train"].y)


@pytest.fixture
def folder(stand_in):
    """A prepared folder, and the module over it."""
    data = stand_in("prepared")
    return data.root, data


def test_a_folder_that_is_not_finished_is_refused(folder):
    root, data = folder
    (root / "index.json").rename(root / "unfinished.json")
    with pytest.raises(
        UserError, match=r"is not finished: .* goes on where it stopped \(data\.root"
    ):
        data.setup()


def test_a_folder_of_another_format_is_refused(folder):
    root, data = folder
    index = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps({**index, "format": 7}))
    with pytest.raises(UserError, match=r"is of format 7, this version reads 3: prepare it again"):
        data.setup()


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_an_array_that_is_not_what_the_index_says_is_refused(folder, damage):
    root, data = folder
    path = root / "train.npy"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        np.save(path, np.zeros((3, 7, 7, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"train\.npy (cannot be read|must be of shape)"):
        data.setup()
