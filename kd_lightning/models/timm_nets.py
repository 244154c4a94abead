"""Any timm net as a ``Classifier``, with any weights, for any number of classes.

``timm_creation.py`` creates the net and finds its weights. ``timm_adaptation.py`` takes its head
off and adapts its stages and its stem.
"""

from collections.abc import Sequence

from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, ShareBelowOne
from kd_lightning.models.assemble import CheckedPrepare, select_rows
from kd_lightning.models.checkpoint_facts import Facts, facts_of
from kd_lightning.models.classifier import Classifier, check_rate
from kd_lightning.models.timm_adaptation import (
    add_block_dropout,
    record_outputs,
    remove_head,
    use_small_stem,
)
from kd_lightning.models.timm_creation import create_net, timm_config
from kd_lightning.models.weights import check_weights_choice, load_weights, say_once

IMAGENET_CLASSES = 1000


def timm_classifier(
    name: str,
    *,
    num_classes: Count,
    in_chans: Count,
    weights: str = "none",
    weights_key: str | None = None,
    dropout: ShareBelowOne = 0.0,
    block_dropout: ShareBelowOne = 0.0,
    drop_path: ShareBelowOne = 0.0,
    small_stem: bool = False,
    input_size: Count | None = None,
    interpolation: str | None = None,
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
        weights_key: which of several sets of weights in the file, see ``load_weights``.
        dropout: rate before the head.
        block_dropout: rate after each stage that the net's ``feature_info`` names.
        drop_path: stochastic depth, the rate at the last block.
        small_stem: a first convolution of 3 x 3 and stride 1 and no pooling, for small images.
        input_size: side to which images are resized; None: no resizing. For nets of one fixed size:
            None: resize to that size; another number: build the net for that size.
        interpolation: of that resizing: nearest-exact, bilinear (None) or bicubic.
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
    given = mean is not None or std is not None
    if not given:
        mean, std = timm_statistics(name, in_chans) if pretrained else (data_mean, data_std)

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
    prepare = CheckedPrepare(
        in_chans, 2, mean=mean, std=std, size=input_size, interpolation=interpolation or "bilinear"
    )
    classifier = Classifier(prepare=prepare, trunk=net, dropout=dropout, head=head)
    classifier.library_head = head_name
    if weights not in ("none", "pretrained"):
        _load_file(classifier, weights, weights_key, name, given=(mean, std) if given else None)
        classes = classifier.head.out_features
    if weights != "none":
        classifier.starts_trained = True
        _adapt_head(classifier, classes, num_classes, imagenet_rows, require_head)
    return classifier


def _load_file(
    net: Classifier,
    path: str,
    weights_key: str | None,
    name: str,
    *,
    given: tuple[Sequence[float], Sequence[float]] | None,
) -> None:
    """Loads weights for any number of classes, and the statistics of the input that belong to them.

    Args:
        given: mean and std that the file's must not replace.
    """
    loaded = load_weights(net, path, weights_key=weights_key, any_classes=True)
    for note in loaded.notes:
        say_once(note)
    if given is not None:
        net.prepare.set_statistics(*given)
    elif loaded.facts.mean is None and not loaded.is_own:
        net.prepare.set_statistics(*timm_statistics(name, net.prepare.in_chans))


def timm_statistics(name: str, in_chans: int) -> tuple[list[float], list[float]]:
    """timm's mean and std of the input of a net. For one channel (grey), the mean over the colours.

    Raises:
        UserError: timm's are for another number of channels.
    """
    config = timm_config(name, pretrained=False)
    mean, std = config.mean, config.std
    if len(mean) == in_chans:
        return list(mean), list(std)
    if in_chans == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    raise UserError(
        f"timm's mean and std for {name} are for {len(mean)} channels, the data have {in_chans}: "
        "set them for the data (…mean=…, …std=…)"
    )


def timm_facts(name: str) -> Facts:
    """What timm says about the input that its weights for a net were trained with."""
    config = timm_config(name, pretrained=False)
    return facts_of(vars(config))


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
        select_rows(head, imagenet_rows)
        classes = head.out_features
    if classes == num_classes:
        return
    if require_head:
        raise UserError(
            f"the teacher must have the data's {num_classes} classes, its weights have {classes}: "
            "give weights that were trained on these classes, or train it (teacher.source=train)"
        )
    classifier.head = nn.Linear(head.in_features, num_classes)
