"""Run directories: each run has one, shared by its ranks."""

import io
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import read_json, read_text, with_keys
from kd_lightning.base.ranks import is_first_rank

CONFIG = "config.yaml"
TEST_AGAIN = "remove it and resume the run or its sweep, which then tests the students again"
TO_RESUME = ("data", "task", "trainer")  # sections of a configuration that a resumed run needs
# The environment variable by which rank 0 tells the directory to the ranks that Lightning starts.
RUN_DIR_VARIABLE = "KD_LIGHTNING_RUN_DIR"


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
    """The student of a finished run that was best on val, as its weights were chosen: by accuracy,
    then by NLL. Its only one, if it has one; the first one, if there is no val.
    """
    nets, method = read_metrics(directory)["nets"], read_config(directory).method
    if missing := [key for key in method.students if "val" not in nets.get(key, {})]:
        what = f"has no numbers of {missing[0]} on val"
        raise Damaged(directory / "metrics.json", what, TEST_AGAIN)
    by, val = chosen_by(method), {key: nets[key]["val"] for key in method.students}
    return max(val, key=lambda key: (val[key].get(by, 0.0), -val[key].get("nll", 0.0)))


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


@contextmanager
def holding(directory: Path) -> Iterator[None]:
    """Holds a run directory, because two processes that wrote to it would mix two runs. The process
    of a sweep's job holds that of its run already.

    Raises:
        UserError: another process is at this run.
    """
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"another process is at the run in {directory}: wait until it has ended, or stop it; "
            f"if there is none, remove {directory / '.lock'} (resume=…)"
        ) from error
    try:
        yield
    finally:
        lock.release()


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
