"""``hardware.compile=auto|trial``: some steps each way at the start of a run, and the faster kept.

The steps of a trial change nothing: gradients are computed and thrown away, no optimizer steps, and
batch norm's statistics and the generators are set back. A run that keeps its plain step has the
bits of one without a trial.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.words import cut
from kd_lightning.methods.base import Learner
from kd_lightning.methods.step import CompiledStep, Step, step_of
from kd_lightning.running.support import unsupported_by
from kd_lightning.running.trainer import count_processes

WARM_UP, MEASURED = 3, 5  # steps
# What is assumed before anything is compiled: a trial is made in runs for which this would pay.
ASSUMED_SECONDS, ASSUMED_GAIN = 60.0, 0.2
MIN_GAIN = 0.03  # share of a step; a smaller one may be noise
MAX_DIFFERENCE = 0.25  # of the losses, relative: a compiler draws its own dropout masks


class Choice(NamedTuple):
    """Whether to compile, and the sentence that says why."""

    compiles: bool
    sentence: str


def choose(
    steps: int, plain: float, compiled: float, compiling: float, *, spent: bool = False
) -> Choice:
    """Whether a compiled step pays in the steps that are left.

    Args:
        steps: that are left.
        plain, compiled: seconds of a step.
        compiling: seconds that the compiler takes.
        spent: the compiler has run, so the faster step is kept. Else all these are estimates.
    """
    gain = plain - compiled
    cost = f"took {compiling:.0f} s" if spent else f"takes about {compiling:.0f} s"
    if gain < MIN_GAIN * plain:
        times = f"a compiled step takes {_ms(compiled)}, a plain one {_ms(plain)}"
        return Choice(False, f"Steps are not compiled: that {cost}, and {times}")
    after = math.ceil(compiling / gain)
    compiles = spent or after < steps
    pays = f"that {cost} and pays after {after:,} steps, and {steps:,} are left"
    if not compiles:
        return Choice(False, f"Steps are not compiled: {pays}")
    if not spent:
        return Choice(True, f"Compiled steps are tried: {pays}")
    times = f"{_ms(compiled)} instead of {_ms(plain)} a step"
    return Choice(True, f"Steps are compiled: {pays} ({times})")


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def check_trial(cfg: DictConfig) -> None:
    """Raises ``UserError`` where ``hardware.compile=trial`` cannot be measured."""
    if cfg.hardware.compile != "trial":
        return
    if cfg.hardware.cuda_graphs:
        raise UserError(
            "hardware.compile=trial compares steps that are not recorded: set hardware.compile to "
            "true or false, or hardware.cuda_graphs=false"
        )
    if count_processes(cfg.hardware, torch.cuda.is_available()) > 1:
        raise UserError(
            "hardware.compile=trial is for one device, because each process would choose for "
            "itself: set hardware.compile to true or false, or hardware.devices=1"
        )


def compile_trial(
    cfg: DictConfig, method: Learner, trainer: Trainer, say: Callable[[str], None]
) -> list[Callback]:
    """The callback that makes the trial; none where ``hardware.compile`` asks for none, or where
    ``auto`` means no: on a CPU, in several processes, with recorded or deterministic steps, and for
    methods that cannot be compiled.
    """
    hardware = cfg.hardware
    if hardware.compile == "trial":
        return [CompileTrial(say)]
    if hardware.compile != "auto" or trainer.strategy.root_device.type != "cuda":
        return []
    stays_plain = hardware.cuda_graphs or hardware.deterministic or trainer.world_size > 1
    if stays_plain or "compile" in unsupported_by(method):
        return []
    return [CompileTrial(say, only_long_runs=True)]


class CompileTrial(Callback):
    """Measures plain and compiled steps on the first batch, and keeps the faster.

    Args:
        say: takes a sentence for the user.
        only_long_runs: no trial where it would not pay by what is assumed of compilers.
        compiler: step -> compiled step.
        decide: as ``choose``.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        only_long_runs: bool = False,
        compiler: Callable[[Callable[..., Step]], Callable[..., Step]] = CompiledStep,
        decide: Callable[..., Choice] = choose,
    ) -> None:
        self.say = say
        self.only_long_runs = only_long_runs
        self.compiler = compiler
        self.decide = decide
        self._done = False

    def on_train_batch_start(
        self, trainer: Trainer, method: Learner, batch: Any, batch_idx: int
    ) -> None:
        if self._done:
            return
        self._done = True
        with unchanged(method):
            steps = batches_left(trainer)
            plain = Trial(trainer, method, batch, plain_step)
            if self.only_long_runs and not self._could_pay(steps, plain):
                return
            method.compile_step = self.compiler
            if not self._is_compiled_faster(steps, plain, trainer, method, batch):
                method.use_plain_step()
                torch.compiler.reset()  # frees what was compiled

    def _could_pay(self, steps: int, plain: "Trial") -> bool:
        compiled = plain.seconds * (1 - ASSUMED_GAIN)
        choice = self.decide(steps, plain.seconds, compiled, ASSUMED_SECONDS)
        self.say(choice.sentence)
        return choice.compiles

    def _is_compiled_faster(
        self, steps: int, plain: "Trial", trainer: Trainer, method: Learner, batch: Any
    ) -> bool:
        try:
            compiled = Trial(trainer, method, batch, Learner.compute_fast_step)
        except Exception as error:  # a compiler can raise anything, and the plain step works
            reason = cut(" ".join(str(error).split()), 200)
            self.say(f"Steps are not compiled: {reason or type(error).__name__}")
            return False
        if not math.isclose(plain.loss, compiled.loss, rel_tol=MAX_DIFFERENCE):
            losses = f"{compiled.loss:.4g} instead of {plain.loss:.4g}"
            self.say(f"Steps are not compiled: the loss would be {losses}")
            return False
        compiling = compiled.first - compiled.seconds
        choice = self.decide(steps, plain.seconds, compiled.seconds, compiling, spent=True)
        self.say(choice.sentence)
        return choice.compiles


def plain_step(method: Learner, x: Tensor, y: Tensor, cached: Any) -> Step:
    return step_of(method.losses(x, y, cached, method.progress))


class Trial:
    """Some steps on one batch, with their backward pass.

    Attributes:
        loss: of the last of them.
        first: seconds of the first, in which all is compiled.
        seconds: median of the later ones.
    """

    def __init__(
        self, trainer: Trainer, method: Learner, batch: Any, step: Callable[..., Step]
    ) -> None:
        x, y, *rest = batch
        cached = rest[0] if rest else None
        learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
        times = []
        for _ in range(WARM_UP + MEASURED):
            start = time.perf_counter()
            with trainer.precision_plugin.train_step_context():
                method.prepare(x, cached)
                loss = step(method, x, y, cached).loss
            # not backward: the gradients of the parameters stay what they are
            torch.autograd.grad(loss, learning, allow_unused=True)
            self.loss = loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
        self.first = times[0]
        self.seconds = statistics.median(times[WARM_UP:])


@contextmanager
def unchanged(method: nn.Module) -> Iterator[None]:
    """Inside, buffers and generators may change. Afterwards they are as before."""
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    devices = {buffer.device for buffer in method.buffers()} | {method.device}
    with torch.random.fork_rng([one for one in devices if one.type == "cuda"]):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in method.named_buffers():
                    buffer.copy_(buffers[name])


def batches_left(trainer: Trainer) -> int:
    """Training batches of the run that are left."""
    total = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
    return total - trainer.fit_loop.epoch_loop.batch_progress.total.processed
