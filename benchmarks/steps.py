"""Training steps of composed configurations, to be timed: no Trainer, no loader, one batch."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn

from kd_lightning.config.command_line import CONF
from kd_lightning.data.classification import ClassificationData
from kd_lightning.methods.base import Learner
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.sources import Teacher, build_net

SMALL = ("data=synthetic", "data.size=32", "data.num_classes=100", "data.batch_size=32")
LARGE = ("data=synthetic", "data.size=112", "data.num_classes=100", "data.batch_size=4",
         "data.num_train=100", "data.num_test=100", "data.val_fraction=0")  # fmt: skip
TWO = ("model@method.teacher=resnet32x4", "model@method.students.a=resnet8x4",
       "model@method.students.b=mobilenetv2_half")  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A method with an untrained teacher, its data and a batch of them.

    Attributes:
        low: the precision of the run, as a context.
    """

    cfg: DictConfig
    method: Learner
    teacher: Teacher | None
    data: ClassificationData
    batch: list[Tensor]
    low: Callable

    def step(self) -> Callable[[], Tensor]:
        """One training step, as Lightning makes it of the method."""
        return step_of(
            self.method.parameters(), lambda: self.method.training_step(self.batch, 0), self.low
        )

    def ask(self) -> Callable[[], object]:
        """The teacher's answer to the batch, as a step asks for it."""

        def ask() -> object:
            with self.low(), torch.no_grad():
                return self.method.teacher_output(self.batch[0])

        return ask

    def with_answers(self) -> "Made":
        """Itself, the teacher's answers in the batch, as a cache puts them there."""
        with torch.no_grad():
            self.batch.append(self.method.cache_values(*self.batch))
        return self


def step_of(
    parameters: Iterable[nn.Parameter], loss_now: Callable[[], Tensor], low: Callable = nullcontext
) -> Callable[[], Tensor]:
    """A training step: one optimizer for both sides of every comparison.

    Args:
        low: the precision, as a context.
    """
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)

    def step() -> Tensor:
        with low():
            loss = loss_now()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def made(*words: str) -> Made:
    """What ``words`` compose, on the device that ``hardware.accelerator`` names."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return made_of(compose("config", list(words)))


def made_of(cfg: DictConfig) -> Made:
    """What a composed configuration says, on the device that it names."""
    data = build_data(cfg)
    teacher = None
    if "teacher" in cfg.method:
        teacher = Teacher(build_net(cfg.method.teacher, 0, "teacher"), "untrained", "")
    device = torch.device("cuda" if cfg.hardware.accelerator in ("gpu", "cuda") else "cpu")
    method = build_method(cfg, teacher).train().to(device)
    batch = [part.to(device) for part in next(iter(data.loader("train")))]
    low = nullcontext
    if cfg.hardware.precision == "bf16-mixed":

        def low() -> torch.autocast:
            return torch.autocast(device.type, dtype=torch.bfloat16)

    return Made(cfg, method, teacher, data, batch, low)
