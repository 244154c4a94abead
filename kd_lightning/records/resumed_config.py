"""The configuration of a run that is resumed: the one it began with, but for what may change."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.base.allowed import check_record
from kd_lightning.base.conf_folder import CONF
from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.override_words import changed_key, key_of
from kd_lightning.records.run_directory import CONFIG, TO_RESUME, is_run, read_config

# Keys that may change when a run is resumed: they decide how it is computed, tested and shown, but
# not what is learnt (data.on_bad_image does, of an image that would end the run otherwise). Another
# teacher.source must have the same weights, which are compared.
CHANGEABLE_ON_RESUME = (
    "hardware",
    "threads",
    "logger",
    "callbacks.progress",
    "outputs",
    "baselines",
    "evaluation",
    "data.root",
    "teacher.cache_store",
    "teacher.store",
    "teacher.source",
    "teacher.check",
    "data.num_workers",
    "data.resident",
    "data.on_leak",
    "data.on_bad_image",
    "data.download",
    "trainer.max_epochs",
    "trainer.log_every_n_steps",
)
# Keys that were added later, by section. The configuration of an older run lacks them, and their
# defaults do what that version did (but for teacher.check: its teacher is checked when it resumes).
ADDED_KEYS = {
    "hardware": (
        *("channels_last", "teacher_precision", "compile_teacher"),
        *("compile", "cuda_graphs", "deterministic"),
    ),
    "teacher": (
        *("cache", "cache_top_k", "cache_store", "method"),
        *("weights_key", "class_order", "check", "expect_accuracy", "data"),
    ),
    "data": ("resident", "on_leak", "unlabeled", "unlabeled_ratio", "unlabeled_options"),
    "evaluation": ("adversarial", "adversarial_steps", "adversarial_samples"),
}
# How older versions read image files, where these keys are missing.
EARLIER_READING = {"resize": "crop", "interpolation": "bilinear", "exif": False}
NET_KEYS = ("weights_key", "input_size", "interpolation")  # added later; null: as before


def with_data_of_run(words: Sequence[str]) -> list[str]:
    """The words of a command line; of one that resumes a run, with ``data=<name>`` of this run, so
    that the keys of its data set are known.
    """
    place = max((i for i, word in enumerate(words) if key_of(word) == "resume"), default=None)
    if place is None or any(key_of(word) == "data" for word in words):
        return list(words)
    directory = Path(words[place].partition("=")[2].strip("'\""))
    names = []
    with suppress(Damaged):  # whatever is wrong with the run is said by what loads it
        target = str(OmegaConf.to_container(read_config(directory, "data").data).get("_target_"))
        files = sorted((CONF / "data").glob("*.yaml"))
        names = [file.stem for file in files if OmegaConf.load(file).get("_target_") == target]
    return [*words[:place], *[f"data={name}" for name in names[:1]], *words[place:]]


def of_requeued_run(words: Sequence[str]) -> list[str]:
    """The words of a command line; where SLURM starts the job of a run again, which it had
    preempted, those that resume the run in its ``run_dir``.
    """
    place = max((i for i, word in enumerate(words) if key_of(word) == "run_dir"), default=None)
    if place is None or not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return list(words)
    directory = words[place].partition("=")[2]  # as it was typed: some names need their quotes
    if not is_run(Path(directory.strip("'\""))):
        return list(words)
    is_option = [word.startswith("-") for word in words]
    after = [False, *[word in ("--config-dir", "-cd") for word in words[:-1]]]
    kept = [w for w, own, follows in zip(words, is_option, after, strict=True) if own or follows]
    return [*kept, *[w for w in words if key_of(w) == "allow"], f"resume={directory}"]


def take_missing(cfg: DictConfig) -> None:
    """Sets the values that the command of a resumed run lacks (``???``) to those of the run."""
    with suppress(Damaged, OmegaConfBaseException):
        old = read_config(Path(str(cfg.resume)))
        for key in OmegaConf.missing_keys(cfg):
            if (value := OmegaConf.select(old, key, throw_on_missing=False)) is not None:
                OmegaConf.update(cfg, key, value, force_add=True)


def load_resumed_config(directory: Path, cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The configuration in a run directory, changed by the overrides of this command.

    Args:
        cfg: the configuration that this command composes; it has the new values.
        overrides: the overrides on the command line.

    Raises:
        UserError: the directory contains no run; or an override would change what is learnt, or
            sets a choice that a run directory does not store.
    """
    if not is_run(directory):
        raise UserError(f"resume={directory} is no run directory: expected {CONFIG} in it")
    old = read_config(directory, *TO_RESUME)
    allow = list(cfg.get("allow", []))
    check_record(old, directory / CONFIG, allow)
    if "evaluation" not in old:  # a run of an older version
        old.evaluation = cfg.evaluation
    for section, keys in ADDED_KEYS.items():
        if OmegaConf.is_dict(old.get(section)) and OmegaConf.is_dict(cfg.get(section)):
            for name in [k for k in keys if k in cfg[section] and k not in old[section]]:
                old[section][name] = cfg[section][name]
    if "deterministic" in old.trainer:  # where older runs have it
        old.hardware.deterministic = bool(old.trainer.pop("deterministic"))
    added = add_earlier_values(old)
    cfg = cfg.copy()
    for name in added:
        if not any(key_of(word) == f"data.{name}" for word in overrides):
            cfg.data[name] = old.data[name]
    cfg.task = old.task  # the facts of the data, without which ``cfg`` cannot be resolved
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for override in overrides:
        key = changed_key(override)
        if key in ("resume", "allow"):
            continue
        if key in ("experiment", "recipe"):
            raise UserError(f"'{override}' cannot be set when a run is resumed: leave it out")
        new, before = (OmegaConf.select(c, key, throw_on_missing=False) for c in (cfg, old))
        if key == "trainer.max_epochs" and new < before:
            raise UserError(
                f"trainer.max_epochs of a resumed run must be >= {before}, as before, got {new}"
            )
        if key == "callbacks":
            _take_progress(old, new)
            new, before = (OmegaConf.select(c, key) for c in (cfg, old))
        if any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE_ON_RESUME):
            OmegaConf.update(old, key, new, merge=False, force_add=True)
        elif without_null(new) != without_null(before):
            is_section = OmegaConf.is_config(before)  # far too long for a sentence
            has = "" if is_section else f", which has {key}={before}"
            raise UserError(
                f"'{override}' would change what the resumed run learns{has}: leave it out, or "
                "start a new run"
            )
    old.resume, old.allow = str(directory), allow
    return old


