"""Run directories: each run has one, shared by its ranks. How a run is resumed in its directory."""

import io
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.base.allowed import check_record
from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import read_json, read_text, with_keys
from kd_lightning.base.ranks import is_first_rank

CONFIG = "config.yaml"
TEST_AGAIN = "remove it and resume the run or its sweep, which then tests the students again"
TO_RESUME = ("data", "task", "trainer")  # sections of a configuration that a resumed run needs
# The environment variable by which rank 0 tells the directory to the ranks that Lightning starts.
RUN_DIR_VARIABLE = "KD_LIGHTNING_RUN_DIR"

# Keys that may change when a run is resumed: they decide how it is computed, tested and shown, but
# not what is learnt.
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
    "teacher.check",
    "data.num_workers",
    "data.resident",
    "data.on_leak",
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


def is_run(directory: Path) -> bool:
    """Whether this is a run directory; the run may be unfinished."""
    return (directory / CONFIG).is_file()


def read_config(directory: Path, *sections: str) -> DictConfig:
    """The configuration of a run.

    Args:
        sections: that are needed besides ``method``.

    Raises:
        Damaged: ``config.yaml`` is missing or damaged, or is none of a run.
    """
    config = read_yaml(directory / CONFIG)
    for name in ("method", *sections):
        if not OmegaConf.is_dict(config.get(name)):
            raise Damaged(directory / CONFIG, f"is no configuration of a run: it has no {name}")
    return config


def read_yaml(path: Path, *keys: str) -> DictConfig:
    """A kept YAML file, with its interpolations.

    Args:
        keys: that it must have.

    Raises:
        Damaged: it is missing or damaged, or has no keys and values.
    """
    text = read_text(path)
    try:
        content = OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        raise Damaged(path, "is no valid YAML") from error
    with_keys(content if OmegaConf.is_dict(content) else None, path, *keys)
    return content


def read_metrics(directory: Path) -> dict[str, Any]:
    """The content of a finished run's ``metrics.json``. Raises ``Damaged``."""
    path = directory / "metrics.json"
    metrics = read_json(path, "nets", advice=TEST_AGAIN)
    for net in with_keys(metrics["nets"], path, advice=TEST_AGAIN).values():
        with_keys(net, path, advice=TEST_AGAIN)
    return metrics


def best_student(directory: Path) -> str:
    """The student of a finished run that was best on val; its only one, if it has one."""
    nets, method = read_metrics(directory)["nets"], read_config(directory).method
    if missing := [key for key in method.students if "val" not in nets.get(key, {})]:
        what = f"has no numbers of {missing[0]} on val"
        raise Damaged(directory / "metrics.json", what, TEST_AGAIN)
    by = chosen_by(method)
    return max(method.students, key=lambda key: nets[key]["val"].get(by, 0.0))


def chosen_by(method: Mapping[str, Any]) -> str:
    """The metric on val by which the students' weights are chosen, from a method's configuration:
    of adversarial training, the accuracy under attack, unless it is said otherwise.
    """
    return method.get("choose_by") or "accuracy"


def make_run_directory(cfg: DictConfig, title: str) -> Path:
    """Makes a directory for this run alone. A resumed run, and a rank other than the first, gets
    the existing one.

    Raises:
        UserError: ``run_dir`` already contains a run.
    """
    if cfg.resume:
        directory = Path(cfg.resume)
    elif not is_first_rank():
        # This rank writes no files. Started by torchrun or SLURM, it does not know the directory.
        return Path(os.environ.get(RUN_DIR_VARIABLE, Path(cfg.outputs) / "of-the-first-rank"))
    elif cfg.run_dir:
        directory = Path(cfg.run_dir)
        if is_run(directory):
            raise UserError(f"run_dir={directory} already contains a run: resume it with resume=…")
        make_directory(directory, "run_dir")
    else:
        directory = new_directory(Path(cfg.outputs), title)
    os.environ[RUN_DIR_VARIABLE] = str(directory.resolve())
    return directory


def new_directory(outputs: Path, title: str) -> Path:
    """Makes a directory for one run or sweep alone. Its name is the time and ``title``."""
    while True:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        directory = outputs / f"{stamp}_{title}_{secrets.token_hex(2)}"
        try:
            make_directory(directory, "outputs", exist_ok=False)
        except FileExistsError:  # another run of the same second has the same four digits
            continue
        return directory


def make_directory(directory: Path, key: str, *, exist_ok: bool = True) -> None:
    """Makes a directory and its parents.

    Args:
        key: the key that sets the directory, for the error message.

    Raises:
        FileExistsError: it exists, and ``exist_ok`` is False.
        UserError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise UserError(
            f"cannot make the folder {directory}: {error.strerror} ({key}=…)"
        ) from error


def words_without_effect(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """The overrides of a teacher, if the method has no teacher; those of how it learns, if this run
    does not train it.
    """
    idle = ("teacher.", "method.teacher")
    if "teacher" in cfg.method:
        idle = () if trains_teacher(cfg) else ("teacher.method",)
    return [word for word in overrides if changed_key(word).startswith(idle)]


def trains_teacher(cfg: DictConfig) -> bool:
    source = cfg.teacher.source
    return "train" in (source if OmegaConf.is_list(source) else [source])


def changed_key(override: str) -> str:
    """What an override changes: of ``method@teacher.method=kd``, ``teacher.method``."""
    return override.lstrip("+~").partition("=")[0].rpartition("@")[2]


def check_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raises ``UserError`` for an override of a teacher that has no effect."""
    if idle := words_without_effect(cfg, overrides):
        if "teacher" in cfg.method:
            raise UserError(
                f"{idle[0]} has no effect: teacher.source={cfg.teacher.source} is a teacher that "
                "is already trained (leave one of the two out)"
            )
        method = cfg.method._target_.split(".")[-2]
        raise UserError(f"{idle[0]} has no effect: method={method} has no teacher")


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
        if not any(word.lstrip("+").startswith(f"data.{name}=") for word in overrides):
            cfg.data[name] = old.data[name]
    cfg.task = old.task  # the facts of the data, without which ``cfg`` cannot be resolved
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0].split("@")[-1]
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
            raise UserError(
                f"'{override}' would change what the resumed run learns, which has {key}={before}: "
                "leave it out, or start a new run"
            )
    old.resume, old.allow = str(directory), allow
    return old


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
