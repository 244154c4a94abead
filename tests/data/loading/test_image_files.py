import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import RandomErasing
from kd_lightning.data.loading.batches import BadImage, Samples, SampleSet
from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.data.loading.image_files import imagenet_rows
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.data.loading.sample_random import PerSampleRandom


def save(path, pixels, mode=None, **kwargs):
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path, **kwargs)
    return path


def test_imagenet_rows_are_indices_in_the_sorted_wnids():
    assert imagenet_rows(["n01443537", "n01440764", "n15075141"]) == [1, 0, 999]
    assert imagenet_rows(["n01440764", "n99999999"]) is None
    assert imagenet_rows(["cat", "dog"]) is None


def test_val_and_test_use_the_centre_of_an_image(stand_in, tmp_path):
    data = stand_in("image_folder", "data.image_size=4", "data.crop_fraction=0.5")
    stripes = np.zeros((8, 16, 3))
    stripes[:, 6:10] = 200
    for path in (tmp_path / "image_folder" / "val").rglob("*.JPEG"):
        save(path, stripes, format="PNG")
    data.setup()
    x, _ = next(iter(data.loader("val")))
    assert x.shape == (8, 3, 4, 4)
    assert (x == 200).all()


def test_the_resized_side_follows_the_image_size(stand_in):
    data = stand_in("image_folder", "data.image_size=224")
    assert data.eval_transform() == Resizing(224, "crop", 0.875, "bilinear")
    assert data.eval_transform().side == 256


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resize", "squash"),
        ("resize", "letterbox"),
        ("crop_fraction", 1.0),
        ("interpolation", "bicubic"),
    ],
)
def test_a_copy_of_the_data_is_shown_in_another_way(stand_in, build, tmp_path, name, value):
    data = stand_in("image_folder", "data.crop_fraction=0.5")
    data.setup()
    variant = copy.copy(data)
    setattr(variant, name, value)
    images = [torch.cat([x for x, _ in each.loader("val")]) for each in (data, variant)]
    assert not torch.equal(*images)
    options = ["data.batch_size=8", "data.image_size=6", "data.crop_fraction=0.5"]
    root = f"data.root={tmp_path / 'image_folder'}"
    chosen = build("image_folder", *options, root, f"data.{name}={value}", "data.num_workers=0")
    chosen.setup()
    assert torch.equal(images[1], torch.cat([x for x, _ in chosen.loader("val")]))


def test_train_without_augmentation_is_cropped_like_val(stand_in):
    data = stand_in("image_folder", "data.augmentation=null")
    data.setup()
    x, _ = next(iter(data.loader("train")))
    assert x.shape == (8, 3, 6, 6)
    path = data.parts["train"].x[0]
    assert torch.equal(data._sample_set("train")[0, 0][0], data.eval_transform()(read_rgb(path)))


def test_an_augmentation_of_another_size_is_refused(stand_in):
    data = stand_in(
        "image_folder", "augmentation@data.augmentation=crop_flip", "data.image_size=40"
    )
    with pytest.raises(UserError, match=r"size 40, it returns 3 of 32 x 32"):
        data.setup()


def test_an_augmentation_that_leaves_photographs_oblong_is_refused(stand_in):
    data = stand_in("image_folder", "data.image_size=40")
    data.augmentation = v2.Resize(40)  # of the short side
    with pytest.raises(UserError, match=r"size 40, it returns 3 of 40 x 60"):
        data.setup()


def test_setup_reads_no_image(stand_in, tmp_path):
    data = stand_in("imagenet")
    for path in tmp_path.rglob("*.JPEG"):
        path.write_bytes(b"")
    data.setup()
    assert data.imagenet_rows == [0, 1, 2]
    assert (data.channels, data.size) == (3, 6)
    assert data.mean == pytest.approx([0.485, 0.456, 0.406])
    assert data.std == pytest.approx([0.229, 0.224, 0.225])


