"""Loads weights from a file, and reports what is wrong with a file in one sentence.

The state dict of a ``Classifier`` has the names ``trunk.*``, ``head.*``, ``prepare.mean`` and
``prepare.std``; the last two are the statistics of the input that the weights were trained with.
``timm_nets.py`` converts timm's names to these, and ``timm_creation.py`` finds timm's own weights.
"""

import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier

STATISTICS = ("prepare.mean", "prepare.std")
KEY = "…weights"  # the keys of all nets of a run end like this


def check_weights_choice(weights: str | None, *, allow_pretrained: bool) -> None:
    """Raises ``UserError`` unless ``weights`` is "none", a file, or "pretrained" where allowed.

    ``read_state`` checks whether the file can be read.
    """
    if not isinstance(weights, str | PathLike):
        raise UserError(f"weights must be none, pretrained or a file, got {weights} ({KEY}=…)")
    if weights == "pretrained" and not allow_pretrained:
        raise UserError(f"this net has no pretrained weights: expected none or a file ({KEY}=…)")


def read_state(path: str | PathLike, key: str = KEY) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, on the CPU.

    Reads ``.safetensors`` files and files of ``torch.save``: a state dict, or one inside
    ``{"state_dict": …}`` or ``{"model": …}`` at any depth. Prefixes of wrappers (``module.``,
    ``_orig_mod.``) are removed from the names. No code in the file is executed.

    Args:
        path: of the file.
        key: the configuration key of the file, for messages.

    Raises:
        UserError: there is no such file, it is damaged, it needs code to be run, or it has no
            tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            f"weights must be none, pretrained or a file, and there is no file {path} ({key}=…)"
        )
    content = _load_safetensors(path, key) if path.suffix == ".safetensors" else _load(path, key)
    while isinstance(content, Mapping):
        inner = [content[name] for name in ("state_dict", "model") if name in content]
        if not inner or not isinstance(inner[0], Mapping):
            break
        content = inner[0]
    items = content.items() if isinstance(content, Mapping) else ()
    state = {
        strip_wrapper_prefixes(name): value for name, value in items if isinstance(value, Tensor)
    }
    if not state:
        raise UserError(
            f"{path} has no tensors, neither at the top nor under state_dict or model ({key}=…)"
        )
    return state


def _load_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a complete safetensors file: {error} ({key}=…)") from error


def _load(path: Path, key: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch raises the same error for a file that would run code and for one that is no pickle
        if "Unsupported" in str(error):
            raise UserError(
                f"{path} has other objects than tensors, and loading those could run code: save "
                f"the net's state_dict() alone and give that file ({key}=…)"
            ) from error
        raise UserError(f"{path} is not a file of weights ({key}=…)") from error
    except Exception as error:  # a file that is no pickle can raise anything
        raise UserError(f"{path} is damaged or cut short: {first_line(error)} ({key}=…)") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, up to a full stop, to be quoted in a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]


def strip_wrapper_prefixes(name: str) -> str:
    """A parameter's name without the prefixes of DataParallel, DDP and ``torch.compile``."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def is_classifier_state(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of a ``Classifier``."""
    tops = {name.partition(".")[0] for name in state}
    return "trunk" in tops and tops <= {"prepare", "trunk", "head"}


def load_weights(net: nn.Module, path: str | PathLike, key: str = KEY) -> None:
    """Loads a file into ``net``. All names and shapes must agree.

    If the file has the statistics of the input that its weights were trained with, the net gets
    them; if not, the net keeps its own.

    Raises:
        UserError: see ``read_state``; or the checkpoint has another number of classes or of input
            channels, or other names or shapes than the net.
    """
    load_state(net, read_state(path, key), path, key)


def load_state(
    net: nn.Module,
    state: Mapping[str, Tensor],
    path: str | PathLike,
    key: str,
    *,
    name_in_file: Callable[[str], str] = str,
) -> None:
    """``load_weights`` for a state dict that was already read.

    Args:
        path, key: of the file and of its configuration key, for messages.
        name_in_file: name in ``state`` -> name in the file, for messages.
    """
    if isinstance(net, Classifier):
        _add_statistics_buffers(net, state)
    own = net.state_dict()
    missing = [name for name in own if name not in state and name not in STATISTICS]
    unexpected = [name for name in state if name not in own]
    reshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if reshaped and all(name.startswith("head.") for name in reshaped):
        expected, found = own["head.weight"].shape, state["head.weight"].shape
        if expected[1:] == found[1:]:
            raise UserError(
                f"expected weights for {expected[0]} classes, {path} has {found[0]} ({key}=…)"
            )
    if statistics := [name for name in reshaped if name in STATISTICS]:
        expected, found = (of[statistics[0]].numel() for of in (own, state))
        raise UserError(
            f"expected weights for {expected} input channels, {path} has {found} ({key}=…)"
        )
    shapes = [
        f"{name_in_file(n)} {list(state[n].shape)}, expected {list(own[n].shape)}" for n in reshaped
    ]
    problems = (
        _list_some("missing", map(name_in_file, missing)),
        _list_some("unexpected", map(name_in_file, unexpected)),
        _list_some("of another shape", shapes),
    )
    if any(problems):
        message = "; ".join(problem for problem in problems if problem)
        raise UserError(f"the weights in {path} do not fit the net: {message} ({key}=…)")
    net.load_state_dict(own | dict(state))


def _add_statistics_buffers(net: Classifier, state: Mapping[str, Tensor]) -> None:
    """Adds buffers for the statistics in ``state`` to a net that was built without statistics."""
    device = next(net.parameters()).device
    for name in STATISTICS:
        buffer = name.removeprefix("prepare.")
        if name in state and getattr(net.prepare, buffer) is None:
            net.prepare.register_buffer(buffer, torch.empty_like(state[name], device=device))


def _list_some(kind: str, names: Iterable[str], max_names: int = 3) -> str:
    """ "missing: a, b, c and 9 more"; "" if there are no names."""
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return f"{kind}: {', '.join(names[:max_names])}{more}"
