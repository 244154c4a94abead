"""From a command line and a preset to jobs: every combination of what varies.

    python -m kd_lightning.run -m sweep=seeds method.temperature=2,4,8

The words that begin with ``sweep`` or ``launcher`` choose and change the preset
(``conf/multirun.yaml``); all others are for the jobs, and a comma in one makes it an axis.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import compose, is_of_a_sweep, sentences
from kd_lightning.config.schema import arguments_of, check_arguments, check_configuration
from kd_lightning.records.jobs import Order
from kd_lightning.records.run_directory import check_overrides
from kd_lightning.sweeps.overrides import (
    cells_of,
    fixed_words,
    key_of,
    last_wins,
    parsed_all,
    spelled,
    value_of,
)

NOT_OF_A_JOB = ("run_dir", "resume")
RECORDED = (
    "grid",
    "variants",
    "pairs",
    "columns",
    "data_sets",
    "reported",
    "search",
)  # in sweep.yaml
Axes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a preset says: the keys of ``conf/sweep/_base.yaml``, where each is explained."""

    title: str | None = None
    dir: str | None = None
    overrides: list[str] = field(default_factory=list)
    grid: dict[str, list] = field(default_factory=dict)
    variants: dict[str, list[str]] = field(default_factory=dict)
    pairs: list[list[str]] = field(default_factory=list)
    columns: list[str] | None = None
    data_sets: list[str] = field(default_factory=list)
    reported: list[dict[str, Any]] = field(default_factory=list)
    search: dict[str, Any] | None = None


@dataclass(frozen=True)
class Variation:
    """One job of a plan, before it is composed.

    Attributes:
        variant: its row, in words: all that varies but seed and data set.
        axes: what varies -> its value here.
        overrides: all of its own, and those that every job has.
    """

    variant: str
    axes: Axes
    overrides: tuple[str, ...]


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that are the sweep's, and those that are its jobs'."""
    of_hydra = [word for word in words if re.match(r"[+~]*hydra[./@=]", word)]
    if of_hydra:
        raise UserError(
            f"{of_hydra[0]} has no effect on a sweep: choose sweep=…, launcher=… and sweep.dir=…"
        )
    ours = [word for word in words if is_of_a_sweep(word)]
    return ours, [word for word in words if word not in ours]


def settings_of(words: Sequence[str], config_dir: str | None) -> tuple[Settings, DictConfig, str]:
    """The preset with the changes of ``words``, the launcher's configuration, the preset's name.

    Raises:
        UserError: a key that a preset does not have, or a value of another kind.
    """
    cfg = compose(words, config_dir, "multirun")
    plain = OmegaConf.to_container(cfg.sweep)  # not resolved: an override may be key=${other}
    check_arguments(OmegaConf.create(without_references(plain)), arguments_of(Settings), "sweep")
    chosen = [word.partition("=")[2] for word in words if re.match(r"sweep=", word)]
    return Settings(**plain), cfg.launcher, [*chosen, "grid"][0]


def without_references(value: Any) -> Any:
    """``value`` with the text of ${other} as mere text: it is for a job's configuration."""
    if isinstance(value, dict):
        return {key: without_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(without_references, value))
    return value.replace("${", "$ {") if isinstance(value, str) else value


def expand(settings: Settings, words: Sequence[str]) -> list[Variation]:
    """Every job: each seed, within it each variant, within that each cell of the grid.

    So that a sweep that is stopped in the middle has all rows, of fewer seeds.

    Args:
        words: of the command line, for the jobs; they win over the preset's.
    """
    given = parsed_all(words)
    grid: dict[str, list[str]] = {
        key.lstrip("+~"): [spelled(key, value) for value in values]
        for key, values in settings.grid.items()
    }
    for override in given:
        key = key_of(override)
        if key in NOT_OF_A_JOB:
            raise UserError(f"{key}=… is for one run: a sweep makes its jobs' directories itself")
        grid.pop(key, None)
        if override.is_sweep_override():
            grid[key] = cells_of(override)
    fixed = fixed_words(words)
    check_grid(grid)
    seeds = grid.pop("seed", [None])
    data_sets = [key for key in grid if key in settings.data_sets]
    variants = settings.variants or {"": []}
    check_variants(variants, {*grid, *(key_of(override) for override in given)})
    variations = []
    for seed, (name, own), *cells in itertools.product(seeds, variants.items(), *grid.values()):
        axes = {"variant": name} if name else {}
        axes |= {key: value_of(cell) for key, cell in zip(grid, cells, strict=True)}
        rows = [cell for key, cell in zip(grid, cells, strict=True) if key not in data_sets]
        label = " ".join([name, *rows] if name else rows)
        if seed is not None:
            axes["seed"] = value_of(seed)
            cells.append(seed)
        overrides = last_wins([*settings.overrides, *own, *cells, *fixed])
        variations.append(Variation(label, axes, overrides))
    return variations


