import pytest
import torch

from kd_lightning.data.loading.channel_statistics import channel_statistics, rounded_statistics


def test_bytes_are_values_up_to_one() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    mean, std = channel_statistics(x)
    assert mean == [0.5]
    assert abs(std[0] - 0.5**0.5) < 1e-6


@pytest.mark.parametrize("unit", [2e-5, 1e-13])  # an EEG in volts, an MEG in teslas
def test_a_small_unit_is_normalised_as_any_other(unit: float) -> None:
    x = unit * torch.randn(50, 2, 100, generator=torch.Generator().manual_seed(0))
    mean, std = rounded_statistics(*channel_statistics(x))
    normalised = (x - torch.tensor(mean).view(2, 1)) / torch.tensor(std).view(2, 1)
    torch.testing.assert_close(normalised.std((0, 2)), torch.ones(2), atol=1e-4, rtol=0)
    assert normalised.mean((0, 2)).abs().max() < 1e-4


def test_a_constant_channel_is_not_scaled() -> None:
    x = torch.randn(20, 3, 50, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.1
    x[::2, 1] += 1e-8  # the last digit of a float32, as rounding leaves it
    x[:, 2] = 0
    assert channel_statistics(x)[1][1:] == [1, 1]


def test_usual_statistics_have_six_decimals() -> None:
    assert rounded_statistics([0.12345678, -1e-9], [0.03456789, 12.3456789]) == (
        [0.123457, 0],
        [0.034568, 12.345679],
    )
