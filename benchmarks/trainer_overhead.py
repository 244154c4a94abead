"""The overhead of Lightning's Trainer and of the callbacks of a run, for very small steps.

During one fit, blocks of steps of the Trainer alternate with blocks of steps of a bare loop with
the same nets: the Trainer's loader runs the bare loop while the Trainer waits for its next batch.
So set-up, validation and the files written at the end of an epoch are in neither time, but the
logging every ``trainer.log_every_n_steps`` steps is.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.paired_timing import Ratio, Step, Times, ratio
from benchmarks.ratio_table import Row, Rows
from benchmarks.steps import Case, build_case
from kd_lightning.callbacks.best_students import BestStudents
from kd_lightning.methods.optimization import can_fuse
from kd_lightning.running.trainer import build_trainer
from kd_lightning.trackers.run_info import RunInfo

WORDS = ("method=dual_student", "data=ucr", "data.name=GunPoint", "model@method.teacher=fcn",
         "method.teacher.widths=[16,32,16]", "model@method.students.a=fcn",
         "model@method.students.b=fcn", "method.students.a.widths=[8,16,8]",
         "method.students.b.widths=[8,16,8]", "trainer.max_epochs=1")  # fmt: skip
STEPS = 50  # per block: a multiple of trainer.log_every_n_steps, so that all blocks log equally


def trainer_overhead(hardware: Sequence[str]) -> Rows:
    """A step of dual_student on GunPoint (narrow FCNs, batches of 16, six loss terms, confidences
    recorded) with the Trainer of a run, over a step of a bare loop with the same loader, optimizer
    and schedule. One bare loop calls the same ``training_step``. The other is written with torch
    functions only and records nothing.
    """
    calls = []
    for name, loss_of in (("the same training_step", training_step), ("written out", torch_loss)):
        fit = AlternatingFit(hardware, loss_of)
        yield Row(f"Trainer / bare loop, {name}", fit.measure)
        calls.append(f"{fit.calls[1]:,.0f} in the bare loop ({name})")
    in_trainer = f"{fit.calls[0]:,.0f} in the Trainer"
    yield f"Python calls per step, mean over {STEPS} steps: {in_trainer}, {', '.join(calls)}."
    yield (
        "In the Trainer are active: all callbacks of a run (progress lines, best students, "
        "confidence.csv, epochs.csv), the CSV logger and the checks for finite values. "
        "Checkpoints are written between epochs and are not in these numbers."
    )


class AlternatingFit:
    """A fit of the Trainer that alternates with a bare loop.

    Args:
        loss_of: case -> a function from a batch to its loss, for the bare loop.

    Attributes:
        calls: Python calls per step, in the Trainer and in the bare loop.
    """

    def __init__(self, hardware: Sequence[str], loss_of: Callable[..., Callable]) -> None:
        self.hardware = hardware
        self.loss_of = loss_of
        self.calls = (0.0, 0.0)

    def measure(self, pairs: int) -> Ratio:
        in_trainer, bare = (
            with_confident_teacher(build_case(*WORDS, *self.hardware)) for _ in range(2)
        )
        check_same_loss(bare)
        bare_step = bare_loop(bare, self.loss_of, num_steps(pairs))
        loader = AlternatingLoader(loader_of(in_trainer), bare_step, pairs)
        in_trainer.data.train_dataloader = lambda: loader
        with tempfile.TemporaryDirectory() as folder:
            run_info = RunInfo("tiny", None, "dual_student", ("ucr",))
            best = BestStudents(Path(folder))
            trainer = build_trainer(
                in_trainer.cfg, Path(folder), "tiny", run_info, in_trainer.method, best
            )
            trainer.fit(in_trainer.method, datamodule=in_trainer.data)
        self.calls = loader.calls
        return ratio(loader.blocks)


def with_confident_teacher(case: Case) -> Case:
    """The case, with the teacher's logits scaled up: an untrained teacher has no confidence."""
    with torch.no_grad():
        case.teacher.net.head.weight.mul_(20)
    return case


def num_steps(pairs: int) -> int:
    """Steps of each side: two blocks per pair, one block to warm up and one to count calls."""
    return (2 * pairs + 2) * STEPS


