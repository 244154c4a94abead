"""Finds the samples that ``data.unlabeled`` names: another data set, or a folder of images."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.config.command_line import CONF, as_user_errors, compose
from kd_lightning.config.schema import check_targets
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.checks import check_samples, fingerprint
from kd_lightning.data.loading.decoding import BadImage, read_rgb
from kd_lightning.data.loading.image_search import ENDINGS, image_paths
from kd_lightning.data.loading.task_form import TaskForm, with_augmentation
from kd_lightning.data.loading.unlabeled import Unlabeled, without_copies, without_labels


def add_unlabeled(data: ClassificationData, shape: torch.Size | tuple[int, ...]) -> None:
    """Gives ``data`` the samples that its ``unlabeled`` names, and a note about them.

    Args:
        data: the labeled data set, after ``setup``.
        shape: of one of its samples.

    Raises:
        UserError: there is no such data set or folder, its samples cannot be brought to this shape,
            or there are fewer than a step needs.
    """
    if data.unlabeled is None:
        for key, is_given in (
            ("unlabeled_options", bool(data.unlabeled_options)),
            ("unlabeled_ratio", data.unlabeled_ratio != 1),
        ):
            if is_given:
                raise UserError(f"data.{key} has no effect without data.unlabeled: remove it")
        return
    name = str(data.unlabeled)
    samples, settings = read_samples(data, name)
    labeled = data.parts["train"].x
    form = TaskForm(shape, labeled.dtype if torch.is_tensor(labeled) else torch.uint8)
    form.check(example_of(samples, **settings), name)
    samples, left_out = leave_out_copies(data, samples)
    count = count_of_a_step(data, len(samples))
    data.unlabeled_samples = Unlabeled(
        samples,
        name,
        count,
        fingerprint(samples),
        with_augmentation(form, data.augmentation),
        **settings,
    )
    data.notes.append(
        f"Unlabeled: {len(samples):,} samples of {name}, {count} in each step beside "
        f"{data.batch_size} labeled ones, as {' x '.join(map(str, shape))}; their labels are not "
        f"used{left_out}."
    )


def count_of_a_step(data: ClassificationData, available: int) -> int:
    """The unlabeled samples of a step, over all ranks."""
    count = round(data.batch_size * data.unlabeled_ratio)
    if not 1 <= count <= available:
        raise UserError(
            f"data.unlabeled_ratio={data.unlabeled_ratio:g} gives {count} unlabeled samples a step,"
            f" expected 1 to {available}, as data.unlabeled={data.unlabeled} has: change it or "
            "data.batch_size"
        )
    return count


def read_samples(data: ClassificationData, name: str) -> tuple[Samples, dict[str, Any]]:
    """The samples of a data set or a folder without labels, and how its files are decoded."""
    names = sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml"))
    folder = Path(name).expanduser()
    if name in names:
        return train_part(name, data.unlabeled_options)
    if not folder.is_dir():
        if re.search(r"[/\\~.]", name):
            raise UserError(f"there is no folder {name} (data.unlabeled=…)")
        raise unknown("data set or folder", name, names, "data.unlabeled")
    if data.unlabeled_options:
        raise UserError(
            f"data.unlabeled_options is for a data set, and data.unlabeled={name} is a folder of "
            "images: remove it"
        )
    paths = image_paths(folder)
    if not paths:
        raise UserError(f"expected images ({', '.join(ENDINGS)}) in {name} (data.unlabeled=…)")
    decode = functools.partial(read_rgb, exif=True)
    samples = without_labels(Samples(paths, torch.zeros(len(paths))))
    # beside data without files no key could ask for it
    return samples, {"decode": decode, "skip_bad": data.skip_bad or data.decode is None}


def train_part(name: str, options: dict[str, Any]) -> tuple[Samples, dict[str, Any]]:
    """The train part of a data set of ``conf/data``, its val part included."""
    try:
        with as_user_errors(()):
            other = instantiate(configuration(name, options), _convert_="object")
        other.prepare_data()
        parts = other.load()
        check_samples(parts.train, parts.class_names, "train")
    except UserError as error:
        said = re.sub(r"\bdata\.(?=\w+\b(?!\.py))", "data.unlabeled_options.", str(error))
        raise UserError(f"data.unlabeled={name}: {said}") from error
    settings = {"decode": other.decode, "skip_bad": other.skip_bad}
    return without_labels(parts.train), settings


def configuration(name: str, options: dict[str, Any]) -> DictConfig:
    """The configuration of a data set, with other values for some of its keys."""
    with apart_from_hydra():
        cfg = compose([f"data={name}"], name="evaluate")
    for key, value in options.items():
        if key not in cfg.data:
            raise unknown("key", key, cfg.data, f"data.{key}")
        cfg.data[key] = value
    cfg.data.update(augmentation=None, mixing=None)
    check_targets(cfg.data, "data")
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)).data


@contextmanager
def apart_from_hydra() -> Iterator[None]:
    """Inside, a configuration can be composed, also in a run that Hydra has started."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer


def example_of(samples: Samples, decode: Any, skip_bad: bool) -> torch.Tensor:
    """The first sample; with ``skip_bad`` the first that can be decoded."""
    for sample in samples.x:
        try:
            return sample if torch.is_tensor(sample) else decode(sample)
        except BadImage:
            if not skip_bad:
                raise
    raise UserError("no image could be decoded (data.unlabeled=…)")


def leave_out_copies(data: ClassificationData, samples: Samples) -> tuple[Samples, str]:
    """The samples without those that are in val or test too, and the end of a sentence about it."""
    kept = without_copies(samples, data.parts["val"], data.parts["test"])
    if kept is None:
        return samples, "; samples that are in val or test too were not looked for"
    if len(kept) == len(samples):
        return samples, ""
    return kept, f"; {len(samples) - len(kept):,} that are in val or test too are left out"
