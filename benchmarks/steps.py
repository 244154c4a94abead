"""Training steps of composed configurations, to be timed: no Trainer, no loader, one batch."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from kd_lightning.build import build_data, build_method
from kd_lightning.command_line import CONF
from kd_lightning.data.classification import ClassificationData
from kd_lightning.methods.base import Learner
from kd_lightning.teachers import Teacher, build_net


@dataclass(frozen=True)
class Made:
    """A method with an untrained teacher, its data and a batch of them.

    Attributes:
        low: the precision of the run, as a context.
    """

    method: Learner
    teacher: Teacher | None
    data: ClassificationData
    batch: list[Tensor]
    low: Callable

    def step(self) -> Callable[[], Tensor]:
        """One training step, as Lightning makes it of the method."""
        optimizer = torch.optim.SGD(self.method.parameters(), lr=1e-3, momentum=0.9)

        def step() -> Tensor:
            with self.low():
                loss = self.method.training_step(self.batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    def ask(self) -> Callable[[], object]:
        """The teacher's answer to the batch, as a step asks for it."""

        def ask() -> object:
            with self.low(), torch.no_grad():
                return self.method.teacher_output(self.batch[0])

        return ask


def made(*words: str) -> Made:
    """What ``words`` compose, on the device that ``hardware.accelerator`` names."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(words))
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

    return Made(method, teacher, data, batch, low)
