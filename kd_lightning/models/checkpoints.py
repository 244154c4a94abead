"""Reads files of weights: all tensors in them, and what they say about their net. No code runs.

A file may hold several sets of weights, such as a net and the moving average (EMA) of its weights.
``matching.py`` finds out which of them fit a net.
"""

import argparse
import json
import pickle
import typing
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import omegaconf
import omegaconf.base
import torch
from torch import Tensor

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import check_archive
from kd_lightning.base.tensor_files import read_tensors
from kd_lightning.models.checkpoint_facts import Facts, as_mapping, facts_of, facts_of_student
from kd_lightning.models.file_content import check_content, is_safetensors, unreadable

KEY = "…weights"  # the keys of all nets of a run end like this
OWN_METADATA = "kd_lightning"  # in a student's file: its facts, as JSON
IN_FOLDERS = ("student.safetensors", "model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")  # of names of files of weights
MAX_SHOWN = 5  # of the files in a folder
MAX_DEPTH = 5  # of the mappings in a file

# What training programs store beside tensors. None of it runs code when it is read.
DATA_TYPES: list[Callable | tuple[Callable, str]] = [
    argparse.Namespace,  # timm's and torchvision's arguments
    PosixPath,
    *(omegaconf.DictConfig, omegaconf.ListConfig, omegaconf.AnyNode),  # Lightning's with Hydra
    *(omegaconf.base.ContainerMetadata, omegaconf.base.Metadata),
    *(typing.Any, defaultdict, dict, list, int),
    *(np.dtype, np.ndarray, *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8", "?"))),
    *(
        (function, f"{package}.multiarray.{name}")
        for package in ("numpy.core", "numpy._core")  # of numpy 1 and of numpy 2
        for function, name in (
            (np.float64(0).__reduce__()[0], "scalar"),
            (np.ones(0).__reduce__()[0], "_reconstruct"),
        )
    ),
]


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: of the file.
        states: where in the file ("" is its top, else "state_dict", "model.ema", …) -> tensors by
            name.
        facts: what the file, or the ``config.json`` beside it, says about the net.
    """

    path: Path
    states: dict[str, dict[str, Tensor]]
    facts: Facts


def read_checkpoint(path: str | PathLike, key: str = KEY) -> Checkpoint:
    """Reads a safetensors file, a file of ``torch.save``, or a folder with one of them. The content
    decides which of the two a file is, and not its name.

    A folder has ``student.safetensors`` of a run of this package, or ``model.safetensors`` or
    ``pytorch_model.bin`` with ``config.json``, as timm writes them for the Hugging Face hub.

    Args:
        path: of the file or folder.
        key: the configuration key of the file, for messages.

    Raises:
        UserError: there is no such file, it is empty, damaged or something else (a photo, a text),
            it needs code to be run, or it has no tensors; or no file of the folder is chosen by its
            name.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = file_in(path, key)
    if not path.is_file():
        raise UserError(
            f"weights must be none, pretrained or a file, and there is no file {path} ({key}=…)"
        )
    check_content(path, key)
    if is_safetensors(path):
        content, metadata = _load_safetensors(path, key)
    else:
        content, metadata = _load(path, key), {}
    states = {where: state for where, state in _states_in(content) if state}
    if not states:
        raise UserError(f"{path} has no tensors, neither at the top nor deeper ({key}=…)")
    beside = _read_json(path.with_name("config.json")) if path.name in IN_FOLDERS else {}
    facts = facts_of(metadata, beside, as_mapping(content) or {})
    if (given := as_mapping(metadata.get("input"))) is not None:
        facts = facts_of_student(given).or_else(facts)
    trained_on = as_mapping(metadata.get("data")) or {}
    return Checkpoint(path, states, replace(facts, fingerprint=trained_on.get("fingerprint")))


def file_in(folder: Path, key: str) -> Path:
    """The file of weights in a folder.

    Raises:
        UserError: it has none, or one or several under other names, which are given as overrides.
    """
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    expected = f"expected {' or '.join(IN_FOLDERS)} in it"
    if not (others := weights_in(folder)):
        raise UserError(f"the folder {folder} has no weights: {expected} ({key}=…)")
    shown = [f"{key}={path}" for path in others[:MAX_SHOWN]]
    more = f", or one of {len(others) - MAX_SHOWN} more" if len(others) > MAX_SHOWN else ""
    raise UserError(
        f"the folder {folder} has weights under other names: {expected}, or give a file itself, "
        f"with {' or '.join(shown)}{more}"
    )


def weights_in(folder: Path) -> list[Path]:
    """The files of a folder whose names end as those of weights, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())


def _states_in(content: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    """Each mapping with tensors, and where it is. Keys that are no text, such as those of an
    optimizer's state, hold no net. ``torch.compile`` puts ``_orig_mod`` anywhere into names.
    """
    if (mapping := as_mapping(content)) is None or depth > MAX_DEPTH:
        return
    named = {name: value for name, value in mapping.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    yield where, {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}
    for name, value in named.items():
        yield from _states_in(value, f"{where}.{name}".lstrip("."), depth + 1)


def _load_safetensors(path: Path, key: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors, and what a student's file of this package says about them."""
    try:
        tensors, metadata = read_tensors(path)
    except Damaged as error:
        raise unreadable(path, key) from error
    try:
        own = json.loads(metadata.get(OWN_METADATA, "{}"))
    except ValueError:
        own = {}
    return tensors, own if isinstance(own, dict) else {}


def _load(path: Path, key: str) -> object:
    try:
        if zipfile.is_zipfile(path):  # older versions of torch wrote pickles
            check_archive(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(DATA_TYPES):
            warnings.simplefilter("ignore")  # about pickle protocols, before it refuses them
            with path.open("rb") as file:  # of a path, torch would look at the name
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch raises the same error for a file that would run code and for one that is no pickle
        if "Unsupported" in str(error):
            raise UserError(
                f"{path} has other objects than tensors{_their_names(path)}, and loading those "
                f"could run code: save the net's state_dict() alone and give that file ({key}=…)"
            ) from error
        raise unreadable(path, key) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise unreadable(path, key) from error


def _their_names(path: Path) -> str:
    """The types in a file that are not read, in brackets; "" if torch cannot tell."""
    try:
        with torch.serialization.safe_globals(DATA_TYPES):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of an older form, or damaged
        return ""
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


def _read_json(path: Path) -> Mapping[str, Any]:
    """The content of a JSON file; nothing if there is none or it is damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def first_line(error: Exception) -> str:
    """The first line of an error's message, up to a full stop, to be quoted in a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
