"""The confusion matrix of predicted classes.

Dimensions: N samples, C classes.
"""

import numpy as np
from jaxtyping import Int


def confusion_matrix(
    predicted: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], num_classes: int
) -> Int[np.ndarray, "C C"]:
    """Number of samples of each class (row) that are predicted as each class (column).

    Args:
        predicted, labels: class indices; arrays, or tensors on the CPU.
    """
    cells = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predicted)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
