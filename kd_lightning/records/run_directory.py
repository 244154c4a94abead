"""Run directories: one per run, shared by its ranks, and what it takes to go on in one."""

import os
import secrets
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import is_first_rank

# How rank 0 tells the processes that Lightning starts for the other ranks.
VARIABLE = "KD_LIGHTNING_RUN_DIR"

# What may change when a run is resumed: how it is computed, tested and shown, not what is learnt.
HARMLESS = (
    "hardware",
    "threads",
    "logger",
    "callbacks.progress",
    "outputs",
    "baselines",
    "evaluation",
    "data.root",
    "teacher.cache_store",
    "data.num_workers",
    "data.resident",
    "data.download",
    "trainer.max_epochs",
    "trainer.log_every_n_steps",
)


# Keys that runs of older versions do not have; as they are by default, they change nothing in them.
SINCE = {
    "hardware": (
        *("channels_last", "teacher_precision", "compile_teacher"),
        *("compile", "cuda_graphs"),
    ),
    "teacher": ("cache", "cache_top_k", "cache_store", "method"),
    "data": ("resident",),
}


def claim(cfg: DictConfig, title: str) -> Path:
    """Makes the run's directory, which no other run has; for further ranks: finds it.

    Raises:
        UserError: ``run_dir`` holds a run already.
    """
    if cfg.resume:
        directory = Path(cfg.resume)
    elif not is_first_rank():
        # it writes nothing there; where torchrun or SLURM started it, it is told nothing either
        return Path(os.environ.get(VARIABLE, Path(cfg.outputs) / "of-the-first-rank"))
    elif cfg.run_dir:
        directory = Path(cfg.run_dir)
        if (directory / "config.yaml").exists():
            raise UserError(f"run_dir={directory} holds a run already: go on with it by resume=…")
        make_directory(directory, "run_dir")
    else:
        directory = new_directory(Path(cfg.outputs), title)
    os.environ[VARIABLE] = str(directory.resolve())
    return directory


def new_directory(outputs: Path, title: str) -> Path:
    """Makes a directory that no other run or sweep has, named by the time and ``title``."""
    while True:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        directory = outputs / f"{stamp}_{title}_{secrets.token_hex(2)}"
        try:
            make_directory(directory, "outputs", exist_ok=False)
        except FileExistsError:  # another run of this very second drew the same four digits
            continue
        return directory


def make_directory(directory: Path, key: str, *, exist_ok: bool = True) -> None:
    """Makes a directory, and those above it.

    Raises:
        FileExistsError: it exists, and ``exist_ok`` is False.
        UserError: it cannot be made; ``key`` is the one to change.
    """
    try:
        directory.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise UserError(
            f"cannot make the folder {directory}: {error.strerror} ({key}=…)"
        ) from error


def check_overrides(cfg: DictConfig, overrides: list[str]) -> None:
    """Raises ``UserError`` for an override that would silently do nothing."""
    of_teacher = [o for o in overrides if o.lstrip("+").startswith(("teacher.", "method.teacher"))]
    if of_teacher and "teacher" not in cfg.method:
        method = cfg.method._target_.split(".")[-2]
        raise UserError(f"{of_teacher[0]} has no effect: method={method} has no teacher")


def resumed(directory: Path, cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The configuration of a run directory, with the harmless overrides of this command.

    Args:
        cfg: what this command composes to; the values of its overrides are taken from it.
        overrides: as they stand on the command line.

    Raises:
        UserError: the directory holds no run, or an override would change the mathematics, or
            what it sets is not kept in a run directory.
    """
    path = directory / "config.yaml"
    if not path.exists():
        raise UserError(f"resume={directory} is no run directory: expected config.yaml in it")
    old = OmegaConf.load(path)
    if "evaluation" not in old:  # the run of a version that had none of it
        old.evaluation = cfg.evaluation
    for section, keys in SINCE.items():
        if section in old and section in cfg:
            for name in [name for name in keys if name not in old[section]]:
                old[section][name] = cfg[section].get(name)
    cfg = cfg.copy()
    cfg.task = old.task  # what the data say: then both are resolved
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0].split("@")[-1]
        if key == "resume":
            continue
        if key in ("experiment", "recipe"):
            raise UserError(f"'{override}' cannot be set when a run is resumed: leave it out")
        new, was = (OmegaConf.select(c, key, throw_on_missing=False) for c in (cfg, old))
        if key == "trainer.max_epochs" and new < was:
            raise UserError(f"a resumed run may have more epochs, not fewer: {new} after {was}")
        if key == "callbacks":
            _take_progress(old, new)
            new, was = (OmegaConf.select(c, key) for c in (cfg, old))
        if any(key == name or key.startswith(f"{name}.") for name in HARMLESS):
            OmegaConf.update(old, key, new, merge=False, force_add=True)
        elif new != was:
            raise UserError(
                f"'{override}' would change the mathematics of the resumed run, which has "
                f"{key}={was}: start a new run, or leave it out"
            )
    old.resume = str(directory)
    return old


def _take_progress(old: DictConfig, callbacks: DictConfig) -> None:
    """What is shown may change; callbacks that could stop or change a run may not."""
    if "progress" in callbacks:
        old.callbacks.progress = callbacks.progress
    else:
        old.callbacks.pop("progress", None)


def harmless_keys(cfg: DictConfig) -> list[str]:
    """The keys of ``HARMLESS`` that ``cfg`` has, but for its length and what is its teacher's."""
    keys = [key for key in HARMLESS if key not in ("trainer.max_epochs", "teacher.cache_store")]
    return [key for key in keys if OmegaConf.select(cfg, key, throw_on_missing=False) is not None]
