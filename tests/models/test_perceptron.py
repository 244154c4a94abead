import torch
from torch import nn

from kd_lightning.models.perceptron import mlp


def test_images_and_series_are_flattened() -> None:
    for shape in ((3, 4, 4), (3, 16)):
        net = mlp(num_inputs=48, widths=[10, 6], num_classes=5, in_chans=3)
        logits, features = net(torch.rand(2, *shape))
        assert logits.shape == (2, 5)
        assert features.shape == (2, 6)
        assert torch.equal(logits, net.head(features))


def test_value_by_hand() -> None:
    net = mlp(num_inputs=2, widths=[2], num_classes=1, in_chans=1)
    with torch.no_grad():
        net.trunk[1].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        net.trunk[1].bias.zero_()
        net.head.weight.copy_(torch.tensor([[2.0, 5.0]]))
        net.head.bias.fill_(0.5)
    # relu makes the second unit 0: 2 * (1 + 2) + 0.5
    assert net(torch.tensor([[[1.0, 2.0]]])).logits.item() == 6.5


def test_block_dropout_is_after_every_hidden_layer() -> None:
    net = mlp(num_inputs=8, widths=[4, 4, 4], num_classes=2, in_chans=1, block_dropout=0.25)
    assert [m.p for m in net.trunk if isinstance(m, nn.Dropout)] == [0.25] * 3
