"""Errors of this package, of Hydra, of torch and of the operating system as one sentence."""

import errno
import re
import shlex
import traceback
from collections.abc import Callable, Sequence

import hydra
import yaml
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

from kd_lightning.base.conf_folder import CONF
from kd_lightning.base.disks import FULL, full_disk_message
from kd_lightning.base.errors import THIS_COMMAND, UserError, unknown, with_full_keys
from kd_lightning.base.files import format_bytes
from kd_lightning.base.override_words import changed_key, key_of
from kd_lightning.base.system_errors import is_out_of_memory
from kd_lightning.base.words import plain
from kd_lightning.config.sweep_keys import is_sweep_key

TOO_LARGE = "Storage size calculation overflow"
ASKED = re.compile(r"allocate (?:(?P<bytes>\d+) bytes|(?P<size>[\d.]+ \w+))")


def user_message(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One sentence for a user's mistake; "" for any other error, which is a bug in this package.

    Args:
        overrides: the overrides from the user; the message may name the one to change.
    """
    # An error raised *from* a UserError is the user's mistake. An error that only happened while
    # one was handled is a bug. An error of the operating system may be anywhere in the chain.
    chain = _chain(error, lambda e: e.__cause__)
    for link in chain:
        if sentence := _determinism_message(link):
            return sentence
    for link in chain:
        if isinstance(link, UserError):
            return _with_command(_with_full_keys(_message(link), chain), overrides)
    for link in chain:
        if sentence := _yaml_message(link) or _hydra_message(link, overrides):
            return plain(sentence)
    whole_chain = _chain(error, lambda e: e.__cause__ or e.__context__)
    messages = map(lambda e: _system_message(e) or _ended_message(e), whole_chain)
    return next(filter(None, messages), "")


def _chain(error: BaseException | None, previous: Callable) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = previous(error)
    return chain


def _message(error: UserError) -> str:
    """The message on one line; from a data-loading process it is the traceback's last line."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return plain(text)


def _with_full_keys(message: str, chain: list[BaseException]) -> str:
    """``message`` with the key in the configuration that Hydra was building."""
    for link in chain:
        if isinstance(link, InstantiationException):
            return with_full_keys(message, _key(link))
    return message


def _with_command(message: str, overrides: Sequence[str]) -> str:
    """``message`` with the command that the user typed, where it speaks of that."""
    return message.replace(
        THIS_COMMAND, f"python -m kd_lightning.run {shlex.join(overrides)}".strip()
    )


def _key(error: InstantiationException) -> str:
    return str(error).rpartition("full_key: ")[2].strip()


def _system_message(error: BaseException) -> str:
    """A sentence for an error of the operating system; "" for other errors."""
    if is_out_of_memory(error) or TOO_LARGE in str(error):
        return _memory_message(str(error))
    if "Too many open files" in str(error):
        return (
            "too many files are open at once: raise the limit (ulimit -n 65536), or load data with "
            "fewer processes (data.num_workers=…)"
        )
    if not isinstance(error, OSError):
        return ""
    if error.errno in FULL:
        return full_disk_message(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot read or write {error.filename}: {error.strerror} (outputs=… or data.root=…)"
    return ""


def _memory_message(text: str) -> str:
    """A sentence for what an allocator says, which may be several."""
    reason = text.splitlines()[0] if text else "it is full"
    if asked := ASKED.search(text):
        size = format_bytes(int(asked["bytes"])) if asked["bytes"] else asked["size"]
        reason = f"{size} were asked for at once"
    return (
        f"the memory is not enough: {reason} (a smaller batch_size, a smaller net, smaller or "
        "fewer samples need less)"
    )


def _ended_message(error: BaseException) -> str:
    """A sentence where torch says that another process has ended; "" for other errors."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    if text.startswith("DataLoader worker"):
        return (
            "a process that loads data was ended from outside, perhaps because the memory was "
            "full: start fewer of them (data.num_workers=…), or lower data.batch_size"
        )
    if "Connection closed by peer" in text:  # gloo
        return "another process of this run has ended: see its message, and resume the run"
    return ""


def _yaml_message(error: BaseException) -> str:
    """A sentence for a YAML file that cannot be read, with its line; "" for other errors."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = str(error.problem).splitlines()[0]
        return f"{mark.name}, line {mark.line + 1}: expected YAML, {problem}"
    path = error.name if isinstance(error, yaml.reader.ReaderError) else ""
    if isinstance(error, UnicodeDecodeError):  # Hydra does not say of which file
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_name == "load_config":
                path = frame.f_locals.get("full_path", "")
    return f"{path} must be a YAML file in UTF-8: save it as UTF-8" if path else ""


def _determinism_message(error: BaseException) -> str:
    """A sentence for an operation that ``hardware.deterministic`` forbids; "" for other errors."""
    text = str(error)
    if not isinstance(error, RuntimeError) or "use_deterministic_algorithms(True)" not in text:
        return ""
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        return (
            "hardware.deterministic=true must be set before this process uses a GPU, and it has "
            "used one: start a new process, or set hardware.deterministic=false"
        )
    name = text.partition(" does not have")[0]
    return (
        f"hardware.deterministic=true, and torch has no deterministic version of {name} on this "
        "device: use another net, method or device, or set hardware.deterministic=false"
    )


def _hydra_message(error: BaseException, overrides: Sequence[str]) -> str:
    """A sentence for a configuration that cannot be composed or built; "" for other errors."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException):
        return _missing_choice(error, overrides)
    if isinstance(error, OverrideParseException):
        return (
            f"expected key=value, got '{error.override}': a value that contains a space or one of "
            "= , { } [ ] ( ) needs quotes, key='\"value\"'"
        )
    if isinstance(error, ConfigCompositionException):
        return _unknown_key(text, overrides)
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        no_name = re.compile(r"[+~]?[\w/]*(@[\w.]+)?=(null|-?\d.*)")
        return f"a choice must be a name, got {next(filter(no_name.fullmatch, overrides), 'none')}"
    if isinstance(error, ValueError) and text.startswith("Invalid defaults list"):
        return text
    if isinstance(error, InstantiationException):
        return _refused_value(error)
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0] + (f" ({error.full_key}=…)" if error.full_key else "")
    return text if isinstance(error, HydraException) else ""


def _refused_value(error: InstantiationException) -> str:
    """A sentence for a value that a library rejects; "" if this package's own code failed."""
    target = re.search(r"target '([^']+)'", str(error))
    if target is None or target[1].startswith("kd_lightning."):
        return ""
    reason = " ".join(str(error.__cause__ or error).split())
    return f"{target[1]} refuses its arguments: {reason} ({_key(error)}.…=…)"


def _missing_choice(error: MissingConfigException, overrides: Sequence[str]) -> str:
    """A sentence for a choice that its group does not have."""
    if not error.options:
        return str(error).strip().splitlines()[0].rstrip(".")
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    key = group = group or "configuration"
    for override in overrides:
        typed, _, value = override.lstrip("+").partition("=")
        folder = typed.split("@")[0]
        if f"{folder}/{value}" == str(error.missing_cfg_file):
            key, group, choice = typed, folder, value  # the choice may have a folder: digits/a
    valid = [option for option in error.options if not option.startswith("_")]
    return str(unknown(group, choice, valid, key, f"python -m kd_lightning.list {group}"))


def _unknown_key(text: str, overrides: Sequence[str]) -> str:
    """A sentence for a key that the configuration does not have."""
    if match := re.search(r"An item is already at '([^']+)'", text):
        return f"{match[1]} exists already: write it without + ({match[1]}=…)"
    if match := re.search(r"Error merging override \+*([\w.]+)=(.*)", text):
        return f"{match[1]} must be keys and values, got {match[2]} ({match[1]}.<key>=…)"
    match = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text)
    if match is None:
        return text
    key = match[1]
    rest = [o for o in overrides if key_of(o) != key]
    name = "multirun" if is_sweep_key(key) else "config"
    cfg = _compose(rest, name)
    typed = [o.partition("=")[2] for o in overrides if key_of(o) == "method"]
    method = cfg.hydra.runtime.choices.get("method")
    if typed in ([], [method]) and (no_net := _no_such_net(key, cfg.get("method"), method)):
        return no_net
    if "@" in key or "/" in key:
        valid = [choice for choice in cfg.hydra.runtime.choices if "hydra/" not in choice]
        return str(unknown("choice", key, valid, f"+{key}"))
    valid = _keys_of(OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]))
    # Hydra shows no keys of a sweep
    listed_by = "python -m kd_lightning.run --cfg job" if name == "config" else None
    return str(unknown("key", key, valid, key, listed_by))