def test_a_bad_image_stops_the_run_or_is_skipped_with_a_warning(stand_in, tmp_path):
    data = stand_in("image_folder", "data.on_bad_image=skip")
    bad = tmp_path / "image_folder" / "val" / "cat" / "cat_1.JPEG"
    bad.write_bytes(b"no image")
    data.setup()
    with pytest.warns(UserWarning, match=r"left out: .*cat_1\.JPEG"):
        assert sum(len(y) for _, y in data.loader("val")) == 8
    data.skip_bad = False
    with pytest.raises(BadImage, match=r"cat_1\.JPEG .*data\.on_bad_image=skip"):
        list(data.loader("val"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=0", r"data\.image_size must be >= 1, got 0"),
        ("data.resize=squish", r"unknown way to resize 'squish': did you mean squash\?"),
        ("data.interpolation=lanczos", r"'lanczos': expected .*bicubic.* \(data\.interpolation"),
        ("data.crop_fraction=1.5", r"data\.crop_fraction must be in \(0, 1\], got 1\.5"),
        (
            "data.on_bad_image=skp",
            r"unknown choice 'skp': did you mean skip\? \(data\.on_bad_image",
        ),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(stand_in, override, message):
    with pytest.raises(Exception, match=message):
        stand_in("image_folder", override, "data.augmentation=null")


def test_the_dataset_for_workers_can_be_pickled(stand_in):
    data = stand_in("image_folder", "mixing@data.mixing=cutmix")
    data.setup()
    data.callback = lambda: None  # like a Trainer, it cannot be pickled
    x, _ = next(iter(data.loader("train")))
    copy = pickle.loads(pickle.dumps(data.loader("train").dataset))
    assert len(copy) == len(data.parts["train"])
    assert x.is_floating_point()


@pytest.mark.parametrize(
    ("augmentation", "input_shape", "shape"),
    [
        ("crop_flip", (3, 32, 32), (3, 32, 32)),
        ("cutout", (3, 32, 32), (3, 32, 32)),
        ("shift", (1, 28, 28), (1, 28, 28)),
        ("imagenet", (3, 40, 50), (3, 24, 24)),
        ("randaugment", (3, 40, 50), (3, 24, 24)),
    ],
)
def test_every_augmentation_returns_varied_bytes_of_one_size(
    build, augmentation, input_shape, shape
):
    image = torch.randint(0, 256, input_shape, dtype=torch.uint8, generator=torch.Generator())
    overrides = ["data.image_size=24", f"augmentation@data.augmentation={augmentation}"]
    augment = build("image_folder", *overrides).augmentation
    samples = Samples(list(range(8)), torch.arange(8))
    shown = SampleSet(samples, seed=0, transform=augment, decode=lambda _: image)
    seen = [shown[0, index][0] for index in range(8)]
    assert {x.dtype for x in seen} == {torch.uint8}
    assert {tuple(x.shape) for x in seen} == {shape}
    assert len({tuple(x.flatten().tolist()) for x in seen}) > 1


def test_cutout_blackens_a_quarter_of_the_image(build):
    augment = build("cifar10", "augmentation@data.augmentation=cutout").augmentation
    erase = augment.transforms[-1]
    assert isinstance(erase, RandomErasing)
    images = torch.full((4, 3, 32, 32), 200, dtype=torch.uint8)
    x = erase(images, PerSampleRandom(0, torch.arange(4)))
    assert ((x == 0).float().mean((1, 2, 3)) == 0.25).all()


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_every_mixing_can_be_chosen_for_every_data_set(stand_in, mixing):
    data = stand_in("fashion_mnist", f"mixing@data.mixing={mixing}")
    data.setup()
    x, y = next(iter(data.loader("train")))
    assert x.shape == (8, 1, 28, 28)
    assert x.max() <= 1
    torch.testing.assert_close(y.sum(1), torch.ones(8))
