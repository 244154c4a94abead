"""The data of an evaluation: those of a run, or others that are composed as for a run."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.allowed import check_record
from kd_lightning.base.errors import UserError, unknown
from kd_lightning.config.command_line import as_user_errors, compose
from kd_lightning.config.schema import check_targets
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.prepared import Prepared
from kd_lightning.evaluation.labelled_set import SPLITS, LabelledSet, Subject, take_split
from kd_lightning.records.resumed_config import add_earlier_values
from kd_lightning.records.run_directory import read_config

# Keys that say how image files become what a net takes. Here the student says it.
OF_STUDENT = ("image_size", "resize", "crop_fraction", "interpolation")


def load_data(
    words: Sequence[str],
    own: Path | None = None,
    config_dir: str | Path | None = None,
    allow: Sequence[str] = (),
    exif: bool | None = None,
) -> LabelledSet:
    """The samples that a command line asks for.

    Args:
        words: ``data=<name>``, ``data.<key>=<value>``, ``split=<part>``.
        own: the directory of the run whose data are taken if there is no ``data=``.
        config_dir: a folder with the user's own YAML files.
        allow: packages whose data sets the run may name.
        exif: whether photographs are turned as their tag says, if no word says it; None: as the
            data say.

    Raises:
        UserError: a word is wrong, or the data cannot be loaded.
    """
    with as_user_errors(words):
        if any(word.startswith("data=") for word in words):
            cfg = compose(words, config_dir, name="evaluate")
        elif own is None:
            raise UserError("a student file has no data with it: say on which to evaluate (data=…)")
        else:
            cfg = changed(own_config(own, allow), words)
        check(cfg)
        data = instantiate(cfg.data, _convert_="object")
        check_effect(data, words)
        is_said = any(word.startswith("data.exif=") for word in words)
        if isinstance(data, ImageFiles) and exif is not None and not is_said:
            data.exif = exif
        set_up(data)
        return take_split(data, name_of(cfg.data), cfg.split)


def set_up(data: ClassificationData) -> None:
    batch_size, data.batch_size = data.batch_size, 1  # a small train part is no fault here
    if isinstance(data, Prepared):  # the student resizes the images to its own size
        data.image_size, data.crop_fraction, data.augmentation = 1, 1.0, None
    data.prepare_data()
    data.setup()
    data.batch_size = batch_size


def own_config(run: Path, allow: Sequence[str]) -> DictConfig:
    """The data of a run, with the keys of ``conf/evaluate.yaml``."""
    cfg = read_config(run, "data")
    check_record(OmegaConf.to_container(cfg).get("data"), run / "config.yaml", allow, "data")
    add_earlier_values(cfg)
    return OmegaConf.create({"seed": cfg.seed, "split": "test", "data": cfg.data})


def changed(cfg: DictConfig, words: Sequence[str]) -> DictConfig:
    """``cfg`` with other values."""
    for word in words:
        key, _, value = word.partition("=")
        valid = ["split", *(f"data.{name}" for name in cfg.data)]
        if key not in valid:
            raise unknown("key", key, [*valid, "data"], key)
        OmegaConf.update(cfg, key, yaml.safe_load(value))
    return cfg


def check(cfg: DictConfig) -> None:
    """Raises ``UserError`` for a value that is wrong."""
    if cfg.split not in SPLITS:
        raise unknown("split", str(cfg.split), SPLITS, "split")
    check_targets(cfg, "")


def check_effect(data: ClassificationData, words: Sequence[str]) -> None:
    """Raises ``UserError`` for a word that says how image files are resized."""
    for word in words if isinstance(data, ImageFiles | Prepared) else ():
        key = word.partition("=")[0]
        if key.removeprefix("data.") in OF_STUDENT:
            raise UserError(
                f"{key} has no effect on an evaluation, because the student file says how images "
                f"are resized: remove {word}"
            )


def name_of(data: DictConfig) -> str:
    return str(data.get("name") or data._target_.split(".")[-2])


def notes_on_training(labelled: LabelledSet, subjects: Sequence[Subject]) -> list[str]:
    """What a reader must know where students may have been trained on these samples."""
    # not by name: one tree of images can be read by several data sets
    same = [s for s in subjects if s.trained_on[1] == labelled.data.fingerprint]
    other = [s for s in subjects if s.trained_on[0] == labelled.name and s not in same]
    seen = {"val": "whose weights were chosen on it", "train": "which were trained on it"}
    notes = []
    if same and labelled.split != "test":
        which = seen.get(labelled.split, "which were trained on parts of it")
        split = f"split={labelled.split}"
        notes.append(f"{split} is no test for {', '.join(s.name for s in same)}, {which}.")
    if other:
        notes.append(
            f"{', '.join(s.name for s in other)}: trained on {labelled.name} with other samples or "
            "another split, so some of these samples may have been in the train part."
        )
    return notes