class AlternatingLoader:
    """A loader for the Trainer. Between blocks of batches it runs blocks of a bare loop, in the
    order A B B A, and times each block.

    Attributes:
        blocks: for each pair, seconds of its blocks of ``STEPS`` steps.
        calls: Python calls per step, of the Trainer and of the bare loop.
    """

    def __init__(self, loader: Any, bare_step: Step, pairs: int) -> None:
        self.loader = loader
        self.bare_step = bare_step
        self.pairs = pairs
        self.blocks: list[Times] = []
        self.calls = (0.0, 0.0)

    def __len__(self) -> int:
        return num_steps(self.pairs) + 1  # one more batch, whose request ends the last block

    def __iter__(self) -> Iterator[Any]:
        batches = endless(self.loader)
        yield from self._block(batches)  # the first steps warm up
        for _ in range(STEPS):
            self.bare_step()
        counter = CallCounter()
        with counter:
            yield from self._block(batches)
        trainer_counter, counter = counter, CallCounter()
        with counter:
            for _ in range(STEPS):
                self.bare_step()
        self.calls = (trainer_counter.calls / STEPS, counter.calls / STEPS)
        for _ in range(self.pairs):
            times = []
            for is_bare in (False, True, True, False):
                start = time.perf_counter()
                if is_bare:
                    for _ in range(STEPS):
                        self.bare_step()
                else:
                    yield from self._block(batches)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            self.blocks.append(tuple(times))
        yield next(batches)

    def _block(self, batches: Iterator[Any]) -> Iterator[Any]:
        for _ in range(STEPS):
            yield next(batches)


class CallCounter:
    """Counts the calls of Python functions inside its context, except functions of this file."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> None:
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        self.calls += event == "call" and frame.f_code.co_filename != __file__


def loader_of(case: Case) -> Any:
    """The training batches of a run, on the device of its nets."""
    return case.data.loader("train", device=case.batch[0].device)


def endless(loader: Any) -> Iterator[Any]:
    """The batches of one epoch after the other."""
    epoch = 0
    while True:
        loader.batch_sampler.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def bare_loop(case: Case, loss_of: Callable[..., Callable], steps: int) -> Step:
    """A function that trains on the next batch, with the case's loader, optimizer and schedule."""
    method, batches = case.method, endless(loader_of(case))
    groups = [{"params": list(net.parameters())} for net in method.students.values()]
    optimizer = method.make_optimizer(groups, fused=can_fuse(method.make_optimizer, groups) or None)
    scheduler = method.make_scheduler(optimizer, steps)
    batch_loss, precision = loss_of(case), case.precision

    def step() -> None:
        with precision():
            loss = batch_loss(next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

    return step


def training_step(case: Case) -> Callable[[list[Tensor]], Tensor]:
    return lambda batch: case.method.training_step(batch, 0)


def torch_loss(case: Case) -> Callable[[list[Tensor]], Tensor]:
    """The loss of dual_student, written with torch functions only, as in a script."""
    method, (a, b) = case.method, case.method.students.values()
    temperature, peer_temperature = method.temperature, method.peer_temperature

    def kl(student: Tensor, target: Tensor, t: float) -> Tensor:
        logs = F.log_softmax(student / t, 1), F.log_softmax(target / t, 1)
        return t**2 * F.kl_div(*logs, reduction="none", log_target=True).sum(1)

    def batch_loss(batch: list[Tensor]) -> Tensor:
        x, y = batch
        with torch.no_grad():
            teacher_logits = method.teacher_for(x)(x).logits
            probs = teacher_logits.softmax(1)
            entropy = -(probs * probs.log()).sum(1)
            weight = 1 - entropy / math.log(teacher_logits.shape[1])
        logits = a(x).logits, b(x).logits
        loss = torch.zeros((), device=x.device)
        for own, peer in (logits, logits[::-1]):
            loss = loss + method.hard_weight * F.cross_entropy(own, y)
            loss = (
                loss + method.soft_weight * (weight * kl(own, teacher_logits, temperature)).mean()
            )
            loss = loss + method.peer_weight * kl(own, peer.detach(), peer_temperature).mean()
        return loss

    return batch_loss


def check_same_loss(case: Case) -> None:
    """Raises if the two bare loops compute different losses."""
    torch.testing.assert_close(training_step(case)(case.batch), torch_loss(case)(case.batch))
