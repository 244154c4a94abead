"""Temperature scaling: one number that makes a net less, or more, sure. Dimensions: B samples,
C classes.
"""

from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

BOUNDS = (0.01, 100.0)
CHUNK = 8192  # samples that are held in float64 at once


def fit_temperature(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> float:
    """The T > 0 with the least mean NLL of ``softmax(z / T)``: Guo et al., arXiv 1706.04599, 4.2.

    To be fitted on samples that did not train the net. Above 1 where the net is too sure, 1 where
    no other does better; it changes no prediction.

    The NLL is convex in 1 / T, so the T where its slope is zero is the only one, and is found in
    brackets. ``BOUNDS`` hold it where there is none: the lower where all samples are right, and
    the surer the better; the upper where the net knows less than nothing, and a uniform prediction
    is better. Where T makes no difference, as for equal logits, it is 1.
    """

    def slope(inverse: float) -> float:
        """The derivative of the summed NLL by 1 / T: mean logit less the label's."""
        total = 0.0
        for z, y in zip(logits.detach().split(CHUNK), labels.split(CHUNK), strict=True):
            z = z.double() - z.double().amax(dim=1, keepdim=True)  # so equal logits are zero
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