def variation_of(asked: Mapping[str, Any], values: Mapping[str, Any]) -> Variation:
    """The trial of a search that tries ``values``.

    Args:
        asked: the content of ``sweep.yaml``.
    """
    cells = [spelled(key, value) for key, value in values.items()]
    short = [
        spelled(k, float(f"{v:.4g}") if isinstance(v, float) else v) for k, v in values.items()
    ]
    return Variation(" ".join(short), dict(values), last_wins([*asked["overrides"], *cells]))


def check_variants(variants: Mapping[str, Sequence[str]], keys: set[str]) -> None:
    """Raises ``UserError`` where a key of everybody's would replace what a named row is made of."""
    for name, own in variants.items():
        for override in parsed_all(own):
            if key_of(override) in keys:
                raise UserError(
                    f"{key_of(override)}=… would replace what the variant '{name}' is made of "
                    f"({override.input_line}): leave it out, or write a preset of your own"
                )


def check_grid(grid: Mapping[str, Sequence[str]]) -> None:
    for key, cells in grid.items():
        if not cells:
            raise UserError(f"{key} must have a value or more to sweep over, got none ({key}=…)")
        twice = [cell for cell in cells if list(cells).count(cell) > 1]
        if twice:
            raise UserError(f"{twice[0]} stands twice in the sweep: leave one out ({key}=…)")
    for cell in grid.get("seed", []):
        if type(value_of(cell)) is not int:
            raise UserError(f"seed must be whole numbers, got {value_of(cell)} (seed=0,1,2)")


def orders(
    variations: Sequence[Variation],
    *,
    folder: str,
    config_dir: str | None,
) -> tuple[list[Order], DictConfig]:
    """What each job is to run, and the first job's configuration. Each row is composed and checked,
    so that a wrong word is refused before anything starts; a plain value of the data, such as one
    of the many folds or names of an archive, with one row.

    Raises:
        UserError: a job that cannot be composed, by its overrides.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    found: list[Order] = []
    seen: set[str] = set()
    for number, variation in enumerate(variations):
        of_data = {o for o in variation.overrides if is_value_of_data(o, variation.axes)}
        row = tuple(
            o for o in variation.overrides if not o.startswith("seed=") and o not in of_data
        )
        if row not in composed or not of_data <= seen:
            cfg = checked(variation.overrides, config_dir)
            composed.setdefault(row, cfg)
            seen |= of_data
        cfg = composed[row]
        found.append(
            Order(
                number=number,
                variant=variation.variant or str(cfg.method._target_).split(".")[-2],
                axes=variation.axes,
                overrides=list(variation.overrides),
                folder=folder,
                config_dir=config_dir,
                **hardware_of(cfg),
            )
        )
    return found, next(iter(composed.values()))


def is_value_of_data(override: str, axes: Axes) -> bool:
    """Whether an override varies a value of the data: it chooses nothing, so that what goes with
    one row goes with all.
    """
    key = override.lstrip("+~").partition("=")[0]
    return key in axes and key.startswith("data.")


def checked(overrides: Sequence[str], config_dir: str | None) -> DictConfig:
    """A job's configuration."""
    with sentences(overrides):
        cfg = compose(overrides, config_dir)
        check_configuration(cfg)
        check_overrides(cfg, list(overrides))
    return cfg


def hardware_of(cfg: DictConfig) -> dict[str, Any]:
    """What a launcher needs to know of a job."""
    devices = cfg.hardware.devices
    if OmegaConf.is_list(devices):
        raise UserError(
            f"hardware.devices must be a number in a sweep, got {devices}: the launcher shares out "
            "the GPUs (CUDA_VISIBLE_DEVICES says which ones)"
        )
    return {
        "devices": max(1, torch.cuda.device_count()) if devices in (-1, "auto") else devices,
        "num_nodes": cfg.hardware.num_nodes,
        "accelerator": cfg.hardware.accelerator,
        "threads": cfg.threads,
    }


def title_of(settings: Settings, preset: str, variations: Sequence[Variation]) -> str:
    """The sweep's name: its own, its preset's, or those of what varies."""
    names = [re.split(r"[.@/]", key)[-1] for key in variations[0].axes if key != "seed"]
    of_axes = "-".join(names) or "seeds"
    title = settings.title or (preset if preset != "grid" else of_axes)
    return re.sub(r"[^\w.+-]+", "-", title)[:60]  # part of a directory's name
