"""K passes with dropout on and everything else in eval mode."""

import pytest
import torch
from helpers import net
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.stochastic import dropout_on, require_dropout, sample_features


class Counted(nn.Module):
    """Records the number of rows of each forward pass."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return self.inner(x)


def deep(*, dropout: float = 0.0) -> Classifier:
    """A net with dropout and batch norm in the trunk."""
    trunk = nn.Sequential(
        nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 6)
    )
    return Classifier(trunk=trunk, head=nn.Linear(6, 3), dropout=dropout).eval()


def test_the_trunk_runs_once_if_the_only_dropout_is_before_the_classifier() -> None:
    model = net(dropout=0.5).eval()
    model.trunk = Counted(model.trunk)
    x = torch.randn(4, 12)
    samples = sample_features(model, x, 30)
    assert model.trunk.rows == [4]
    assert samples.shape == (30, 4, 8)
    kept = samples != 0
    torch.testing.assert_close(samples[kept], (model.features(x) * 2).expand_as(samples)[kept])
    assert 0.4 < kept.float().mean() < 0.6


def test_a_trunk_with_dropout_runs_k_times_in_chunks() -> None:
    model = deep()
    model.trunk = Counted(model.trunk)
    samples = sample_features(model, torch.randn(4, 12), 10, max_rows=12)
    assert model.trunk.rows == [12, 12, 12, 4]
    assert samples.shape == (10, 4, 6)
    assert not torch.equal(samples[0], samples[1])


def test_by_default_chunks_have_the_size_that_suits_the_cpu() -> None:
    model = deep()
    model.trunk = Counted(model.trunk)
    sample_features(model, torch.randn(50, 12), 5)
    assert model.trunk.rows == [100, 100, 50]


def test_mean_of_many_passes_is_the_deterministic_feature() -> None:
    model = deep()
    model.trunk[3] = nn.Identity()  # linear after dropout, so the mean has no bias
    x = torch.randn(4, 12)
    torch.manual_seed(0)
    mean = sample_features(model, x, 20_000, max_rows=100_000).mean(0)
    torch.testing.assert_close(mean, model.features(x), atol=0.03, rtol=0.03)


def test_only_dropout_is_switched_on_and_only_inside() -> None:
    model = deep(dropout=0.2)
    with dropout_on(model):
        on = {name for name, module in model.named_modules() if module.training}
    assert on == {"trunk.2", "dropout"}
    assert not any(module.training for module in model.modules())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sample_features(model, torch.randn(4, 12), 5)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_samples_follow_the_default_generator() -> None:
    x = torch.randn(4, 12)
    for model in (deep(), net(dropout=0.3).eval()):
        draws = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            draws.append(sample_features(model, x, 3))
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])


def test_a_net_without_dropout_raises_an_error() -> None:
    with pytest.raises(UserError, match="no active dropout"):
        require_dropout(net())
    with pytest.raises(UserError, match="Classifier"):
        require_dropout(nn.Linear(2, 2))
