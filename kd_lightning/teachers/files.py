"""A teacher from a file of weights: which net, which classes in which order, which input."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData
from kd_lightning.models.assemble import select_rows
from kd_lightning.models.checkpoint_facts import Facts
from kd_lightning.models.checkpoints import read_checkpoint
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.timm_creation import NoNetwork
from kd_lightning.models.timm_nets import timm_facts, timm_statistics
from kd_lightning.models.weights import Loaded, load_weights
from kd_lightning.teachers.class_order import rows_for
from kd_lightning.teachers.input_facts import describe_input, differences, given_facts, set_input
from kd_lightning.teachers.other_runs import check_split_of_file
from kd_lightning.teachers.unused_keys import TEACHER, check_interpolation

SOURCE = "teacher.source"
WEIGHTS_KEY = "teacher.weights_key"


class Found(NamedTuple):
    """A teacher's net with its weights.

    Attributes:
        class_names: the data's, if the file's order is known and not only assumed.
        notes: sentences for people.
        class_order: see ``Teacher``.
    """

    net: nn.Module
    class_names: list[str] | None
    notes: list[str]
    class_order: list[str] | None


def with_weights_of(
    path: Path,
    config: DictConfig,
    cfg: DictConfig,
    data: ClassificationData,
    build: Callable[[DictConfig], nn.Module],
) -> Found:
    """The net with the weights of a file, whose outputs are the data's classes.

    Args:
        path: of the file, or of a folder with it.
        config: of the net; it is changed.
        cfg: of the run.
        build: makes a net from its configuration.

    Raises:
        UserError: the file cannot be read, or its weights or its classes do not fit.
    """
    checkpoint = read_checkpoint(path, SOURCE)
    check_split_of_file(checkpoint.path, checkpoint.facts.fingerprint, cfg, data)
    given = given_facts(config, cfg.task)
    set_input(config, given.or_else(checkpoint.facts), cfg.task)
    if "weights" in config:
        config.weights = "none"
    net = build(config)
    loaded = load_weights(
        net,
        checkpoint,
        SOURCE,
        weights_key=cfg.teacher.weights_key,
        key_of_weights_key=WEIGHTS_KEY,
        any_classes=True,
    )
    check_interpolation(net, given.interpolation, TEACHER)
    origin = set_statistics(net, given, loaded, config, path)
    names = loaded.facts.class_names
    outputs = net.head.out_features if has_linear_head(net) else data.num_classes
    rows = rows_for(
        data.class_names,
        outputs,
        order=cfg.teacher.class_order,
        names=names,
        imagenet_rows=data.imagenet_rows,
        source=str(path),
    )
    if rows.rows is not None:
        if not has_linear_head(net):
            raise UserError(
                f"the classes of {path} cannot be reordered, because the net's head is no linear "
                f"layer: save it in the data's order ({SOURCE}=…)"
            )
        select_rows(net.head, rows.rows)
    notes = [
        *loaded.notes,
        rows.note,
        describe_input(net, origin, cfg.task.size),
        differences(loaded.facts, data, str(path)),
    ]
    class_names = list(data.class_names) if rows.are_known else None
    return Found(net, class_names, [note for note in notes if note], rows.names)


def with_timm_weights(
    config: DictConfig,
    cfg: DictConfig,
    data: ClassificationData,
    build: Callable[[DictConfig], nn.Module],
) -> Found:
    """A timm net with timm's weights, which gets images of the size of their training.

    Args:
        config, cfg, build: see ``with_weights_of``.

    Raises:
        UserError: the net is not timm's, or its weights are not here and there is no network.
    """
    if "require_head" not in config:
        raise UserError(
            f"teacher.source=pretrained needs a timm net, got {config._target_.split('.')[-1]}: "
            "choose one with model@method.teacher=…, or set teacher.source=train"
        )
    facts, given = timm_facts(config.name), given_facts(config, cfg.task)
    set_input(config, given.or_else(facts), cfg.task)
    config.update(weights="pretrained", require_head=True)
    try:
        net = build(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, NoNetwork):
            raise NoNetwork(*error.__cause__.facts, SOURCE, f"{SOURCE}=train") from error
        raise
    check_interpolation(net, given.interpolation, TEACHER)
    origin = "as given (method.teacher.mean)" if given.mean else f"timm's of {config.name}"
    notes = [
        describe_input(net, origin, cfg.task.size),
        differences(facts, data, f"timm's {config.name}"),
    ]
    class_names = list(data.class_names)
    order = class_names if data.imagenet_rows is None else None
    return Found(net, class_names, [note for note in notes if note], order)


def has_linear_head(net: nn.Module) -> bool:
    return isinstance(net, Classifier) and isinstance(net.head, nn.Linear)


def set_statistics(
    net: nn.Module, given: Facts, loaded: Loaded, config: DictConfig, path: Path
) -> str:
    """Gives the net the mean and std of its input, and says where they come from: those that were
    given, or else the file's, or else timm's for the net, or else the data's.
    """
    if not isinstance(net, Classifier) or not isinstance(net.prepare, Prepare):
        return ""
    if given.mean is not None:
        net.prepare.set_statistics(given.mean, given.std)
        return "as given (method.teacher.mean)"
    if loaded.facts.mean is not None:
        return f"from {path}"
    if loaded.facts.is_raw:
        return f"as {path} says"
    if "require_head" in config and not loaded.is_own:
        net.prepare.set_statistics(*timm_statistics(config.name, config.in_chans))
        return f"timm's defaults of {config.name}: none in {path} (method.teacher.mean=…)"
    return f"the data's: none in {path} (method.teacher.mean=…)"
