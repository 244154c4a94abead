"""What the Trainer and all that a run hangs on it cost a step that is itself almost nothing.

One fit, in which steps of the Trainer alternate with steps of a bare loop of the same nets: its
loader makes a pause for them. So set-up, validation and the files written at the end of an epoch
are in neither, and what is logged every ``trainer.log_every_n_steps`` is.
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

from benchmarks.paired import Ratio, Step, Times, ratio
from benchmarks.rows import Row, Rows
from benchmarks.steps import Made, made
from kd_lightning.callbacks.best_students import BestStudents
from kd_lightning.run import build_trainer
from kd_lightning.trackers.about import About

WORDS = ("method=dual_student", "data=ucr", "data.name=GunPoint", "model@method.teacher=fcn",
         "method.teacher.widths=[16,32,16]", "model@method.students.a=fcn",
         "model@method.students.b=fcn", "method.students.a.widths=[8,16,8]",
         "method.students.b.widths=[8,16,8]", "trainer.max_epochs=1")  # fmt: skip
STEPS = 50  # a block: a multiple of trainer.log_every_n_steps, so that each has its share of it


def tiny(hardware: Sequence[str]) -> Rows:
    """A step of dual_student on GunPoint, narrow FCNs, batches of 16, six loss terms and the
    confidences recorded, through the Trainer as ``run`` builds it, over bare loops with the same
    loader, optimizer and schedule: one that calls the same ``training_step``, and one written out
    with functions of torch, which records nothing.
    """
    calls = []
    for name, step_in in (("the same training_step", ours), ("written out", written_out)):
        bout = Bout(hardware, step_in)
        yield Row(f"Trainer / bare loop, {name}", bout.measure)
        calls.append(f"{bout.calls[1]:,.0f} in the bare loop ({name})")
    through = f"{bout.calls[0]:,.0f} through the Trainer"
    yield f"Python calls a step, mean over {STEPS} steps: {through}, {', '.join(calls)}."
    yield (
        "On in the Trainer: all callbacks of a run (progress as lines, best students, confidence "
        "bins, the record), the CSV logger, finite checks. Its checkpoints fall between epochs and "
        "are in no number here."
    )


class Bout:
    """One fit with pauses.

    Args:
        step_in: case -> what gives the loss of a batch.

    Attributes:
        calls: Python calls a step, through the Trainer and bare.
    """

    def __init__(self, hardware: Sequence[str], step_in: Callable[..., Callable]) -> None:
        self.hardware = hardware
        self.step_in = step_in
        self.calls = (0.0, 0.0)

    def measure(self, pairs: int) -> Ratio:
        in_trainer, bare = (sure(made(*WORDS, *self.hardware)) for _ in range(2))
        check_same_loss(bare)
        bare_step = bare_loop(bare, self.step_in, steps_of(pairs))
        loader = Pausing(loader_of(in_trainer), bare_step, pairs)
        in_trainer.data.train_dataloader = lambda: loader
        with tempfile.TemporaryDirectory() as folder:
            about = About("tiny", None, "dual_student", ("ucr",))
            best = BestStudents(Path(folder))
            trainer = build_trainer(in_trainer.cfg, Path(folder), "tiny", about, best)
            trainer.fit(in_trainer.method, datamodule=in_trainer.data)
        self.calls = loader.calls
        return ratio(loader.blocks)


def sure(case: Made) -> Made:
    """The case, its teacher sure of something, as an untrained one is not."""
    with torch.no_grad():
        case.teacher.net.head.weight.mul_(20)
    return case


def steps_of(pairs: int) -> int:
    """Of one side: in pairs, and before them to set things up and to count calls."""
    return (2 * pairs + 2) * STEPS


class Pausing:
    """A loader that goes round, and stops the clock of who asks it to let a bare loop have its
    turn: A B B A.

    Attributes:
        blocks: seconds of ``STEPS`` steps each.
        calls: Python calls a step, of who asks and of the bare loop.
    """

    def __init__(self, loader: Any, bare_step: Step, pairs: int) -> None:
        self.loader = loader
        self.bare_step = bare_step
        self.pairs = pairs
        self.blocks: list[Times] = []
        self.calls = (0.0, 0.0)

    def __len__(self) -> int:
        return steps_of(self.pairs) + 1  # with the one that ends the last block

    def __iter__(self) -> Iterator[Any]:
        batches = around(self.loader)
        yield from self._some(batches)  # the first steps set things up
        for _ in range(STEPS):
            self.bare_step()
        counter = Counter()
        with counter:
            yield from self._some(batches)
        asked, counter = counter, Counter()
        with counter:
            for _ in range(STEPS):
                self.bare_step()
        self.calls = (asked.seen / STEPS, counter.seen / STEPS)
        for _ in range(self.pairs):
            times = []
            for is_bare in (False, True, True, False):
                begun = time.perf_counter()
                if is_bare:
                    for _ in range(STEPS):
                        self.bare_step()
                else:
                    yield from self._some(batches)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - begun)
            self.blocks.append(tuple(times))
        yield next(batches)

    def _some(self, batches: Iterator[Any]) -> Iterator[Any]:
        for _ in range(STEPS):
            yield next(batches)


class Counter:
    """Counts the Python functions that are called within it, but for those of this file."""

    def __init__(self) -> None:
        self.seen = 0

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        self.seen += event == "call" and frame.f_code.co_filename != __file__


def loader_of(case: Made) -> Any:
    """The batches of a run, where its nets are."""
    return case.data.loader("train", device=case.batch[0].device)


def around(loader: Any) -> Iterator[Any]:
    """Batches without end."""
    epoch = 0
    while True:
        loader.batch_sampler.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def bare_loop(case: Made, step_in: Callable[..., Callable], steps: int) -> Step:
    """A step on the next batch of the case's own loader, optimizer and schedule included."""
    method, batches = case.method, around(loader_of(case))
    groups = [{"params": list(net.parameters())} for net in method.students.values()]
    optimizer = method.make_optimizer(groups)
    scheduler = method.make_scheduler(optimizer, steps)
    loss_of, low = step_in(case), case.low

    def step() -> None:
        with low():
            loss = loss_of(next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

    return step


def ours(case: Made) -> Callable[[list[Tensor]], Tensor]:
    return lambda batch: case.method.training_step(batch, 0)


def written_out(case: Made) -> Callable[[list[Tensor]], Tensor]:
    """The loss of dual_student, as a script would have it."""
    method, (a, b) = case.method, case.method.students.values()
    temperature, peer_temperature = method.temperature, method.peer_temperature

    def kl(student: Tensor, target: Tensor, at: float) -> Tensor:
        logs = F.log_softmax(student / at, 1), F.log_softmax(target / at, 1)
        return at**2 * F.kl_div(*logs, reduction="none", log_target=True).sum(1)

    def loss_of(batch: list[Tensor]) -> Tensor:
        x, y = batch
        with torch.no_grad():
            known = method.teacher_for(x)(x).logits
            probs = known.softmax(1)
            entropy = -(probs * probs.log()).sum(1)
            weight = 1 - entropy / math.log(known.shape[1])
        logits = a(x).logits, b(x).logits
        loss = torch.zeros((), device=x.device)
        for own, peer in (logits, logits[::-1]):
            loss = loss + method.hard_weight * F.cross_entropy(own, y)
            loss = loss + method.soft_weight * (weight * kl(own, known, temperature)).mean()
            loss = loss + method.peer_weight * kl(own, peer.detach(), peer_temperature).mean()
        return loss

    return loss_of


def check_same_loss(case: Made) -> None:
    """Fails where the two bare loops would not compute the same."""
    torch.testing.assert_close(ours(case)(case.batch), written_out(case)(case.batch))
