"""The mix of a teacher's two clean answers, as logits."""

import pytest
import torch

from kd_lightning.losses.mixed_targets import mixed_logits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_softened_prediction_is_the_mix_of_two(temperature: float) -> None:
    logits = 3 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    partner, share = torch.tensor([4, 0, 1, 2, 3]), torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0])
    p = (logits.double() / temperature).softmax(1)
    expected = (1 - share.double())[:, None] * p + share.double()[:, None] * p[partner]
    found = mixed_logits(logits, partner, share, temperature)
    torch.testing.assert_close((found / temperature).softmax(1), expected.float())


def test_without_a_partner_the_logits_differ_by_a_constant() -> None:
    logits = torch.randn(4, 3)
    difference = mixed_logits(logits, torch.arange(4), torch.zeros(4), 4.0) - logits
    torch.testing.assert_close(difference, difference[:, :1].expand(4, 3))


def test_finite_at_extreme_logits_and_in_float32() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=torch.bfloat16)
    found = mixed_logits(logits, torch.tensor([1, 0]), torch.tensor([0.0, 0.5]), 1.0)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    torch.testing.assert_close(found[1].softmax(0), torch.tensor([0.5, 0.5, 0.0]))


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be > 0"):
        mixed_logits(torch.zeros(1, 2), torch.tensor([0]), torch.zeros(1), 0.0)
