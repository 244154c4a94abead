"""Means of nets' weights, and the batch-norm statistics of the averaged net."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.base.errors import UserError

State = Mapping[str, Tensor]


def are_alike(states: Sequence[State]) -> bool:
    """Whether all state dicts have the same names and shapes, so that their mean fits the net."""
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    return all(shape == shapes[0] for shape in shapes)


def check_alike(students: Mapping[str, nn.Module]) -> None:
    """Raises ``UserError`` unless there are two students or more, all of one architecture."""
    if len(students) < 2 or not are_alike([net.state_dict() for net in students.values()]):
        raise UserError(
            f"evaluation.soups=true averages students of the same net, got "
            f"{', '.join(students)}, {'which differ' if len(students) > 1 else 'alone'}: set "
            "evaluation.soups=false, or choose the same net for each (model@method.students.…=…)"
        )


def mean_state(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of every tensor. Integers, such as batch norm's count, are those of the first state.

    Computed in float64, so that the mean of equal weights is these weights, bit for bit.
    """
    mean = {}
    for name, first in states[0].items():
        mean[name] = first.clone()
        if first.is_floating_point():
            stacked = torch.stack([state[name].double() for state in states])
            mean[name].copy_(stacked.mean(0))
    return mean


@torch.no_grad()
def move_averages(
    averages: Iterable[Tensor], current: Iterable[Tensor], weight_of_new: float
) -> None:
    """Moves each average towards its current value, by this share of the way, in place.

    Equal values stay equal, bit for bit. Integers, such as batch norm's count, are copied.
    """
    moved, ends = [], []
    for average, new in zip(averages, current, strict=True):
        if average.is_floating_point():
            moved.append(average)
            ends.append(new)
        else:
            average.copy_(new)
    if moved and weight_of_new == 1:  # also where an average has no number yet
        torch._foreach_copy_(moved, ends)
    elif moved:
        torch._foreach_lerp_(moved, ends, weight_of_new)


@torch.no_grad()
def refresh_batch_norm(
    nets: Iterable[nn.Module],
    batches: Iterable[Sequence[Tensor]],
    *,
    device: torch.device | str = "cpu",
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> None:
    """Recomputes the batch-norm statistics of averaged weights in one pass over ``batches``.

    The mean of several nets' statistics does not fit the mean of their weights (Izmailov et al.
    2018, arXiv 1803.05407, section 3). All batches have equal weight. Everything except batch norm
    is in eval mode, so there is no dropout, as in evaluation. (``torch.optim.swa_utils.update_bn``
    has dropout on, and needs nets that return a tensor.) If no net has batch norm, no batch is
    read.

    Args:
        batches: (x, y, …), as in training, with augmentation and mixing if the recipe has them:
            the statistics of every other net come from such batches.
        precision: makes the context that the nets run in, such as autocast.
    """
    norms = {net: [m for m in net.modules() if isinstance(m, _BatchNorm)] for net in nets}
    norms = {net: [m for m in of_net if m.track_running_stats] for net, of_net in norms.items()}
    norms = {net: of_net for net, of_net in norms.items() if of_net}
    if not norms:
        return
    modes = {module: module.training for net in norms for module in net.modules()}
    momenta = {norm: norm.momentum for of_net in norms.values() for norm in of_net}
    for net in norms:
        net.eval()
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over the batches
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
