"""Training that a method needs once before its own: a fitted head, matched channels, a codec.

A stage is an ordinary LightningModule. Its ``state_dict`` is its result, which is kept under a hash
of what shapes it and reused by every later run (``running/stages.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch import nn


class HoldsTeacher(LightningModule):
    """A LightningModule with a frozen teacher that is no part of it.

    The teacher has no gradient and is always in eval mode. It is not registered, so it is outside
    the optimizer, the checkpoint and DDP, and no ``train()`` reaches it. It follows the module from
    device to device.
    """

    teacher: nn.Module

    def hold_teacher(self, teacher: nn.Module) -> None:
        object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())

    def _apply(self, fn: Callable, recurse: bool = True) -> "HoldsTeacher":
        self.teacher._apply(fn)
        return super()._apply(fn, recurse)


class Stage(HoldsTeacher):
    """One stage. The author writes ``training_step`` and ``configure_optimizers``, as Lightning
    has them. A stage that only computes something (a matching) sets ``automatic_optimization`` to
    False and has no ``configure_optimizers``. It fills its buffers in ``on_train_epoch_end``, after
    which it is saved.

    Its modules are those of the method that they are for, so that a finished stage has filled
    them. They are frozen when it is done, unless ``learns_on``.

    Attributes:
        learns_on: whether the method goes on training the modules of this stage.
        config_keys: keys of the method's configuration that shape the result too, and that
            ``settings`` cannot hold as plain values.

    Args:
        name: part of the name of the folder that keeps the result.
        teacher: of the method.
        max_epochs: passes over the training samples.
    """

    learns_on: ClassVar[bool] = False
    config_keys: ClassVar[Sequence[str]] = ()

    def __init__(self, *, name: str, teacher: nn.Module, max_epochs: int = 1) -> None:
        super().__init__()
        self.name = name
        self.max_epochs = max_epochs
        self.hold_teacher(teacher)

    def epoch_tables(self) -> Mapping[str, Any]:
        """As a method has it."""
        return {}

    def settings(self) -> Any:
        """What shapes the result besides the teacher, the data and the initial state, as plain
        values: learning rates, temperatures.
        """
        return None
