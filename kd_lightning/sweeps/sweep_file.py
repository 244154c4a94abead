"""Reads the file of a sweep, which may be somebody else's, and checks what it may call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.allowed import ANYTHING, NOT_FROM_FILES, check_record
from kd_lightning.base.errors import UserError
from kd_lightning.records.run_directory import read_yaml
from kd_lightning.sweeps.overrides import value_of


def read_settings(directory: Path) -> dict[str, Any]:
    """The content of ``sweep.yaml``, which ``create_sweep`` has written.

    Raises:
        UserError: the directory holds no sweep.
    """
    path = directory / "sweep.yaml"
    if not path.exists():
        raise UserError(f"{directory} is not a sweep: expected sweep.yaml and jobs/ in it")
    return OmegaConf.to_container(read_yaml(path, "name", "launcher"))


def split_allow(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages that ``allow=[…]`` among the words of a command line names, and the others."""
    given = [value_of(word) for word in words if word.startswith("allow=")]
    allow = given[-1] if given else []
    if not isinstance(allow, list) or not all(isinstance(word, str) for word in allow):
        raise UserError(f"allow must be a list, each text, got {allow} (allow=[my_package])")
    return allow, [word for word in words if not word.startswith("allow=")]


def check_files(directory: Path, launcher: DictConfig | None, allow: Sequence[str]) -> None:
    """Raises ``UserError`` if the file of a sweep, which may be somebody else's, names functions
    that are not allowed. Each job is also checked when it starts.

    Args:
        launcher: that it names; None: another is chosen now.
        allow: packages whose functions it may name.
    """
    search_settings = read_settings(directory)["search"] or {}
    parts = [launcher, search_settings.get("sampler"), search_settings.get("pruner")]
    for part in parts:
        check_record(part, directory / "sweep.yaml", allow)


def check_needs(directory: Path, allow: Sequence[str]) -> None:
    """Raises ``UserError`` if jobs of a sweep would be refused, because they need other packages
    than those that are allowed.
    """
    needs = read_settings(directory).get("needs") or []  # missing in older sweeps
    needs = [word for word in needs if word not in NOT_FROM_FILES]
    lacking = [word for word in needs if not any(is_inside(word, other) for other in allow)]
    if lacking and ANYTHING not in allow:
        raise UserError(
            f"jobs of {directory} call functions of {', '.join(lacking)}, which are no part of "
            f"kd_lightning: if you trust them, allow them (allow=[{','.join([*allow, *lacking])}])"
        )


def is_inside(word: str, allowed: str) -> bool:
    """Whether what is allowed is this module, a package around it, or a part of it."""
    return f"{word}.".startswith(f"{allowed}.") or f"{allowed}.".startswith(f"{word}.")
