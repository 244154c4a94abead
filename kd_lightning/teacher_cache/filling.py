"""Computes what of a teacher's cache is missing: what is kept of a batch, and who computes a block.

A block is made by whoever comes first, so that several runs, ranks or machines that see the folder
share the work, and what was stopped is gone on with.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Values
from kd_lightning.methods.distiller import Distiller
from kd_lightning.teacher_cache.files import Kept, Value, all_blocks, block_of, write
from kd_lightning.teacher_cache.top_logits import PARTS, check_mass, compressed


def hashed(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


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
