"""Samples without labels: their order over epochs and ranks, how batches join, what is left out."""

from itertools import pairwise

import pytest
import torch

from kd_lightning.data.loading.batches import Samples, SampleSet
from kd_lightning.data.loading.loaders import CyclingOrder, ResidentLoader, make_loader
from kd_lightning.data.loading.unlabeled import (
    Unlabeled,
    WithUnlabeled,
    joined,
    without_copies,
    without_labels,
)

CPU = torch.device("cpu")

CPU = torch.device("cpu")


def numbered(count, start=0, **kwargs):
    x = torch.arange(start, start + count, dtype=torch.float32).view(-1, 1, 1, 1)
    return SampleSet(Samples(x.expand(-1, 1, 2, 2).clone(), torch.arange(count)),
                     **{"seed": 0, **kwargs})  # fmt: skip


def both(labeled=10, unlabeled=23, sizes=(4, 6), device=None, rank=0, ranks=1, **kwargs):
    """Batches of 4 labeled samples, 0 to 9, and 6 others, 100 to 122."""
    shared = {"shuffle": True, "rank": rank, "ranks": ranks, "device": device}
    return WithUnlabeled(
        make_loader(numbered(labeled, **kwargs), sizes[0], **shared),
        make_loader(numbered(unlabeled, 100, **kwargs), sizes[1], steps=labeled // 4, **shared),
    )


def epoch_of(loader, epoch):
    loader.batch_sampler.sampler.set_epoch(epoch)  # as Lightning does
    return [(x[:, 0, 0, 0].tolist(), y.tolist()) for x, y in loader]


def passes(steps=5, count=23, epochs=4, **order):
    cycling = CyclingOrder(count, 6, steps=steps, seed=0, rank=0, ranks=1, **order)
    found = []
    for epoch in range(epochs):
        cycling.set_epoch(epoch)
        found += [(number, i) for number, i in cycling]
        assert len(list(cycling)) == len(cycling) == steps * 6
    return found


def test_labeled_samples_come_first_and_only_they_have_a_label() -> None:
    batches = epoch_of(both(), 0)
    assert len(batches) == len(both()) == 2
    for x, y in batches:
        assert x[:4] == y
        assert len(x) == 10
        assert all(100 <= value < 123 for value in x[4:])


def test_labeled_batches_are_those_of_a_run_without_unlabeled_samples() -> None:
    alone = make_loader(numbered(10), 4, shuffle=True)
    for epoch in range(3):
        mine = [(x[:4], y) for x, y in epoch_of(both(), epoch)]
        assert mine == epoch_of(alone, epoch)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_pass_shows_no_sample_twice_and_goes_on_in_the_next_epoch(steps: int) -> None:
    found = passes(steps, epochs=20 // steps)
    numbers = [number for number, _ in found]
    assert len(set(found)) == len(found)
    assert numbers == sorted(numbers)
    assert numbers.count(0) == 18  # three whole batches of 23 samples
    orders = [[i for number, i in found if number == n] for n in range(3)]
    assert all(a != b for a, b in pairwise(orders))
    assert found == passes(1, epochs=20)  # however many batches an epoch has


def test_an_epoch_does_not_depend_on_the_epochs_before_it() -> None:
    loader = both()
    for epoch in range(4):
        after_others = epoch_of(loader, epoch)
    assert epoch_of(both(), 3) == after_others


def test_an_epoch_begins_with_the_samples_that_the_one_before_has_not_shown() -> None:
    loader = both()  # two batches of an epoch, three of a pass
    shown = [i for epoch in (0, 1) for x, _ in epoch_of(loader, epoch) for i in x[4:]]
    assert len(set(shown[:18])) == 18


def test_processes_see_disjoint_shares_of_the_batches_of_one() -> None:
    one = epoch_of(both(), 1)
    two = [epoch_of(both(rank=rank, ranks=2), 1) for rank in (0, 1)]
    for (x, y), (x0, y0), (x1, y1) in zip(one, *two, strict=True):
        assert sorted(x0[:2] + x1[:2]) == sorted(x[:4])
        assert sorted(x0[2:] + x1[2:]) == sorted(x[4:])
        assert sorted(y0 + y1) == sorted(y)


def noise(x):
    return x + torch.rand(x.shape)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_on_the_device_are_those_of_loading_processes(workers: int) -> None:
    resident = both(device=CPU)
    plain = both()
    plain.labeled = make_loader(numbered(10), 4, shuffle=True, num_workers=workers)
    plain.batch_sampler = plain.labeled.batch_sampler
    assert isinstance(resident.unlabeled, ResidentLoader)
    for epoch in (0, 2):
        assert epoch_of(resident, epoch) == epoch_of(plain, epoch)


def test_each_pass_augments_anew_and_not_as_the_labeled_samples() -> None:
    unlabeled = Unlabeled(numbered(6).samples, "a", 6, "", noise).sample_set(0)
    loader = make_loader(unlabeled, 6, shuffle=True, steps=2)
    (first, _), (second, _) = loader
    assert sorted(first[:, 0, 0, 0].int().tolist()) == list(range(6))
    assert not torch.equal(first[first[:, 0, 0, 0].sort().indices] % 1,
                           second[second[:, 0, 0, 0].sort().indices] % 1)  # fmt: skip
    labeled = numbered(6, transform=noise)
    x, _ = labeled.__getitems__([(0, 3)])
    more, _ = unlabeled.__getitems__([(0, 3)])
    assert not torch.equal(x, more)


def test_each_part_is_moved_before_they_are_joined() -> None:
    moved = []

    class Pinned(torch.Tensor):
        def to(self, device, **options):
            moved.append((device, options))
            return torch.empty(self.shape, device=device)

    parts = (torch.zeros(2, 3).as_subclass(Pinned), torch.zeros(1, 3).as_subclass(Pinned))
    both = joined(*parts, torch.device("meta"))
    assert (both.device.type, tuple(both.shape)) == ("meta", (3, 3))
    assert moved == [(torch.device("meta"), {"non_blocking": True})] * 2


def test_bytes_beside_mixed_images_become_numbers() -> None:
    x = joined(torch.tensor([[0.5]]), torch.tensor([[255]], dtype=torch.uint8), CPU)
    torch.testing.assert_close(x, torch.tensor([[0.5], [1.0]]))
    same = joined(*torch.tensor([[[3]], [[255]]], dtype=torch.uint8), CPU)
    assert same.tolist() == [[3], [255]]


def test_labels_are_gone() -> None:
    assert without_labels(numbered(3).samples).y.tolist() == [-1, -1, -1]


def test_what_is_in_val_or_test_is_left_out() -> None:
    samples, val, test = (numbered(n, s).samples for n, s in ((10, 0), (2, 3), (3, 8)))
    kept = without_copies(samples, val, test)
    assert kept.x[:, 0, 0, 0].tolist() == [0, 1, 2, 5, 6, 7]
    assert without_copies(samples, None, numbered(2, 50).samples) is samples
    other_size = Samples(torch.zeros(2, 1, 3, 3), torch.zeros(2))
    assert without_copies(samples, None, other_size) is samples


def test_copies_are_found_beside_numbers_of_another_type() -> None:
    """Fixed bug: bytes were never copies of the same image in [0, 1]."""
    every_byte = torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4)
    as_numbers = torch.from_numpy((every_byte.numpy() / 255).astype("float32"))
    images, numbers = (Samples(x, torch.zeros(16)) for x in (every_byte, as_numbers))
    assert len(without_copies(images, None, numbers)) == 0
    assert without_copies(numbers, None, images.subset(torch.arange(3))).x.equal(as_numbers[3:])


def test_copies_of_files_are_left_out(tmp_path) -> None:
    for name, text in {"a": "one", "b": "two", "c": "six", "test": "two"}.items():
        (tmp_path / name).write_text(text)
    samples = Samples([tmp_path / name for name in "abc"], torch.zeros(3))
    test = Samples([tmp_path / "test"], torch.zeros(1))
    assert [path.name for path in without_copies(samples, None, test).x] == ["a", "c"]
    assert without_copies(samples, None, numbered(2).samples) is None
