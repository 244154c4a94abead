"""Operations on feature maps, each sample with a strength of its own. At strength 0 each operation
is the identity, bit for bit.

    shear_x, shear_y           cells by which a row (a column) is moved for each row (column) of
                               distance from the centre
    translate_x, translate_y   shift, as a share of the map
    rotate                     degrees
    cutout                     side of a box of zeros at a random place, as a share of the map's
    noise                      deviation of Gaussian noise, as a share of the map's own
    channel_shuffle            chance of each channel to be among those that are permuted
    channel_drop               chance of each channel to become zero

Random numbers come from the default generators. Dimensions: B batch, D channels, H height, W width.
Series (B, D, L) are treated as maps of height 1, and have the last four operations and a shift.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

# Operation -> strengths at magnitudes 0 and 1. Released with student-oriented refinement.
RANGES = {
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "translate_x": (-0.45, 0.45),
    "translate_y": (-0.45, 0.45),
    "rotate": (-30.0, 30.0),
    "cutout": (0.0, 0.2),
    "noise": (0.0, 0.1),
    "channel_shuffle": (0.0, 1.0),
    "channel_drop": (0.0, 0.5),
}
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OF_IMAGES_ALONE = {"shear_x", "shear_y", "translate_y", "rotate"}

Strengths = Mapping[str, Float[Tensor, "B"]]


def operations_of(num_dims: int) -> list[str]:
    """The operations for maps with this number of dimensions of positions: 1 or 2."""
    return [name for name in RANGES if num_dims == 2 or name not in OF_IMAGES_ALONE]


def apply_operations(
    x: Float[Tensor, "B D *size"], strengths: Strengths
) -> Float[Tensor, "B D *size"]:
    """Each sample after the operations that have a strength for it, in the order of ``RANGES``.

    Args:
        strengths: operation -> its strength for each sample; one that is not named has strength 0.
    """
    maps = x if x.ndim == 4 else x.unsqueeze(2)
    none = x.new_zeros(len(x))
    of = {name: strengths.get(name, none) for name in RANGES}
    maps = move(maps, of)
    deviation = maps.flatten(1).std(1) * of["noise"]
    maps = maps * ~boxes(maps, of["cutout"]) + per_sample(deviation) * torch.randn_like(maps)
    maps = shuffle_channels(maps, of["channel_shuffle"])
    return drop_channels(maps, of["channel_drop"]).view_as(x)


def move(x: Float[Tensor, "B D H W"], strengths: Strengths) -> Float[Tensor, "B D H W"]:
    """Shear, then rotation about the centre, then shift, in one bilinear interpolation. What comes
    from outside of the map is zero.
    """
    shear_x, shear_y, right, down, degrees = (strengths[name] for name in MOVES)
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    aspect = x.shape[2] / x.shape[3]  # ``affine_grid`` counts both sides from -1 to 1
    rows = [
        *(cos - sin * shear_y, (cos * shear_x - sin) * aspect, 2 * right),
        *((sin + cos * shear_y) / aspect, sin * shear_x + cos, 2 * down),
    ]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, align_corners=False)
    is_moved = torch.stack([strengths[name] for name in MOVES]).ne(0).any(0)
    return torch.where(per_sample(is_moved), moved, x)  # interpolation rounds, even at strength 0


def boxes(x: Float[Tensor, "B D H W"], side: Float[Tensor, "B"]) -> Bool[Tensor, "B 1 H W"]:
    """A box of this share of each side, with its centre anywhere; of a side of one cell all."""
    inside = []
    for size in x.shape[2:]:
        places = (torch.arange(size, device=x.device) + 0.5) / size
        centre = torch.rand(len(x), 1, device=x.device) if size > 1 else 0.5
        inside.append((places - centre).abs() < side.unsqueeze(1) / 2)
    return (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)


def shuffle_channels(
    x: Float[Tensor, "B D H W"], share: Float[Tensor, "B"]
) -> Float[Tensor, "B D H W"]:
    """Permutes among themselves the channels that are chosen, each with this chance."""
    batch, channels = x.shape[:2]
    chosen = torch.rand(batch, channels, device=x.device) < share.unsqueeze(1)
    # both orders have the chosen channels first and then the others, in one order
    inside = torch.arange(channels, device=x.device, dtype=torch.float32) / channels
    in_order = torch.where(chosen, inside, 1 + inside).argsort(1)
    at_random = torch.where(chosen, torch.rand_like(chosen, dtype=torch.float32), 1 + inside)
    source = torch.empty_like(in_order).scatter_(1, in_order, at_random.argsort(1))
    return x.gather(1, source[:, :, None, None].expand_as(x))


def drop_channels(
    x: Float[Tensor, "B D H W"], chance: Float[Tensor, "B"]
) -> Float[Tensor, "B D H W"]:
    """Without the channels that are chosen, each with this chance. The others are not scaled up."""
    kept = torch.rand(x.shape[:2], device=x.device) >= chance.unsqueeze(1)
    return x * kept[:, :, None, None]


def per_sample(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to stand beside maps."""
    return values[:, None, None, None]
