"""Turns a command line and a preset into jobs: one for each combination of the values that vary.

    python -m kd_lightning.run -m sweep=seeds method.temperature=2,4,8

Words that begin with ``sweep`` or ``launcher`` choose and change the preset
(``conf/multirun.yaml``). All others are for the jobs; a word with several values, separated by
commas, is an axis of the sweep.
"""

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.override_words import changed_key
from kd_lightning.base.override_words import key_of as key_of_word
from kd_lightning.config.command_line import as_user_errors, compose
from kd_lightning.config.schema import check_configuration
from kd_lightning.config.sweep_keys import is_sweep_key
from kd_lightning.records.jobs import JobSpec
from kd_lightning.sweeps.overrides import (
    expand_values,
    fixed_words,
    format_override,
    key_of,
    last_wins,
    parse_all,
    value_of,
)
from kd_lightning.sweeps.preset import Settings
from kd_lightning.sweeps.shared_teachers import teacher_of
from kd_lightning.teachers.unused_keys import check_overrides, words_without_effect

NOT_OF_A_JOB = ("run_dir", "resume")  # keys that a job of a sweep cannot have
Axes = dict[str, Any]
Composer = Callable[[Sequence[str], str | None], DictConfig]


@dataclass(frozen=True)
class Variation:
    """One job of a sweep, before its configuration is composed.

    Attributes:
        variant: the name of its row: everything that varies, except seed and data set.
        axes: each key that varies -> its value in this job.
        overrides: its own, and those that all jobs have.
        shared: those of them that all jobs have.
    """

    variant: str
    axes: Axes
    overrides: tuple[str, ...]
    shared: frozenset[str] = frozenset()


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the words for the sweep and the words for its jobs."""
    of_hydra = [word for word in words if re.match(r"[+~]*hydra[./@=]", word)]
    if of_hydra:
        raise UserError(
            f"{of_hydra[0]} has no effect on a sweep: choose sweep=…, launcher=… and sweep.dir=…"
        )
    of_sweep = [word for word in words if is_sweep_key(word)]
    return of_sweep, [word for word in words if word not in of_sweep]


def expand(settings: Settings, words: Sequence[str]) -> list[Variation]:
    """All jobs: for each seed, for each variant, every combination of the grid.

    The seed comes first, so a sweep that is stopped in the middle has all rows, with fewer seeds.

    Args:
        words: the words of a command line that are for the jobs; they win over the preset.
    """
    overrides = parse_all(words)
    grid: dict[str, list[str]] = {
        key.lstrip("+~"): [format_override(key, value) for value in values]
        for key, values in settings.grid.items()
    }
    for override in overrides:
        key = key_of(override)
        if key in NOT_OF_A_JOB:
            raise UserError(f"{key}=… is for one run: a sweep makes its jobs' directories itself")
        grid.pop(key, None)
        if override.is_sweep_override():
            grid[key] = expand_values(override)
    fixed = fixed_words(words)
    shared = frozenset([*settings.overrides, *fixed])
    check_grid(grid)
    seeds = grid.pop("seed", [None])
    named = [key for key in grid if key not in settings.data_sets and len(grid[key]) > 1]
    variants = settings.variants or {"": []}
    check_variants(variants, {*grid, *(key_of(override) for override in overrides)})
    variations = []
    for seed, (name, own), *cells in itertools.product(seeds, variants.items(), *grid.values()):
        axes = {"variant": name} if name else {}
        axes |= {key: value_of(cell) for key, cell in zip(grid, cells, strict=True)}
        rows = [cell for key, cell in zip(grid, cells, strict=True) if key in named]
        label = " ".join([name, *rows] if name else rows)
        if seed is not None:
            axes["seed"] = value_of(seed)
            cells.append(seed)
        of_job = last_wins([*settings.overrides, *own, *cells, *fixed])
        variations.append(Variation(label, axes, of_job, shared))
    return variations


def variation_of(settings: Mapping[str, Any], values: Mapping[str, Any]) -> Variation:
    """The trial of a search that tries ``values``.

    Args:
        settings: the content of ``sweep.yaml``.
        values: by key.
    """
    cells = [format_override(key, value) for key, value in values.items()]
    rounded = [
        format_override(key, float(f"{value:.4g}") if isinstance(value, float) else value)
        for key, value in values.items()
    ]
    return Variation(" ".join(rounded), dict(values), last_wins([*settings["overrides"], *cells]))


def check_variants(variants: Mapping[str, Sequence[str]], keys: set[str]) -> None:
    """Raises ``UserError`` if a variant sets one of ``keys``, which are set for all jobs: it would
    not be what its name says.
    """
    for name, own in variants.items():
        for override in parse_all(own):
            if key_of(override) in keys:
                raise UserError(
                    f"{key_of(override)}=… would replace a setting of the variant '{name}' "
                    f"({override.input_line}): leave it out, or write your own preset"
                )


def check_grid(grid: Mapping[str, Sequence[str]]) -> None:
    for key, cells in grid.items():
        if not cells:
            raise UserError(f"{key} must have at least one value to sweep over, got none ({key}=…)")
        repeated = [cell for cell in cells if list(cells).count(cell) > 1]
        if repeated:
            raise UserError(f"{repeated[0]} occurs twice in the sweep: leave one out ({key}=…)")
    for cell in grid.get("seed", []):
        if type(value_of(cell)) is not int:
            raise UserError(f"seed must be whole numbers, got {value_of(cell)} (seed=0,1,2)")


def job_specs(
    variations: Sequence[Variation],
    *,
    folder: str,
    config_dir: str | None,
    composer: Composer = compose,
) -> tuple[list[JobSpec], list[DictConfig]]:
    """The specifications of all jobs, and the configuration of each row, first that of job 0.

    A word for all jobs that has no effect on some of them (``teacher.seed`` where the method has no
    teacher) is left out of these.

    The configuration of each row is composed and checked, so a wrong word is refused before any job
    starts. A value of a data key, such as a fold or the name of a data set, is checked with one row
    only: an archive has too many of them to check each with each row.

    Args:
        folder: where the sweep is started.
        config_dir: a folder with the user's own YAML.
        composer: composes a configuration from overrides and ``config_dir``; that for words in a
            file, if the variations are from one.

    Raises:
        UserError: the configuration of a job cannot be composed.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    idle: dict[tuple[str, ...], list[str]] = {}
    specs: list[JobSpec] = []
    checked_values: set[str] = set()
    for number, variation in enumerate(variations):
        of_data = {o for o in variation.overrides if is_value_of_data(o, variation.axes)}
        row = tuple(
            o for o in variation.overrides if not o.startswith("seed=") and o not in of_data
        )
        if row not in composed or not of_data <= checked_values:
            cfg = compose_job(variation.overrides, config_dir, variation.shared, composer)
            idle[row] = words_without_effect(cfg, list(variation.shared))
            composed.setdefault(row, cfg)
            checked_values |= of_data
        cfg = composed[row]
        specs.append(
            JobSpec(
                number=number,
                variant=variation.variant or str(cfg.method._target_).split(".")[-2],
                axes=variation.axes,
                overrides=[word for word in variation.overrides if word not in idle[row]],
                folder=folder,
                config_dir=config_dir,
                teacher=teacher_of(cfg, variation.axes.get("seed", cfg.seed), of_data),
                **hardware_of(cfg),
            )
        )
    first = next(iter(composed.values()))
    if all(idle.values()):  # of no job at all: a mistake
        check_overrides(first, list(variations[0].overrides))
    return specs, list(composed.values())


