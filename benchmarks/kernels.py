"""How many kernels a training step starts, plain and compiled. Nothing is timed.

    python -m benchmarks.kernels                     compiles a step of each method: minutes
    python -m benchmarks.kernels kd dual_student     some of them
    python -m benchmarks.kernels --write             also into benchmarks/results/kernels.md

A small network waits for the start of its kernels, so their number says what a compiler can save on
a GPU. It is counted on a CPU, where no GPU is at hand: the operations of a plain step, forward and
backward, and the calls in the code that torch's compiler (inductor) writes for the compiled one:
of functions that it has made, and of libraries. It fuses by the same rules for a GPU, but there a
function can become several kernels. Counted is what is compiled: the losses of a batch and their
gradients, without the optimizer and the metrics.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._functorch import config as functorch
from torch._inductor import config as inductor
from torch._inductor.utils import run_and_get_code
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.report import Report
from benchmarks.steps import SMALL, Case, build_case
from kd_lightning.running.build import quieten

HEAD = (
    "| step of | plain operations | fused functions | calls of libraries | plain / compiled |",
    "|---|---:|---:|---:|---:|",
)
# One small net for the teacher, and one for each student
NETS = {
    "supervised": ("model@method.students.student=resnet8",),
    "kd": ("model@method.teacher=resnet20", "model@method.students.student=resnet8"),
    "feature_distillation": (
        *("model@method.teacher=resnet20", "model@method.students.student=resnet8"),
    ),
    "mutual_learning": (*("model@method.students.a=resnet8", "model@method.students.b=resnet8"),),
    "dual_student": (
        *("model@method.teacher=resnet20", "model@method.students.a=resnet8"),
        "model@method.students.b=resnet8",
    ),
    "stochastic_self_distillation": ("model@method.teacher=resnet8",),
}
CALL = re.compile(r"^ +(?:\w+ = )?(cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.[\w.]+)\(", re.M)
# Operations that start no kernel: they only make an object
OBJECTS = ("empty", "new_empty", "empty_like", "empty_strided", "detach", "alias", "lift_fresh")


@dataclass(frozen=True)
class Launches:
    """Of one training step.

    Attributes:
        plain: operations of the plain step that compute or copy.
        fused: calls of functions that the compiler has made.
        called: calls of libraries in the compiled step, such as a convolution.
    """

    plain: int
    fused: int
    called: int

    def line(self, name: str) -> str:
        ratio = self.plain / (self.fused + self.called)
        return f"| {name} | {self.plain} | {self.fused} | {self.called} | {ratio:.1f} |"


class Operations(TorchDispatchMode):
    """Counts, inside ``with``, the operations that compute or copy: no views, no new memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and func.overloadpacket.__name__ not in OBJECTS:
            self.count += 1
        return func(*args, **(kwargs or {}))


def plain_operations(words: Sequence[str]) -> int:
    """The operations of a plain step. Its first step, which can do more, is not counted."""
    case = build_case(*words)
    operations = Operations()

    def counted(step: Callable) -> Callable:
        def count(*batch: object) -> object:
            with operations:
                return step(*batch)

        return count

    case.method.compile_step = counted
    for _ in range(2):
        operations.count = 0
        loss = loss_of(case)
        with operations:
            loss.backward()
    return operations.count


def loss_of(case: Case) -> Tensor:
    case.method.zero_grad()
    with case.precision():
        return case.method.training_step(case.batch, 0)


def launches_of(words: Sequence[str]) -> Launches:
    """What the step of a composed configuration starts, plain and compiled."""
    case = build_case(*words, "hardware.compile=true")
    torch._dynamo.reset()
    # code that was written by an earlier process would not be written again
    with inductor.patch(fx_graph_cache=False), functorch.patch(enable_autograd_cache=False):
        _, codes = run_and_get_code(lambda: loss_of(case).backward())
    calls = [name for code in codes for name in CALL.findall(code)]
    fused = sum(name.startswith("cpp_fused") for name in calls)
    return Launches(plain_operations(words), fused, len(calls) - fused)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("methods", nargs="*", help=f"some of {', '.join(NETS)}; default: all")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    words = sys.argv[1:] if words is None else words
    arguments = parser.parse_args(words)
    for name in arguments.methods:
        if name not in NETS:
            parser.error(f"no method '{name}': expected some of {', '.join(NETS)}")
    if arguments.methods and arguments.write:
        parser.error("--write needs all methods: name none")
    quieten()
    torch.set_num_threads(1)
    report = Report("kernels", "The kernels of a training step", words)
    report.add()
    for line in HEAD:
        report.add(line)
    for name in arguments.methods or NETS:
        report.add(launches_of([f"method={name}", *SMALL, *NETS[name], "hardware=cpu"]).line(name))
    if arguments.write:
        report.write()


if __name__ == "__main__":
    main()
