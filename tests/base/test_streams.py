import pytest
import torch

from kd_lightning.base.streams import seed_stream, stream, stream_seed


def test_seed_is_the_same_in_every_process_and_release():
    # On DDP's ranks it must not differ, as Python's own hash() of text does; and a seed that
    # changed with a release would silently change every published number.
    assert stream_seed(3, "weights", "a") == 6630574808719520897
    assert stream_seed(0, "order", 0) == 2094333682667709378


def test_seed_depends_on_every_part_of_the_name_on_their_order_and_type():
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


def test_stream_starts_anew_each_time_and_leaves_global_randomness_alone():
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
def test_seeding_puts_the_global_generator_where_the_stream_starts():
    seed_stream(0, "augmentation", 1, 2)
    assert torch.equal(torch.rand(5), torch.rand(5, generator=stream(0, "augmentation", 1, 2)))
