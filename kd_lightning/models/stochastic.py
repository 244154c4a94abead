"""K stochastic passes of a net: its dropout is on, everything else is in eval mode.

Dimensions: K passes, B batch, C classes, D features. Dropout masks come from torch's default
generator, so seed it first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier

MAX_ROWS_CPU = (
    128  # an FCN's activations for more exceed the CPU's caches: 1024 take twice the time
)
MAX_ROWS = 1024


def active_dropouts(net: nn.Module) -> list[nn.Module]:
    """The dropout modules of ``net`` with a rate above 0. Stochastic depth does not count."""
    return [m for m in net.modules() if isinstance(m, _DropoutNd) and m.p > 0]


def require_dropout(net: nn.Module) -> None:
    """Raises ``UserError`` for a net whose K passes would all be equal."""
    if not isinstance(net, Classifier):
        raise UserError(
            "a stochastic teacher must be a kd_lightning Classifier (prepare, trunk, dropout, "
            f"head), got {type(net).__name__}"
        )
    if not active_dropouts(net):
        raise UserError(
            "the teacher has no active dropout, so its stochastic passes would all be equal: set "
            "method.teacher.dropout or method.teacher.block_dropout > 0"
        )


@contextmanager
def dropout_on(net: nn.Module) -> Iterator[None]:
    """Inside, the dropout of ``net`` is on. Batch norm and everything else do not change."""
    switched = [module for module in active_dropouts(net) if not module.training]
    for module in switched:
        module.training = True
    try:
        yield
    finally:
        for module in switched:
            module.training = False


def has_deterministic_features(net: Classifier) -> bool:
    """Whether the trunk has no active dropout, so that the features do not vary."""
    return not active_dropouts(net.trunk)


@torch.no_grad()
def drop_features(
    net: Classifier, features: Float[Tensor, "B D"], num_passes: int
) -> Float[Tensor, "K B D"]:
    """Features under ``num_passes`` masks of the dropout before the classifier."""
    return F.dropout(features.expand(num_passes, *features.shape), net.dropout.p, training=True)


@torch.no_grad()
def sample_features(
    net: Classifier, x: Tensor, num_passes: int, max_rows: int | None = None
) -> Float[Tensor, "K B D"]:
    """The input of the classifier after dropout, for ``num_passes`` dropout masks.

    If the only dropout is the one before the classifier, the trunk runs once, and the result is
    exact. Otherwise K x B rows go through the trunk, at most ``max_rows`` at a time; None: the
    number that suits the device.
    """
    if has_deterministic_features(net):
        return drop_features(net, net.features(x), num_passes)
    prepared = net.prepare(x)
    if max_rows is None:
        max_rows = MAX_ROWS_CPU if x.device.type == "cpu" else MAX_ROWS
    passes_at_once = max(1, max_rows // len(x))
    chunks = []
    with dropout_on(net):
        for start in range(0, num_passes, passes_at_once):
            passes = min(passes_at_once, num_passes - start)
            rows = prepared.repeat(passes, *[1] * (prepared.ndim - 1))
            chunks.append(net.dropout(net.trunk(rows)).unflatten(0, (passes, len(x))))
    return torch.cat(chunks)


@torch.no_grad()
def sample_logits(net: Classifier, x: Tensor, num_passes: int) -> Float[Tensor, "K B C"]:
    """The logits for ``num_passes`` dropout masks."""
    return net.head(sample_features(net, x, num_passes))
