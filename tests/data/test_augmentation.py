"""Augmented batches have the pixels and the probabilities of torchvision's transforms."""

import warnings

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream_seed
from kd_lightning.data.augmentation import (
    ONE_BY_ONE,
    BatchTransform,
    CenterCrop,
    Compose,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from kd_lightning.data.loading.batches import BadImage, Samples, SampleSet, Views
from kd_lightning.data.loading.sample_random import PerSampleRandom

SIDE = 12
MANY = 4000
TRANSFORMS = {
    "crop": RandomCrop(SIDE, padding=2),
    "smaller crop": RandomCrop(7),
    "flip": RandomHorizontalFlip(),
    "erase": RandomErasing(p=0.7, value=7),
    "resized crop": RandomResizedCrop(9),
    "all": Compose([RandomCrop(SIDE, padding=2), RandomHorizontalFlip(0.3), RandomErasing()]),
}


def random_numbers(count: int = MANY, epoch: int = 0, seed: int = 0) -> PerSampleRandom:
    return PerSampleRandom(stream_seed(seed, "augmentation", epoch), torch.arange(count))


def images(count: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def numbered_pixels(count: int = MANY) -> Tensor:
    """Images whose pixel values are their positions: 1, 2, …"""
    return torch.arange(1, SIDE * SIDE + 1).view(1, 1, SIDE, SIDE).repeat(count, 1, 1, 1)


# The random numbers


def test_numbers_are_uniform_and_uncorrelated_over_samples_draws_and_epochs() -> None:
    rng = random_numbers()
    first, second = rng.uniform(), rng.uniform()
    other = random_numbers(epoch=1).uniform()
    assert 0 <= first.min() < 0.002
    assert 0.998 < first.max() < 1
    for u in (first, second, other):
        assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    for u in (second, other, first.roll(1)):
        assert abs(stats.pearsonr(first.numpy(), u.numpy()).statistic) < 0.06  # 3.8 sigma


def test_pairs_of_neighbouring_samples_are_uniform() -> None:
    u = random_numbers(40000).uniform()
    cells = (u[:-1] * 16).long() * 16 + (u[1:] * 16).long()
    assert stats.chisquare(cells.bincount(minlength=256).numpy()).pvalue > 1e-3


def test_random_integers_are_uniform() -> None:
    found = random_numbers().integers(9)
    assert stats.chisquare(found.bincount(minlength=9).numpy()).pvalue > 1e-3
    assert found.max() == 8


def test_the_numbers_of_a_sample_are_the_same_in_any_batch() -> None:
    whole = random_numbers(100)
    part = PerSampleRandom(stream_seed(0, "augmentation", 0), torch.tensor([70, 3]))
    for _ in range(3):
        assert torch.equal(whole.uniform()[[70, 3]], part.uniform())


def test_many_numbers_at_once_equal_single_draws() -> None:
    at_once, one_by_one = random_numbers(50), random_numbers(50)
    for count in (3, 1, 20):
        expected = torch.stack([one_by_one.uniform() for _ in range(count)])
        assert torch.equal(at_once.uniforms(count), expected)


def test_the_numbers_stay_the_same_in_all_versions() -> None:
    """Otherwise a cache or a resumed run of an older version would silently get other images."""
    rng = PerSampleRandom(12345, torch.tensor([0, 1, 7]))
    found = torch.stack([rng.uniform(), rng.uniform()])
    again = PerSampleRandom(12345, torch.tensor([0, 1, 7]))
    expected = torch.tensor([[by_hand(12345, i, k) for i in (0, 1, 7)] for k in (1, 2)])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(again.uniform(), found[0])


def by_hand(stream: int, index: int, count: int) -> float:
    """The same hash with Python integers."""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mixed(bits: int) -> int:
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & mask
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & mask
        return bits ^ (bits >> 31)

    start = mixed((mixed((index * golden + stream) & mask) + stream) & mask)
    return (mixed((start + count * golden) & mask) >> 40) * 2.0**-24


# The transforms


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_sample_is_augmented_in_the_same_way_in_any_batch(name: str) -> None:
    x, transform = images(), TRANSFORMS[name]
    whole = transform(x, random_numbers(50))
    picked = torch.tensor([31, 2, 49])
    part = transform(x[picked], PerSampleRandom(stream_seed(0, "augmentation", 0), picked))
    assert torch.equal(whole[picked], part)
    assert whole.dtype == x.dtype
    assert not torch.equal(whole, transform(x, random_numbers(50, epoch=1)))


@pytest.mark.parametrize(("size", "padding"), [(SIDE, 2), (7, 0), (8, 1)])
def test_crops_equal_torchvisions_and_all_positions_are_equally_likely(
    size: int, padding: int
) -> None:
    x = numbered_pixels()
    found = RandomCrop(size, padding)(x, random_numbers())
    padded = tv.pad(x, [padding])
    num_positions = SIDE + 2 * padding - size + 1
    seen = torch.zeros(num_positions, num_positions, dtype=torch.long)
    crops = {
        (top, left): tv.crop(padded[0], top, left, size, size)
        for top in range(num_positions)
        for left in range(num_positions)
    }
    by_pixels = {tuple(crop.flatten().tolist()): position for position, crop in crops.items()}
    for one in found:
        top, left = by_pixels[tuple(one.flatten().tolist())]
        seen[top, left] += 1
    assert stats.chisquare(seen.flatten().numpy()).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.long])
