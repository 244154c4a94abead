"""Any timm net as a ``Classifier``, with any weights, for any number of classes.

``timm_creation.py`` creates the net and finds its weights. ``timm_adaptation.py`` takes its head
off and adapts its stages and its stem.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.assemble import CheckedPrepare
from kd_lightning.models.classifier import Classifier, check_rate
from kd_lightning.models.timm_adaptation import (
    add_block_dropout,
    record_outputs,
    remove_head,
    use_small_stem,
)
from kd_lightning.models.timm_creation import create_net, timm_config
from kd_lightning.models.weights import (
    KEY,
    STATISTICS,
    check_weights_choice,
    is_classifier_state,
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

    The input is normalized with the first of these that exists: ``mean`` and ``std``; the
    statistics in the file of weights; timm's, if the weights are timm's or have timm's names; the
    data's.

    Args:
        name: of a timm net, with or without a tag: "resnet50", "resnet50.a1_in1k".
        num_classes: C of the logits.
        in_chans: channels of the input. timm adapts its weights to other numbers than 3.
        weights: "none"; "pretrained" (timm's); or a file, saved from a ``Classifier`` or from timm.
        dropout: rate before the head.
        block_dropout: rate after each stage that the net's ``feature_info`` names.
        drop_path: stochastic depth, the rate at the last block.
        small_stem: a first convolution of 3 x 3 and stride 1 and no pooling, for small images.
        input_size: side to which images are resized; None: no resizing. For nets of one fixed size:
            None: resize to that size; another number: build the net for that size.
        mean, std: of each channel, in units of a [0, 1] image.
        data_mean, data_std, data_size: of the data. Images too small for the net raise an error.
        imagenet_rows: the data's classes among those of ImageNet-1k. A head of 1000 classes keeps
            these rows.
        require_head: True: weights for other classes raise an error. False: they get a new head, to
            be trained.

    Raises:
        UserError: the name is unknown, the weights cannot be found or do not fit, or the net does
            not support an argument.
    """
    check_weights_choice(weights, allow_pretrained=True)
    check_rate("block_dropout", block_dropout)
    check_rate("drop_path", drop_path)
    pretrained = weights == "pretrained"
    config = timm_config(name, pretrained)
    native = config.input_size[-1]
    if config.fixed_input_size:
        input_size = input_size or native
    # images larger than the net's own size always work, and a pass with them would be slow
    side = input_size or min(data_size or native, native)
    state = {} if weights in ("none", "pretrained") else read_state(weights)
    if mean is None and std is None:
        mean, std = data_mean, data_std
        if pretrained or (state and not is_classifier_state(state)):
            mean, std = (
                _statistics_for_channels(s, in_chans, name) for s in (config.mean, config.std)
            )
    else:  # the statistics in the file would overwrite them
        state = {key: value for key, value in state.items() if key not in STATISTICS}

    classes = config.num_classes if pretrained else num_classes
    net = create_net(name, config, pretrained, classes, in_chans, drop_path, input_size)
    if classes == 0:  # timm has weights without a head for this net
        net.reset_classifier(num_classes)
    outputs = record_outputs(net, name, in_chans, side)
    head, head_name = remove_head(net, name, outputs)
    if block_dropout > 0:
        add_block_dropout(net, name, block_dropout, outputs)
    if small_stem:
        use_small_stem(net, name, pretrained)
    classifier = Classifier(
        prepare=CheckedPrepare(in_chans, 2, mean=mean, std=std, size=input_size),
        trunk=net,
        dropout=dropout,
        head=head,
    )
    if state:
        classes = _load_with_any_head(classifier, state, head_name, weights)
    if weights != "none":
        _adapt_head(classifier, classes, num_classes, imagenet_rows, require_head)
    return classifier


def _statistics_for_channels(values: Sequence[float], in_chans: int, name: str) -> list[float]:
    """timm's statistics for this number of channels. For one (grey), the mean over the colours."""
    if len(values) == in_chans:
        return list(values)
    if in_chans == 1:
        return [sum(values) / len(values)]
    raise UserError(
        f"timm's mean and std for {name} are for {len(values)} channels, the data have {in_chans}: "
        "set them for the data (…mean=…, …std=…)"
    )


def _to_classifier_state(state: Mapping[str, Tensor], head_name: str) -> dict[str, Tensor]:
    """A state dict with timm's names -> one with the names of a ``Classifier``."""
    converted = {}
    for key, value in state.items():
        if key == f"{head_name}.weight":
            converted["head.weight"] = value.flatten(1)  # a 1 x 1 convolution becomes linear
        elif key == f"{head_name}.bias":
            converted["head.bias"] = value
        else:
            converted[f"trunk.{key}"] = value
    return converted


def _to_timm_name(name: str, head_name: str) -> str:
    """The inverse of ``_to_classifier_state`` for one name."""
    part, _, rest = name.partition(".")
    return f"{head_name}.{rest}" if part == "head" else rest


def _load_with_any_head(
    classifier: Classifier, state: Mapping[str, Tensor], head_name: str, path: str
) -> int:
    """Loads weights for any number of classes, with any names, and returns the number of classes.

    Args:
        head_name: timm's name of the head.
        path: of the file, for messages.
    """
    name_in_file = str
    if not is_classifier_state(state):
        state = _to_classifier_state(state, head_name)
        name_in_file = partial(_to_timm_name, head_name=head_name)
    head = classifier.head
    classes = len(state.get("head.weight", head.weight))
    classifier.head = nn.Linear(head.in_features, classes, bias=head.bias is not None)
    load_state(classifier, state, path, KEY, name_in_file=name_in_file)
    return classes


def _adapt_head(
    classifier: Classifier,
    classes: int,
    num_classes: int,
    imagenet_rows: Sequence[int] | None,
    require_head: bool,
) -> None:
    """Adapts a trained head to the data's classes: selects its rows, or makes a new head.

    Args:
        classes: number of classes of the weights.
        num_classes: number of classes of the data.
        imagenet_rows, require_head: see ``timm_classifier``.
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
