"""Images are read as val and test read them, in processes or not."""

from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image

from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.predictions.samples import ImageSet, to_batch
from kd_lightning.predictions.tables import Sample


@pytest.fixture
def turned_photo(tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((12, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(("exif", "shape"), [(True, (3, 12, 8)), (False, (3, 8, 12))])
def test_orientation_is_honoured_if_it_was_in_training(
    exif: bool, shape: tuple, turned_photo: Path
) -> None:
    sample = ImageSet([turned_photo], exif, lambda image: image)[0]
    assert sample.x.shape == shape
    assert torch.equal(sample.x, read_rgb(turned_photo, exif=exif))


def test_the_transform_is_applied(turned_photo: Path) -> None:
    sample = ImageSet([turned_photo], False, lambda image: image[:, :2, :2])[0]
    assert sample.x.shape == (3, 2, 2)


def test_a_batch_has_the_values_of_good_samples_and_the_places_of_all() -> None:
    path = Path("x.npz")
    x = torch.arange(2.0).view(2, 1)
    samples = [Sample(path, 0, x[0]), Sample(path, 1, error="NaN"), Sample(path, 2, x[1])]
    batch = to_batch(samples)
    assert torch.equal(batch.x, x)
    assert [(s.index, s.error) for s in batch.samples] == [(0, ""), (1, "NaN"), (2, "")]
    assert all(sample.x is None for sample in batch.samples)
    assert to_batch(samples[1:2]).x is None


def test_bytes_beside_values_up_to_one_are_steps_of_1_255() -> None:
    image = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    batch = to_batch([Sample(Path("a.npz"), 0, image), Sample(Path("b.npz"), 0, image / 255)])
    assert torch.equal(batch.x[0], batch.x[1])
    assert to_batch([Sample(Path("a.npz"), 0, image)]).x.dtype == torch.uint8
