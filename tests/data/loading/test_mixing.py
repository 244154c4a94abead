"""What a mixed batch is made of."""

import pytest
import torch
from helpers import compose
from torchvision.transforms import v2

from kd_lightning.data.loading.mixing import mix, mix_with_sources
from kd_lightning.running.build import build_data


@pytest.mark.parametrize("kind", [v2.MixUp, v2.CutMix])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_batch_is_mixed_as_without_its_sources_bit_for_bit(kind: type, size: int) -> None:
    x, y = torch.rand(size, 2, 8, 8), torch.arange(size) % 3
    torch.manual_seed(0)
    plain = mix(kind(num_classes=3), x, y)
    torch.manual_seed(0)
    mixed_x, mixed_y, made_of = mix_with_sources(kind(), 3, x, y)
    assert torch.equal(mixed_x, plain[0])
    assert torch.equal(mixed_y, plain[1])
    labels = torch.nn.functional.one_hot(y, 3).float()
    share = made_of["share"].unsqueeze(1)
    torch.testing.assert_close(mixed_y, (1 - share) * labels + share * labels[made_of["partner"]])


def test_the_partner_and_its_share_are_those_of_the_samples() -> None:
    x = torch.eye(4).view(4, 1, 2, 2)
    mixed, _, made_of = mix_with_sources(v2.MixUp(), 2, x, torch.tensor([0, 1, 0, 1]))
    share = made_of["share"].view(4, 1, 1, 1)
    torch.testing.assert_close(mixed, (1 - share) * x + share * x[made_of["partner"]])
    assert 0 < made_of["share"].min() <= made_of["share"].max() < 1


def test_series_have_sources_too() -> None:
    x = torch.rand(4, 2, 9)
    mixed, _, made_of = mix_with_sources(v2.MixUp(), 2, x, torch.tensor([0, 1, 0, 1]))
    share = made_of["share"].view(4, 1, 1)
    torch.testing.assert_close(mixed, (1 - share) * x + share * x[made_of["partner"]])


def test_only_training_batches_that_are_asked_for_have_sources() -> None:
    data = build_data(compose("data=synthetic", "mixing@data.mixing=mixup"))
    plain = list(data.loader("train"))
    data.mixing_sources = True
    for (x, y), (same_x, same_y, made_of) in zip(plain, data.loader("train"), strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)
        share = made_of["share"].view(-1, *[1] * (x.ndim - 1))
        partners = made_of["clean"][made_of["partner"]]
        torch.testing.assert_close(x, (1 - share) * made_of["clean"] + share * partners)
    assert len(next(iter(data.loader("val")))) == 2
