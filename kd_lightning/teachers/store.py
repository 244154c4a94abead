"""Results that are computed once and kept: teachers, baselines and stages, under the hash of what
shapes them.

Two runs that need the same result compute it once: the first holds a lock, the other waits. The
lock is the operating system's, so a dead process holds none; the next run resumes its work. A kept
result that is damaged is set aside and made again, by the process that holds the lock.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.allowed import needed_words
from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.files import set_aside
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.kept_files import finish_sums
from kd_lightning.base.ranks import STARTED, has_common_id, launch_id, launcher_rank
from kd_lightning.records.check import check_run
from kd_lightning.records.generations import has_checkpoint
from kd_lightning.records.resumed_config import EARLIER_READING
from kd_lightning.records.run_directory import make_directory

# Keys that say where, how fast or how verbosely, and change no weight.
IMMATERIAL = {
    "data": {"root", "num_workers", "resident", "download", "on_leak"},
    "trainer": {"log_every_n_steps"},
}
# Newer keys of data, with the values that mean what was done before. They are left out of hashes,
# so that earlier results are found again. null is the value of preparation, which the fingerprint
# covers.
EARLIER = {
    **{key: (value, None) for key, value in EARLIER_READING.items()},
    **{"unlabeled": (None,), "unlabeled_ratio": (1.0,), "unlabeled_options": (None,)},
}
# Newer keys of nets: null means what was done before. timm's nets have had input_size for longer.
TIMM = "kd_lightning.models.timm_nets.timm_classifier"
EARLIER_NET = ("weights_key", "interpolation", "input_size")

FORMAT = 1  # of the kept results; a new number makes all earlier ones unknown


def shape_of(cfg: DictConfig) -> dict[str, Any]:
    """The part of a run's configuration that shapes the weights of its students.

    It has no callbacks: a run that is kept has none that could stop or change it.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    shape = {key: plain[key] for key in ("method", "optimizer", "scheduler", "seed")}
    for key, immaterial in IMMATERIAL.items():
        shape[key] = {k: v for k, v in plain[key].items() if k not in immaterial}
    shape["data"] = without_earlier(shape["data"])
    shape["method"] = without_earlier_nets(shape["method"])
    return shape


def without_earlier_nets(value: Any) -> Any:
    """Settings of a method or a net without newer keys whose value means what was done before."""
    if not isinstance(value, dict):
        return value
    keys = EARLIER_NET[:2] if value.get("_target_") == TIMM else EARLIER_NET
    kept = {k: v for k, v in value.items() if k not in keys or v is not None}
    return {k: without_earlier_nets(v) for k, v in kept.items()}


