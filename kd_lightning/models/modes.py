"""The mode of batch norm during an inner loop, such as an attack on a net that is being trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from torch import nn

Mode = Literal["eval", "train", "batch"]
MODES = get_args(Mode)


@contextmanager
def in_mode(net: nn.Module, mode: Mode) -> Iterator[None]:
    """Inside, the net is in this mode; afterwards each module is in the mode that it had before.

    Args:
        mode: "eval": running statistics, dropout off. "train": statistics of the batch, which
            update the running ones, dropout on. "batch": statistics of the batch, the running ones
            stay bit for bit as they are, dropout off.

    Raises:
        ValueError: another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be eval, train or batch, got {mode}")
    norms = [m for m in net.modules() if getattr(m, "running_mean", None) is not None]
    was_training = {module: module.training for module in net.modules()}
    tracked = {norm: norm.track_running_stats for norm in norms}
    net.train(mode == "train")
    if mode == "batch":
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training
        for norm, track in tracked.items():
            norm.track_running_stats = track
