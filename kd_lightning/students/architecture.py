"""The architecture of a student as plain values, and the net that it describes.

There are two forms:

- ``{"timm": name, "arguments": {…}, "head": name}``: a net of timm and the name of its last layer.
  The tensors of the file have timm's names, so ``timm.create_model(name, **arguments,
  checkpoint_path=file)`` builds the same net, for input that is normalized already.
- ``{"constructor": "package.function", "arguments": {…}}``: what this function returns, whose names
  the tensors have. A timm net with a small stem is one of these: timm itself would load its weights
  into a net that computes something else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.allowed import registered
from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import STATISTICS
from kd_lightning.models.timm_adaptation import head_name
from kd_lightning.models.timm_creation import timm_config
from kd_lightning.models.timm_nets import timm_classifier
from kd_lightning.students.construct import OF_ALL_TRAINING, OF_TRAINING, construct

TIMM = "kd_lightning.models.timm_nets.timm_classifier"

State = Mapping[str, Tensor]


def describe_architecture(config: Mapping[str, Any], state: State) -> dict[str, Any]:
    """The architecture of a trained net.

    Args:
        config: by which the run has built it, without references.
        state: its weights.
    """
    target, is_ours = config["_target_"], config["_target_"] in registered("model")
    unneeded = {"_target_", *(OF_TRAINING if is_ours else OF_ALL_TRAINING)}
    arguments = {key: value for key, value in config.items() if key not in unneeded}
    if target == TIMM and not config.get("small_stem"):
        return _describe_timm(config)
    # as trained: a file of weights may have brought its own, or say that there are none
    own = dict(zip(("mean", "std"), statistics(state), strict=True))
    arguments |= {k: v for k, v in own.items() if k in arguments and (is_ours or v is not None)}
    if target == TIMM and own["mean"] is None:
        arguments |= {"data_mean": None, "data_std": None}  # timm's net would take these instead
    if target == TIMM:
        arguments["block_dropout"] = 0.0  # a hook, which cannot be scripted
    return {"constructor": target, "arguments": arguments}


def statistics(state: State) -> list[list[float] | None]:
    """The mean and the std by which a net normalizes its input; None for each: it does not."""
    return [state[name].tolist() if name in state else None for name in STATISTICS]


def net_size(config: Mapping[str, Any]) -> int | None:
    """The side to which a net itself resizes images; None: it takes them as they are."""
    side = config.get("input_size")
    if side is None and config["_target_"] == TIMM:
        facts = timm_config(config["name"], pretrained=False)
        return facts.input_size[-1] if facts.fixed_input_size else None
    return side


def _describe_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {key: config[key] for key in ("num_classes", "in_chans")}
    facts = timm_config(config["name"], pretrained=False)
    if facts.fixed_input_size and net_size(config) != facts.input_size[-1]:
        arguments["img_size"] = net_size(config)
    architecture = {"timm": config["name"], "arguments": arguments}
    return {**architecture, "head": head_name(outline(architecture))}


def outline(architecture: Mapping[str, Any]) -> nn.Module:
    """timm's net without values: names and shapes alone."""
    import timm

    with torch.device("meta"):
        return timm.create_model(architecture["timm"], **architecture["arguments"])


def names_in_file(names: Sequence[str], architecture: Mapping[str, Any]) -> dict[str, str]:
    """Name in a net of this package -> name in the student file, for all that the file has."""
    if "timm" not in architecture:
        return {name: name for name in names}
    in_file = {}
    for name in names:
        part, _, rest = name.partition(".")
        if part == "trunk":
            in_file[name] = rest
        elif part == "head":
            in_file[name] = f"{architecture['head']}.{rest}"
    return in_file


def to_file(state: State, architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a net of this package as they are in a student file."""
    names = names_in_file(list(state), architecture)
    tensors = {in_file: state[name] for name, in_file in names.items()}
    if "timm" not in architecture:
        return tensors
    shapes = {name: value.shape for name, value in outline(architecture).state_dict().items()}
    assert tensors.keys() == shapes.keys()
    # some heads of timm are convolutions of size 1, which are linear layers here
    return {name: value.view(shapes[name]) for name, value in tensors.items()}


def build(info: Mapping[str, Any], state: State, path: Path, allow: Sequence[str]) -> nn.Module:
    """The net of a student file with its weights.

    Args:
        info, state: the content of the file.
        path: the file, for messages.
        allow: packages, or functions, that the file may name as its constructor.

    Raises:
        UserError: the constructor is not allowed, cannot be imported or fails, or the weights do
            not fit.
    """
    architecture = info["architecture"]
    if "timm" in architecture:
        net = _build_timm(info)
    else:
        name, arguments = architecture["constructor"], architecture["arguments"]
        # a file that is received reads no other file, and its constructor returns the net
        of_training = OF_TRAINING if name in registered("model") else OF_ALL_TRAINING
        odd = [key for key in arguments if key in (*of_training, "_partial_")]
        if odd:
            raise UserError(f"{path} is no student file: its constructor has the argument {odd[0]}")
        net = construct({"_target_": name, **arguments}, path, allow)
    own = net.state_dict()
    names = names_in_file(list(own), architecture)
    check_fit({in_file: own[name] for name, in_file in names.items()}, state, path)
    loaded = {name: state[in_file].view(own[name].shape) for name, in_file in names.items()}
    net.load_state_dict(own | loaded)
    return net


def _build_timm(info: Mapping[str, Any]) -> nn.Module:
    given, architecture = info["input"], info["architecture"]
    return timm_classifier(
        architecture["timm"],
        num_classes=architecture["arguments"]["num_classes"],
        in_chans=architecture["arguments"]["in_chans"],
        input_size=given["net_size"],
        interpolation=given["net_interpolation"],
        mean=given["mean"],
        std=given["std"],
        data_size=given["size"],
    )


def check_fit(own: State, state: State, path: Path) -> None:
    """Raises ``UserError`` unless a file has exactly the tensors of its net.

    Args:
        own: the tensors of the net with the names of the file.
        state: the tensors of the file.
    """
    for name, value in own.items():
        if name not in state:
            raise UserError(f"{path} lacks the weights {name} of its net")
        # a convolution of size 1 for a linear layer has more dimensions
        if [n for n in state[name].shape if n != 1] != [n for n in value.shape if n != 1]:
            raise UserError(
                f"the weights {name} in {path} have the shape {list(state[name].shape)}, its net "
                f"has {list(value.shape)}"
            )
    if unexpected := sorted(state.keys() - own.keys()):
        raise UserError(f"{path} has the weights {unexpected[0]}, which its net does not have")
