"""The fast twin of a frozen net answers as it does, in the precision that was asked for."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.models import frozen as module
from kd_lightning.models.cifar import resnet
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.frozen import (
    TOLERANCE,
    Converted,
    best_dtype,
    deviation,
    freeze,
    frozen,
    lay_out,
)
from kd_lightning.models.stochastic import sample_features, sample_logits
from kd_lightning.models.time_series import fcn

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def image_net(block_dropout: float = 0.0, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    net = resnet(depth=8, widths=[8, 8, 16, 32], num_classes=5, in_chans=3, dropout=dropout,
                 block_dropout=block_dropout, mean=[0.5] * 3, std=[0.25] * 3)  # fmt: skip
    for norm in [m for m in net.modules() if isinstance(m, _BatchNorm)]:
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2.0)
    return net.eval()


def images(count: int = 6) -> Tensor:
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_twin_answers_as_its_net_to_rounding(dtype: torch.dtype, channels_last: bool) -> None:
    net, x = image_net(), images()
    twin = frozen(net, x, dtype=dtype, channels_last=channels_last)
    with torch.no_grad():
        plain, fast = net(x), twin(x)
    off = deviation(fast.logits, plain.logits)
    assert off < TOLERANCE[dtype] / 3
    assert off > 0 or dtype == torch.float32  # it does compute in that precision
    assert fast.logits.dtype == fast.features.dtype == torch.float32
    assert deviation(fast.features, plain.features) < TOLERANCE[dtype]


def test_series_too() -> None:
    torch.manual_seed(0)
    net = fcn(widths=[8, 16, 8], kernels=[8, 5, 3], num_classes=5, in_chans=2).eval()
    x = torch.randn(4, 2, 30)
    twin = frozen(net, x, dtype=torch.bfloat16)
    assert deviation(twin(x).logits, net(x).logits) < TOLERANCE[torch.bfloat16]


def test_the_net_itself_stays_as_it_is() -> None:
    net, x = image_net(), images()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    names = [name for name, _ in net.named_modules()]
    frozen(net, x, dtype=torch.bfloat16)
    assert [name for name, _ in net.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.head.weight.dtype == torch.float32


def test_batch_norms_are_gone_weights_are_low_and_channels_last() -> None:
    twin = frozen(image_net(), images(), dtype=torch.bfloat16)
    assert not [m for m in twin.modules() if isinstance(m, _BatchNorm)]
    convs = [m for m in twin.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.weight.dtype for conv in convs} == {torch.bfloat16}
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convs)
    assert twin.head.module.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in twin.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_around_it_changes_nothing(dtype: torch.dtype) -> None:
    net, x = image_net(dropout=0.5), images()
    twin = frozen(net, x, dtype=dtype)
    plain = twin(x).logits
    torch.manual_seed(1)
    samples = sample_logits(twin, x, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(twin(x).logits, plain)
        torch.manual_seed(1)
        assert torch.equal(sample_logits(twin, x, 3), samples)


@pytest.mark.parametrize("rates", [{"dropout": 0.5}, {"block_dropout": 0.2, "dropout": 0.2}])
def test_dropout_passes_of_the_twin_are_those_of_its_net(rates: dict[str, float]) -> None:
    net, x = image_net(**rates), images()
    twin = frozen(net, x, channels_last=False)  # masks are drawn in the order of the memory
    found = []
    for one in (net, twin):
        torch.manual_seed(1)
        found.append(sample_features(one, x, 4))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    assert not torch.equal(found[0][0], found[0][1])


def test_deviation_is_in_units_of_the_spread_and_knows_no_common_shift() -> None:
    plain = torch.tensor([[1.0, -1.0], [3.0, -3.0]])  # mean square sqrt(5)
    assert deviation(plain, plain) == 0
    assert deviation(plain + 7, plain) == pytest.approx(0, abs=1e-12)
    assert deviation(plain + torch.tensor([0.1, -0.1]), plain) == pytest.approx(0.1 / 5**0.5)
    assert deviation(2 * plain, plain) == pytest.approx(1)


@pytest.mark.parametrize("precision", ["32", "16", "bf16"])
def test_freeze_makes_the_twin_that_was_asked_for(precision: str) -> None:
    twin = freeze(image_net(), images(), precision=precision)
    assert isinstance(twin.trunk, Converted)
    assert twin.trunk.dtype == module.DTYPES[precision]


@pytest.mark.parametrize("fast", [True, False])
def test_best_is_what_the_machine_is_fast_at(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: fast)
    best = torch.bfloat16 if fast else torch.float32
    assert best_dtype(torch.device("cpu")) == best
    assert freeze(image_net(), images(), precision="best").trunk.dtype == best
    assert best_dtype(torch.device("mps")) == torch.float32


class Overflowing(nn.Module):
    """Fine in float32, and beyond what half precision can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x.flatten(1)[:, :4] * 1e6).square() + 1e9).sqrt() / 1e6


