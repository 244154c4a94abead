"""Runs that are trained once and kept: teachers and baselines, under the hash of what shaped them.

Two runs that want the same one train it once: the first holds a lock, the other waits. The lock is
the operating system's, so a dead process holds none; what it left half done is gone on with.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.ranks import rank_from_outside
from kd_lightning.records.run_directory import make_directory

# Keys that say where, how fast or how loudly, and change no weight.
IMMATERIAL = {
    "data": {"root", "num_workers", "resident", "download"},
    "trainer": {"log_every_n_steps"},
}


FORMAT = 1  # of what is kept; another number makes all that was kept before unknown


def shape_of(cfg: DictConfig) -> dict[str, Any]:
    """The part of a supervised run's configuration that shapes the weights of its students.

    Callbacks are not in it: a run that is kept has none that could stop or change it.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    shape = {key: plain[key] for key in ("method", "optimizer", "scheduler", "seed")}
    for key, immaterial in IMMATERIAL.items():
        shape[key] = {k: v for k, v in plain[key].items() if k not in immaterial}
    return shape


def shape_hash(cfg: DictConfig, fingerprint: str) -> str:
    """10 hex digits of ``shape_of(cfg)`` and of the data's content."""
    text = json.dumps([FORMAT, shape_of(cfg), fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def find_or_train(
    cfg: DictConfig,
    store: Path,
    name: str,
    fingerprint: str,
    *,
    train: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> Path:
    """The run directory of ``cfg``: the one that is kept, or a new one.

    Args:
        cfg: an ordinary run's configuration; ``run_dir`` and ``resume`` are set here.
        name: what is trained, in words; part of the directory's name.
        train: runs a configuration; leaves ``metrics.json`` in its ``run_dir`` when it is done.
        say: tells the person which of the two it was.
    """
    directory = store / f"{name}-{shape_hash(cfg, fingerprint)}"
    make_directory(store, "teacher.store=… or outputs")
    if rank_from_outside():  # not the first: that one trains
        while not (directory / "metrics.json").exists():
            time.sleep(0.5)
        return directory
    lock = FileLock(f"{directory}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another run is training {name}: waiting for it")
        lock.acquire()
    try:
        if (directory / "metrics.json").exists():
            say(f"{name}: reused from {directory}")
        else:
            _train(cfg.copy(), directory, name, train, say)
    finally:
        lock.release()
    return directory


def _train(
    cfg: DictConfig,
    directory: Path,
    name: str,
    train: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> None:
    if (directory / "last.ckpt").exists():
        say(f"{name}: going on with {directory}")
        cfg.resume = str(directory)
    else:
        say(f"{name}: trained now, kept in {directory}")
        shutil.rmtree(directory, ignore_errors=True)  # of a run that finished no epoch
        cfg.run_dir = str(directory)
    try:
        train(cfg)
    except Interrupted as interrupted:
        interrupted.advice = f"run the same command again: {name} goes on where it stopped"
        raise
