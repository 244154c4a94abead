"""Computes the missing blocks of a teacher's cache.

The first process that finds a block missing computes it. So several runs, ranks or machines that
see the folder share the work, and a stopped run continues where it was.
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

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.files import set_aside
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Values
from kd_lightning.methods.distiller import Distiller
from kd_lightning.teacher_cache.files import CachedOutputs, Value, all_blocks, block_of, read, write
from kd_lightning.teacher_cache.top_logits import PARTS, check_mass, compressed


def hashed(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


class TeacherOutputs:
    """Computes the outputs of a batch that are cached.

    Args:
        method: on ``device``.
        top_k: number of highest logits to cache, with one value for all others; None: all logits.
    """

    def __init__(self, method: Distiller, top_k: int | None, device: torch.device) -> None:
        self.method = method
        self.top_k = top_k
        self.device = device

    def __call__(self, x: Tensor, y: Tensor) -> Values:
        found = self.method.cache_values(x.to(self.device), y.to(self.device))
        if self.top_k is not None and "logits" in found:
            logits = found.pop("logits").float()
            found |= compressed(logits, self.top_k, self.method.temperature)
        return found

    def values(self, x: Tensor, y: Tensor, folder: Path, say: Callable[[str], None]) -> list[Value]:
        """The cached values, with the shapes that a batch has.

        Raises:
            UserError: the highest logits hold too little of the probability.
        """
        if self.top_k is not None:
            logits = self.method.teacher_output(x).logits
            check_mass(logits.float(), self.top_k, self.method.temperature, say)
        keys = dict(self.method.cache_keys())
        if self.top_k is not None and "logits" in keys:
            keys |= dict.fromkeys(PARTS, self.top_k)
            keys["other_logit"] = [self.top_k, self.method.temperature]
            del keys["logits"]
        return [
            Value(name, tuple(shown.shape[1:]), folder / f"{name}-{hashed(keys[name])}")
            for name, shown in self(x, y).items()
        ]


class Filling(Callback):
    """Computes the missing blocks and gives the cached outputs to ``data``, once a Trainer has
    started all its processes, so that they share the work; or when it is called.
    """

    def __init__(
        self, data: ClassificationData, fill: Callable[[], None], cached: CachedOutputs
    ) -> None:
        self._data = data
        self._fill = fill
        self._cached = cached

    def __call__(self) -> None:
        self._fill()
        self._data.views = dataclasses.replace(self._data.views, cached=self._cached)

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        try:
            self()
        except UserError:
            # the first process meets the same block and reports it; if this process ended before,
            # the first one would be killed
            if trainer.is_global_zero:
                raise


def fill(
    folder: Path,
    values: list[Value],
    count: int,
    data: ClassificationData,
    outputs: TeacherOutputs,
    say: Callable[[str], None],
) -> None:
    """Computes the missing and the damaged blocks, and waits for those that other processes
    compute.
    """
    samples = len(data.parts["train"])
    blocks = list(all_blocks(count, samples))
    left = [block for block in blocks if lacking(values, *block, samples)]
    said = 0
    while left:
        there = len(blocks) - len(left)
        for place, (view, start) in enumerate(left, there):  # blocks of others are seen again
            if place * 10 // len(blocks) > said:
                said = place * 10 // len(blocks)
                say(f"teacher cache: {place} of {len(blocks)} blocks")
            lock = FileLock(folder / f"{view}-{start}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                missing = lacking(values, view, start, samples)
                if missing:
                    put_aside(missing, say)
                    wanted = [value for value, _ in missing]
                    write_block(wanted, view, block_of(start, samples), data, outputs)
            finally:
                lock.release()
        left = [block for block in left if lacking(values, *block, samples)]
        time.sleep(0.1 if left else 0)


def lacking(
    values: list[Value], view: int, start: int, samples: int
) -> list[tuple[Value, Damaged]]:
    """The values whose block is missing or damaged, and what is wrong with it."""
    found = []
    for value in values:
        try:
            read(value, view, start, samples)
        except Damaged as damage:
            found.append((value, damage))
    return found


def put_aside(missing: list[tuple[Value, Damaged]], say: Callable[[str], None]) -> None:
    """Renames the damaged blocks. The caller holds the lock of the block."""
    for _, damage in missing:
        if damage.path.exists():
            aside = set_aside(damage.path).name
            say(
                f"teacher cache: {damage.path} {damage.what}, so it is set aside as {aside} and "
                "computed again"
            )


@torch.no_grad()
def write_block(
    values: list[Value],
    view: int,
    indices: range,
    data: ClassificationData,
    outputs: TeacherOutputs,
) -> None:
    """Computes the outputs for some samples of one view, and writes them."""
    found: dict[str, list[Tensor]] = {value.name: [] for value in values}
    for x, y in data.view(view, indices, data.batch_size):
        cached = outputs(x, y)
        for value in values:
            batch = cached[value.name].to("cpu", value.dtype)
            if not batch.isfinite().all():
                raise UserError(
                    f"the teacher's {value.name} do not fit a cache of {value.dtype}: set "
                    "teacher.cache=null"
                )
            found[value.name].append(batch)
    for value in values:
        write(value.file(view, indices.start), torch.cat(found[value.name]))
