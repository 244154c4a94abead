"""Batches of some samples of a data set, as its loaders make them."""

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kd_lightning.data.loading.batches import Batch, Samples

if TYPE_CHECKING:  # it imports this folder
    from kd_lightning.data.classification import ClassificationData


def batches_of(data: "ClassificationData", samples: Samples, **changes: Any) -> Iterable[Batch]:
    """Batches (x, y) of samples, in order and without augmentation.

    Args:
        samples: of a part of ``data``.
        changes: attributes of ``data`` that differ.
    """
    changed = copy.copy(data)
    vars(changed).update(changes, parts={"val": samples})
    return changed.loader("val")
