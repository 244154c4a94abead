"""A learner with a frozen teacher."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.step import Known
from kd_lightning.models.outputs import ModelOutput


class Distiller(Learner):
    """A Learner with a teacher that never changes.

    The teacher has no gradient and is always in eval mode; it is not registered, so it is outside
    the optimizer, the checkpoint and DDP, and no ``train()`` reaches it. It follows the module
    from device to device.

    Args:
        teacher: a trained net that returns ``ModelOutput``.
        start_from_teacher: the students begin with the teacher's weights: they must be its twins.

    Attributes:
        freeze: (teacher, samples) -> a net that answers as it does, and faster; None: the teacher.
    """

    def __init__(
        self, *, teacher: nn.Module, start_from_teacher: bool = False, **learner: Any
    ) -> None:
        super().__init__(**learner)
        object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())
        object.__setattr__(self, "_twin", None)
        self.freeze: Callable[[nn.Module, Tensor], nn.Module] | None = None
        if start_from_teacher:
            self._start_from_teacher()

    def _start_from_teacher(self) -> None:
        for key, student in self.students.items():
            try:
                student.load_state_dict(self.teacher.state_dict())
            except RuntimeError as error:
                raise UserError(
                    f"student {key} is to begin with its teacher's weights, and these two nets "
                    f"differ: make it the teacher's twin (method.students.{key}="
                    "'${method.teacher}'), or set method.start_from_teacher=false"
                ) from error

    def _apply(self, fn: Callable, recurse: bool = True) -> "Distiller":
        self.teacher._apply(fn)
        object.__setattr__(self, "_twin", None)  # it is made again where the teacher now is
        return super()._apply(fn, recurse)

    def teacher_for(self, x: Tensor) -> nn.Module:
        """What answers for the teacher: itself, or the faster twin that ``freeze`` makes of it and
        of the first batch.
        """
        assert not self.teacher.training
        if self.freeze is None:
            return self.teacher
        if self._twin is None:
            object.__setattr__(self, "_twin", self.freeze(self.teacher, x))
        return self._twin

    def make_ready(self, x: Tensor, known: Known) -> None:
        if self.compile_step is not None and known is None:
            self.teacher_for(x)  # a twin cannot be made inside a graph

    def teacher_output(self, x: Tensor) -> ModelOutput:
        """The teacher's answer, without a graph."""
        with torch.no_grad():
            return self.teacher_for(x)(x)

    def teacher_logits(self, x: Tensor, known: Known = None) -> Tensor:
        """The teacher's logits, (B, C), from a cache if ``known`` of these samples."""
        return self.teacher_output(x).logits if known is None else known["logits"].float()

    # What of the teacher can be kept; a batch has it again as its third part

    def kept(self) -> dict[str, Any]:
        """What a cache keeps of the teacher: name -> what it follows from besides the teacher and
        the samples, as plain values. {}: this run does not ask its teacher.

        Raises:
            UserError: this run needs more of its teacher than can be kept, or is of a method that
                does not look for a third part in its batches.
        """
        raise UserError(f"{type(self).__name__} does not use a cache: set teacher.cache=null")

    def to_keep(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What a cache keeps of a batch, (B, ...) each."""
        return {"logits": self.teacher_output(x).logits}
