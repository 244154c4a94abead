"""Accuracy on images that an attacker has changed, by the attacks of the library foolbox.

The attacker knows the net and may change each value of an image in [0, 1] by ``epsilon`` (L-inf).
Dimensions: N samples, B batch, C classes.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.proportions import wilson_interval
from kd_lightning.base.streams import seed_stream, stream
from kd_lightning.evaluation.labelled_set import (
    Advance,
    LabelledSet,
    Subject,
    counted,
    labels_of,
)
from kd_lightning.evaluation.sections import Section, interval_text, percent, whole
from kd_lightning.losses.attacks import as_floats

ATTACKS = {"fgsm": "LinfFastGradientAttack", "pgd": "LinfPGD"}
STEP = 2.5  # all steps of PGD together may go this many times epsilon (Madry et al., 1706.06083)


@dataclass(frozen=True)
class Attacks:
    """The attacks of an evaluation.

    Attributes:
        names: keys of ``ATTACKS``.
        epsilon: largest change of a value of an image in [0, 1].
        steps: of PGD.
        samples: number of images that are attacked at most.
    """

    names: Sequence[str]
    epsilon: Fraction = Fraction(8, 255)
    steps: int = 10
    samples: int = 1000


def check_attacks(attacks: Attacks, subjects: Sequence[Subject]) -> None:
    """Raises ``UserError`` for attacks that cannot be done."""
    for name in attacks.names:
        if name not in ATTACKS:
            raise unknown("attack", name, ATTACKS, "--adversarial")
    if not 0 < attacks.epsilon <= 1 or attacks.steps < 1 or attacks.samples < 1:
        raise UserError(
            "expected --epsilon in (0, 1], --steps >= 1 and --samples >= 1, got "
            f"{attacks.epsilon}, {attacks.steps} and {attacks.samples}"
        )
    if any(subject.form.kind == "series" for subject in subjects):
        raise UserError("--adversarial is for images, the student takes series: remove it")
    if find_spec("foolbox") is None:
        raise UserError(
            '--adversarial needs foolbox, which is not installed: pip install "kd_lightning'
            '[robustness]"'
        )


def choose(labelled: LabelledSet, count: int) -> LabelledSet:
    """At most ``count`` samples, always the same ones, in their order."""
    return labelled.subset(chosen_rows(len(labelled), count))


def chosen_rows(size: int, count: int) -> Int[Tensor, " n"]:
    """The indices of at most ``count`` of ``size`` samples, always the same ones, in order."""
    order = torch.randperm(size, generator=stream("adversarial samples"))
    return order[:count].sort().values


class Logits(nn.Module):
    """A net whose output is its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).logits


def attacked(
    net: nn.Module, x: Tensor, y: Tensor, name: str, epsilon: float, steps: int
) -> Bool[Tensor, " B"]:
    """Which images the net recognizes, unchanged and after an attack.

    Args:
        net: raw input -> ``ModelOutput``, in eval mode.
        x: (B, C, H, W) in [0, 1].
        y: (B,) classes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of scipy's, when foolbox is imported
        import foolbox

    options = {"rel_stepsize": STEP / steps, "steps": steps} if name == "pgd" else {}
    attack = getattr(foolbox.attacks, ATTACKS[name])(**options)
    model = foolbox.PyTorchModel(Logits(net).eval(), bounds=(0, 1), device=x.device)
    *_, is_fooled = attack(model, x, y, epsilons=epsilon)
    with torch.no_grad():
        is_right = net(x).logits.argmax(1) == y
    return is_right & ~is_fooled


def measure(
    subjects: Sequence[Subject],
    labelled: LabelledSet,
    attacks: Attacks,
    device: torch.device,
    advance: Advance,
) -> list[dict[str, Any]]:
    """One row for each student and each attack, and one for the worst of several attacks."""
    chosen = choose(labelled, attacks.samples)
    rows = []
    for subject in subjects:
        subject.net.to(device).eval()
        right: dict[str, Tensor] = {}
        for name in attacks.names:
            results = list(results_of(subject, chosen, name, attacks, device, advance))
            clean, robust = (torch.cat(part) for part in zip(*results, strict=True))
            right[name] = robust
        if len(right) > 1:
            right["all of them"] = torch.stack(list(right.values())).all(0)
        rows += [row_of(subject, name, clean, robust) for name, robust in right.items()]
    return rows


def results_of(
    subject: Subject,
    chosen: LabelledSet,
    name: str,
    attacks: Attacks,
    device: torch.device,
    advance: Advance,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch: which images are recognized unchanged, and which after the attack."""
    for number, (images, labels) in enumerate(counted(chosen.loader(subject.form), advance)):
        x = as_floats(images.to(device))
        y = labels_of(subject, labels, chosen.data.class_names).to(device)
        robust = attacked_batch(subject.net, x, y, number, name, attacks)
        with torch.no_grad():
            clean = subject.net(x).logits.argmax(1) == y
        yield clean.cpu(), robust.cpu()


def attacked_batch(
    net: nn.Module, x: Tensor, y: Tensor, number: int, name: str, attacks: Attacks
) -> Bool[Tensor, " B"]:
    """Which images of a batch the net recognizes, unchanged and after an attack.

    Args:
        net: raw input -> ``ModelOutput``, in eval mode.
        x: (B, C, H, W) in [0, 1].
        y: (B,) classes.
        number: of the batch; the random start follows from it.
        name: of the attack.
    """
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        seed_stream("attack", name, number, device=x.device)  # PGD starts at a random place
        return attacked(net, x, y, name, float(attacks.epsilon), attacks.steps)


def row_of(subject: Subject, name: str, clean: Tensor, robust: Tensor) -> dict[str, Any]:
    return {
        "student": subject.name,
        "attack": name,
        "n": len(robust),
        "accuracy": clean.double().mean().item(),
        "robust_accuracy": robust.double().mean().item(),
        "interval": wilson_interval(int(robust.sum()), len(robust)),
    }


def section(rows: Sequence[Mapping[str, Any]], attacks: Attacks) -> Section:
    columns = {
        "student": ("student", str),
        "attack": ("attack", str),
        "n": ("n", whole),
        "accuracy": ("accuracy", percent),
        "robust_accuracy": ("robust accuracy", percent),
        "interval": ("95 % interval", interval_text),
    }
    notes = [
        f"Attacks by foolbox: each value of an image in [0, 1] changes by {attacks.epsilon} at "
        f"most (L-inf). PGD: {attacks.steps} steps of {STEP:g} x epsilon / steps from a random "
        "start. robust accuracy: share of the images that are recognized unchanged and after the "
        "attack. Stronger attacks exist, so it is an upper bound."
    ]
    return Section("adversarial", "Accuracy under attack", rows, columns, notes)
