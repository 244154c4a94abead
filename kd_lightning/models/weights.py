"""Weights from a file, and what a person can get wrong about one.

Our own layout is that of a ``Classifier``: ``trunk.*``, ``head.*``, and ``prepare.mean``,
``prepare.std``, the statistics of the inputs that the weights were learnt with. timm's layout is
turned into ours in ``image.py``; where timm's own weights come from is in ``library.py``.
"""

import pickle
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier

STATISTICS = ("prepare.mean", "prepare.std")
KEY = "…weights"  # the nets of a run live at different keys; all of them end like this


def check_source(weights: str | None, *, library: bool) -> None:
    """Raises ``UserError`` for what is neither "none", nor a file, nor "pretrained" (``library``).

    Whether the file can be read is for ``read_state`` to say.
    """
    if not isinstance(weights, str | PathLike):
        raise UserError(f"weights must be none, pretrained or a file, got {weights} ({KEY}=…)")
    if weights == "pretrained" and not library:
        raise UserError(f"this net has no pretrained weights: expected none or a file ({KEY}=…)")


def read_state(path: str | PathLike, key: str = KEY) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, on the CPU.

    Takes ``.safetensors``, and what ``torch.save`` wrote: a state dict, or one inside
    ``{"state_dict": …}`` or ``{"model": …}``, however deep. Wrappers' prefixes (``module.``,
    ``_orig_mod.``) are taken off the names. Nothing in the file is executed.

    Args:
        path: of the file.
        key: the configuration key that named it, for messages.

    Raises:
        UserError: there is no such file, it is damaged, it needs code to be run, or it has no
            tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            f"weights must be none, pretrained or a file, and there is no {path} ({key}=…)"
        )
    found = load_safetensors(path, key) if path.suffix == ".safetensors" else load_pickle(path, key)
    while isinstance(found, Mapping):
        inner = [found[name] for name in ("state_dict", "model") if name in found]
        if not inner or not isinstance(inner[0], Mapping):
            break
        found = inner[0]
    tensors = found.items() if isinstance(found, Mapping) else ()
    state = {bare_name(name): value for name, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} has no tensors in it, or none under state_dict or model ({key}=…)")
    return state


def load_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error} ({key}=…)") from error


def load_pickle(path: Path, key: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's refusal to run code and a file that is no pickle at all are one exception
        if "Unsupported" in str(error):
            raise UserError(
                f"{path} holds objects besides tensors, and loading those could run code: save "
                f"the net's state_dict() alone and give that file ({key}=…)"
            ) from error
        raise UserError(f"{path} is no file of weights ({key}=…)") from error
    except Exception as error:  # a file that is no pickle may raise anything
        raise UserError(f"{path} is damaged or cut short: {first_line(error)} ({key}=…)") from error


def first_line(error: Exception) -> str:
    """An exception's first line, up to a full stop: what of it fits into a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]


def bare_name(name: str) -> str:
    """A parameter's name without what DataParallel, DDP and ``torch.compile`` put before it."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def in_our_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a ``Classifier``'s."""
    tops = {name.partition(".")[0] for name in state}
    return "trunk" in tops and tops <= {"prepare", "trunk", "head"}


def load_weights(net: nn.Module, path: str | PathLike, key: str = KEY) -> None:
    """Loads a file into ``net``, every name and shape of it.

    A file of ours brings the statistics that its weights were learnt with; one that has none
    leaves those the net was built with.

    Raises:
        UserError: as ``read_state``; the checkpoint has another number of classes, or other names
            or shapes than the net.
    """
    load_state(net, read_state(path, key), path, key)


def load_state(net: nn.Module, state: Mapping[str, Tensor], path: str | PathLike, key: str) -> None:
    """``load_weights`` for a state dict that is already in memory; ``path`` is for messages."""
    if isinstance(net, Classifier):
        make_room(net, state)
    own = net.state_dict()
    missing = [name for name in own if name not in state and name not in STATISTICS]
    unexpected = [name for name in state if name not in own]
    reshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if reshaped and all(name.startswith("head.") for name in reshaped):
        mine, theirs = own["head.weight"].shape, state["head.weight"].shape
        if mine[1:] == theirs[1:]:
            raise UserError(
                f"expected weights for {mine[0]} classes, {path} has {theirs[0]} ({key}=…)"
            )
    shapes = [f"{n} {list(state[n].shape)}, expected {list(own[n].shape)}" for n in reshaped]
    problems = (
        listing("lacks", missing),
        listing("has besides", unexpected),
        listing("has in another shape", shapes),
    )
    if any(problems):
        said = "; it ".join(problem for problem in problems if problem)
        raise UserError(f"{path} does not fit the net: it {said} ({key}=…)")
    net.load_state_dict(own | dict(state))


def make_room(net: Classifier, state: Mapping[str, Tensor]) -> None:
    """Gives a net that was built without statistics buffers for those in ``state``."""
    device = next(net.parameters()).device
    for name in STATISTICS:
        buffer = name.removeprefix("prepare.")
        if name in state and getattr(net.prepare, buffer) is None:
            net.prepare.register_buffer(buffer, torch.empty_like(state[name], device=device))


def listing(verb: str, names: Iterable[str], shown: int = 3) -> str:
    """ "lacks a, b, c and 9 more"; nothing for no names."""
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{verb} {', '.join(names[:shown])}{more}"
