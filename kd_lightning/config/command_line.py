"""What a person sees on the command line: the configuration's place, and errors as sentences."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
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

from kd_lightning.base.errors import UserError, placed, unknown
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.ranks import is_first_rank

HERE = Path(__file__).resolve().parents[1]
# beside the package in a source tree, inside it when installed from a wheel
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"


OF_SWEEPS = ("sweep", "launcher", "sampler", "pruner")  # groups that a single run does not have


def is_of_a_sweep(word: str) -> bool:
    """Whether a key, or an override, is for a sweep and not for its jobs."""
    return re.split(r"[@.=]", word.lstrip("+~"))[0] in OF_SWEEPS


def choices(*, of_sweeps: bool = False) -> str:
    """Every group's choices, a line each, for ``--help``; what is only built upon is left out."""
    lines = []
    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        names = sorted(path.stem for path in group.glob("[!_]*.yaml"))
        # a recipe is chosen by the data set
        if group.name != "recipe" and (group.name in OF_SWEEPS) == of_sweeps:
            lines.append(f"  {group.name}: {', '.join(names)}")
    return "\n".join(lines)


OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("sweep_choices", lambda: choices(of_sweeps=True), replace=True)

console = Console(quiet=not is_first_rank())


def compose(
    overrides: Sequence[str], config_dir: str | Path | None = None, name: str = "config"
) -> DictConfig:
    """What overrides compose to, as on a command line.

    Args:
        config_dir: a folder of a person's own YAML, searched beside the package's.
        name: of the YAML at the top.
    """
    search = []
    if config_dir is not None:
        place = QuotedString(f"file://{Path(config_dir).resolve()}", Quote.single)
        search = [f"hydra.searchpath=[{place.with_quotes()}]"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(name, [*overrides, *search])


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
        sentence = sentence_of(error, sys.argv[1:])
        if os.environ.get("KD_LIGHTNING_TRACEBACK") or not sentence:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def sentences(overrides: Sequence[str]) -> Iterator[None]:
    """Inside, a person's mistake is a ``UserError``, in whatever form a library raises it.

    Args:
        overrides: as the person gave them.
    """
    try:
        yield
    except Exception as error:
        sentence = sentence_of(error, overrides)
        if not sentence:
            raise
        raise UserError(sentence) from error


def sentence_of(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One sentence for a person's mistake; "" for anything else, which is a bug of ours.

    Args:
        overrides: of the run, as the person gave them: the keys to change are among them.
    """
    # What merely happened while a UserError was handled is a bug: only what was raised from one
    # is the person's. The system's refusals may come in whatever a library makes of them.
    chain = _chain(error, lambda e: e.__cause__)
    for link in chain:
        if isinstance(link, UserError):
            return _placed(_sentence_in(link), chain)
    for link in chain:
        if sentence := _of_hydra(link, overrides):
            return sentence
    sentences = map(_of_the_system, _chain(error, lambda e: e.__cause__ or e.__context__))
    return next(filter(None, sentences), "")


def _chain(error: BaseException | None, above: Callable) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = above(error)
    return chain


def _sentence_in(error: UserError) -> str:
    """Its message; a loading process sends its traceback along, with the message at the end."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def _placed(sentence: str, chain: list[BaseException]) -> str:
    """``sentence`` with the place in the configuration at which Hydra was building."""
    for link in chain:
        if isinstance(link, InstantiationException):
            return placed(sentence, _place(link))
    return sentence


def _place(error: InstantiationException) -> str:
    return str(error).rpartition("full_key: ")[2].strip()


def _of_the_system(error: BaseException) -> str:
    """A sentence for what the operating system refuses."""
    if not isinstance(error, OSError):
        return ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f", writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}: make room, or write elsewhere (outputs=…)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"may not read or write {error.filename}: {error.strerror} (outputs=… or data.root=…)"
        )
    return ""


def _of_hydra(error: BaseException, overrides: Sequence[str]) -> str:
    """A sentence for a configuration that cannot be composed or built."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException):
        return _missing_choice(error, overrides)
    if isinstance(error, OverrideParseException):
        return (
            f"expected key=value, got '{error.override}': a value with one of = , {{ }} [ ] ( ) or "
            "a space in it stands in quotes, key='\"value\"'"
        )
    if isinstance(error, ConfigCompositionException):
        return _refused_override(text, overrides)
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        odd = re.compile(r"[+~]?[\w/]*(@[\w.]+)?=(null|-?\d.*)")
        return f"a choice must be a name, got {next(filter(odd.fullmatch, overrides), 'none')}"
    if isinstance(error, InstantiationException):
        return _refused_value(error)
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0] + (f" ({error.full_key}=…)" if error.full_key else "")
    return text if isinstance(error, HydraException) else ""


def _refused_value(error: InstantiationException) -> str:
    """A library's refusal of a value; "" where it is our own code that failed."""
    target = re.search(r"target '([^']+)'", str(error))
    if target is None or target[1].startswith("kd_lightning."):
        return ""
    said = " ".join(str(error.__cause__ or error).split())
    return f"{target[1]} refuses what it was given: {said} ({_place(error)}.…=…)"


def _missing_choice(error: MissingConfigException, overrides: Sequence[str]) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if not error.options:
        return " ".join(str(error).split())
    given = [o.lstrip("+").split("=", 1) for o in overrides if "=" in o]
    keys = [key for key, value in given if key.split("@")[0] == group and value == choice]
    known = [option for option in error.options if not option.startswith("_")]
    return str(unknown(group or "configuration", choice, known, [*keys, group or "config"][0]))


def _refused_override(text: str, overrides: Sequence[str]) -> str:
    """A key that the configuration does not have."""
    found = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text)
    if found is None:
        return text
    key = found[1]
    rest = [o for o in overrides if o.lstrip("+~").split("=")[0] != key]
    name = "multirun" if is_of_a_sweep(key) else "config"
    cfg = _compose(rest, name)
    if "@" in key or "/" in key:
        known, kind = [k for k in cfg.hydra.runtime.choices if "hydra/" not in k], "choice"
    else:
        known, kind = _keys_of(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])), "key"
    return str(unknown(kind, key, known, f"+{key}" if kind == "choice" else key))


def _compose(overrides: Sequence[str], name: str) -> DictConfig:
    """What these overrides compose to; without them, if another one is wrong as well."""
    GlobalHydra.instance().clear()
    overrides = [o for o in overrides if "=" in o and not o.startswith("-")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose(name, overrides, return_hydra_config=True)
        except HydraException:
            return hydra.compose(name, return_hydra_config=True)


def _keys_of(config: DictConfig, above: str = "") -> list[str]:
    keys = []
    for key in config:
        if key.startswith("_"):  # Hydra's own
            continue
        keys.append(f"{above}{key}")
        node = config._get_node(key)
        if OmegaConf.is_dict(node) and not node._is_none() and not node._is_interpolation():
            keys += _keys_of(node, f"{above}{key}.")
    return keys
