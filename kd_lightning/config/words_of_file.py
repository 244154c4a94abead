"""Composes what the words in a file say, such as the jobs of a sweep."""

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from kd_lightning.base.allowed import ANYTHING, check_composed
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import compose


def compose_from_file(
    overrides: Sequence[str], config_dir: str | None, *, path: Path, allow: Sequence[str]
) -> DictConfig:
    """``compose`` for the words in a file of a sweep, which may be somebody else's.

    Args:
        path: the file.
        allow: packages, modules or functions that it may name.

    Raises:
        UserError: it names another function, or reads more than its own keys.
    """
    for word in overrides if ANYTHING not in allow else ():
        if re.match(r"[+~]*hydra\b", word):  # hydra.searchpath can name a package to import
            raise UserError(f"{path} must not set Hydra's own options, got {word}")
    cfg = compose(overrides, config_dir)
    if ANYTHING not in allow:
        cfg.allow = list(allow)
    check_composed(cfg, path, allow)
    return cfg
