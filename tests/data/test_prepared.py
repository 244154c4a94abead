"""Prepared images equal the image tree: the same parts and, in evaluation, the same bytes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.prepare import prepare

SMALL = ["data.batch_size=8", "data.num_workers=0"]


@pytest.fixture
def write_images(tmp_path):
    """write_images(sides): train and test with two classes of noise images of these sizes."""

    def write(sides):
        rng = np.random.default_rng(0)
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                folder = tmp_path / "tree" / part / name
                folder.mkdir(parents=True)
                for i, (height, width) in enumerate(sides):
                    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i:02}.png")
        return f"data.root={tmp_path / 'tree'}"

    return write


@pytest.fixture
def both(build, write_images, tmp_path):
    """both(sides, overrides): the data set of an image tree and the prepared one, set up."""

    def make(sides, *overrides, prepare_with=(), load_with=()):
        root, out = write_images(sides), tmp_path / "out"
        prepare(
            "data=image_folder", root, f"out={out}", "data.num_workers=0", *overrides, *prepare_with
        )
        modules = [
            build("image_folder", root, *SMALL, *overrides),
            build("prepared", f"data.root={out}", *SMALL, *overrides, *load_with),
        ]
        for module in modules:
            module.setup()
        return modules

    return make


def whole_part(data, part):
    return [torch.cat(values) for values in zip(*data.loader(part), strict=True)]


def assert_equal_parts(tree, prepared, parts=("val", "test")):
    for part in parts:
        for one, other in zip(whole_part(tree, part), whole_part(prepared, part), strict=True):
            assert torch.equal(one, other)


# the sides of square and crop differ by 1, 2, 3, 4 and 0
@pytest.mark.parametrize("sizes", [(6, 6 / 7), (5, 5 / 7), (4, 4 / 7), (4, 0.5), (8, 1.0)])
@pytest.mark.parametrize("resident", [False, True])
def test_evaluation_uses_exactly_the_bytes_of_the_tree(both, sizes, resident):
    image_size, crop_fraction = sizes
    side = round(image_size / crop_fraction)
    not_resized = [(side, side + more) for more in range(5)]  # images that are only cropped
    sides = [
        *not_resized,
        *(one[::-1] for one in not_resized),
        (20, 31),
        (33, 18),
        (3, 5),
        (9, 40),
        (64, 64),
    ]
    size = [f"data.image_size={image_size}", f"data.crop_fraction={crop_fraction}"]
    tree, prepared = both(
        sides, *size, "data.val_fraction=0.3", load_with=[f"data.resident={resident}"]
    )
    assert isinstance(prepared.parts["test"].x, DiskArray)
    assert_equal_parts(tree, prepared)
    assert prepared.protocol == tree.protocol
    tree.augmentation = prepared.augmentation = None
    assert_equal_parts(tree, prepared, ["train"])


@pytest.mark.parametrize("way", ["squash", "letterbox"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_every_way_to_resize_gives_the_bytes_of_the_tree(both, way, interpolation):
    words = [f"data.resize={way}", f"data.interpolation={interpolation}", "data.image_size=7"]
    tree, prepared = both([(20, 31), (33, 18), (3, 5), (9, 40), (7, 7), (8, 8), (6, 9)], *words)
    assert (prepared.resize, prepared.interpolation, prepared.exif) == (way, interpolation, True)
    assert_equal_parts(tree, prepared)
    assert prepared.parts["test"].x.shape[2:] == (7, 7)


def test_bicubic_crops_are_those_of_the_tree(both):
    words = ["data.interpolation=bicubic", "data.image_size=6", "data.crop_fraction=0.6"]
    tree, prepared = both([(20, 31), (33, 18), (9, 40), (10, 10), (8, 13), (13, 8)], *words)
    assert_equal_parts(tree, prepared)


SIDES = [(12 + i % 3, 11 + i % 4) for i in range(12)]


def test_val_fraction_is_that_of_preparation_unless_set(both, build, tmp_path):
    size = ["data.image_size=8"]
    tree, prepared = both(SIDES, *size, prepare_with=["data.val_fraction=0.25"])
    assert len(tree.parts["val"]) == 2  # a tenth, the default of the tree
    assert len(prepared.parts["val"]) == 6
    other = build(
        "prepared", f"data.root={tmp_path / 'out'}", *SMALL, *size, "data.val_fraction=0.5"
    )
    other.setup()
    assert len(other.parts["val"]) == 12
    assert "50% of train" in other.protocol


def test_a_val_folder_and_a_split_off_test_part_are_kept(build, write_tree, tmp_path):
    counts = {f"{p}/{c}": n for p, n in (("train", 10), ("val", 3)) for c in ("cat", "dog")}
    root, out = write_tree(tmp_path / "tree", counts), tmp_path / "out"
    overrides = [f"data.root={root}", "data.test_fraction=0.3", "data.split_seed=3"]
    prepare(
        "data=image_folder", *overrides, f"out={out}", "data.image_size=6", "data.num_workers=0"
    )
    tree = build("image_folder", *SMALL, *overrides, "data.image_size=6")
    prepared = build("prepared", *SMALL, f"data.root={out}", "data.image_size=6")
    for data in (tree, prepared):
        data.setup()
    assert prepared.protocol == tree.protocol
    assert "(split_seed 3)" in prepared.protocol
    assert_equal_parts(tree, prepared)


@pytest.mark.parametrize("split_seed", [0, 5])
def test_a_tree_with_only_train_is_split_in_the_same_way(build, write_tree, tmp_path, split_seed):
    root, out = write_tree(tmp_path / "tree", {"train/cat": 20, "train/dog": 20}), tmp_path / "out"
    words = ["data.image_size=6", "data.num_workers=0"]
    of_tree = [f"data.root={root}", f"data.split_seed={split_seed}", *words]
    prepare("data=image_folder", *of_tree, f"out={out}")
    tree = build("image_folder", *of_tree, "data.batch_size=8")
    options = ["prepared", f"data.root={out}", *words, "data.batch_size=8"]
    prepared, with_seed = build(*options), build(*options, f"data.split_seed={split_seed}")
    for data in (tree, prepared, with_seed):
        data.setup()
        assert (data.protocol, data.split_seed) == (tree.protocol, split_seed)
    assert prepared.fingerprint == with_seed.fingerprint
    assert_equal_parts(tree, prepared)
    tree.augmentation = prepared.augmentation = None
    assert_equal_parts(tree, prepared, ["train"])
    message = (
        rf"split off from train with split_seed={split_seed} .* got data\.split_seed=3: remove"
    )
    with pytest.raises(UserError, match=message):
        build(*options, "data.split_seed=3").setup()


def test_another_split_seed_is_allowed_if_there_is_a_test_folder(both):
    words = ["data.image_size=6", "data.val_fraction=0.25"]
    tree, prepared = both(
        SIDES, *words, prepare_with=["data.split_seed=5"], load_with=["data.split_seed=0"]
    )
    assert "(split_seed 0)" in prepared.protocol
    assert_equal_parts(tree, prepared)  # the default of the tree is 0


def test_class_information_of_the_tree_is_kept(stand_in, build, tmp_path):
    tree = stand_in("imagenet100")
    tree.setup()
    out = tmp_path / "out"
    words = [f"data.class_list={tree.class_list}", "data.image_size=6", "data.num_workers=0"]
    prepare("data=imagenet100", f"data.root={tree.root}", *words, f"out={out}")
    prepared = build("prepared", f"data.root={out}", *SMALL, "data.image_size=6")
    prepared.setup()
    for fact in (
        "class_names",
        "imagenet_rows",
        "class_list_sha256",
        "classes_sha256",
        "mean",
        "std",
    ):
        assert getattr(prepared, fact) == getattr(tree, fact), fact
    assert prepared.imagenet_rows == [0, 1, 2]
    assert prepared.fingerprint != tree.fingerprint


def test_a_smaller_image_size_is_allowed_and_a_larger_one_refused(both, build, tmp_path):
    _, prepared = both(
        SIDES,
        "data.crop_fraction=0.5",
        prepare_with=["data.image_size=6", "size=16"],
        load_with=["data.image_size=4"],
    )
    x, _ = whole_part(prepared, "test")
    assert x.shape[1:] == (3, 4, 4)
    resized = torch.nn.functional.interpolate(
        prepared.parts["test"].x[:].float(), 8, mode="bilinear", antialias=True
    )
    assert (x - resized[:, :, 2:6, 2:6]).abs().max() <= 1
    larger = build("prepared", f"data.root={tmp_path / 'out'}", *SMALL, "data.image_size=16")
    with pytest.raises(
        UserError, match=r"need images of 18 pixels, the prepared ones have 16: .* size=18"
    ):
        larger.setup()


def test_training_crops_are_random_and_the_same_if_resident(both):
    _, prepared = both(SIDES, "data.image_size=6")
    x, y = next(iter(prepared.loader("train")))
    assert x.shape == (8, 3, 6, 6)
    assert x.dtype == torch.uint8
    again = [next(iter(prepared.loader("train")))[0] for _ in range(2)]
    assert torch.equal(*again)
    loader = prepared.loader("train", device=torch.device("cpu"))  # auto: not on a CPU
    assert not hasattr(loader, "device")
    prepared.resident = True
    resident_x, labels = next(iter(prepared.loader("train", device=torch.device("cpu"))))
    assert torch.equal(resident_x, x)
    assert torch.equal(labels, y)


def test_an_augmentation_of_single_samples_cannot_be_resident(both):
    single = "augmentation@data.augmentation=randaugment"
    _, prepared = both(SIDES, "data.image_size=6", load_with=[single])
    x, _ = next(iter(prepared.loader("train")))
    assert x.shape == (8, 3, 6, 6)
    prepared.resident = True
    with pytest.raises(UserError, match=r"augmented one by one: set data\.resident=auto"):
        prepared.loader("train", device=torch.device("cpu"))


def test_limited_and_noisy_labels_equal_those_of_the_tree(both):
    words = ["data.train_per_class=6", "data.label_noise=0.25"]
    tree, prepared = both(SIDES, "data.image_size=6", load_with=words)
    again = type(tree)(
        root=tree.root, batch_size=4, image_size=6, train_per_class=6, label_noise=0.25
    )
    again.setup()
    assert prepared.protocol == again.protocol
    assert torch.equal(prepared.parts["train"].y, again.parts["train"].y)


@pytest.mark.parametrize(
    ("word", "then"),
    [("resize=squash", "crop"), ("interpolation=bicubic", "bilinear"), ("exif=false", "true")],
)
def test_another_way_than_that_of_preparation_is_refused(folder, build, word, then):
    root, _ = folder
    data = build("prepared", *SMALL, f"data.root={root}", "data.image_size=6", f"data.{word}")
    key = word.partition("=")[0]
    with pytest.raises(UserError, match=rf"prepared with {key}={then}, got data\.{word}: remove"):
        data.setup()


def test_a_folder_of_an_earlier_version_keeps_its_fingerprint_and_meaning(folder, stand_in):
    root, data = folder
    index = json.loads((root / "index.json").read_text())
    for key in ("resize", "interpolation", "exif", "notes"):
        del index[key]
    (root / "index.json").write_text(json.dumps(index))
    data.setup()
    assert (data.resize, data.interpolation, data.exif) == ("crop", "bilinear", False)
    content_id = f"{index['parts']['train']['source']} 6 2"
    assert data.parts["train"].x.content_id == content_id


def test_what_was_read_changes_the_fingerprint(both, tmp_path):
    _, turned = both(SIDES, "data.image_size=6")
    assert turned.parts["train"].x.content_id.endswith(" 6 2 exif=True")


def test_the_notes_of_preparation_are_shown_again(folder):
    data = folder[1]
    data.setup()
    assert any(note.startswith("Classes: 0 = cat (") for note in data.notes)


@pytest.fixture
def folder(stand_in):
    """A prepared folder and its data set."""
    data = stand_in("prepared")
    return data.root, data


def test_an_unfinished_folder_is_refused(folder):
    root, data = folder
    (root / "index.json").rename(root / "unfinished.json")
    with pytest.raises(
        UserError, match=r"is not finished: .* resumes where it stopped \(data\.root"
    ):
        data.setup()


def test_a_folder_of_another_format_is_refused(folder):
    root, data = folder
    index = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps({**index, "format": 7}))
    with pytest.raises(UserError, match=r"has format 7, this version reads 3: prepare it again"):
        data.setup()


@pytest.mark.parametrize("damage", ["gone", "cut", "other", "header", "type"])
def test_an_array_that_does_not_match_its_index_is_refused(folder, damage):
    root, data = folder
    path = root / "train.npy"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "other":
        np.save(path, np.zeros((3, 7, 7, 3), dtype=np.uint8))
    elif damage == "header":
        path.write_bytes(path.read_bytes().replace(b"}", b"{", 1))
    else:
        path.write_bytes(path.read_bytes().replace(b"|u1", b"|i1", 1))
    with pytest.raises(
        UserError, match=r"train\.npy (cannot be read|is damaged|must have the shape)"
    ):
        data.setup()
