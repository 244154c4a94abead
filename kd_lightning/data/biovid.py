"""BioVid heat pain, part A: biosignals of 87 subjects at five levels of heat pain.

Walter et al., "The BioVid Heat Pain Database", CYBCO 2013. The data must be requested from the
authors. The files keep the layout in which they are distributed, one file for each sample (20 for
each level and subject): ``biosignals_filtered/<subject>/<subject>-<level>-<number>_bio.csv``. A
file has a header and the tab-separated columns ``time gsr ecg emg_trapezius emg_corrugator
emg_zygomaticus``: 5.5 s at 512 Hz = 2816 rows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Count
from kd_lightning.base.reading import read_lines
from kd_lightning.base.words import cut, plain
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.classes import class_notes
from kd_lightning.data.loading.folders import check_folder, contents
from kd_lightning.data.loading.image_search import counts
from kd_lightning.data.loading.number_tables import read_numbers

LEVELS = ["BL1", "PA1", "PA2", "PA3", "PA4"]  # no pain, then pain levels 1 to 4 (T0 to T4)
FOLDER = "biosignals_filtered"


class BioVid(ClassificationData):
    """Pain levels from biosignals, with leave-one-subject-out evaluation.

    The test part is subject number ``fold``. The val part is split off from the other subjects, by
    subject. There are as many folds as subjects (``list_subjects(root)``).

    Args:
        classes: pain levels, in label order.
        channels: columns of the files.
        fold: index of the test subject, in the order of the subject names.
        length: number of rows that every file must have.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        channels: Sequence[str],
        fold: int = 0,
        length: Count = 2816,
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
                f"data.fold must be 0..{len(subjects) - 1}, because there are {len(subjects)} "
                f"subjects in {root / FOLDER}, got {self.fold}"
            )
        samples = self._read(root / FOLDER, subjects)
        self.notes += class_notes(self.classes, samples.y)
        is_test = samples.groups == self.fold
        train = samples.subset((~is_test).nonzero().flatten())
        test = samples.subset(is_test.nonzero().flatten())
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
    """The names of the subjects, sorted. This is also the order of the folds."""
    subjects = sorted(path.name for path in (root / FOLDER).glob("*/") if counts(path.name))
    if len(subjects) < 2:
        raise UserError(
            f"leave-one-subject-out needs two subject folders or more, found "
            f"{contents(root / FOLDER)} (data.root=…)"
        )
    return subjects


def read_signals(
    path: Path, channels: Sequence[str], length: int
) -> Float[np.ndarray, "C {length}"]:
    """Reads the columns ``channels`` of one sample file."""
    header = read_lines(path, "data.root")[0]
    columns = [name.strip() for name in header.split("\t")]  # the first name may be empty
    for channel in channels:
        if channel not in columns:
            columns = [cut(plain(name), 20) for name in columns]
            raise unknown(f"column in {path}, line 1", channel, columns, "data.channels")
    use = [columns.index(channel) for channel in channels]
    values = read_numbers(path, np.float32, columns=len(columns), use=use, delimiter="\t", skip=1)
    if len(values) != length:
        raise UserError(f"{path} must have {length} rows, it has {len(values)} (data.length=…)")
    return values.T
