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

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.build import teacher_precision
from kd_lightning.data.batches import Values, Views
from kd_lightning.data.classification import ClassificationData
from kd_lightning.directories import make_directory
from kd_lightning.errors import UserError
from kd_lightning.files import whole, write_text
from kd_lightning.methods.base import Distiller
from kd_lightning.models.frozen import best_dtype
from kd_lightning.teachers import Teacher

FORMAT = 1
BLOCK = 4096  # samples of one view
IMMATERIAL = ("root", "num_workers", "resident", "download", "batch_size", "seed", "mixing")
# all else: float32
DTYPES = {"logits": torch.float16, "features": torch.float16, "top_logits": torch.float16,
          "top_classes": torch.int32}  # fmt: skip
LEAST_MASS = 0.99  # that the highest logits must hold, softened, if only they are kept


@dataclass(frozen=True)
class Value:
    """One thing that is kept.

    Attributes:
        name: as the method calls it.
        shape: of one sample's.
        stem: of its files.
    """

    name: str
    shape: tuple[int, ...]
    stem: Path

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES.get(self.name, torch.float32)

    @property
    def row(self) -> int:
        """Bytes of one sample's."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def file(self, view: int, start: int) -> Path:
        """Of the block that begins with sample ``start``; it is there when it is whole."""
        return self.stem.with_name(f"{self.stem.name}.{view}-{start}")


def use_cache(
    cfg: DictConfig,
    data: ClassificationData,
    method: Distiller,
    teacher: Teacher,
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Gives ``data`` the views that ``cfg.teacher.cache`` asks for, and the teacher's answers to
    them, which are computed now where they are missing.

    Args:
        device: that the teacher is to compute on.

    Raises:
        UserError: the method or the data cannot do with a cache, or there is no room for it.
    """
    check_cache(cfg, data, method)
    count = cfg.teacher.cache
    if count is None:
        return
    if data.augmentation is None and count > 1:
        say(f"teacher cache: without augmentation all views are alike, so 1 is kept, not {count}")
        count = 1
    facts = facts_of(cfg, data, teacher, count, device)
    folder = Path(cfg.teacher.cache_store) / hashed(facts)
    make_directory(folder, "teacher.cache_store=… or outputs")
    check_facts(folder, facts)
    data.views = Views(count, cfg.teacher.seed)
    samples = len(data.parts["train"])
    ask = Answers(method.to(device), cfg.teacher.cache_top_k, device)
    values = ask.values(data, folder, say)
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
        fill(folder, values, count, data, ask, say)
    data.views = Views(count, cfg.teacher.seed, Kept(values, samples, data.num_classes))


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
    """All that the teacher's answers follow from."""
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