def test_flips_equal_torchvisions_and_have_probability_p(p: float, dtype: torch.dtype) -> None:
    x = numbered_pixels().to(dtype).repeat(1, 4, 1, 1)  # with 8 bytes a pixel: flipped singly
    assert (x[:1].nbytes > ONE_BY_ONE) == (dtype == torch.long)
    found = RandomHorizontalFlip(p)(x, random_numbers())
    flipped = (found != x).flatten(1).any(1)
    assert torch.equal(found[flipped], tv.horizontal_flip(x[flipped]))
    assert abs(flipped.float().mean().item() - p) < 4 * (p * (1 - p) / MANY) ** 0.5 + 1e-9


@pytest.mark.parametrize("length", [20, 2000])  # a long one is flipped singly
def test_series_of_any_length_are_flipped(length: int) -> None:
    x = torch.arange(4.0 * length).view(4, 1, length)
    rng = PerSampleRandom(0, torch.arange(4))
    assert torch.equal(RandomHorizontalFlip(1.0)(x, rng), x.flip(-1))


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((24, 24), {}), ((20, 30), {"scale": (0.3, 1.0)}),
     ((24, 24), {"scale": (0.05, 0.2), "ratio": (0.2, 1.5)}),
     ((8, 60), {"scale": (0.5, 1.0)}), ((60, 8), {"scale": (0.5, 1.0), "ratio": (0.9, 2.0)})],
)  # fmt: skip
def test_rectangles_of_crops_have_torchvisions_distribution(shape: tuple, settings: dict) -> None:
    sides = (torch.full((MANY,), side) for side in shape)
    found = RandomResizedCrop(7, **settings).draw_rectangles(*sides, random_numbers())
    ours = torch.stack([found.top, found.left, found.height, found.width], dim=1).tolist()
    torch.manual_seed(0)
    theirs_of = v2.RandomResizedCrop(7, **settings)
    example = [torch.zeros(3, *shape)]
    theirs = [tuple(theirs_of.make_params(example).values()) for _ in range(MANY)]
    for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        values = sorted({*a, *b})
        table = torch.tensor([[list(side).count(value) for value in values] for side in (a, b)])
        rare = table.sum(0) < 10  # merged, as the chi-squared test needs
        table = torch.cat([table[:, ~rare], table[:, rare].sum(1, keepdim=True)], dim=1)
        table = table[:, table.sum(0) > 0]
        if table.shape[1] > 1:
            assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3
    assert max(h / shape[0] for _, _, h, _ in ours) <= 1
    assert min(min(one) for one in ours) >= 0


