"""The teacher's outputs on the training samples, computed once: ``teacher.cache=<views>``.

Every sample is augmented in a fixed number of ways, its views. The cache holds the teacher's output
for each view, and a run shows its students exactly these views. A view depends on (seed, view,
sample) alone, so the images of a cached run equal those that the teacher saw, bit for bit.

A cache is a folder. ``facts.json`` says what it was made from. Each value has one file for every
block of a view's samples, written atomically (``files.py``). Missing blocks are computed by all
processes that need them (``filling.py``).

Dimensions: V views, N training samples, B batch, C classes.
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.files import format_bytes, set_aside
from kd_lightning.base.kept_files import finish_sums, read_json, write_kept
from kd_lightning.base.precision import best_dtype
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Views
from kd_lightning.methods.distiller import Distiller
from kd_lightning.models.inference import teacher_precision
from kd_lightning.records.run_directory import make_directory
from kd_lightning.teacher_cache.files import CachedOutputs, all_blocks, block_of, check_room
from kd_lightning.teacher_cache.filling import Filling, TeacherOutputs, fill, hashed
from kd_lightning.teachers.sources import Teacher
from kd_lightning.teachers.store import without_earlier, without_earlier_nets

FORMAT = 1
IMMATERIAL = (
    *("root", "num_workers", "resident", "download", "on_leak"),
    *("batch_size", "seed", "mixing"),
)


def use_cache(
    cfg: DictConfig,
    data: ClassificationData,
    method: Distiller,
    teacher: Teacher,
    device: torch.device,
    say: Callable[[str], None],
) -> Filling | None:
    """Gives ``data`` the views that ``cfg.teacher.cache`` asks for, and prepares the teacher's
    outputs for them.

    Args:
        device: on which the teacher computes.

    Returns:
        A callback that computes the missing outputs and gives all of them to ``data``; None if no
        cache is asked for.

    Raises:
        UserError: the method or the data do not support a cache, or the disk has no room for it.
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
    few = some_of(samples, data.batch_size)
    keys = [(0, index) for index in few]
    x, y = (part.to(device) for part in next(iter(data.view_loader([keys]))))
    is_fast = method.to(device).teacher_for(x) is not method.teacher
    facts = facts_of(cfg, data, teacher, count, device) | {"fast_copy": is_fast}
    folder = Path(cfg.teacher.cache_store) / hashed(facts)
    make_directory(folder, "teacher.cache_store=… or outputs")
    check_facts(folder, facts, say)
    outputs = TeacherOutputs(method, cfg.teacher.cache_top_k, device)
    values = outputs.values(x, y, folder, say)
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
            f"samples, {format_bytes(size)} to compute, in {folder}"
        )
    cached = CachedOutputs(values, samples, data.num_classes)
    work = functools.partial(fill, folder, values, count, data, outputs, say)
    return Filling(data, work, cached)


def some_of(samples: int, count: int) -> list[int]:
    """Random samples: the first of an image tree are all of one class."""
    generator = torch.Generator().manual_seed(0)
    return sorted(torch.randperm(samples, generator=generator)[:count].tolist())


def check_cache(cfg: DictConfig, data: ClassificationData, method: Distiller) -> None:
    """Raises ``UserError`` where a cache cannot be right."""
    top_k = cfg.teacher.cache_top_k
    if cfg.teacher.cache is None:
        if top_k is not None:
            raise UserError(f"teacher.cache_top_k={top_k} has no effect without teacher.cache")
        return
    if top_k is not None and not 1 <= top_k < data.num_classes:
        raise UserError(
            f"teacher.cache_top_k must be >= 1 and < {data.num_classes}, the number of classes, "
            f"or null, got {top_k}"
        )
    if data.unlabeled is not None:
        raise UserError(
            "teacher.cache holds outputs for labeled samples alone: set data.unlabeled=null, or "
            "teacher.cache=null"
        )
    if data.mixing is not None and not method.mixed_targets:
        raise UserError(
            "teacher.cache holds outputs for single samples, and data.mixing mixes two samples: "
            "set data.mixing=null, or teacher.cache=null; method=kd can mix the outputs too "
            "(method.mixed_targets=true)"
        )
    if data.skip_bad:
        raise UserError(
            "teacher.cache needs an output for every sample: set data.on_bad_image=error, or "
            "teacher.cache=null"
        )
    keys = method.cache_keys()
    if not keys:
        raise UserError(
            "teacher.cache has no effect, since this run does not use its teacher: "
            "set teacher.cache=null"
        )
    if top_k is not None and "logits" not in keys:
        raise UserError(
            f"teacher.cache_top_k={top_k} has no effect: this run caches {' and '.join(keys)}, "
            "not logits (set teacher.cache_top_k=null)"
        )


def facts_of(
    cfg: DictConfig, data: ClassificationData, teacher: Teacher, count: int, device: torch.device
) -> dict[str, Any]:
    """What the teacher's outputs depend on, except whether its fast copy computes them."""
    shown = without_earlier(OmegaConf.to_container(cfg.data, resolve=True))
    net = without_earlier_nets(OmegaConf.to_container(cfg.method.teacher, resolve=True))
    precision = teacher_precision(cfg.hardware.precision, cfg.hardware.teacher_precision)
    if precision == "best":
        precision = str(best_dtype(device))
    return {
        "format": FORMAT,
        "teacher": teacher.sha256,
        # the weights do not say all of a net, for instance its dropout, its eps, its input size
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


def check_facts(folder: Path, facts: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Writes what the cache is made from; raises ``UserError`` if the folder has another cache.

    If the file is damaged, it is written again: the folder is named by a hash of these facts.
    """
    path = folder / "facts.json"
    try:  # first, for processes that may only read
        was = read_json(path)
        finish_sums(folder)
    except Damaged:
        with FileLock(folder / "facts.lock"):
            was = facts_in(path, facts, say)
    if odd := [key for key in {**facts, **was} if facts.get(key) != was.get(key)]:
        raise UserError(
            f"{folder} is another cache: its {odd[0]} is {was.get(odd[0])}, this "
            f"run's is {facts.get(odd[0])}; remove it, or set another teacher.cache_store"
        )


def facts_in(path: Path, facts: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The facts in a file. If it is missing or damaged, it is written first.

    The caller holds the lock of the file.
    """
    try:
        return read_json(path)
    except Damaged as damage:
        if path.exists():
            say(
                f"teacher cache: {path} {damage.what}, so it is set aside as {set_aside(path).name}"
            )
        write_kept(path.parent, {path.name: json.dumps(facts, indent=1, sort_keys=True)})
        return read_json(path)
