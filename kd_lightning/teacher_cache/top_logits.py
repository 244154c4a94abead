"""The highest logits of a prediction, with one value for all others: a smaller cache.

Dimensions: B batch, C classes.
"""

import math
from collections.abc import Callable

from torch import Tensor, inf

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.batches import Values

LEAST_MASS = 0.99  # softened probability that the highest logits must hold
PARTS = ("top_logits", "top_classes", "other_logit")


def compressed(logits: Tensor, top_k: int, temperature: float) -> Values:
    """The highest logits, their classes, and one logit for each other class, which leaves the total
    softened probability of the others unchanged. At another temperature it would not.
    """
    top, classes = logits.topk(top_k, dim=1)
    others = (logits.scatter(1, classes, -inf) / temperature).logsumexp(dim=1)
    other = temperature * (others - math.log(logits.shape[1] - top_k))
    return {"top_logits": top, "top_classes": classes, "other_logit": other}


def expanded(cached: Values, num_classes: int) -> Values:
    """``cached`` with all logits, (B, C), where only the highest were cached."""
    if "top_logits" not in cached:
        return cached
    top, classes, other = (cached[name] for name in PARTS)
    logits = other.unsqueeze(1).repeat(1, num_classes).scatter(1, classes.long(), top.float())
    return {"logits": logits, **{k: v for k, v in cached.items() if k not in PARTS}}


def check_mass(logits: Tensor, top_k: int, temperature: float, say: Callable[[str], None]) -> None:
    """Reports how much of the softened probability the highest logits hold.

    Raises:
        UserError: less than ``LEAST_MASS``.
    """
    mass = (logits / temperature).softmax(dim=1).topk(top_k, dim=1).values.sum(dim=1).mean()
    holds = (
        f"the {top_k} highest of {logits.shape[1]} logits hold {mass:.2%} of the softened "
        f"probability (T = {temperature:g})"
    )
    if mass < LEAST_MASS:
        raise UserError(
            f"teacher.cache_top_k={top_k} would change the soft targets: {holds}, and "
            f"at least {LEAST_MASS:.0%} is required: raise it, or set teacher.cache_top_k=null"
        )
    say(f"teacher cache: {holds}")