@pytest.mark.parametrize(("shape", "ratio"), [((4, 400), (0.75, 4 / 3)), ((400, 4), (0.75, 4 / 3))])
def test_if_no_rectangle_fits_the_centre_is_torchvisions(shape: tuple, ratio: tuple) -> None:
    settings = {"scale": (0.9, 1.0), "ratio": ratio}
    sides = (torch.full((5,), side) for side in shape)
    found = RandomResizedCrop(7, **settings).draw_rectangles(*sides, random_numbers(5))
    theirs = v2.RandomResizedCrop(7, **settings).make_params([torch.zeros(3, *shape)])
    for name, value in theirs.items():
        assert getattr(found, name).tolist() == [value] * 5


def test_resized_crops_equal_torchvisions() -> None:
    x, transform = images(), RandomResizedCrop(9)
    at = transform.draw_rectangles(*torch.full((2, 50), SIDE), random_numbers(50))
    for i, one in enumerate(transform(x, random_numbers(50))):
        place = [int(value[i]) for value in (at.top, at.left, at.height, at.width)]
        theirs = tv.resized_crop(x[i], *place, [9, 9], antialias=True)
        # torchvision resizes bytes with integers only if the processor has AVX2
        tolerance = 0 if "AVX" in torch.backends.cpu.get_cpu_capability() else 1
        assert (one.int() - theirs.int()).abs().max() <= tolerance


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"the size of a crop must be >= 1, got 0 \(…size=…\)"),
        ({"size": 4, "scale": (0.5, 1.5)}, r"<= 1, got \[0\.5, 1\.5\] \(…scale=…\)"),
        ({"size": 4, "scale": (0.5,)}, r"\(…scale=…\)"),
        ({"size": 4, "ratio": (2.0, 1.0)}, r"got \[2\.0, 1\.0\] \(…ratio=…\)"),
    ],
)
def test_invalid_settings_of_a_crop_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandomResizedCrop(**settings)


@pytest.mark.parametrize("shape", [(17, 12), (12, 12), (13, 20)])
def test_the_transforms_of_evaluation_equal_torchvisions(shape: tuple) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (4, 3, *shape), dtype=torch.uint8, generator=generator)
    found = Compose([Resize(10), CenterCrop(7)])(x, random_numbers(4))
    expected = v2.Compose([v2.Resize(10, antialias=True), v2.CenterCrop(7)])
    assert torch.equal(found, torch.stack([expected(one) for one in x]))
    assert found.untyped_storage().nbytes() == found.nbytes


