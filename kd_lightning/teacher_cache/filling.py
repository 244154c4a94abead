"""Computes the missing blocks of a teacher's cache.

The first process that finds a block missing computes it. So several runs, ranks or machines that
see the folder share the work, and a stopped run continues where it was.
"""

import dataclasses
import hashlib
import itertools
import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.files import set_aside
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import SampleKey, Values
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
        claims = Claims(folder, values, left, samples, data.batch_size, say)
        there = len(blocks) - len(left)
        try:
            for claim in computed(claims, data, outputs):
                place = there + claim.place  # blocks of others are counted too
                if place * 10 // len(blocks) > said:
                    said = place * 10 // len(blocks)
                    say(f"teacher cache: {place} of {len(blocks)} blocks")
                write_block(claim.values, claim.view, claim.indices, claim.rows)
                claims.release_first()
        finally:
            claims.release_all()
        left = [block for block in left if lacking(values, *block, samples)]
        time.sleep(0.1 if left else 0)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A block of samples that this process computes, and whose lock it holds.

    Attributes:
        place: among the blocks that were missing.
        values: that are computed.
        rows: value -> what has been computed of it, in batches.
    """

    place: int
    view: int
    indices: range
    values: list[Value]
    lock: FileLock
    rows: dict[str, list[Tensor]] = dataclasses.field(default_factory=lambda: defaultdict(list))


class Claims:
    """Claims blocks that no other process is at, and gives the batches of their samples.

    A block is claimed when its first batch is asked for. Processes that load the samples ask for
    batches ahead, so they go on with the next block while the teacher computes the end of one.

    Attributes:
        held: the claimed blocks, of which the first is being computed.
    """

    def __init__(
        self,
        folder: Path,
        values: list[Value],
        blocks: list[tuple[int, int]],
        samples: int,
        batch_size: int,
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.values = values
        self.blocks = blocks
        self.samples = samples
        self.batch_size = batch_size
        self.say = say
        self.held: deque[Claim] = deque()

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for place, (view, start) in enumerate(self.blocks):
            lock = FileLock(self.folder / f"{view}-{start}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            missing = lacking(self.values, view, start, self.samples)
            if not missing:  # another process has written it since
                lock.release()
                continue
            indices = block_of(start, self.samples)
            self.held.append(Claim(place, view, indices, [value for value, _ in missing], lock))
            put_aside(missing, self.say)
            keys = [(view, index) for index in indices]
            for first in range(0, len(keys), self.batch_size):
                yield keys[first : first + self.batch_size]

    def release_first(self) -> None:
        self.held.popleft().lock.release()

    def release_all(self) -> None:
        while self.held:
            self.release_first()


@torch.no_grad()
def computed(claims: Claims, data: ClassificationData, outputs: TeacherOutputs) -> Iterator[Claim]:
    """The claimed blocks, each when its rows have been computed. The caller releases it then."""
    batches = iter(claims)
    first = next(batches, None)
    if first is None:  # others are at all blocks: no loading process is started for nothing
        return
    for x, y in data.view_loader(itertools.chain([first], batches)):
        claim, found = claims.held[0], outputs(x, y)
        for value in claim.values:
            batch = found[value.name].to("cpu", value.dtype)
            if not batch.isfinite().all():
                raise UserError(
                    f"the teacher's {value.name} do not fit a cache of {value.dtype}: set "
                    "teacher.cache=null"
                )
            claim.rows[value.name].append(batch)
        if sum(map(len, claim.rows[claim.values[0].name])) == len(claim.indices):
            yield claim


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


def write_block(
    values: list[Value], view: int, indices: range, rows: Mapping[str, list[Tensor]]
) -> None:
    """Writes the outputs for some samples of one view."""
    for value in values:
        write(value.file(view, indices.start), torch.cat(rows[value.name]))
