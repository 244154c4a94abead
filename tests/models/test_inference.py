"""The fast copy of a net has the outputs of the net, in the precision that was requested."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.base.precision import best_dtype
from kd_lightning.models import inference as module
from kd_lightning.models.cifar import resnet
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.inference import (
    TOLERANCE,
    PrecisionWrapper,
    checked_fast_copy,
    fast_copy,
    no_autocast,
    relative_rms_error,
    to_channels_last,
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
def test_the_copy_has_the_outputs_of_the_net_up_to_rounding(
    dtype: torch.dtype, channels_last: bool
) -> None:
    net, x = image_net(), images()
    copied = fast_copy(net, x, dtype=dtype, channels_last=channels_last)
    with torch.no_grad():
        plain, fast = net(x), copied(x)
    error = relative_rms_error(fast.logits, plain.logits)
    assert error < TOLERANCE[dtype] / 3
    assert error > 0 or dtype == torch.float32  # it computes in that precision
    assert fast.logits.dtype == fast.features.dtype == torch.float32
    assert relative_rms_error(fast.features, plain.features) < TOLERANCE[dtype]


def test_nets_for_series_have_a_fast_copy_too() -> None:
    torch.manual_seed(0)
    net = fcn(widths=[8, 16, 8], kernels=[8, 5, 3], num_classes=5, in_chans=2).eval()
    x = torch.randn(4, 2, 30)
    copied = fast_copy(net, x, dtype=torch.bfloat16)
    assert relative_rms_error(copied(x).logits, net(x).logits) < TOLERANCE[torch.bfloat16]


def test_the_net_itself_does_not_change() -> None:
    net, x = image_net(), images()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    names = [name for name, _ in net.named_modules()]
    fast_copy(net, x, dtype=torch.bfloat16)
    assert [name for name, _ in net.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.head.weight.dtype == torch.float32


def test_the_copy_has_no_batch_norms_and_low_precision_and_channels_last() -> None:
    copied = fast_copy(image_net(), images(), dtype=torch.bfloat16)
    assert not [m for m in copied.modules() if isinstance(m, _BatchNorm)]
    convs = [m for m in copied.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.weight.dtype for conv in convs} == {torch.bfloat16}
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convs)
    assert copied.head.module.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in copied.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_around_the_copy_has_no_effect(dtype: torch.dtype) -> None:
    net, x = image_net(dropout=0.5), images()
    copied = fast_copy(net, x, dtype=dtype)
    plain = copied(x).logits
    torch.manual_seed(1)
    samples = sample_logits(copied, x, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(copied(x).logits, plain)
        torch.manual_seed(1)
        assert torch.equal(sample_logits(copied, x, 3), samples)


@pytest.mark.parametrize("rates", [{"dropout": 0.5}, {"block_dropout": 0.2, "dropout": 0.2}])
def test_dropout_passes_of_the_copy_are_those_of_the_net(rates: dict[str, float]) -> None:
    net, x = image_net(**rates), images()
    copied = fast_copy(net, x, channels_last=False)  # masks are drawn in memory order
    found = []
    for sampled in (net, copied):
        torch.manual_seed(1)
        found.append(sample_features(sampled, x, 4))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    assert not torch.equal(found[0][0], found[0][1])


def test_a_function_that_uses_no_autocast_compiles_as_one_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linear, x = nn.Linear(4, 3), torch.rand(2, 4)
    # the compiler of torch 2.11 cannot follow this function, that of later versions can
    ask = torch.compiler.disable(torch.amp.is_autocast_available)
    monkeypatch.setattr(torch.amp, "is_autocast_available", ask)

    def run(x: Tensor) -> Tensor:
        with no_autocast(x.device):
            return linear(x)

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = linear(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert linear(x).dtype == torch.bfloat16
            assert torch.equal(run(x), expected)
            assert torch.equal(compiled(x), expected)
    torch._dynamo.reset()


def test_the_error_is_relative_and_ignores_a_common_shift() -> None:
    plain = torch.tensor([[1.0, -1.0], [3.0, -3.0]])  # mean square sqrt(5)
    assert relative_rms_error(plain, plain) == 0
    assert relative_rms_error(plain + 7, plain) == pytest.approx(0, abs=1e-12)
    assert relative_rms_error(plain + torch.tensor([0.1, -0.1]), plain) == pytest.approx(
        0.1 / 5**0.5
    )
    assert relative_rms_error(2 * plain, plain) == pytest.approx(1)


@pytest.mark.parametrize("precision", ["32", "16", "bf16"])
def test_the_copy_has_the_requested_precision(precision: str) -> None:
    copied = checked_fast_copy(image_net(), images(), precision=precision)
    assert isinstance(copied.trunk, PrecisionWrapper)
    assert copied.trunk.dtype == module.DTYPES[precision]


@pytest.mark.parametrize("fast", [True, False])
def test_best_is_the_precision_that_the_machine_is_fast_at(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: fast)
    best = torch.bfloat16 if fast else torch.float32
    assert best_dtype(torch.device("cpu")) == best
    assert checked_fast_copy(image_net(), images(), precision="best").trunk.dtype == best
    assert best_dtype(torch.device("mps")) == torch.float32


class Overflowing(nn.Module):
    """Correct in float32, and out of the range of half precision."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x.flatten(1)[:, :4] * 1e6).square() + 1e9).sqrt() / 1e6