class Kept:
    """What is known of samples, read from the files of a cache, one view at a time.

    Args:
        values: that are kept.
        samples: N.
        num_classes: C, of whole logits.
    """

    def __init__(self, values: list[Value], samples: int, num_classes: int) -> None:
        self.values = values
        self.samples = samples
        self.num_classes = num_classes
        self._view: int | None = None
        self._rows: Values = {}

    def __call__(self, view: int, indices: Tensor) -> Values:
        if view != self._view:
            self._rows = {value.name: self._read(value, view) for value in self.values}
            self._view = view
        found = {name: rows[indices] for name, rows in self._rows.items()}
        return expanded(found, self.num_classes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_view": None, "_rows": {}}  # a worker reads the files itself

    def _read(self, value: Value, view: int) -> Tensor:
        return torch.cat([read(value, view, s, self.samples) for s in starts(self.samples)])


def read(value: Value, view: int, start: int, samples: int) -> Tensor:
    """A block of a value.

    Raises:
        UserError: the file is not as long as it must be.
    """
    path, rows = value.file(view, start), len(block_of(start, samples))
    data = path.read_bytes()
    if len(data) != rows * value.row:
        raise UserError(
            f"{path} is not whole: it has {len(data)} bytes of {rows * value.row}; remove it"
        )
    # copied: what bytes share cannot be written to, which torch warns of
    return torch.frombuffer(bytearray(data), dtype=value.dtype).view(rows, *value.shape)


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

    def values(
        self, data: ClassificationData, folder: Path, say: Callable[[str], None]
    ) -> list[Value]:
        """What is kept, with the shapes that a batch shows.

        Raises:
            UserError: the highest logits hold too little.
        """
        few = range(min(data.batch_size, len(data.parts["train"])))
        x, y = next(iter(data.view(0, few, len(few))))
        if self.top_k is not None:
            logits = self.method.teacher_output(x.to(self.device)).logits
            check_mass(logits.float(), self.top_k, getattr(self.method, "temperature", 1.0), say)
        kept = dict(self.method.kept())
        if self.top_k is not None and "logits" in kept:
            kept |= dict.fromkeys(("top_logits", "top_classes", "other_logit"), self.top_k)
            del kept["logits"]
        return [
            Value(name, tuple(shown.shape[1:]), folder / f"{name}-{hashed(kept[name])}")
            for name, shown in self(x, y).items()
        ]


def compressed(logits: Tensor, top_k: int) -> Values:
    """The highest logits, their classes, and the logit that each other class has if these are equal
    and their probabilities add up to what they did.
    """
    top, classes = logits.topk(top_k, dim=1)
    others = logits.scatter(1, classes, -torch.inf).logsumexp(dim=1)
    other = others - math.log(logits.shape[1] - top_k)
    return {"top_logits": top, "top_classes": classes, "other_logit": other}


def expanded(found: Values, num_classes: int) -> Values:
    """``found`` with all logits, (B, C), where only the highest were kept."""
    if "top_logits" not in found:
        return found
    parts = ("top_logits", "top_classes", "other_logit")
    top, classes, other = (found[name] for name in parts)
    logits = other.unsqueeze(1).repeat(1, num_classes).scatter(1, classes.long(), top.float())
    return {"logits": logits, **{k: v for k, v in found.items() if k not in parts}}


def check_mass(logits: Tensor, top_k: int, temperature: float, say: Callable[[str], None]) -> None:
    """Says how much of the softened probability the highest logits hold.

    Raises:
        UserError: less than ``LEAST_MASS``.
    """
    mass = (logits / temperature).softmax(dim=1).topk(top_k, dim=1).values.sum(dim=1).mean()
    holds = (
        f"the {top_k} highest of {logits.shape[1]} logits hold {mass:.2%} of the softened "
        f"probability (T = {temperature:g})"
    )
    if mass < LEAST_MASS:
        raise UserError(
            f"teacher.cache_top_k={top_k} would change what is taught: {holds}, and "
            f"{LEAST_MASS:.0%} is the least: raise it, or set teacher.cache_top_k=null"
        )
    say(f"teacher cache: {holds}")


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
    done = 0
    while left := [b for b in blocks if not all(value.file(*b).exists() for value in values)]:
        for view, start in left:  # those that others are at come again
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
            done += 1
            if done * 10 // len(blocks) > (done - 1) * 10 // len(blocks):
                say(f"teacher cache: {done} of {len(blocks)} blocks")
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
        rows = torch.cat(found[value.name]).contiguous()
        with whole(value.file(view, indices.start)) as unfinished, unfinished.open("wb") as file:
            file.write(rows.numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())


def starts(samples: int) -> range:
    """The first sample of every block."""
    return range(0, samples, BLOCK)


def block_of(start: int, samples: int) -> range:
    """The samples of the block that begins with ``start``."""
    return range(start, min(start + BLOCK, samples))


def all_blocks(count: int, samples: int) -> Iterator[tuple[int, int]]:
    return ((view, start) for view in range(count) for start in starts(samples))


def check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"the teacher's cache would take {in_bytes(size)}, and {folder} has "
            f"{in_bytes(free)} left: lower teacher.cache, or set teacher.cache_store"
        )


def in_bytes(size: int) -> str:
    """A number of bytes, for people."""
    power = min(3, max(1, (len(str(size)) - 1) // 3))
    return f"{size / 1000**power:.1f} {' kMG'[power]}B"
