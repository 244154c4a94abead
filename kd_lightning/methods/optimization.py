"""Parameter groups, optimizers and schedulers of a method."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kd_lightning.base.errors import UserError
from kd_lightning.methods.step import Losses, Step, step_of

STUDENTS = "students"  # the optimizer of the students and of every group without its own
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
FUSED_ON = ("cuda",)  # a CPU starts no kernels, so there is nothing to save


class Optimization(LightningModule):
    """What of a method learns, and how it is optimized.

    Args:
        optimizer: parameter groups -> optimizer.
        scheduler: (optimizer, total steps) -> scheduler, stepped once a batch; None: constant.
        learning_rates: parameter group -> its own learning rate, where it differs.

    Attributes:
        separate_optimizers: parameter groups that have an optimizer of their own. If there are
            any, ``optimizer_steps`` replaces ``losses`` (Lightning's manual optimization).
        has_unused_parameters: True if some step gives no gradient to weights that learn; DDP must
            then look for them.
        fit_trainer: the Trainer while it trains; None outside a run.
    """

    separate_optimizers: ClassVar[Sequence[str]] = ()
    has_unused_parameters: bool = False
    students: nn.ModuleDict

    def __init__(
        self,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler] | None,
        learning_rates: Mapping[str, float] | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = not self.separate_optimizers
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.learning_rates = dict(learning_rates or {})
        self.fit_trainer: Trainer | None = None
        self._steps: list[Step] = []  # of this batch, with manual optimization

    def on_fit_start(self) -> None:
        self.fit_trainer = self.trainer

    def on_fit_end(self) -> None:
        self.fit_trainer = None

    def own_modules(self) -> Mapping[str, nn.Module]:
        """Modules of the method that learn: parameter group -> module.

        A student's key puts the module into that student's group (adapters, branches); another
        name makes a group of its own (a critic). They are in ``last.ckpt``, and never in
        ``best-<student>.ckpt``.
        """
        return {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group for each student, with the method's modules of that name, then one for each
        further name of ``own_modules``.

        Raises:
            UserError: ``learning_rates`` names a group that does not exist.
        """
        groups = {key: list(net.parameters()) for key, net in self.students.items()}
        for name, module in self.own_modules().items():
            groups.setdefault(name, []).extend(module.parameters())
        if wrong := sorted(set(self.learning_rates) - set(groups)):
            raise UserError(
                f"method.learning_rates names '{wrong[0]}', the parameter groups are "
                f"{', '.join(groups)}"
            )
        return [
            {
                "params": [p for p in parameters if p.requires_grad],
                "name": name,
                **({"lr": self.learning_rates[name]} if name in self.learning_rates else {}),
            }
            for name, parameters in groups.items()
        ]

    def configure_optimizers(self) -> Any:
        groups = {group["name"]: group for group in self.parameter_groups()}
        separate = [[groups.pop(name)] for name in self.separate_optimizers]
        optimizers = [self._scheduled(part) for part in [[*groups.values()], *separate]]
        return optimizers if separate else optimizers[0]

    def _scheduled(self, groups: list[dict[str, Any]]) -> Any:
        """The optimizer of these groups, as Lightning wants it, with its scheduler if any."""
        trainer = self._trainer  # self.trainer is an error outside a run
        scaled = trainer is not None and has_scale(trainer)
        how = {"fused": True} if not scaled and can_fuse(self.make_optimizer, groups) else {}
        optimizer = self.make_optimizer(groups, **how)
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips each group by itself: with one norm over all they would shrink each other.

        Raises:
            UserError: the gradients still have the scale of fp16, which only this optimizer knows.
        """
        if not gradient_clip_val:
            return
        scaled = self.fit_trainer is not None and has_scale(self.fit_trainer)
        if scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UserError(
                "trainer.gradient_clip_val does not work with a fused optimizer in 16-mixed: it "
                "scales the gradients back by itself, after they were clipped "
                "(optimizer.fused=false, or hardware.precision=bf16-mixed)"
            )
        clip = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
        for group in optimizer.param_groups:
            clip(group["params"], gradient_clip_val)

    def optimize(self, losses: Losses, name: str = STUDENTS) -> None:
        """One optimizer step that minimises the sum of the terms (manual optimization).

        Outside a run the gradients are computed, and no step is made.

        Args:
            name: of ``separate_optimizers``; the default is the optimizer of all other groups.
        """
        step = step_of(losses)
        self._steps.append(step)
        if self.fit_trainer is None:
            step.loss.backward()
        else:
            optimizers = self.optimizers()
            for optimizer in optimizers:  # a loss may reach weights that another one steps
                optimizer.zero_grad()
            self.manual_backward(step.loss)
            optimizers[[STUDENTS, *self.separate_optimizers].index(name)].step()
        if step.statistics is not None:
            self.update_statistics(step.statistics)


def has_scale(trainer: Trainer) -> bool:
    """Whether gradients have a scale of their own, as in fp16."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def can_fuse(make: Callable, groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one kernel of torch can change all weights, and the settings of the optimizer do not
    say how it computes. A fused optimizer differs from others by rounding.
    """
    if not isinstance(make, partial) or make.func not in FUSED:
        return False
    chosen = {"fused", "foreach", "differentiable"} & make.keywords.keys()
    weights = [weight for group in groups for weight in group["params"]]
    on_gpu = all(w.device.type in FUSED_ON and w.is_floating_point() for w in weights)
    return bool(weights) and on_gpu and not chosen
