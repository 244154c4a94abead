"""The accuracy of a run's nets under attack, as a part of the run's test.

The attack is foolbox's PGD, and not this package's own, by which students are trained: an error in
one of them cannot hide in the other.
"""

from collections.abc import Mapping
from fractions import Fraction
from importlib.util import find_spec

import torch
from omegaconf import DictConfig
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.evaluation.robustness.adversarial import Attacks, attacked_batch, chosen_rows
from kd_lightning.losses.attacks import as_floats

PGD = "pgd"


def attacks_of(cfg: DictConfig) -> Attacks | None:
    """The attack that ``evaluation.adversarial`` asks for; None: it asks for none."""
    settings = cfg.evaluation
    if settings.adversarial is None:
        return None
    epsilon = Fraction(str(settings.adversarial))
    return Attacks((PGD,), epsilon, settings.adversarial_steps, settings.adversarial_samples)


def check_attacks(cfg: DictConfig) -> None:
    """Raises ``UserError`` for an attack in the test that cannot be done."""
    attacks = attacks_of(cfg)
    if attacks is None:
        return
    key, off = f"evaluation.adversarial={cfg.evaluation.adversarial}", "evaluation.adversarial=null"
    if len(cfg.task.shape) != 3:
        raise UserError(f"{key} is for images, and these are series: set {off}")
    if find_spec("foolbox") is None:
        raise UserError(
            f'{key} needs foolbox, which is not installed: pip install "kd_lightning[robustness]", '
            f"or set {off}"
        )


def robust_accuracies(
    nets: Mapping[str, nn.Module], data: ClassificationData, attacks: Attacks, device: torch.device
) -> dict[str, float]:
    """Net -> share of some test images that it recognizes unchanged and after the attack, in
    float32. They are the same images for every net and every run on these data.

    Args:
        nets: raw input -> ``ModelOutput``, on ``device`` and in eval mode.
    """
    test = data.parts["test"]
    chosen = test.subset(chosen_rows(len(test), attacks.samples))
    robust: dict[str, list[torch.Tensor]] = {name: [] for name in nets}
    for number, (images, labels) in enumerate(batches_of(data, chosen)):
        x, y = as_floats(images.to(device)), labels.to(device)
        for name, net in nets.items():
            robust[name].append(attacked_batch(net, x, y, number, PGD, attacks).cpu())
    return {name: torch.cat(parts).double().mean().item() for name, parts in robust.items()}
