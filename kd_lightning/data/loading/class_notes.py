"""Sentences about the classes of a data set: their indices, and how many samples they have."""

from collections.abc import Sequence

import torch
from torch import Tensor

SHOWN = 10  # classes that a note names
UNBALANCED = 10  # ratio of the largest and the smallest class


def note_on_classes(class_names: Sequence[str]) -> str:
    """Which index each class has."""
    shown = ", ".join(f"{i} = {name}" for i, name in enumerate(class_names[:SHOWN]))
    more = len(class_names) - SHOWN
    return f"Classes: {shown}{f', and {more} more' if more > 0 else ''}."


def note_on_balance(y: Tensor, class_names: Sequence[str]) -> str:
    """How many training samples the smallest and the largest class have.

    Args:
        y: (N,) labels; every class has a sample.
    """
    counts = torch.bincount(y, minlength=len(class_names))
    low, high = int(counts.argmin()), int(counts.argmax())
    few, many = int(counts[low]), int(counts[high])
    if few == many:
        return f"Training samples of each class: {few}."
    extremes = f"from {few} ({class_names[low]}) to {many} ({class_names[high]})"
    note = f"Training samples of a class: {extremes}"
    if many > UNBALANCED * few:
        note += "; the classes are unbalanced, so accuracy says little about the small ones"
    return f"{note}."
