"""What a person sees on the command line: the configuration's place, and errors as sentences."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from kd_lightning.errors import UserError, unknown
from kd_lightning.interrupts import Interrupted

HERE = Path(__file__).resolve().parent
# beside the package in a source tree, inside it when installed from a wheel
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"


def choices() -> str:
    """Every group's choices, a line each, for ``--help``; what is only built upon is left out."""
    lines = []
    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        names = sorted(path.stem for path in group.glob("[!_]*.yaml"))
        if group.name != "recipe":  # chosen by the data set
            lines.append(f"  {group.name}: {', '.join(names)}")
    return "\n".join(lines)


OmegaConf.register_new_resolver("choices", choices, replace=True)

console = Console(quiet=os.environ.get("LOCAL_RANK", "0") != "0")


@contextmanager
def report_errors() -> Iterator[None]:
    """Inside, a person's mistake ends the program with one sentence and exit code 2, an interrupt
    with the command that goes on; a bug of ours keeps its traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # or Hydra prints and exits by itself
    try:
        yield
    except Interrupted as interrupted:
        print(f"\nInterrupted: {interrupted.advice}", file=sys.stderr)
        sys.exit(128 + interrupted.signum)
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = sentence_of(error)
        if os.environ.get("KD_LIGHTNING_TRACEBACK") or not sentence:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(2)


def sentence_of(error: BaseException) -> str:
    """One sentence for a person's mistake; "" for anything else."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    for link in chain:
        if isinstance(link, UserError):
            # a loading process sends its traceback along, with the message as its last line
            prefix = f"{type(link).__module__}.{type(link).__qualname__}: "
            return str(link).strip().splitlines()[-1].removeprefix(prefix)
    for link in chain:
        if sentence := _sentence_of_one(link):
            return sentence
    return ""


def _sentence_of_one(error: BaseException) -> str:
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full, writing {error.filename or 'the record'} (outputs=…)"
    if isinstance(error, OSError) and error.errno in (
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST,
    ):  # fmt: skip
        return f"cannot write {error.filename}: {error.strerror} (outputs=…)"
    if isinstance(error, ConfigCompositionException | OverrideParseException):
        return _composition(error)
    if isinstance(error, OmegaConfBaseException):
        return _one_line(error)
    if isinstance(error, InstantiationException):
        return _one_line(error)
    if isinstance(error, HydraException):
        return _one_line(error)
    return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _missing_config(error: MissingConfigException) -> str:
    name = str(error.missing_cfg_file)
    if not error.options:
        return _one_line(error)
    group, _, choice = name.rpartition("/")
    return str(unknown(group or "configuration", choice, error.options, group or "config"))


def _composition(error: BaseException) -> str:
    text = _one_line(error)
    override = re.search(r"Could not override '([^']+)'", text)
    if override is None:
        return text
    key = override.group(1)
    known = _keys_of(_compose_without(key))
    return str(unknown("key", key, known, key))


def _compose_without(key: str) -> DictConfig:
    """What this command line would compose to without the override of ``key``."""
    wanted = [a for a in sys.argv[1:] if "=" in a and not a.startswith(("-", key, f"+{key}"))]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose("config", wanted)
        except HydraException:  # another override is wrong as well
            return compose("config")


def _keys_of(config: DictConfig, above: str = "") -> list[str]:
    keys = []
    for key in config:
        keys.append(f"{above}{key}")
        node = config._get_node(key)
        if OmegaConf.is_dict(node) and not node._is_none() and not node._is_interpolation():
            keys += _keys_of(node, f"{above}{key}.")
    return keys
