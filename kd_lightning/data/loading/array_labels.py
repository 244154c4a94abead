"""The labels of arrays: numbers or names become class indices. They are compared as text."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.words import shorten
from kd_lightning.data.loading.classes import sorted_names

Labels = Mapping[str, Shaped[np.ndarray, "N"]]  # name of an array -> its labels
SHOWN = 10  # labels in a sentence; a longer list is cut


def encode_arrays(
    labels: Labels, names: Shaped[np.ndarray, "C"] | None
) -> tuple[dict[str, Int[Tensor, "N"]], list[str]]:
    """The class indices of each array, and the class names in label order.

    Args:
        labels: whole numbers or names; all arrays together have the classes.
        names: of the classes. With numbers as labels, label i means the name i, from 0. With names
            as labels, each must be among them. None: the sorted labels are the names.

    Raises:
        UserError: an array is no row of numbers or of names, or a label has no name.
    """
    texts = {key: as_texts(array, key, "integers or names") for key, array in labels.items()}
    are_numbers = {array.dtype.kind in "iu" for array in labels.values()}
    if len(are_numbers) > 1:
        kinds = " and ".join(f"{key} is {array.dtype}" for key, array in labels.items())
        raise UserError(f"labels must be all integers or all names, {kinds} (data.root=…)")
    found = sorted_names(set().union(*texts.values()))
    class_names = found if names is None else check_names(names)
    known = class_names
    if names is not None and are_numbers == {True}:
        known = [str(i) for i in range(len(class_names))]
    check_known(found, known, are_numbers == {True})
    index = {text: i for i, text in enumerate(known)}
    encoded = {key: torch.tensor([index[text] for text in row]) for key, row in texts.items()}
    return encoded, class_names


def as_texts(array: Shaped[np.ndarray, "..."], key: str, expected: str) -> list[str]:
    """One row of integers or names as text, so that ``01`` and ``1`` stay different."""
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise UserError(
            f"{key} must be one row of {expected}, got {array.dtype} of shape {array.shape} "
            "(data.root=…)"
        )
    try:
        array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        texts = [str(value) for value in array.tolist()]
        "".join(texts).encode()  # halves of a character cannot be written
    except (ValueError, SystemError):  # NumPy raises both for numbers that are no character
        raise UserError(f"{key} must be text in UTF-8, got other bytes (data.root=…)") from None
    if "" in texts:
        raise UserError(f"{key} has no text in sample number {texts.index('')} (data.root=…)")
    return texts


def check_names(names: Shaped[np.ndarray, "..."]) -> list[str]:
    """The names of the classes as text; raises ``UserError`` unless they differ."""
    texts = as_texts(names, "class_names", "names")
    if len(set(texts)) < len(texts):
        raise UserError(f"class_names must be different names, got {texts} (data.root=…)")
    return texts


def check_known(found: list[str], known: list[str], are_numbers: bool) -> None:
    """Raises ``UserError`` if a label that was found is not known."""
    if set(found) <= set(known):
        return
    if are_numbers:
        raise UserError(
            f"labels must be the integers 0..{len(known) - 1}, as there are {len(known)} "
            f"class_names; y has {shorten(found, SHOWN)} (data.root=…)"
        )
    strange = [text for text in found if text not in known]
    raise UserError(
        f"every label must be one of class_names, {shorten(known, SHOWN)}; y has "
        f"{shorten(strange, SHOWN)} too (data.root=…)"
    )


def renaming_notes(found: list[str], labels: Labels) -> list[str]:
    """That numbers became names, where they are not 0..C-1 already."""
    are_numbers = all(array.dtype.kind in "iu" for array in labels.values())
    if not are_numbers or found == [str(i) for i in range(len(found))]:
        return []
    return [
        f"y has the labels {shorten(found, SHOWN)} and not 0..{len(found) - 1}: each is the name "
        "of a class, in this order."
    ]
