"""The average of several nets' weights, and the batch-norm statistics that it needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.base.errors import UserError

State = Mapping[str, Tensor]


def are_alike(states: Sequence[State]) -> bool:
    """Whether all have the same names with the same shapes, so that their mean is a net again."""
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    return all(shape == shapes[0] for shape in shapes)


def check_alike(students: Mapping[str, nn.Module]) -> None:
    """Raises ``UserError`` where there are no several nets of one architecture."""
    if len(students) < 2 or not are_alike([net.state_dict() for net in students.values()]):
        raise UserError(
            f"evaluation.soups=true averages students of the same net, got "
            f"{', '.join(students)}, {'which differ' if len(students) > 1 else 'alone'}: set "
            "evaluation.soups=false, or choose the same net for each (model@method.students.…=…)"
        )


def mean_state(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of every tensor; of whole numbers, such as batch norm's count, those of the first.

    In float64, so that the mean of equal weights is these weights to the last bit.
    """
    mean = {}
    for name, first in states[0].items():
        mean[name] = first.clone()
        if first.is_floating_point():
            together = torch.stack([state[name].double() for state in states])
            mean[name].copy_(together.mean(0))
    return mean


@torch.no_grad()
def refresh_batch_norm(
    nets: Iterable[nn.Module],
    batches: Iterable[Sequence[Tensor]],
    *,
    device: torch.device | str = "cpu",
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> None:
    """Computes the batch-norm statistics of averaged weights anew, in one pass over ``batches``.

    The mean of several nets' statistics is not what the mean of their weights sees (Izmailov et
    al. 2018, arXiv 1803.05407, section 3). Each batch counts the same; all but batch norm is in
    eval mode, so there is no dropout, as when the net is used. ``torch.optim.swa_utils.update_bn``
    has dropout on, and takes nets that answer with a tensor. Without batch norm no batch is read.

    Args:
        batches: (x, y, …), as they are trained on: with augmentation and mixing, where the recipe
            has them, for the statistics of every other net are of these too.
        precision: makes the context that the nets run in, such as autocast.
    """
    norms = {net: [m for m in net.modules() if isinstance(m, _BatchNorm)] for net in nets}
    norms = {net: [m for m in found if m.track_running_stats] for net, found in norms.items()}
    norms = {net: found for net, found in norms.items() if found}
    if not norms:
        return
    modes = {module: module.training for net in norms for module in net.modules()}
    momenta = {norm: norm.momentum for found in norms.values() for norm in found}
    for net in norms:
        net.eval()
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over the batches
        norm.train()
    for x, *_ in batches:
        x = x.to(device)
        for net in norms:
            with precision():
                net(x)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
