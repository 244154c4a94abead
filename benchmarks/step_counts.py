"""What a training step does, counted: rows, FLOPs and saved bytes. Nothing is timed.

The counts are exact: two steps of one kind have the same. The peak of the memory is left out,
because the profiler's value (``growth.peak``) is not the same in every run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paired_timing import Step
from benchmarks.steps import Case


@dataclass(frozen=True)
class Counts:
    """Of one training step.

    Attributes:
        teacher_rows: samples that pass the teacher, for each training sample.
        student_rows: samples that pass the students, for each training sample.
        backward_rows: samples for which a gradient passes the students, for each training sample.
        flops: of matrix products, convolutions and attention, forward and backward.
        saved: bytes of all tensors that are saved for the backward pass. A storage is counted once,
            and weights and buffers are not counted.
    """

    teacher_rows: float
    student_rows: float
    backward_rows: float
    flops: int
    saved: int


def counts_of(case: Case, step: Step) -> Counts:
    """The counts of a step of ``case``. It also runs once before it is counted, because the first
    step of a method can do more, such as the fast copy of the teacher.
    """
    step()
    samples = len(case.batch[0])
    trunks = [student.trunk for student in case.method.students.values()]
    with CountedRows(teacher_trunks(case)) as teacher, CountedRows(trunks) as students:
        flops = flops_of(step)
    return Counts(
        teacher.forward / samples,
        students.forward / samples,
        students.backward / samples,
        flops,
        saved_bytes(step, weights(case)),
    )


class CountedRows:
    """Counts, inside ``with``, the rows that pass some modules.

    Attributes:
        forward: rows of their outputs.
        backward: rows of the gradients of their outputs.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        self.forward = self.backward = 0

    def __enter__(self) -> "CountedRows":
        self.handles = [module.register_forward_hook(self._count) for module in self.modules]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _count(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.forward += len(output)
        if output.requires_grad:
            output.register_hook(self._count_backward)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def teacher_trunks(case: Case) -> set[nn.Module]:
    """The teacher and its fast copy without their classifiers; none if there is no teacher."""
    if case.teacher is None:
        return set()
    return {case.teacher.net.trunk, case.method.teacher_for(case.batch[0]).trunk}


def weights(case: Case) -> list[Tensor]:
    """Weights and buffers of the method and of its teacher."""
    modules = [case.method] if case.teacher is None else [case.method, case.teacher.net]
    return [tensor for net in modules for tensor in (*net.parameters(), *net.buffers())]


def flops_of(step: Step) -> int:
    """The FLOPs of a step. A multiplication with an addition is two. Torch counts the gradients of
    weights of grouped convolutions as if there were one group; the nets of zoo have none.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def saved_bytes(step: Step, excluded: Iterable[Tensor] = ()) -> int:
    """Bytes of all storages that a step saves for its backward pass.

    Args:
        excluded: tensors whose storages are not counted.
    """
    saved: list[Tensor] = []  # all are held until the end, so no address is used twice

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        step()
    sizes = {address(tensor): tensor.untyped_storage().nbytes() for tensor in saved}
    held = {address(tensor) for tensor in excluded}
    return sum(size for place, size in sizes.items() if place not in held)


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def learning_parameters(modules: Iterable[nn.Module]) -> int:
    """The number of weights that learn in some modules."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
