"""Any timm classifier as a ``Classifier``, with any weights, for any classes.

How the net is taken apart is in ``surgery.py``, where its weights come from in ``library.py``.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.assemble import CheckedPrepare
from kd_lightning.models.classifier import Classifier, check_rate
from kd_lightning.models.timm_library import build, library_config
from kd_lightning.models.timm_surgery import add_block_dropout, take_head, trace, use_small_stem
from kd_lightning.models.weights import (
    KEY,
    STATISTICS,
    check_source,
    in_our_layout,
    load_state,
    read_state,
)

IMAGENET_CLASSES = 1000


def timm_classifier(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    weights: str = "none",
    dropout: float = 0.0,
    block_dropout: float = 0.0,
    drop_path: float = 0.0,
    small_stem: bool = False,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    data_mean: Sequence[float] | None = None,
    data_std: Sequence[float] | None = None,
    data_size: int | None = None,
    imagenet_rows: Sequence[int] | None = None,
    require_head: bool = False,
) -> Classifier:
    """The timm net ``name`` as a ``Classifier``.

    The input is normalised by the first of these that there is: ``mean`` and ``std``; the
    statistics in a file of ours; timm's, where the weights are timm's or in its layout; the data's.

    Args:
        name: of a timm net, with a tag or without: "resnet50", "resnet50.a1_in1k".
        num_classes: C of the logits.
        in_chans: channels of the input; timm adapts its weights to another number than 3.
        weights: "none"; "pretrained", timm's; or a file in our layout or timm's.
        dropout: rate before the head.
        block_dropout: rate after each stage that the net's ``feature_info`` names.
        drop_path: stochastic depth, the rate at the last block.
        small_stem: a first convolution of 3 x 3 and stride 1 and no pooling, for small images.
        input_size: side to which images are resized. None keeps theirs, but for nets of one fixed
            size, which get it; for these another number builds the net for that size.
        mean, std: per channel, in units of a [0, 1] image.
        data_mean, data_std, data_size: the data's own; images too small for the net are refused.
        imagenet_rows: the data's classes among ImageNet-1k's; a head of 1000 keeps these rows.
        require_head: refuse a head of other classes; without it, such a head is replaced by a new
            one, to be trained.

    Raises:
        UserError: unknown name, weights that are not to be had or do not fit, or an argument that
            this net cannot honour.
    """
    check_source(weights, library=True)
    check_rate("block_dropout", block_dropout)
    check_rate("drop_path", drop_path)
    pretrained = weights == "pretrained"
    config = library_config(name, pretrained)
    native = config.input_size[-1]
    if config.fixed_input_size:
        input_size = input_size or native
    # larger images than the net's own are never a problem, and a look at them would cost
    side = input_size or min(data_size or native, native)
    state = {} if weights in ("none", "pretrained") else read_state(weights)
    if mean is None and std is None:
        mean, std = data_mean, data_std
        if pretrained or (state and not in_our_layout(state)):
            mean, std = (for_channels(s, in_chans, name) for s in (config.mean, config.std))
    else:  # those in the file would overwrite them
        state = {key: value for key, value in state.items() if key not in STATISTICS}

    classes = config.num_classes if pretrained else num_classes
    net = build(name, config, pretrained, classes, in_chans, drop_path, input_size)
    if classes == 0:  # the library has this net's weights without a head
        net.reset_classifier(num_classes)
    seen = trace(net, name, in_chans, side)
    head, head_name = take_head(net, name, seen)
    if block_dropout > 0:
        add_block_dropout(net, name, block_dropout, seen)
    if small_stem:
        use_small_stem(net, name, pretrained)
    classifier = Classifier(
        prepare=CheckedPrepare(in_chans, 2, mean=mean, std=std, size=input_size),
        trunk=net,
        dropout=dropout,
        head=head,
    )
    if state:
        classes = load_file(classifier, to_our_layout(state, head_name), weights)
    if weights != "none":
        fit_head(classifier, classes, num_classes, imagenet_rows, require_head)
    return classifier


def for_channels(values: Sequence[float], in_chans: int, name: str) -> list[float]:
    """timm's statistics for another number of channels: grey is the mean of the colours."""
    if len(values) == in_chans:
        return list(values)
    if in_chans == 1:
        return [sum(values) / len(values)]
    raise UserError(
        f"timm's statistics for {name} are those of {len(values)} channels, the data have "
        f"{in_chans}: give them (…mean=…, …std=…)"
    )


def to_our_layout(state: Mapping[str, Tensor], head_name: str) -> dict[str, Tensor]:
    """timm's names -> ours; a state dict of ours stays as it is."""
    if in_our_layout(state):
        return dict(state)
    ours = {}
    for key, value in state.items():
        if key == f"{head_name}.weight":
            ours["head.weight"] = value.flatten(1)
        elif key == f"{head_name}.bias":
            ours["head.bias"] = value
        else:
            ours[f"trunk.{key}"] = value
    return ours


def load_file(classifier: Classifier, state: Mapping[str, Tensor], path: str) -> int:
    """Loads weights of whatever number of classes, and returns that number."""
    head = classifier.head
    classes = len(state.get("head.weight", head.weight))
    classifier.head = nn.Linear(head.in_features, classes, bias=head.bias is not None)
    load_state(classifier, state, path, KEY)
    return classes


def fit_head(
    classifier: Classifier,
    classes: int,
    num_classes: int,
    imagenet_rows: Sequence[int] | None,
    require_head: bool,
) -> None:
    """Makes a trained head one for the data's classes: its rows, or a new head.

    Args:
        classes: those that the weights came with.
        num_classes: those of the data.
        imagenet_rows, require_head: as ``timm_classifier``.
    """
    head = classifier.head
    if classes == IMAGENET_CLASSES and imagenet_rows is not None:
        rows = torch.tensor(list(imagenet_rows))
        head.weight = nn.Parameter(head.weight.detach()[rows])
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias.detach()[rows])
        head.out_features = classes = len(rows)
    if classes == num_classes:
        return
    if require_head:
        raise UserError(
            f"the teacher must have the data's {num_classes} classes, its weights have {classes}: "
            "give weights that were trained on these classes, or train it (teacher.source=train)"
        )
    classifier.head = nn.Linear(head.in_features, num_classes)
