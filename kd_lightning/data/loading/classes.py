"""The classes of a data set: their order, and sentences about their names and sizes."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

import torch
from jaxtyping import Int
from torch import Tensor

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,4})?", re.IGNORECASE)
SHOWN = 20  # classes in a note; a longer list is cut
UNBALANCED = 3  # times that the largest class has the samples of the smallest


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names in numeric order if all are numbers ("2" before "10"), else in alphabetical order."""
    names = sorted(names)
    if all(map(NUMBER.fullmatch, names)):
        return sorted(names, key=Decimal)  # exact, and equal numbers stay in the order of text
    return names


def class_notes(names: Sequence[str], labels: Int[Tensor, "N"]) -> list[str]:
    """Which label is which class, with the number of its samples; and whether they are unbalanced.

    Args:
        names: of the classes, in label order.
        labels: of all samples, indices of ``names``.
    """
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    table = [
        f"{i} = {name} ({count})" for i, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    more = f", … {len(names)} classes" if len(names) > SHOWN else ""
    notes = [f"Classes: {', '.join(table[:SHOWN])}{more}."]
    low, high = min(counts), max(counts)
    if high >= UNBALANCED * max(low, 1):
        smallest, largest = names[counts.index(low)], names[counts.index(high)]
        notes.append(
            f"The classes are unbalanced: {largest} has {high} samples, {smallest} has {low}. To "
            f"answer always {largest} is right for {high / sum(counts):.0%} of them."
        )
    return notes