def is_unfinished_now(before: DictConfig, cfg: DictConfig) -> bool:
    """Whether a resumed run lacks epochs, or results of its test, that its command asks for."""
    was, asked = before.get("evaluation") or {}, cfg.evaluation
    return (
        before.trainer.max_epochs != cfg.trainer.max_epochs
        or before.get("baselines") != cfg.baselines
        or any(was[key] != asked[key] for key in was if key in asked)  # an older run lacks some
    )


def add_earlier_values(cfg: DictConfig) -> list[str]:
    """Adds to the data of an older run how its version read image files, and that its val had wrong
    labels too. Returns the added keys.
    """
    data = cfg.get("data")
    if not OmegaConf.is_dict(data):
        return []
    earlier: dict[str, Any] = {"noisy_val": True} if data.get("label_noise") else {}
    if str(data.get("_target_")).endswith(".ImageFolder"):
        earlier |= EARLIER_READING
    added = [name for name in earlier if name not in data]
    for name in added:
        data[name] = earlier[name]
    return added


def without_null(value: Any) -> Any:
    """A plain value without the keys of nets that were added later and are null."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if k not in NET_KEYS or v is not None}
    return {k: without_null(v) for k, v in kept.items()}


def _take_progress(old: DictConfig, callbacks: DictConfig) -> None:
    """Takes over the progress display alone: other callbacks could stop or change the run."""
    if "progress" in callbacks:
        old.callbacks.progress = callbacks.progress
    else:
        old.callbacks.pop("progress", None)


def changeable_keys(cfg: DictConfig) -> list[str]:
    """The keys of ``CHANGEABLE_ON_RESUME`` in ``cfg``, except the epochs and those of a teacher."""
    keys = [key for key in CHANGEABLE_ON_RESUME if key != "trainer.max_epochs"]
    keys = [key for key in keys if not key.startswith("teacher.")]
    return [key for key in keys if OmegaConf.select(cfg, key, throw_on_missing=False) is not None]
