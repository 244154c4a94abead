"""Weights with torchvision's names, for the same net of timm under other names.

torchvision's ResNets, DenseNets and others have timm's names and need nothing of this. MobileNetV2
and the EfficientNets have the same layers in the same order under other names. Their weights are
taken by order, if every shape agrees and the two nets then give the same logits for noise.
"""

import functools
from collections.abc import Mapping
from copy import deepcopy
from os import PathLike

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier

PARTS = ("features.", "encoder.layers.")  # in the names of torchvision's nets that timm names anew
OTHERS = ("googlenet", "inception*", "*resne*", "regnet*", "shufflenet*", "mnasnet*")
SIDE = 64  # of the noise images
TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit


def translated(
    net: nn.Module, state: Mapping[str, Tensor], path: PathLike, key: str
) -> dict[str, Tensor] | None:
    """torchvision's weights with the names of the timm net in ``net``; None if these are not
    torchvision's, or ``net`` holds no timm net.

    Args:
        state: of a file.
        path, key: of the file and of its configuration key, for messages.

    Raises:
        UserError: they are torchvision's, and the timm net is another one or computes something
            else.
    """
    if not isinstance(net, Classifier) or net.library_head is None:
        return None
    if (found := find_architecture(state)) is None:
        return None
    name, values = found
    own = [k for k in net.state_dict() if k.startswith(("trunk.", "head."))]
    if len(own) == len(values) and _same_function(net, name, own, values):
        theirs = [k.removeprefix("trunk.") for k in own]
        head = f"{net.library_head}."
        theirs = [f"{head}{k[5:]}" if k.startswith("head.") else k for k in theirs]
        return dict(zip(theirs, values.values(), strict=True))
    raise UserError(
        f"{path} has the weights of torchvision's {name}, and this timm net is another one or has "
        "its layers in another form, so they cannot be used: choose the same net (…name=…), and if "
        f"it is the same, train timm's on the data (teacher.source=train) ({key}=…)"
    )


def find_architecture(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """The torchvision net that has these names and shapes, and its tensors in its own order.

    The names may have a prefix, and the last layer any number of classes.
    """
    if not any(part in name for name in state for part in PARTS):
        return None
    import torchvision
    from torchvision.models import list_models

    for name in list_models(module=torchvision.models, exclude=OTHERS):
        expected = _shapes(name)
        first, *_ = expected
        for prefix in [n.removesuffix(first) for n in state if f".{n}".endswith(f".{first}")]:
            inside = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            if _agrees(expected, inside):
                return name, {k: inside[k] for k in expected}
    return None


@functools.cache
def _shapes(name: str) -> dict[str, torch.Size]:
    """Name -> shape of each tensor of a torchvision net, in its order. To build all nets takes
    seconds.
    """
    from torchvision.models import get_model

    with torch.device("meta"):
        return {k: v.shape for k, v in get_model(name, weights=None).state_dict().items()}


def _agrees(expected: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> bool:
    """Whether all names are equal, and all shapes but that of the head, which comes last."""
    *body, _, _ = expected
    return expected.keys() == state.keys() and all(
        state[name].shape == expected[name] for name in body
    )


@torch.no_grad()
def _same_function(net: Classifier, name: str, own: list[str], values: dict[str, Tensor]) -> bool:
    """Whether the net gives torchvision's logits with these weights, in this order."""
    from torchvision.models import get_model

    classes = len(list(values.values())[-1])
    theirs = get_model(name, weights=None, num_classes=classes).eval()
    theirs.load_state_dict(values)
    mine = deepcopy(net).eval()
    mine.head = nn.Linear(net.head.in_features, classes, bias=net.head.bias is not None)
    renamed = dict(zip(own, values.values(), strict=True))
    current = mine.state_dict()
    if any(current[k].shape != value.shape for k, value in renamed.items()):
        return False
    mine.load_state_dict(current | renamed)
    x = torch.linspace(-2, 2, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    logits, expected = mine.head(mine.trunk(x)), theirs(x)
    return bool((logits - expected).abs().max() <= TOLERANCE * expected.abs().max())