def test_a_net_with_wrong_outputs_in_low_precision_is_not_copied_and_a_warning_says_so() -> None:
    net = Classifier(prepare=Prepare(), trunk=Overflowing(), head=nn.Linear(4, 3), dropout=0.0)
    x = torch.rand(5, 1, 4, 4)
    with pytest.warns(
        UserWarning, match=r"used without a fast copy: the logits .*teacher_precision=32"
    ):
        assert checked_fast_copy(net.eval(), x, precision="16") is net
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked_fast_copy(net, x, precision="32") is not net


class NeedsChannelsFirst(nn.Module):
    """Uses a view that is possible only with channels first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(len(x), -1)[:, :4]


class NeedsFloat32(nn.Module):
    """Converts its input to float32, whatever the type of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1).float())


@pytest.mark.parametrize(
    ("trunk", "settings"),
    [(NeedsChannelsFirst(), {"precision": "32"}), (NeedsFloat32(), {"precision": "bf16"})],
)
def test_a_net_that_cannot_be_converted_is_not_copied(trunk: nn.Module, settings: dict) -> None:
    net = Classifier(prepare=Prepare(), trunk=trunk, head=nn.Linear(4, 3), dropout=0.0).eval()
    with pytest.warns(UserWarning, match=r"the fast copy failed \(RuntimeError: "):
        assert checked_fast_copy(net, torch.rand(5, 3, 4, 4), **settings) is net


def test_a_large_batch_is_compared_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    net, sizes = image_net(), []
    net.register_forward_pre_hook(lambda module, x: sizes.append(len(x[0])))
    checked_fast_copy(net, images(100))
    assert max(sizes) == 32


def test_only_weights_of_two_dimensional_convolutions_change_their_layout() -> None:
    net = nn.Sequential(nn.Conv3d(2, 3, 2), nn.Conv2d(3, 4, 3), nn.Conv1d(2, 3, 2))
    to_channels_last(net)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_net_that_is_no_classifier_is_not_copied() -> None:
    net = nn.Linear(4, 3).eval()
    assert checked_fast_copy(net, torch.rand(5, 4)) is net


@pytest.mark.slow
def test_a_compiled_copy_has_the_outputs_of_the_net() -> None:
    net, x = image_net(dropout=0.5), images()
    copied = fast_copy(net, x, compiled=True)
    assert relative_rms_error(copied(x).logits, net(x).logits) < TOLERANCE[torch.float32]
    torch._dynamo.reset()
    torch.manual_seed(1)
    samples = sample_features(copied, x, 4)
    assert not torch.equal(samples[0], samples[1])


@pytest.mark.slow
def test_a_compiled_copy_is_for_one_batch_size_and_does_not_compile_others(traced: None) -> None:
    net, x = image_net(), images(16)
    copied = fast_copy(net, x, compiled=True)
    with torch.no_grad():
        copied(x)
    with torch.no_grad(), torch.compiler.set_stance("fail_on_recompile"):
        for size in range(15, 0, -1):  # torch would give up after eight
            assert (
                relative_rms_error(copied(x[:size]).logits, net(x[:size]).logits)
                < TOLERANCE[torch.float32]
            )
