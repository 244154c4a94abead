"""Training steps of composed configurations, to be timed: no Trainer, no loader, one batch."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn

from kd_lightning.base.precision import allow_tf32
from kd_lightning.config.command_line import CONF
from kd_lightning.data.classification import ClassificationData
from kd_lightning.methods.base import Learner
from kd_lightning.methods.optimization import can_fuse
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.sources import Teacher, build_net

SMALL = ("data=synthetic", "data.size=32", "data.num_classes=100", "data.batch_size=32")
LARGE = ("data=synthetic", "data.size=112", "data.num_classes=100", "data.batch_size=4",
         "data.num_train=100", "data.num_test=100", "data.val_fraction=0")  # fmt: skip
TWO_STUDENTS = ("model@method.teacher=resnet32x4", "model@method.students.a=resnet8x4",
                "model@method.students.b=mobilenetv2_half")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A method with an untrained teacher, its data and one batch.

    Attributes:
        precision: returns the context of the run's precision.
    """

    cfg: DictConfig
    method: Learner
    teacher: Teacher | None
    data: ClassificationData
    batch: list[Tensor]
    precision: Callable

    def step(self) -> Callable[[], Tensor]:
        """One training step of the method, as Lightning makes it."""
        method = self.method
        optimizer = optimizer_of(method.parameters())

        def step() -> Tensor:
            with self.precision():
                loss = method.training_step(self.batch, 0)
            method.optimizer_zero_grad(0, 0, optimizer)
            method.backward(loss)
            optimizer.step()
            return loss

        return step

    def teacher_step(self) -> Callable[[], object]:
        """The teacher's forward pass of the batch, as in a training step."""

        def step() -> object:
            with self.precision(), torch.no_grad():
                return self.method.teacher_output(self.batch[0])

        return step

    def with_cached_teacher(self) -> "Case":
        """This case, with the teacher's outputs added to the batch, as a cache adds them."""
        with torch.no_grad():
            self.batch.append(self.method.cache_values(*self.batch))
        return self


def optimizer_of(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of both sides of every comparison: one kernel where a run would use one."""
    make = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
    parameters = list(parameters)
    return make(parameters, fused=can_fuse(make, [{"params": parameters}]) or None)


def step_of(
    parameters: Iterable[nn.Parameter],
    compute_loss: Callable[[], Tensor],
    precision: Callable = nullcontext,
) -> Callable[[], Tensor]:
    """A training step.

    Args:
        precision: returns the context in which the loss is computed.
    """
    optimizer = optimizer_of(parameters)

    def step() -> Tensor:
        with precision():
            loss = compute_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def build_case(*words: str) -> Case:
    """The case that the overrides ``words`` compose, on the device ``hardware.accelerator``."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return case_from(compose("config", list(words)))


def case_from(cfg: DictConfig) -> Case:
    """The case of a composed configuration, on the device that it names. On a GPU this process
    rounds and chooses its algorithms from then on as a run does.

    Raises:
        ValueError: the precision needs more than autocast.
    """
    data = build_data(cfg)
    teacher = None
    if "teacher" in cfg.method:
        teacher = Teacher(build_net(cfg.method.teacher, 0, "teacher"), "untrained", "")
    device = torch.device("cuda" if cfg.hardware.accelerator in ("gpu", "cuda") else "cpu")
    if device.type == "cuda":
        allow_tf32(True)
        torch.backends.cudnn.benchmark = True
    method = build_method(cfg, teacher).train().to(device)
    batch = [part.to(device) for part in next(iter(data.loader("train")))]
    precision = nullcontext
    if cfg.hardware.precision == "bf16-mixed":

        def precision() -> torch.autocast:
            return torch.autocast(device.type, dtype=torch.bfloat16)

    elif cfg.hardware.precision not in (32, "32", "32-true"):
        raise ValueError(f"steps have no {cfg.hardware.precision}: hardware.precision=bf16-mixed")

    return Case(cfg, method, teacher, data, batch, precision)
