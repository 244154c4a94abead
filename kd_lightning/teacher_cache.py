"""The teacher's answers to the training samples, computed once and kept: ``teacher.cache=<views>``.

Every sample is augmented in a fixed number of ways, its views; the cache has the teacher's answer
to each, and a run shows its students exactly these. A view follows from (seed, view, sample), so
the images of a cached run are those that the teacher saw, to the last bit.

A cache is a folder: ``facts.json`` says what it was made of, and each value is a file for every
block of a view's samples, whole or not there. A block is made by whoever comes first, so that
several runs, ranks or machines that see the folder share the work, and what was stopped is gone on
with.

Dimensions: V views, N training samples, B batch, C classes.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.build import teacher_precision
from kd_lightning.cache_files import (
    Kept,
    Value,
    all_blocks,
    block_of,
    check_room,
    write,
)
from kd_lightning.data.batches import Values, Views
from kd_lightning.data.classification import ClassificationData
from kd_lightning.directories import make_directory
from kd_lightning.errors import UserError
from kd_lightning.files import in_bytes, write_text
from kd_lightning.methods.distiller import Distiller
from kd_lightning.models.frozen import best_dtype
from kd_lightning.teachers import Teacher
from kd_lightning.top_logits import PARTS, check_mass, compressed

FORMAT = 1
IMMATERIAL = ("root", "num_workers", "resident", "download", "batch_size", "seed", "mixing")


def use_cache(
    cfg: DictConfig,
    data: ClassificationData,
    method: Distiller,
    teacher: Teacher,
    device: torch.device,
    say: Callable[[str], None],
) -> "Filling | None":
    """Gives ``data`` the views that ``cfg.teacher.cache`` asks for, and prepares the teacher's
    answers to them.

    Args:
        device: that the teacher is to compute on.

    Returns:
        What computes those that are missing, and gives ``data`` all; None where no cache is asked
        for.

    Raises:
        UserError: the method or the data cannot do with a cache, or there is no room for it.
    """
    check_cache(cfg, data, method)
    count = cfg.teacher.cache
    if count is None:
        return None
    if data.augmentation is None and count > 1:
        say(f"teacher cache: without augmentation all views are alike, so 1 is kept, not {count}")
        count = 1
    data.views = Views(count, cfg.teacher.seed)
    samples = len(data.parts["train"])
    few = range(min(data.batch_size, samples))
    x, y = (part.to(device) for part in next(iter(data.view(0, few, len(few)))))
    by_twin = method.to(device).teacher_for(x) is not method.teacher
    facts = facts_of(cfg, data, teacher, count, device) | {"twin": by_twin}
    folder = Path(cfg.teacher.cache_store) / hashed(facts)
    make_directory(folder, "teacher.cache_store=… or outputs")
    check_facts(folder, facts)
    ask = Answers(method, cfg.teacher.cache_top_k, device)
    values = ask.values(x, y, folder, say)
    missing = [
        (value, view, start)
        for value in values
        for view, start in all_blocks(count, samples)
        if not value.file(view, start).exists()
    ]
    if missing:
        size = sum(value.row * len(block_of(start, samples)) for value, _, start in missing)
        check_room(folder, size)
        names = " and ".join(dict.fromkeys(value.name for value, _, _ in missing))
        say(
            f"teacher cache: {names} of {count} {'view' if count == 1 else 'views'} of {samples} "
            f"samples, {in_bytes(size)} to compute, in {folder}"
        )
    answers = Kept(values, samples, data.num_classes)
    return Filling(data, functools.partial(fill, folder, values, count, data, ask, say), answers)


class Filling(Callback):
    """Computes what is missing of a cache, and gives ``data`` the answers: once a Trainer has
    started all its processes, so that they share the work, or when it is called.
    """

    def __init__(self, data: ClassificationData, fill: Callable[[], None], answers: Kept) -> None:
        self._data = data
        self._fill = fill
        self._answers = answers

    def __call__(self) -> None:
        self._fill()
        self._data.views = dataclasses.replace(self._data.views, known=self._answers)

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        try:
            self()
        except UserError:
            # the first process comes to this block too, and says it once; were this one to end, it
            # would be killed
            if trainer.is_global_zero:
                raise


def check_cache(cfg: DictConfig, data: ClassificationData, method: Distiller) -> None:
    """Raises ``UserError`` where a cache cannot be right."""
    top_k = cfg.teacher.cache_top_k
    if cfg.teacher.cache is None:
        if top_k is not None:
            raise UserError(f"teacher.cache_top_k={top_k} has no effect without teacher.cache")
        return
    if cfg.teacher.cache < 1:
        raise UserError(f"teacher.cache must be >= 1 or null, got {cfg.teacher.cache}")
    if top_k is not None and not 1 <= top_k < data.num_classes:
        raise UserError(
            f"teacher.cache_top_k must be >= 1 and < {data.num_classes}, the number of classes, "
            f"or null, got {top_k}"
        )
    if data.mixing is not None:
        raise UserError(
            "teacher.cache keeps answers to single samples, and data.mixing makes new ones of two: "
            "set data.mixing=null, or teacher.cache=null"
        )
    if data.skip_bad:
        raise UserError(
            "teacher.cache needs an answer to every sample: set data.on_bad_image=error, or "
            "teacher.cache=null"
        )
    if not method.kept():
        raise UserError(
            "teacher.cache is set, and this run does not ask its teacher anything: leave it out"
        )
    if top_k is not None and "logits" not in method.kept():
        raise UserError(
            f"teacher.cache_top_k={top_k} has no effect: this run keeps "
            f"{' and '.join(method.kept())}, and no logits"
        )


def facts_of(
    cfg: DictConfig, data: ClassificationData, teacher: Teacher, count: int, device: torch.device
) -> dict[str, Any]:
    """What the teacher's answers follow from, but for whether its faster twin gives them."""
    shown = OmegaConf.to_container(cfg.data, resolve=True)
    net = OmegaConf.to_container(cfg.method.teacher, resolve=True)
    precision = teacher_precision(cfg.hardware)
    if precision == "best":
        precision = str(best_dtype(device))
    return {
        "format": FORMAT,
        "teacher": teacher.sha256,
        # the weights do not say all of a net: not its dropout, its eps, the size that it resizes to
        "net": {key: value for key, value in net.items() if key != "weights"},
        "modules": hashed(repr(teacher.net)),
        "precision": precision,
        "data": data.fingerprint,
        "classes": data.classes_sha256,
        "samples": {key: value for key, value in shown.items() if key not in IMMATERIAL},
        "torchvision": torchvision.__version__,
        "views": count,
        "seed": cfg.teacher.seed,
    }


