"""Several views of a batch in one step."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor

from kd_lightning.base.errors import UserError, unknown


def rotations(x: Num[Tensor, "B C H W"]) -> Num[Tensor, "4*B C H W"]:
    """A batch rotated by 0, 90, 180 and 270 degrees; the row of view v and sample i is v * B + i.

    Raises:
        UserError: the samples are not square images.
    """
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise UserError(
            f"rotations need square images, got samples of shape {tuple(x.shape[1:])}: choose "
            "other data (data=…), or images of one size (data.image_size=…)"
        )
    return torch.cat([torch.rot90(x, turns, dims=(2, 3)) for turns in range(4)])


def reverse(x: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
    """Each series backwards."""
    return x.flip(-1)


def sign_flip(x: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
    """Each channel upside down, around its mean."""
    return 2 * x.mean(dim=-1, keepdim=True) - x


def scaling(x: Float[Tensor, "B C L"], deviation: float = 0.5) -> Float[Tensor, "B C L"]:
    """Each series farther from the mean of its channels, or nearer, by a factor drawn from N(1,
    deviation^2).
    """
    mean = x.mean(dim=-1, keepdim=True)
    factor = 1 + deviation * torch.randn(len(x), 1, 1, device=x.device, dtype=x.dtype)
    return mean + factor * (x - mean)


def jitter(x: Float[Tensor, "B C L"], deviation: float = 0.3) -> Float[Tensor, "B C L"]:
    """Each value with noise, whose deviation is this share of its channel's in the series."""
    spread = x.std(dim=-1, keepdim=True, correction=0)
    return x + deviation * spread * torch.randn_like(x)


def segment_permutation(x: Float[Tensor, "B C L"], segments: int = 4) -> Float[Tensor, "B C L"]:
    """Each series cut into segments of equal length, in a random order of its own. What is left
    over at the end stays there; so does a series that is too short to be cut.
    """
    length = x.shape[-1] // segments
    places = torch.arange(length, device=x.device)
    order = torch.rand(len(x), segments, device=x.device).argsort(dim=1)
    places = (order.unsqueeze(2) * length + places).flatten(1)
    cut = places.shape[1]
    moved = x[..., :cut].gather(2, places.unsqueeze(1).expand(-1, x.shape[1], -1))
    return torch.cat([moved, x[..., cut:]], dim=-1)


# Random numbers come from torch's default generators, so seed them first.
SERIES_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    view.__name__: view for view in (reverse, sign_flip, scaling, jitter, segment_permutation)
}


def views_for(
    input_shape: Sequence[int], series_views: Sequence[str], key: str
) -> tuple[int, Callable[[Tensor], Tensor]]:
    """The number V of views, and the function that makes them: (B, ...) -> (V * B, ...), view by
    view. View 0 is the batch itself. Images are rotated; series have the views that are named.

    Args:
        input_shape: of a sample.
        series_views: names in ``SERIES_VIEWS``.
        key: of these names.

    Raises:
        UserError: an unknown name, no name, or images that are not square.
    """
    if len(input_shape) != 2:
        rotations(torch.zeros(1, *input_shape))  # refuses what it cannot rotate
        return 4, rotations
    if not series_views:
        raise UserError(f"views of a series need one transformation or more, got none ({key}=…)")
    for name in series_views:
        if name not in SERIES_VIEWS:
            raise unknown("view of a series", name, SERIES_VIEWS, key)
    made = [SERIES_VIEWS[name] for name in series_views]
    return 1 + len(made), lambda x: torch.cat([x, *(view(x) for view in made)])
