import pickle
import warnings

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import MixUp

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream
from kd_lightning.data.augmentation import Compose, RandomCrop, RandomHorizontalFlip
from kd_lightning.data.loading import loaders
from kd_lightning.data.loading.batches import BadImage, Samples, SampleSet, Views
from kd_lightning.data.loading.loaders import EpochOrder, ResidentLoader, make_loader


def noise(x):
    """An augmentation whose result shows the random numbers that it drew."""
    return x + torch.rand(x.shape)


def numbered(count=12, **kwargs):
    x = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    return SampleSet(Samples(x, torch.arange(count)), **{"seed": 0, **kwargs})


def epoch_of(loader, epoch=0):
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def by_sample(batches):
    return {int(label): x for xs, ys in batches for x, label in zip(xs, ys, strict=True)}


def labels(batches):
    return [y.tolist() for _, y in batches]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_order_depends_only_on_seed_and_epoch():
    def order(seed, epoch):
        return labels(epoch_of(make_loader(numbered(seed=seed), 4, shuffle=True), epoch))

    reference = order(0, 3)
    torch.manual_seed(99)
    assert order(0, 3) == reference
    assert order(0, 4) != reference
    assert order(1, 3) != reference


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["loader", "resident"])
@pytest.mark.parametrize("options", [{}, {"transform": noise}])
def test_batches_with_indices_are_the_same_batches_and_say_which_samples_they_are(device, options):
    samples = [numbered(with_indices=found, **options) for found in (False, True)]
    resident = {} if options else {"device": device}
    plain, indexed = (epoch_of(make_loader(s, 4, shuffle=True, **resident)) for s in samples)
    for (x, y), (same_x, same_y, values) in zip(plain, indexed, strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)
        assert torch.equal(values["index"], y)  # the label of a sample is its number here


def test_an_epoch_does_not_depend_on_the_epochs_before_it():
    loader = make_loader(numbered(transform=noise), 4, shuffle=True)
    for epoch in range(3):
        after_others = epoch_of(loader, epoch)
    resumed = epoch_of(make_loader(numbered(transform=noise), 4, shuffle=True), 2)
    assert labels(after_others) == labels(resumed)
    assert same(by_sample(after_others), by_sample(resumed))