def without_earlier(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of data without newer keys whose value means what was done before, so that
    earlier results are found again. null is the value of preparation, which the fingerprint covers.
    """
    return {k: v for k, v in data.items() if k not in EARLIER or v not in EARLIER[k]}


def shape_hash(*facts: Any) -> str:
    """10 hex digits of plain values that shape a result."""
    text = json.dumps([FORMAT, *facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def find_or_make(
    directory: Path,
    done: str,
    name: str,
    *,
    make: Callable[[], Any],
    check: Callable[[Path], None],
    say: Callable[[str], None],
) -> Path:
    """The file of a kept result, which is made first if it does not exist or is damaged. A damaged
    one is set aside.

    Args:
        directory: of the result; its parent exists.
        done: the last file that ``make`` writes into ``directory``.
        name: the result, in words.
        make: makes or resumes the result.
        check: raises ``Damaged`` if the result in a directory, or what is there of it, cannot be
            used.
        say: tells the person what happens.
    """
    path = directory / done
    # a launch has any text as its id
    launch = hashlib.sha256(str(launch_id()).encode()).hexdigest()[:10]
    failed = directory.with_name(f"{directory.name}.failed-{launch}")
    if launcher_rank():  # not the first rank, which makes it
        while not (path.exists() and damage_of(directory, check) is None):
            if is_of_this_launch(failed):
                raise UserError(f"the first process has failed to train {name}: see its message")
            time.sleep(0.5)
        return path
    lock = FileLock(f"{directory}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another run is training {name}: waiting for it")
        lock.acquire()
    except OSError:  # a store of others, which may only be read
        if not path.exists() or damage_of(directory, check) is not None:
            raise
        say(f"{name}: reused from {directory}")
        return path
    try:
        if directory.exists() and (damage := damage_of(directory, check)) is not None:
            aside = set_aside(directory)
            say(f"{name}: {damage.path} {damage.what}, so it is set aside as {aside}")
        if path.exists():
            say(f"{name}: reused from {directory}")
            finish_sums(directory)
        else:
            resumes = has_checkpoint(directory)
            say(f"{name}: {'resumed in' if resumes else 'trained now, kept in'} {directory}")
            if not resumes:
                shutil.rmtree(directory, ignore_errors=True)  # of a run that finished no epoch
            make()
        for mark in directory.parent.glob(f"{directory.name}.failed-*"):
            mark.unlink(missing_ok=True)
    except BaseException as error:
        if isinstance(error, Interrupted):
            error.advice = f"run the same command again: {name} is resumed where it stopped"
        if launcher_rank() is not None:
            with suppress(OSError):
                failed.touch()
        raise
    finally:
        lock.release()
    return path


def is_of_this_launch(mark: Path) -> bool:
    """Whether a mark exists and is not that of an earlier launch with the same id."""
    try:
        return mark.stat().st_mtime >= STARTED or not has_common_id()
    except FileNotFoundError:
        return False


def damage_of(directory: Path, check: Callable[[Path], None]) -> Damaged | None:
    try:
        check(directory)
    except Damaged as damage:
        return damage
    return None


def find_or_train(
    cfg: DictConfig,
    store: Path,
    name: str,
    fingerprint: str,
    *,
    train: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> Path:
    """The directory of the run that ``cfg`` describes: a kept one, or a new one.

    Args:
        cfg: an ordinary run's configuration; ``run_dir`` or ``resume`` is set here.
        name: of the trained net, in words; part of the directory's name.
        fingerprint: of the data's content.
        train: trains a configuration; leaves ``metrics.json`` in its directory when it is done.
        say: tells the person what happens.
    """
    directory = directory_of_run(cfg, store, name, fingerprint)
    make_directory(store, "teacher.store=… or outputs")

    def make() -> None:
        run = cfg.copy()
        if has_checkpoint(directory):
            run.resume = str(directory)
            run.allow = sorted({*run.allow, *needed_words(run)})  # what this run names itself
        else:
            run.run_dir = str(directory)
        train(run)

    done = "metrics.json"
    return find_or_make(directory, done, name, make=make, check=check_run, say=say).parent


def directory_of_run(cfg: DictConfig, store: Path, name: str, fingerprint: str) -> Path:
    """Where ``find_or_train`` keeps the run that ``cfg`` describes."""
    files = hashes_of_files(OmegaConf.to_container(cfg.method, resolve=True))
    facts = [shape_of(cfg), fingerprint, *[files] * bool(files)]
    return store / f"{name}-{shape_hash(*facts)}"


def hashes_of_files(method: Any) -> list[str]:
    """The content of each file whose weights a net of a method starts from: another file can come
    under its name.
    """
    if not isinstance(method, dict):
        return []
    own = method.get("weights")
    path = Path(own).expanduser() if isinstance(own, str) else None
    if path is not None and path.is_dir():
        from kd_lightning.models.checkpoints import KEY, file_in  # it needs torch, which is slow

        path = file_in(path, KEY)
    found = [hash_of_file(path)] if path is not None and path.is_file() else []
    return [*found, *(one for value in method.values() for one in hashes_of_files(value))]


def hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