def hashed(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def check_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes what the cache is of, or raises ``UserError`` where it is of something else."""
    path = folder / "facts.json"
    if not path.exists():  # but for those who may only read
        with FileLock(folder / "facts.lock"):
            if not path.exists():
                write_text(path, json.dumps(facts, indent=1, sort_keys=True))
    was = json.loads(path.read_text())
    if odd := [key for key in {**facts, **was} if facts.get(key) != was.get(key)]:
        raise UserError(
            f"{folder} is a cache of something else: its {odd[0]} is {was.get(odd[0])}, this "
            f"run's is {facts.get(odd[0])}; remove it, or set another teacher.cache_store"
        )


class Answers:
    """What is kept of a batch.

    Args:
        method: on ``device``.
        top_k: keep so many of the highest logits, and what the others come to; None: all.
    """

    def __init__(self, method: Distiller, top_k: int | None, device: torch.device) -> None:
        self.method = method
        self.top_k = top_k
        self.device = device

    def __call__(self, x: Tensor, y: Tensor) -> Values:
        found = self.method.to_keep(x.to(self.device), y.to(self.device))
        if self.top_k is not None and "logits" in found:
            found |= compressed(found.pop("logits").float(), self.top_k)
        return found

    def values(self, x: Tensor, y: Tensor, folder: Path, say: Callable[[str], None]) -> list[Value]:
        """What is kept, with the shapes that a batch shows.

        Raises:
            UserError: the highest logits hold too little.
        """
        if self.top_k is not None:
            logits = self.method.teacher_output(x).logits
            check_mass(logits.float(), self.top_k, getattr(self.method, "temperature", 1.0), say)
        kept = dict(self.method.kept())
        if self.top_k is not None and "logits" in kept:
            kept |= dict.fromkeys(PARTS, self.top_k)
            del kept["logits"]
        return [
            Value(name, tuple(shown.shape[1:]), folder / f"{name}-{hashed(kept[name])}")
            for name, shown in self(x, y).items()
        ]


def fill(
    folder: Path,
    values: list[Value],
    count: int,
    data: ClassificationData,
    ask: Answers,
    say: Callable[[str], None],
) -> None:
    """Computes the missing blocks, or waits for those that others compute."""
    samples = len(data.parts["train"])
    blocks = list(all_blocks(count, samples))
    said = 0
    while left := [b for b in blocks if not all(value.file(*b).exists() for value in values)]:
        there = len(blocks) - len(left)
        for place, (view, start) in enumerate(left, there):  # those others are at come again
            if place * 10 // len(blocks) > said:  # all begin at the first: those before are begun
                said = place * 10 // len(blocks)
                say(f"teacher cache: {place} of {len(blocks)} blocks")
            lock = FileLock(folder / f"{view}-{start}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                lacking = [value for value in values if not value.file(view, start).exists()]
                if lacking:
                    write_block(lacking, view, block_of(start, samples), data, ask)
            finally:
                lock.release()
        else:
            time.sleep(0.1)


@torch.no_grad()
def write_block(
    values: list[Value], view: int, indices: range, data: ClassificationData, ask: Answers
) -> None:
    """Computes the answers to some samples of one view, and writes them."""
    found: dict[str, list[Tensor]] = {value.name: [] for value in values}
    for x, y in data.view(view, indices, data.batch_size):
        kept = ask(x, y)
        for value in values:
            batch = kept[value.name].to("cpu", value.dtype)
            if not batch.isfinite().all():
                raise UserError(
                    f"the teacher's {value.name} do not fit a cache of {value.dtype}: set "
                    "teacher.cache=null"
                )
            found[value.name].append(batch)
    for value in values:
        write(value.file(view, indices.start), torch.cat(found[value.name]))