def _no_such_net(key: str, config: DictConfig | None, method: str) -> str:
    """A sentence for a key of a teacher or a student that the method does not have; "" for other
    keys.

    Args:
        config: the section ``method``; None: a sweep has none.
        method: its name.
    """
    section, role, name, *_ = [*changed_key(key).split("."), "", ""]
    if section != "method" or config is None:
        return ""
    if role == "teacher" and "teacher" not in config:
        return f"{key}=… has no effect: method={method} has no teacher"
    students = [*config.get("students", {})]
    if role == "students" and name not in ("", *students):
        return (
            f"method={method} has no student {name}: its students are {', '.join(students)} "
            f"(+model@method.students.{name}=… adds one)"
        )
    return ""


def _compose(overrides: Sequence[str], name: str) -> DictConfig:
    """Composes with these overrides; without any, if one of them is wrong too."""
    GlobalHydra.instance().clear()
    overrides = [o for o in overrides if "=" in o and not o.startswith("-")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose(name, overrides, return_hydra_config=True)
        except HydraException:
            return hydra.compose(name, return_hydra_config=True)


def _keys_of(config: DictConfig, prefix: str = "") -> list[str]:
    """All keys of ``config``, at any depth."""
    keys = []
    for key in config:
        if key.startswith("_"):  # Hydra's own
            continue
        keys.append(f"{prefix}{key}")
        node = config._get_node(key)
        if OmegaConf.is_dict(node) and not node._is_none() and not node._is_interpolation():
            keys += _keys_of(node, f"{prefix}{key}.")
    return keys
