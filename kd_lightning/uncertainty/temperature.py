"""Temperature scaling: one number that makes the predictions of a net less or more confident.

Dimensions: B samples, C classes.
"""

from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

BOUNDS = (0.01, 100.0)
CHUNK = 8192  # number of samples that are converted to float64 at a time


def fit_temperature(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> float:
    """The T > 0 that minimizes the mean NLL of ``softmax(z / T)``.

    Guo et al., arXiv 1706.04599, section 4.2.

    Fit it on samples that the net was not trained on. T is above 1 for an overconfident net and 1
    for a net that no temperature improves. It does not change the predicted classes.

    The NLL is convex in 1 / T, so there is one minimum, where the slope is zero. It is found by
    bracketing. If the slope is zero nowhere, T is one of ``BOUNDS``: the lower one if all samples
    are predicted correctly, so that more confidence is always better; the upper one if the
    predictions are worse than a uniform one. If T has no effect, as for equal logits, it is 1.
    """

    def slope(inverse: float) -> float:
        """Derivative of the summed NLL with respect to 1 / T: mean logit minus label logit."""
        total = 0.0
        for z, y in zip(logits.detach().split(CHUNK), labels.split(CHUNK), strict=True):
            z = z.double() - z.double().amax(dim=1, keepdim=True)  # equal logits become zero
            expected = ((inverse * z).softmax(dim=1) * z).sum(dim=1)
            total += (expected - z.gather(1, y.unsqueeze(1)).squeeze(1)).sum().item()
        return total

    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    at_low, at_high = slope(low), slope(high)
    if at_low == at_high == 0:
        return 1.0
    if at_low >= 0:
        return BOUNDS[1]
    if at_high <= 0:
        return BOUNDS[0]
    return 1 / brentq(slope, low, high, xtol=1e-9)
