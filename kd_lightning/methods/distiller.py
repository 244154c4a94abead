"""A learner with a frozen teacher."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.stage import HoldsTeacher
from kd_lightning.methods.step import Cached
from kd_lightning.models.outputs import ModelOutput


def check_same_input(student: nn.Module, teacher: nn.Module, key: str) -> None:
    """Raises ``UserError`` for a student that would see images of another size than the weights
    with which it begins have seen: a teacher's file may say this size, and a student's keys do not.
    """
    own, of_teacher = (getattr(net, "prepare", None) for net in (student, teacher))
    for key_of_net, name in (("input_size", "size"), ("interpolation", "interpolation")):
        has, needs = (getattr(prepare, name, None) for prepare in (own, of_teacher))
        if has != needs and getattr(of_teacher, "size", None) is not None:
            raise UserError(
                f"student {key} is to begin with its teacher's weights, which are for "
                f"{key_of_net}={needs}, and has {has}: set method.teacher.{key_of_net}={needs} "
                "(and that of a student that is not '${method.teacher}'), or "
                "method.start_from_teacher=false"
            )


class Distiller(Learner, HoldsTeacher):
    """A Learner with a teacher that never changes (``HoldsTeacher``).

    Args:
        teacher: a trained net that returns ``ModelOutput``.
        start_from_teacher: the students begin with the teacher's weights, so they must be of the
            same architecture.

    Attributes:
        mixed_targets: True: where data are mixed, ``cached`` holds what a batch is made of:
            ``partner`` (B,), ``share`` (B,), and the ``clean`` samples or their cached outputs.
        temperature: that divides the teacher's logits in the soft targets.
        teacher_method: the method by which a teacher should have been trained; None: any.
        make_fast: (teacher, samples) -> a faster net with the same outputs; None: the teacher.
    """

    mixed_targets: bool = False
    temperature: float = 1.0
    teacher_method: str | None = None

    def __init__(
        self, *, teacher: nn.Module, start_from_teacher: bool = False, **learner: Any
    ) -> None:
        super().__init__(**learner)
        self.hold_teacher(teacher)
        object.__setattr__(self, "_fast_teacher", None)
        self.make_fast: Callable[[nn.Module, Tensor], nn.Module] | None = None
        self.running_means.cause = self.fault_of_teacher
        if start_from_teacher:
            self._start_from_teacher()

    def _start_from_teacher(self) -> None:
        for key, student in self.students.items():
            try:
                student.load_state_dict(self.teacher.state_dict())
            except RuntimeError as error:
                raise UserError(
                    f"student {key} is to begin with its teacher's weights, and these two nets "
                    f"differ: give it the teacher's architecture (method.students.{key}="
                    "'${method.teacher}'), or set method.start_from_teacher=false"
                ) from error
            check_same_input(student, self.teacher, key)
            student.starts_trained = True

    def _apply(self, fn: Callable, recurse: bool = True) -> "Distiller":
        object.__setattr__(self, "_fast_teacher", None)  # made again on the teacher's new device
        return super()._apply(fn, recurse)

    # The teacher's outputs

    @property
    def teacher_rows(self) -> float:
        """Rows that go through the teacher's trunk for each training sample of a step without a
        cache. A test counts them.
        """
        return 1

    def teacher_for(self, x: Tensor) -> nn.Module:
        """The net that computes the teacher's outputs: the fast copy that ``make_fast`` made of
        the teacher with the first batch, or the teacher.
        """
        assert not self.teacher.training
        if self.make_fast is None:
            return self.teacher
        if self._fast_teacher is None:
            object.__setattr__(self, "_fast_teacher", self.make_fast(self.teacher, x))
        return self._fast_teacher

    def prepare(self, x: Tensor, cached: Cached) -> None:
        if self.has_fast_step and (cached is None or "clean" in cached):
            self.teacher_for(x)  # a fast copy cannot be made inside a graph

    def teacher_output(self, x: Tensor) -> ModelOutput:
        """The teacher's output, without a graph."""
        with torch.no_grad():
            return self.teacher_for(x)(x)

    def teacher_logits(self, x: Tensor, cached: Cached = None) -> Tensor:
        """The teacher's logits, (B, C), from the cache if there is one."""
        return self.teacher_output(x).logits if cached is None else cached["logits"].float()

    def teacher_head(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """Logits that the teacher's frozen classifier gives to features of any origin. The gradient
        passes through it to the features.
        """
        return self.teacher.head(features)

    @torch.no_grad()
    def fault_of_teacher(self) -> str | None:
        """What is wrong if the teacher's outputs for a training batch are not finite; None if they
        are.
        """
        x = next(iter(self.trainer.train_dataloader))[0].to(self.device)
        if self.teacher(x).logits.isfinite().all():
            return None
        return (
            "the teacher's own outputs are not finite, so its weights are wrong: give it other "
            "weights (teacher.source=…)"
        )

    # Teacher outputs that can be cached. A cached batch is (x, y, cached).

    def cache_keys(self) -> dict[str, Any] | None:
        """Names of the teacher outputs that ``losses`` reads from ``cached`` -> settings that shape
        them besides the teacher and the samples, as plain values. {}: this run does not use its
        teacher. None: the method does not read a cache.
        """
        return None

    def cache_values(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The teacher outputs of a batch to be cached, (B, ...) each."""
        return {"logits": self.teacher_output(x).logits}
