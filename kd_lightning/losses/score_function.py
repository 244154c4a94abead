"""The gradient of a mean loss with respect to the probabilities with which something was drawn."""

from jaxtyping import Float
from torch import Tensor


def score_function_mean(
    losses: Float[Tensor, "B"], log_probs: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """The mean of the losses, with the score-function gradient to ``log_probs``.

        gradient = mean_i[ (L_i - mean_{j != i} L_j) grad log p_i ]  +  mean_i[ grad L_i ]

    The samples' draws must be independent. The other samples' mean is then a baseline that does not
    depend on draw i, so that the gradient of the expected loss is estimated without bias (Kool et
    al. 2019, "Buy 4 REINFORCE samples, get a baseline for free"). For one sample the baseline is 0,
    and the estimate has no bias either. The mean of no losses is 0.

    Args:
        losses: of each sample; its own graph (a direct gradient) is kept.
        log_probs: of what was drawn for each sample.
    """
    num = len(losses)
    values = losses.detach()
    others = (values.sum() - values) / max(num - 1, 1)
    scores = (values - others) * (log_probs - log_probs.detach())
    return (losses + scores).sum() / max(num, 1)
