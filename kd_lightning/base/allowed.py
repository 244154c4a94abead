"""Which constructors a configuration may name with ``_target_``.

Words that are typed now and YAML in ``--config-dir`` are the person's own: they may name every
constructor but functions of Python's own library. The files of a run, a sweep or a student may come
from somebody else, and such a file must not decide what is executed. It may name

- the constructors that this package's YAML names, and some classes of libraries (``LIBRARIES``),
- what the person allows now: a package, a module or a function, ``allow=["my_package"]``.

Everything else is refused before it is imported.
"""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd_lightning.base.conf_folder import CONF
from kd_lightning.base.errors import UserError

TARGET = "_target_"
ANYTHING = "*"  # as ``allow``: the file says what was typed now, or is trusted like it
# All classes of these modules only compute.
LIBRARIES = ("torch.optim", "torchvision.transforms.v2", "optuna.samplers", "optuna.pruners")
# Their settings are lines for a shell, or a machine to connect to.
NOT_FROM_FILES = ("kd_lightning.launchers.slurm.Slurm", "kd_lightning.launchers.ray.Ray")
RESOLVERS = ("oc.select", "usual_precision")  # of this package's YAML; both read only other keys


def check_own(name: str, key: str) -> None:
    """Raises ``UserError`` for a function of Python's own library, which builds nothing of a run.

    Args:
        name: the constructor.
        key: that names it.
    """
    if is_of_python(name):
        raise UserError(
            f"{key} must name a constructor of a package, got {name}, which is of Python's own "
            f"library and is never called ({key}=…)"
        )


def check_record(content: Any, path: Path, allow: Sequence[str], key: str = "") -> None:
    """Checks what was read from a file of a run or a sweep, before anything of it is used.

    Args:
        content: plain values, or a configuration.
        path: the file, for messages.
        allow: packages, modules or functions that it may name, too.
        key: of the content in the file.

    Raises:
        UserError: it names a constructor that it may not, or refers to something: a run writes
            values, and a reference could read the environment variables of this process.
    """
    if OmegaConf.is_config(content):
        content = OmegaConf.to_container(content)
    for name, value in values_of(content, key):
        if ANYTHING not in allow and isinstance(value, str) and "${" in value:
            raise UserError(
                f"{path} must hold values alone, got {name}={value}: write the value into it"
            )
        if name.rpartition(".")[2] == TARGET:
            check_constructor(value, f"{name} in {path}", allow)


def check_composed(cfg: Any, path: Path, allow: Sequence[str]) -> None:
    """``check_record`` for a configuration that is composed from words in a file. It may refer to
    its own keys, as this package's YAML does.
    """
    if ANYTHING not in allow:
        for key, value in values_of(OmegaConf.to_container(cfg)):
            for function in calls_in(value) if isinstance(value, str) else ():
                raise UserError(
                    f"{path} must only refer to its own keys, got {key}={value}, which calls "
                    f"{function or 'a function'}: write the value into it"
                )
    check_record(OmegaConf.to_container(cfg, resolve=True), path, allow)


def calls_in(text: str) -> Iterator[str]:
    """The functions that the references in a text call, but those of ``RESOLVERS``: ``oc.env`` in
    "${oc.env:HOME}"; "" for one whose name is a reference itself.
    """
    for function, mark in re.findall(r"\$\{\s*([^:{}$]*)(.?)", text, re.DOTALL):
        if mark != "}" and not (mark == ":" and function.strip() in RESOLVERS):
            yield function.strip() if mark == ":" else ""


def values_of(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that nested plain values hold: of numbers, texts, null, and of
    each ``_target_`` whatever it is.
    """
    if not isinstance(content, Mapping | list) or key.rpartition(".")[2] == TARGET:
        yield key, content
        return
    items = content.items() if isinstance(content, Mapping) else enumerate(content)
    for name, value in items:
        yield from values_of(value, f"{key}.{name}".removeprefix("."))


def constructors_in(content: Any) -> list[str]:
    """The constructors that nested plain values or a configuration name."""
    if OmegaConf.is_config(content):
        content = OmegaConf.to_container(content, resolve=True)
    return [str(value) for key, value in values_of(content) if key.rpartition(".")[2] == TARGET]


def needed_words(content: Any) -> list[str]:
    """What must be allowed, before a file with this content can be used again."""
    names = [name for name in constructors_in(content) if not is_known(name)]
    return sorted({word_for(name) for name in names})


def word_for(name: str) -> str:
    """What a person allows for a constructor: its module."""
    return name if name in NOT_FROM_FILES else name.rpartition(".")[0]


def find_constructor(
    name: Any, place: object, allow: Sequence[str], group: str = ""
) -> Callable[..., Any]:
    """The class or function that a file names; see ``check_constructor``."""
    check_constructor(name, place, allow, group)
    return imported(name, place)


def check_constructor(name: Any, place: object, allow: Sequence[str], group: str = "") -> None:
    """Checks a name in a file, before it is imported.

    Args:
        place: the file, and the key in it, for messages.
        allow: packages, modules or functions that it may name, too.
        group: the folder of ``conf/`` whose constructors it may name; "": all.

    Raises:
        UserError: it is not allowed, or it is defined in another package than its name says.
    """
    name = str(name)
    if is_of_python(name) or not re.fullmatch(r"\w+(\.\w+)+", name):
        raise UserError(f"{place} asks to call {name or 'nothing'}, which builds no part of a run")
    if ANYTHING in allow or name in registered(group):
        return
    if not is_known(name, group) and not any(f"{name}.".startswith(f"{word}.") for word in allow):
        reason = f"is no {'net' if group else 'part'} of kd_lightning"
        if name in NOT_FROM_FILES:
            reason = "starts programs by settings of the file"
        word = word_for(name)
        raise UserError(
            f"{place} asks to call {name}, which {reason}: if you trust it, allow it "
            f'(allow=["{word}"], or --allow {word})'
        )
    # a module also has the names that it imports, such as os.system
    home = str(getattr(imported(name, place), "__module__", ""))
    if top_package(home) != top_package(name):
        raise UserError(f"{place} asks to call {name}, which is defined elsewhere ({home})")


def imported(name: str, place: object) -> Any:
    module, _, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{place} needs {name}, which cannot be imported ({error}): install its package, or "
            "start Python where it is"
        ) from error


def is_known(name: str, group: str = "") -> bool:
    """Whether a constructor is ``registered``, or a class of ``LIBRARIES`` that is installed."""
    module, _, function = name.rpartition(".")
    if group or module not in LIBRARIES or find_spec(top_package(module)) is None:
        return name in registered(group)
    return inspect.isclass(getattr(importlib.import_module(module), function, None))


@functools.cache
def registered(group: str = "") -> frozenset[str]:
    """The constructors that the YAML of this package names, and that a file may name.

    Args:
        group: a folder of ``conf/``; "": all.
    """
    texts = [path.read_text("utf-8") for path in (CONF / group).rglob("*.yaml")]
    found = {name for text in texts for name in re.findall(r"\b_target_:\s*([\w.]+)", text)}
    return frozenset(found - {*NOT_FROM_FILES})


def is_of_python(name: str) -> bool:
    return top_package(name) in sys.stdlib_module_names


def top_package(name: str) -> str:
    return name.partition(".")[0]
