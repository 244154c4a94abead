"""K passes of a net with its dropout on and everything else in eval mode.

Dimensions: K passes, B batch, D features. Masks come from the default generator: seed it first.
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

ROWS_ON_CPU = 128  # what an FCN makes of more is too much for the caches: 1024 take twice the time
ROWS = 1024


def active_dropouts(net: nn.Module) -> list[nn.Module]:
    """The dropout modules of ``net`` that can drop anything. Stochastic depth does not count."""
    return [m for m in net.modules() if isinstance(m, _DropoutNd) and m.p > 0]


def require_dropout(net: nn.Module) -> None:
    """Raises ``UserError`` where K passes of ``net`` could not differ."""
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
    """Dropout drops, batch norm and all else stay as they are."""
    switched = [module for module in active_dropouts(net) if not module.training]
    for module in switched:
        module.training = True
    try:
        yield
    finally:
        for module in switched:
            module.training = False


def is_split_at_its_head(net: Classifier) -> bool:
    """Whether all that is random in ``net`` comes after its features."""
    return not active_dropouts(net.trunk)


@torch.no_grad()
def dropped(
    net: Classifier, features: Float[Tensor, "B D"], num_passes: int
) -> Float[Tensor, "K B D"]:
    """Features under ``num_passes`` masks of the dropout before the classifier."""
    return F.dropout(features.expand(num_passes, *features.shape), net.dropout.p, training=True)


@torch.no_grad()
def sample_features(
    net: Classifier, x: Tensor, num_passes: int, max_rows: int | None = None
) -> Float[Tensor, "K B D"]:
    """The classifier's input after dropout, for ``num_passes`` dropout masks.

    What comes before the first active dropout is computed once: exactly so where dropout stands
    before the classifier alone. With dropout in the blocks the trunk sees K x B rows, at most
    ``max_rows`` of them at a time; None: as many as the device is fast with.
    """
    if is_split_at_its_head(net):
        return dropped(net, net.features(x), num_passes)
    prepared = net.prepare(x)
    if max_rows is None:
        max_rows = ROWS_ON_CPU if x.device.type == "cpu" else ROWS
    at_once = max(1, max_rows // len(x))
    chunks = []
    with dropout_on(net):
        for start in range(0, num_passes, at_once):
            passes = min(at_once, num_passes - start)
            rows = prepared.repeat(passes, *[1] * (prepared.ndim - 1))
            chunks.append(net.dropout(net.trunk(rows)).unflatten(0, (passes, len(x))))
    return torch.cat(chunks)


@torch.no_grad()
def sample_logits(net: Classifier, x: Tensor, num_passes: int) -> Float[Tensor, "K B C"]:
    """The classifier's answers for ``num_passes`` dropout masks."""
    return net.head(sample_features(net, x, num_passes))
