"""BioVid heat pain, part A: biosignals of 87 people at five levels of heat pain, given on request.

Walter et al., "The BioVid Heat Pain Database", CYBCO 2013. The layout is that of the distribution:
``biosignals_filtered/<subject>/<subject>-<level>-<number>_bio.csv``, a file a sample (20 for each
level and subject), with a header and tab-separated columns ``time gsr ecg emg_trapezius
emg_corrugator emg_zygomaticus``, 5.5 s at 512 Hz = 2816 rows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import check_folder, contents

LEVELS = ["BL1", "PA1", "PA2", "PA3", "PA4"]  # no pain, then pain levels 1 to 4 (T0 to T4)
FOLDER = "biosignals_filtered"


class BioVid(ClassificationData):
    """Pain levels from biosignals, leaving one subject out: the test part is subject ``fold``.

    Val is cut by subject from the others. All folds: ``data.fold`` from 0 to one less than the
    number of ``list_subjects(root)``.

    Args:
        classes: levels, in label order.
        channels: columns of the files.
        fold: index of the left-out subject, in the order of their names.
        length: rows that every file must have.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        channels: Sequence[str],
        fold: int = 0,
        length: int = 2816,
        **common,
    ) -> None:
        super().__init__(**common)
        for level in classes:
            if level not in LEVELS:
                raise unknown("BioVid level", level, LEVELS, "data.classes")
        for key, names in (("classes", classes), ("channels", channels)):
            if not names or len(set(names)) < len(names):
                raise UserError(f"data.{key} must be different names, got {list(names)}")
        self.classes = list(classes)
        self.signals = list(channels)
        self.fold = fold
        self.length = length

    def load(self) -> Parts:
        root = check_folder(self.root, [FOLDER], "BioVid's part A")
        subjects = list_subjects(root)
        if not 0 <= self.fold < len(subjects):
            raise UserError(
                f"data.fold must be 0..{len(subjects) - 1}, for there are {len(subjects)} "
                f"subjects in {root / FOLDER}, got {self.fold}"
            )
        samples = self._read(root / FOLDER, subjects)
        left_out = samples.groups == self.fold
        train = samples.subset((~left_out).nonzero().flatten())
        test = samples.subset(left_out.nonzero().flatten())
        assert not set(train.groups.tolist()) & set(test.groups.tolist())
        return Parts(
            train=train,
            test=test,
            class_names=self.classes,
            test_is=f"subject {subjects[self.fold]}, fold {self.fold} of {len(subjects)}",
        )

    def _read(self, folder: Path, subjects: list[str]) -> Samples:
        x, y, groups = [], [], []
        for group, subject in enumerate(subjects):
            for label, level in enumerate(self.classes):
                paths = sorted((folder / subject).glob(f"{subject}-{level}-*_bio.csv"))
                if not paths:
                    raise UserError(
                        f"expected {subject}-{level}-<number>_bio.csv, found "
                        f"{contents(folder / subject)} (data.root=…)"
                    )
                x += [read_signals(path, self.signals, self.length) for path in paths]
                y += [label] * len(paths)
                groups += [group] * len(paths)
        return Samples(torch.from_numpy(np.stack(x)), torch.tensor(y), torch.tensor(groups))


def list_subjects(root: Path) -> list[str]:
    """The subjects' names, sorted: the order of the folds."""
    subjects = sorted(path.name for path in (root / FOLDER).glob("*/"))
    if len(subjects) < 2:
        raise UserError(
            f"leaving one subject out needs two or more, each a folder, found "
            f"{contents(root / FOLDER)} (data.root=…)"
        )
    return subjects


def read_signals(
    path: Path, channels: Sequence[str], length: int
) -> Float[np.ndarray, "C {length}"]:
    """The named columns of a sample's file."""
    with path.open() as file:
        columns = file.readline().strip().split("\t")
        for channel in channels:
            if channel not in columns:
                raise unknown(f"column in {path.name}", channel, columns, "data.channels")
        try:
            use = [columns.index(channel) for channel in channels]
            values = np.loadtxt(file, dtype=np.float32, delimiter="\t", usecols=use, ndmin=2)
        except ValueError as error:
            raise UserError(f"{path} must be a table of numbers: {error} (data.root=…)") from None
    if len(values) != length:
        raise UserError(f"{path} must have {length} rows, it has {len(values)} (data.length=…)")
    return values.T