def test_augmentation_depends_only_on_seed_epoch_and_sample():
    def augmented(seed=0, epoch=1, batch_size=4):
        loader = make_loader(numbered(seed=seed, transform=noise), batch_size, shuffle=True)
        return by_sample(epoch_of(loader, epoch))

    reference = augmented()
    assert not torch.allclose(reference[1] - 1, reference[2] - 2)
    torch.manual_seed(99)
    assert same(augmented(batch_size=6), reference)
    for other in (augmented(seed=1), augmented(epoch=2)):
        assert not any(torch.equal(other[key], reference[key]) for key in reference)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_number_of_workers_does_not_change_batches():
    def batches(num_workers):
        transform = v2.GaussianNoise(clip=False)
        dataset = numbered(transform=transform, mixing=v2.MixUp(num_classes=12))
        loader = make_loader(dataset, 4, shuffle=True, num_workers=num_workers)
        return epoch_of(loader, 1) + epoch_of(loader, 2)

    for (x, y), (x2, y2) in zip(batches(0), batches(2), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_the_global_batch_is_the_same_with_one_rank_or_two():
    def batches(rank, ranks):
        loader = make_loader(numbered(transform=noise), 4, shuffle=True, rank=rank, ranks=ranks)
        return epoch_of(loader, 1)

    shares = [batches(0, 2), batches(1, 2)]
    for (x, y), *parts in zip(batches(0, 1), *shares, strict=True):
        for rank, (x_share, y_share) in enumerate(parts):
            assert torch.equal(x_share, x[rank::2])
            assert torch.equal(y_share, y[rank::2])


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_uses_each_sample_once_over_all_ranks(ranks):
    seen = []
    for rank in range(ranks):
        loader = make_loader(numbered(7), 4, shuffle=False, rank=rank, ranks=ranks)
        assert len(loader) == len(list(loader))
        seen += [label for batch in labels(loader) for label in batch]
    assert sorted(seen) == list(range(7))


def test_evaluation_is_in_order():
    loader = make_loader(numbered(7), 3, shuffle=False)
    assert labels(loader) == [[0, 1, 2], [3, 4, 5], [6]]


def test_training_drops_the_incomplete_batch_and_repeats_no_sample():
    loader = make_loader(numbered(11), 4, shuffle=True)
    batches = labels(loader)
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(loader) == 2
    assert len({label for batch in batches for label in batch}) == 8


def test_the_length_of_the_order_is_the_number_of_samples_it_yields():
    for shuffle in (True, False):
        for rank in range(2):
            order = EpochOrder(11, 4, seed=0, shuffle=shuffle, rank=rank, ranks=2)
            assert len(order) == len(list(order))


def test_loading_does_not_change_the_global_random_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset = numbered(transform=noise, mixing=v2.MixUp(num_classes=12))
    assert len(epoch_of(make_loader(dataset, 4, shuffle=True))) == 3
    assert torch.equal(torch.rand(3), expected)


def test_loading_does_not_reseed_an_accelerator(monkeypatch):
    def fail(seed):
        raise AssertionError("the students' dropout masks would follow the loader")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    dataset = numbered(transform=noise, mixing=v2.MixUp(num_classes=12))
    assert len(epoch_of(make_loader(dataset, 4, shuffle=True))) == 3


def test_mixing_does_not_change_augmentation():
    def first(mixing):
        dataset = numbered(transform=noise, mixing=mixing)
        return epoch_of(make_loader(dataset, 4, shuffle=True))[0][0]

    assert torch.equal(first(lambda x, y: (x, y)), first(None))


def test_mixing_depends_only_on_seed_and_epoch():
    def mixed(seed=0, epoch=1):
        dataset = numbered(seed=seed, mixing=v2.MixUp(num_classes=12))
        return epoch_of(make_loader(dataset, 4, shuffle=True), epoch)[0][1]

    first = mixed()
    torch.manual_seed(99)
    assert torch.equal(mixed(), first)
    shares = first.max(dim=1).values
    assert not torch.equal(mixed(epoch=2).max(dim=1).values, shares)
    assert not torch.equal(mixed(seed=1).max(dim=1).values, shares)


def test_bytes_are_mixed_as_fractions_of_255():
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    dataset = SampleSet(Samples(x, torch.arange(2)), seed=0, mixing=v2.MixUp(num_classes=2))
    x, y = dataset.__getitems__([(0, 0), (0, 1)])
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.flatten(), y[:, 1])  # class 1 is white, class 0 is black


def test_samples_in_memory_are_returned_unchanged():
    dataset = numbered()
    x, y = dataset.__getitems__([(0, 5), (0, 2)])
    assert torch.equal(x, dataset.samples.x[[5, 2]])
    assert y.tolist() == [5, 2]
    x, y = dataset[0, 5]
    assert torch.equal(x, dataset.samples.x[5])
    assert y == 5


def test_a_subset_keeps_samples_labels_and_groups_together():
    samples = Samples([f"p{i}" for i in range(4)], torch.arange(4), torch.arange(4) * 10)
    subset = samples.subset(torch.tensor([3, 1]))
    assert subset.x == ["p3", "p1"]
    assert subset.y.tolist() == [3, 1]
    assert subset.groups.tolist() == [30, 10]
    assert len(subset) == 2


def decode(path):
    """A file whose name is a number decodes to that number."""
    if path == "bad":
        raise BadImage(f"{path} must be an image")
    return torch.full((1, 2, 2), int(path))


def test_a_bad_image_stops_the_run():
    samples = Samples(["0", "bad", "2"], torch.arange(3))
    with pytest.raises(BadImage, match="bad must be"):
        SampleSet(samples, seed=0, decode=decode).__getitems__([(0, 0), (0, 1)])


def test_a_skipped_bad_image_is_left_out_with_its_label():
    samples = Samples(["0", "bad", "2"], torch.arange(3))
    dataset = SampleSet(samples, seed=0, decode=decode, skip_bad=True)
    with pytest.warns(UserWarning, match="left out: bad"):
        x, y = dataset.__getitems__([(0, 0), (0, 1), (0, 2)])
    assert x[:, 0, 0, 0].tolist() == y.tolist() == [0, 2]


def test_a_batch_with_only_bad_images_stops_the_run():
    dataset = SampleSet(Samples(["bad"], torch.zeros(1)), seed=0, decode=decode, skip_bad=True)
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(UserError, match="no image of a batch"),
    ):
        dataset.__getitems__([(0, 0)])


