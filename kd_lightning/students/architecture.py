"""The architecture of a student as plain values, and the net that it describes.

There are two forms:

- ``{"timm": name, "arguments": {…}}``: a net of timm. The tensors of the file have timm's names, so
  ``timm.create_model(name, **arguments, checkpoint_path=file)`` builds the same net, for input that
  is normalized already.
- ``{"constructor": "package.function", "arguments": {…}}``: what this function returns, whose names
  the tensors have. A timm net with a small stem is one of these: timm itself would load its weights
  into a net that computes something else.

A file from elsewhere must not decide what is executed. So a constructor is called only if it is
defined in one of ``OUR_MODULES``, or in a package that the caller allows.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.timm_adaptation import head_name
from kd_lightning.models.timm_creation import timm_config
from kd_lightning.models.timm_nets import timm_classifier
from kd_lightning.models.weights import KEY, load_weights

TIMM = "kd_lightning.models.timm_nets.timm_classifier"
OUR_MODULES = tuple(
    f"kd_lightning.models.{name}" for name in ("cifar", "perceptron", "time_series", "timm_nets")
)
# Arguments that matter only before or while a net is trained.
OF_TRAINING = ("weights", "imagenet_rows", "require_head", "drop_path")
HYDRAS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")

State = Mapping[str, Tensor]


def describe_architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture of the net that a run's resolved configuration builds."""
    arguments = {key: value for key, value in config.items() if key not in OF_TRAINING}
    target = arguments.pop("_target_")
    if target != TIMM:
        return {"constructor": target, "arguments": arguments}
    if config.get("small_stem"):
        return {"constructor": target, "arguments": {**arguments, "block_dropout": 0.0}}
    arguments = {key: config[key] for key in ("num_classes", "in_chans")}
    facts = timm_config(config["name"], pretrained=False)
    side = config.get("input_size")
    if facts.fixed_input_size and side not in (None, facts.input_size[-1]):
        arguments["img_size"] = side
    return {"timm": config["name"], "arguments": arguments}


def with_names_of_file(state: State, architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a net of ours with the names that they have in a student file.

    Args:
        state: with the names of the net, for timm's nets those of a ``Classifier``.
    """
    if "timm" not in architecture:
        return dict(state)
    import timm

    with torch.device("meta"):  # only names and shapes are needed
        net = timm.create_model(architecture["timm"], **architecture["arguments"])
    head, own = head_name(net), net.state_dict()
    renamed = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part != "prepare":
            name = f"{head}.{rest}" if part == "head" else rest
            renamed[name] = value.view(own[name].shape)  # some heads are 1 x 1 convolutions
    assert renamed.keys() == own.keys()
    return renamed


def build(info: Mapping[str, Any], path: Path, allow: Sequence[str]) -> nn.Module:
    """The net of a student file with its weights.

    Args:
        info: the description in the file.
        path: the file.
        allow: packages, or functions, that the file may name as its constructor.

    Raises:
        UserError: the constructor is not allowed, cannot be imported or refuses its arguments, or
            the weights do not fit.
    """
    architecture = info["architecture"]
    try:
        if "timm" in architecture:
            return _build_timm(info, path)
        values = {"_target_": architecture["constructor"], **architecture["arguments"]}
        net = construct(values, path, allow)
        load_weights(net, path, KEY)
        return net
    except UserError as error:  # there is no configuration here whose key could be changed
        raise UserError(str(error).replace(f" ({KEY}=…)", "")) from error
    except TypeError as error:
        raise UserError(
            f"the architecture in {path} cannot be built: {error} (it was written by another "
            "version of its constructor)"
        ) from error


def _build_timm(info: Mapping[str, Any], path: Path) -> nn.Module:
    given, architecture = info["input"], info["architecture"]
    channels = architecture["arguments"]["in_chans"]
    return timm_classifier(
        architecture["timm"],
        num_classes=architecture["arguments"]["num_classes"],
        in_chans=channels,
        weights=str(path),
        input_size=given["net_size"],
        # without statistics, the net would take timm's
        mean=given["mean"] or [0.0] * channels,
        std=given["std"] or [1.0] * channels,
        data_size=given["size"],
        require_head=True,
    )


def construct(values: Any, path: Path, allow: Sequence[str]) -> Any:
    """Calls every constructor in ``values``, the innermost first, as Hydra's ``instantiate`` does.

    Args:
        values: plain values; a mapping with ``_target_`` is a call of that function.
    """
    if isinstance(values, list):
        return [construct(value, path, allow) for value in values]
    if not isinstance(values, dict):
        return values
    arguments = {k: construct(v, path, allow) for k, v in values.items() if k not in HYDRAS}
    if "_target_" not in values:
        return arguments
    function = find_constructor(values["_target_"], path, allow)
    positional = construct(values.get("_args_", []), path, allow)
    call = partial(function, *positional, **arguments)
    return call if values.get("_partial_") else call()


def find_constructor(name: str, path: Path, allow: Sequence[str]) -> Callable[..., Any]:
    """The function or class with this dotted name.

    Raises:
        UserError: it is not allowed or cannot be imported.
    """
    module, _, function = str(name).rpartition(".")
    is_ours = module in OUR_MODULES
    allowed = [word for word in allow if name == word or name.startswith(f"{word}.")]
    if not is_ours and not allowed:
        raise UserError(
            f"{path} wants to call {name}, which is not part of kd_lightning: if you trust it, "
            f'allow its package (allow=["{str(name).partition(".")[0]}"])'
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} needs {name}, which cannot be imported ({error}): install the package that "
            "has it, or start Python where it is"
        ) from error
    # a module also has the names that it imports, such as os.system
    home = str(getattr(found, "__module__", ""))
    trusted = [module] if is_ours else [word.partition(".")[0] for word in allowed]
    if home not in trusted and home.partition(".")[0] not in trusted:
        raise UserError(f"{path} wants to call {name}, which is defined elsewhere ({home})")
    return found
