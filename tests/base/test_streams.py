from contextlib import contextmanager

import pytest
import torch

from kd_lightning.base.streams import seed_stream, stream, stream_seed


def test_seed_is_the_same_in_every_process_and_release():
    # Python's own hash() of text differs between processes, so also between the ranks of DDP. A
    # seed that changed with a release would silently change all published numbers.
    assert stream_seed(3, "weights", "a") == 6630574808719520897
    assert stream_seed(0, "order", 0) == 2094333682667709378


def test_seed_depends_on_each_part_of_the_name_its_place_and_its_type():
    names = [
        (0,), (1,), ("0",), (0, "order"), (0, "augmentation"), ("order", 0),
        (0, "order", 0), (0, "order", 1), (0, "order0"), (0, 1, 2), (0, 12), (0, 2, 1),
    ]  # fmt: skip
    assert len({stream_seed(*name) for name in names}) == len(names)


def test_seed_fits_a_generator():
    seeds = [stream_seed(i) for i in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    torch.manual_seed(max(seeds))


def test_each_stream_starts_anew_and_the_global_generator_is_unchanged():
    before = torch.get_rng_state()
    first, second = stream(0, "split"), stream(0, "split")
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_of_different_names_differ():
    draws = [torch.rand(5, generator=stream(0, "order", epoch)) for epoch in range(3)]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


@pytest.fixture
def global_state():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.usefixtures("global_state")
def test_seeding_sets_the_global_generator_to_the_start_of_the_stream():
    seed_stream(0, "augmentation", 1, 2)
    assert torch.equal(torch.rand(5), torch.rand(5, generator=stream(0, "augmentation", 1, 2)))


def test_seeding_seeds_the_gpu_that_is_named_and_not_the_current_one(monkeypatch):
    seeded, current = [], [0]

    @contextmanager
    def use(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", use)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((current[-1], seed)))
    seed_stream("a", 1, device=torch.device("cuda", 1))
    assert seeded == [(1, stream_seed("a", 1))]
