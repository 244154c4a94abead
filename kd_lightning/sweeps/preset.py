"""The settings of a sweep: those of its preset, as the command line changes them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.config.command_line import compose
from kd_lightning.config.schema import arguments_of, check_arguments
from kd_lightning.reports.columns import OBJECTIVE

# The settings that are written to sweep.yaml.
RECORDED = (
    "grid",
    "variants",
    "pairs",
    "primary",
    "primary_column",
    "compared",
    "expected_std",
    "margin",
    "chosen_by",
    "columns",
    "data_sets",
    "reported",
    "search",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of a preset; ``conf/sweep/_base.yaml`` explains each."""

    title: str | None = None
    dir: str | None = None
    overrides: list[str] = field(default_factory=list)
    grid: dict[str, list] = field(default_factory=dict)
    variants: dict[str, list[str]] = field(default_factory=dict)
    pairs: list[list[str]] = field(default_factory=list)
    primary: list[list[str]] = field(default_factory=list)
    primary_column: str | None = None
    compared: list[str] = field(default_factory=lambda: ["accuracy"])
    expected_std: float | None = None
    margin: float | None = None
    chosen_by: str = OBJECTIVE
    columns: list[str] | None = None
    data_sets: list[str] = field(default_factory=list)
    reported: list[dict[str, Any]] = field(default_factory=list)
    search: dict[str, Any] | None = None
    only: list[str] | None = None
    without: list[str] = field(default_factory=list)


def settings_of(words: Sequence[str], config_dir: str | None) -> tuple[Settings, DictConfig, str]:
    """The settings of a sweep, the configuration of its launcher, and the name of its preset.

    Args:
        words: the words of a command line that are for the sweep.

    Raises:
        UserError: a preset does not have such a key or row, or the value has a wrong type.
    """
    cfg = compose(words, config_dir, "multirun")
    plain = OmegaConf.to_container(cfg.sweep)  # not resolved: an override may be key=${other}
    check_arguments(OmegaConf.create(without_references(plain)), arguments_of(Settings), "sweep")
    chosen = [word.partition("=")[2] for word in words if re.match(r"sweep=", word)]
    return with_chosen_rows(Settings(**plain)), cfg.launcher, [*chosen, "grid"][0]


def without_references(value: Any) -> Any:
    """``value`` with its ${references} made plain text, as they refer to a job's configuration."""
    if isinstance(value, dict):
        return {key: without_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(without_references, value))
    return value.replace("${", "$ {") if isinstance(value, str) else value


def with_chosen_rows(settings: Settings) -> Settings:
    """The settings with the variants that ``only`` and ``without`` leave, and what is said about
    them.

    Raises:
        UserError: there is no such variant, none is left, or no primary contrast.
    """
    names = list(settings.variants)
    for key, chosen in (("only", settings.only), ("without", settings.without)):
        for name in chosen or []:
            if name not in names:
                raise unknown("row", str(name), names, f"sweep.{key}")
    only = names if settings.only is None else settings.only
    left = [name for name in names if name in only and name not in settings.without]
    if len(left) == len(names):
        return settings
    if not left:
        raise UserError("sweep.only and sweep.without leave no row: choose at least one")
    pairs, primary = (
        [pair for pair in listed if all(is_of(side, left, names) for side in pair)]
        for listed in (settings.pairs, settings.primary)
    )
    if settings.primary and pairs and not primary:
        raise UserError(
            "the rows that are left have none of the preset's primary contrasts: choose both rows "
            f"of one, such as {' and '.join(settings.primary[0])} (sweep.only=…, sweep.without=…)"
        )
    return replace(
        settings,
        variants={name: settings.variants[name] for name in left},
        pairs=pairs,
        primary=primary,
        reported=[
            {**entry, "rows": {r: v for r, v in entry["rows"].items() if is_of(r, left, names)}}
            if isinstance(entry.get("rows"), dict) else entry
            for entry in settings.reported
        ],
    )  # fmt: skip


def is_of(row: str, left: Collection[str], names: Collection[str]) -> bool:
    """Whether a row is one of the variants ``left``, or of none.

    Args:
        row: the name of a variant, perhaps with values of the grid and with a net: A lr=1 @ a.
        names: of all variants.
    """
    begins = [each for each in names if f"{row} ".startswith(f"{each} ")]
    return not begins or max(begins, key=len) in left
