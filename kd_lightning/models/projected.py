"""Nets with a projector before their pooling, so that their features can have a teacher's size.

For the reused teacher classifier (SimKD, Chen et al., arXiv 2203.14001): the student that is
trained, saved and measured has the projector, and so all its parameters and its time are counted.
"""

from collections import OrderedDict
from typing import Unpack

from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, Four, ShareBelowOne
from kd_lightning.models.assemble import CommonArguments, build_classifier
from kd_lightning.models.cifar import conv_norm, resnet
from kd_lightning.models.classifier import Classifier


def projector(num_in: int, num_out: int, reduction: int = 2) -> nn.Sequential:
    """Convolutions of size 1, 3 and 1, each with batch norm and ReLU: (B, D, H, W) -> (B, E, H, W).

    As released; the two inner sizes are ``num_out // reduction``. The initial values are those of
    the net, which is ours.
    """
    hidden = max(1, num_out // reduction)
    return nn.Sequential(
        *conv_norm(num_in, hidden, 1),
        nn.ReLU(),
        *conv_norm(hidden, hidden, 3),
        nn.ReLU(),
        *conv_norm(hidden, num_out, 1),
        nn.ReLU(),
    )


def projected_resnet(
    *,
    depth: Count,
    widths: Four,
    projected: Count,
    reduction: Count = 2,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """A CIFAR ResNet (``cifar.resnet``) with a projector of its last map, ``trunk.projector``.

    Args:
        depth, widths, block_dropout: of the ResNet.
        projected: size of the features, which is that of the teacher's.
        reduction: by which the projector is narrower inside.
    """
    for name, value in (("projected", projected), ("reduction", reduction)):
        if value < 1:
            raise UserError(f"{name} must be >= 1, got {value} (…{name}=…)")
    of_shape = {"num_classes": common["num_classes"], "in_chans": common["in_chans"]}
    plain = resnet(depth=depth, widths=widths, block_dropout=block_dropout, **of_shape).trunk
    modules = OrderedDict(plain.named_children())
    pool = modules.pop("pool")
    modules |= {"projector": projector(widths[3], projected, reduction), "pool": pool}
    return build_classifier(nn.Sequential(modules), projected, num_dims=2, **common)
