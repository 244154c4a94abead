from torch import nn, zeros_like

from kd_lightning.base.weights_hash import sha256_of


def test_a_hash_follows_every_weight_buffer_and_name() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    first = sha256_of(net)
    assert len(first) == 16
    assert sha256_of(net.requires_grad_(False).eval()) == first
    assert sha256_of(nn.ModuleList(net)) == first
    assert sha256_of(nn.ModuleDict({"a": net[0], "b": net[1]})) != first
    net[1].running_mean.add_(1)
    second = sha256_of(net)
    net[0].bias.copy_(zeros_like(net[0].bias))
    assert len({first, second, sha256_of(net)}) == 3