def test_a_net_that_does_not_bear_it_is_used_as_it_is_and_one_is_told() -> None:
    net = Classifier(prepare=Prepare(), trunk=Overflowing(), head=nn.Linear(4, 3), dropout=0.0)
    x = torch.rand(5, 1, 4, 4)
    with pytest.warns(UserWarning, match=r"the teacher is used as it is: .*teacher_precision=32"):
        assert freeze(net.eval(), x, precision="16") is net
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert freeze(net, x, precision="32") is not net


class Viewing(nn.Module):
    """Takes for granted that channels lie first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(len(x), -1)[:, :4]


class Stubborn(nn.Module):
    """Computes in float32, whatever its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1).float())


@pytest.mark.parametrize(
    ("trunk", "settings"),
    [(Viewing(), {"precision": "32"}), (Stubborn(), {"precision": "bf16"})],
)
def test_a_net_that_cannot_be_converted_is_used_as_it_is(trunk: nn.Module, settings: dict) -> None:
    net = Classifier(prepare=Prepare(), trunk=trunk, head=nn.Linear(4, 3), dropout=0.0).eval()
    with pytest.warns(UserWarning, match=r"it could not be made faster \(RuntimeError: "):
        assert freeze(net, torch.rand(5, 3, 4, 4), **settings) is net


def test_a_large_batch_is_not_looked_at_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = image_net(), []
    net.register_forward_pre_hook(lambda module, x: seen.append(len(x[0])))
    freeze(net, images(100))
    assert max(seen) == 32


def test_weights_that_are_not_of_images_stay_as_they_lie() -> None:
    net = nn.Sequential(nn.Conv3d(2, 3, 2), nn.Conv2d(3, 4, 3), nn.Conv1d(2, 3, 2))
    lay_out(net)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_net_of_another_shape_is_used_as_it_is() -> None:
    net = nn.Linear(4, 3).eval()
    assert freeze(net, torch.rand(5, 4)) is net


@pytest.mark.slow
def test_compiled_too() -> None:
    net, x = image_net(dropout=0.5), images()
    twin = frozen(net, x, compiled=True)
    assert deviation(twin(x).logits, net(x).logits) < TOLERANCE[torch.float32]
    torch._dynamo.reset()
    torch.manual_seed(1)
    samples = sample_features(twin, x, 4)
    assert not torch.equal(samples[0], samples[1])


@pytest.mark.slow
def test_a_compiled_twin_is_for_one_size_and_computes_others_as_they_are() -> None:
    net, x = image_net(), images(16)
    twin = frozen(net, x, compiled=True)
    with torch.no_grad():
        twin(x)
    with torch.no_grad(), torch.compiler.set_stance("fail_on_recompile"):
        for size in range(15, 0, -1):  # torch would give up after eight
            assert deviation(twin(x[:size]).logits, net(x[:size]).logits) < TOLERANCE[torch.float32]
