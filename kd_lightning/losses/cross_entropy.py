"""Cross-entropy with the labels. Dimensions: B batch, C classes."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def label_cross_entropy(
    logits: Float[Tensor, "B C"],
    labels: Int[Tensor, "B"] | Float[Tensor, "B C"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, "B"]:
    """Cross-entropy of the prediction with the label, in nats.

    ``- sum_c y_c log softmax(z)_c``, where y is the one-hot label, or the label distribution of a
    mixed sample (MixUp, CutMix), after smoothing: ``y <- (1 - label_smoothing) y +
    label_smoothing / C``.

    Zero when all probability is on the label. The smallest value is the entropy of y, so it is not
    zero for a label distribution, nor with smoothing. The gradient goes to the logits. Computed in
    float32.

    Args:
        logits: of the student.
        labels: class indices, or one distribution over the classes per sample.
        label_smoothing: in [0, 1]; Szegedy et al., arXiv 1512.00567, section 7.
    """
    if labels.ndim == 2:
        labels = labels.detach().float()
    return F.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=label_smoothing
    )
