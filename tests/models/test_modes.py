"""The mode of batch norm during an inner loop."""

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models.modes import in_mode


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def batch() -> Tensor:
    return torch.randn(32, 4, generator=torch.Generator().manual_seed(1)) * 3 + 1


def statistics(net: nn.Sequential) -> list[Tensor]:
    return [buffer.clone() for buffer in net.buffers()]


@pytest.mark.parametrize(("mode", "moves"), [("eval", False), ("batch", False), ("train", True)])
def test_running_statistics_move_in_train_mode_alone(mode: str, moves: bool) -> None:
    net = make().train()
    before = statistics(net)
    with in_mode(net, mode):
        net(batch())
    same = [torch.equal(a, b) for a, b in zip(before, statistics(net), strict=True)]
    assert same == [not moves] * 3


def test_batch_mode_normalises_by_the_batch_and_drops_nothing() -> None:
    net = make().train()
    with in_mode(net, "batch"):
        found = net[:3](batch())
    torch.testing.assert_close(found.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert (found != 0).all()


def test_eval_mode_uses_the_running_statistics() -> None:
    net = make().train()
    with in_mode(net, "eval"):
        found = net(batch())
    assert torch.equal(found, net.eval()(batch()))


@pytest.mark.parametrize("mode", ["eval", "train", "batch"])
def test_afterwards_every_module_is_as_it_was(mode: str) -> None:
    net = make().train()
    net[1].eval()
    with pytest.raises(RuntimeError), in_mode(net, mode):
        net(batch()[:, :3])
    assert [module.training for module in net] == [True, False, True, True]
    assert net[1].track_running_stats


def test_another_mode_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="eval, train or batch, got trian"),
        in_mode(make(), "trian"),
    ):
        pass