@pytest.mark.filterwarnings("default::UserWarning")  # that a file is left out
@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_order_a_batch_with_only_bad_images_is_passed_over(num_workers):
    samples = Samples(["0", "1", "bad", "bad", "4"], torch.arange(5))
    dataset = SampleSet(samples, seed=0, decode=decode, skip_bad=True)
    for size, found in ((2, [[0, 1], [4]]), (4, [[0, 1], [4]])):
        loader = make_loader(dataset, size, shuffle=False, num_workers=num_workers)
        assert [y.tolist() for _, y in loader] == found
    with pytest.raises(UserError, match="no image of a batch"):
        list(make_loader(dataset, 1, shuffle=True))


def test_the_dataset_of_a_loader_can_be_pickled():
    dataset = pickle.loads(pickle.dumps(numbered(transform=v2.RandomCrop(1))))
    assert dataset[0, 5][0].shape == (1, 1, 1)


def test_the_order_comes_from_the_stream_named_order():
    order = EpochOrder(8, 4, seed=5, shuffle=True, rank=0, ranks=1)
    order.set_epoch(2)
    expected = torch.randperm(8, generator=stream(5, "order", 2)).tolist()
    assert list(order) == [(2, index) for index in expected]


# Stored on the device


def cropped(count=20, **kwargs):
    augment = Compose([RandomCrop(2, padding=1), RandomHorizontalFlip()])
    return numbered(count, transform=augment, **kwargs)


@pytest.mark.parametrize("bytes_at_once", [1, 200, loaders.BYTES_AT_ONCE])  # a sample has 16 bytes
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("make", [numbered, cropped])
def test_resident_batches_equal_those_of_a_dataloader(
    make, ranks, shuffle, bytes_at_once, monkeypatch
):
    monkeypatch.setattr(loaders, "BYTES_AT_ONCE", bytes_at_once)
    mixing = MixUp(num_classes=20)
    for kwargs in ({}, {"mixing": mixing}):
        for rank in range(ranks):
            both = [
                make_loader(
                    make(20, **kwargs), 6, shuffle=shuffle, rank=rank, ranks=ranks, device=d
                )
                for d in (None, torch.device("cpu"))
            ]
            assert isinstance(both[1], ResidentLoader)
            assert len(both[0]) == len(both[1])
            plain, resident = (epoch_of(loader, 3) for loader in both)
            for (x, y), (resident_x, resident_y) in zip(plain, resident, strict=True):
                assert torch.equal(x, resident_x)
                assert torch.equal(y, resident_y)


@pytest.mark.parametrize(
    ("bytes_at_once", "gathered"), [(1, [4, 4, 4]), (128, [8, 4]), (2**20, [12])]
)
def test_several_small_resident_batches_are_gathered_together(bytes_at_once, gathered, monkeypatch):
    monkeypatch.setattr(loaders, "BYTES_AT_ONCE", bytes_at_once)
    dataset, at_once = cropped(12), []
    augment = dataset.transform.__class__.__call__
    monkeypatch.setattr(
        dataset.transform.__class__,
        "__call__",
        lambda self, x, rng: at_once.append(len(x)) or augment(self, x, rng),
    )
    batches = epoch_of(make_loader(dataset, 4, shuffle=True, device=torch.device("cpu")))
    assert [len(y) for _, y in batches] == [4, 4, 4]
    assert at_once == gathered


def test_resident_batches_contain_the_cached_values():
    rows = torch.arange(2 * 12).view(2, 12)
    views = Views(2, 0, lambda view, indices: {"row": rows[view, indices]})
    loader = make_loader(cropped(12, views=views), 4, shuffle=True, device=torch.device("cpu"))
    for _, y, cached in epoch_of(loader, 3):
        assert torch.equal(cached["row"], 12 + y)  # labels are the sample indices


def test_a_rank_without_samples_has_no_batches():
    for device in (None, torch.device("cpu")):
        loader = make_loader(numbered(1), 4, shuffle=False, rank=1, ranks=2, device=device)
        assert len(loader) == len(list(loader)) == 0


def test_samples_are_copied_to_the_device_and_the_original_stays():
    dataset = cropped(12)
    loader = make_loader(dataset, 4, shuffle=True, device=torch.device("meta"))
    assert loader.dataset.samples.x.is_meta
    assert not dataset.samples.x.is_meta