def is_value_of_data(override: str, axes: Axes) -> bool:
    """Whether an override sets a ``data.`` key that varies. Such a key chooses no other
    configuration file, so a value that is valid in one row is valid in all.
    """
    key = key_of_word(override)
    return key in axes and key.startswith("data.")


def compose_job(
    overrides: Sequence[str],
    config_dir: str | None,
    shared: Collection[str] = (),
    composer: Composer = compose,
) -> DictConfig:
    """Composes and checks the configuration of a job.

    Args:
        shared: those of the overrides that all jobs have. They need not have an effect on this one.
    """
    with as_user_errors(overrides):
        nets = [word for word in shared if changed_key(word).startswith("method.teacher")]
        if nets:  # Hydra composes none of a method without a teacher
            chosen = [word for word in overrides if key_of_word(word) in ("method", "experiment")]
            if "teacher" not in composer(chosen, config_dir).method:
                overrides = [word for word in overrides if word not in nets]
        cfg = composer(overrides, config_dir)
        check_configuration(cfg)
        check_overrides(cfg, [word for word in overrides if word not in shared])
    return cfg


def hardware_of(cfg: DictConfig) -> dict[str, Any]:
    """What a launcher needs to know about a job's hardware."""
    devices = cfg.hardware.devices
    if OmegaConf.is_list(devices):
        raise UserError(
            f"hardware.devices must be a number in a sweep, got {devices}: the launcher gives "
            "each job its GPUs (CUDA_VISIBLE_DEVICES says which ones it may use)"
        )
    return {
        "devices": max(1, torch.cuda.device_count()) if devices in (-1, "auto") else devices,
        "num_nodes": cfg.hardware.num_nodes,
        "accelerator": cfg.hardware.accelerator,
        "threads": cfg.threads,
    }


def title_of(settings: Settings, preset: str, variations: Sequence[Variation]) -> str:
    """The title of a sweep: its own, that of its preset, or the names of the keys that vary."""
    names = [re.split(r"[.@/]", key)[-1] for key in variations[0].axes if key != "seed"]
    of_axes = "-".join(names) or "seeds"
    title = settings.title or (preset if preset != "grid" else of_axes)
    return re.sub(r"[^\w.+-]+", "-", title)[:60]  # part of a directory's name