def rectangle(image: Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of the erased rectangle; zeros if nothing was erased."""
    rows, columns = ((image[0] == 0).any(d).nonzero().flatten() for d in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    top, left = rows[0].item(), columns[0].item()
    tall, wide = rows[-1].item() - top + 1, columns[-1].item() - left + 1
    assert (image[0, top : top + tall, left : left + wide] == 0).all()
    return top, left, tall, wide


@pytest.mark.parametrize(
    "settings",
    [{"p": 0.6}, {"p": 1.0, "scale": (0.25, 0.25), "ratio": (1.0, 1.0)},
     {"p": 1.0, "scale": (0.3, 0.9), "ratio": (0.1, 10.0)}],
)  # fmt: skip
def test_erased_rectangles_have_torchvisions_distribution(settings: dict) -> None:
    erased = RandomErasing(**settings)(numbered_pixels(), random_numbers())
    ours = [rectangle(image) for image in erased]
    torch.manual_seed(0)
    theirs_of = v2.RandomErasing(**settings)
    theirs = [rectangle(theirs_of(image)) for image in numbered_pixels()]
    for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        values = sorted({*a, *b})
        table = [[list(side).count(value) for value in values] for side in (a, b)]
        if len(values) > 1:
            assert stats.chi2_contingency(table).pvalue > 1e-3


def test_erased_pixels_have_the_value_in_all_channels_and_others_are_unchanged() -> None:
    x = images()
    found = RandomErasing(p=1.0, value=9)(x, random_numbers(50))
    erased = (found != x).any(1, keepdim=True).expand_as(x)
    assert (found[erased] == 9).all()
    assert torch.equal(found[~erased], x[~erased])


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"a crop of 20 is larger than images of \(12, 12\) with 2"):
        RandomCrop(20, padding=2)(images(), random_numbers(50))


def test_a_transform_of_single_samples_cannot_be_composed_with_batch_transforms() -> None:
    with pytest.raises(UserError, match="RandomRotation transforms single samples"):
        Compose([v2.RandomRotation(3)])


# In a SampleSet


def test_samples_in_memory_and_in_files_are_augmented_in_the_same_way() -> None:
    x, transform = images(20), TRANSFORMS["all"]
    in_memory = SampleSet(Samples(x, torch.arange(20)), seed=3, transform=transform)
    as_files = SampleSet(
        Samples(list(range(20)), torch.arange(20)),
        seed=3,
        transform=transform,
        decode=x.__getitem__,
    )
    keys = [(2, i) for i in (5, 17, 0)]
    assert torch.equal(in_memory[keys[0]][0], in_memory.__getitems__(keys)[0][0])
    assert torch.equal(in_memory.__getitems__(keys)[0], as_files.__getitems__(keys)[0])


@pytest.mark.parametrize("bad", [(), (2,), (8, 9, 10, 11, 12, 13, 14, 15)])
def test_files_of_different_sizes_are_augmented_as_single_files_are(bad: tuple) -> None:
    sizes = [(SIDE + i % 5, SIDE + i % 7) for i in range(20)]
    transform = Compose([RandomResizedCrop(9), RandomHorizontalFlip()])

    def decode(i: int) -> Tensor:
        if i in bad:
            raise BadImage(f"number {i}")
        generator = torch.Generator().manual_seed(i)
        return torch.randint(0, 256, (3, *sizes[i]), dtype=torch.uint8, generator=generator)

    files = Samples(list(range(20)), torch.arange(20))
    found = SampleSet(files, seed=3, transform=transform, decode=decode, skip_bad=True)
    keys = [(2, i) for i in (*range(8, 20), 5, 2, 3, 3)]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        x, y = found.__getitems__(keys)
    assert len(warned) == len(bad)
    assert y.tolist() == [i for _, i in keys if i not in bad]
    for one, i in zip(x, y.tolist(), strict=True):
        assert torch.equal(one, found[2, i][0])
    stream = stream_seed(3, "augmentation", 2)
    alone = transform(decode(5).unsqueeze(0), PerSampleRandom(stream, torch.tensor([5])))
    assert torch.equal(x[y == 5], alone)


def test_a_batch_is_transformed_once() -> None:
    calls = []

    class Counting(BatchTransform):
        def __call__(self, x: Tensor, rng: PerSampleRandom) -> Tensor:
            calls.append(len(x))
            return x

    samples = SampleSet(Samples(images(20), torch.arange(20)), seed=0, transform=Counting())
    samples.__getitems__([(0, i) for i in range(20)])
    assert calls == [20]


def test_views_repeat_and_differ_from_epochs_without_views() -> None:
    samples = Samples(images(20), torch.arange(20))
    viewed = SampleSet(samples, seed=0, transform=TRANSFORMS["all"], views=Views(2, 0))
    plain = SampleSet(samples, seed=0, transform=TRANSFORMS["all"])
    keys = [[(epoch, i) for i in range(20)] for epoch in range(4)]
    shown = [viewed.__getitems__(one)[0] for one in keys]
    assert torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], plain.__getitems__(keys[0])[0])
