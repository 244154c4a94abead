"""UCI HAR: six activities of 30 subjects, measured by accelerometer and gyroscope of a phone.

Anguita et al., "A Public Domain Dataset for Human Activity Recognition Using Smartphones", ESANN
2013. A sample is a window of 2.56 s at 50 Hz: 9 channels x 128 time steps. The channels are body
acceleration (g), angular velocity (rad/s) and total acceleration (g), each along x, y and z.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import read_lines
from kd_lightning.base.words import quoted
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.classes import class_notes
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.number_tables import line_of, read_numbers

CHANNELS = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
LENGTH = 128
ACTIVITIES = ["WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"]


class HAR(ClassificationData):
    """``root`` is the folder as it is distributed ("UCI HAR Dataset"), the folder around it, or one
    inside it.

    The classes are those of ``activity_labels.txt``: the six of the data set, or any number of
    your own. The test part is that of the data set. Val is split off from train by subject. No
    subject may be in both train and test, which is checked.
    """

    def load(self) -> Parts:
        given, self.root = self.root, find_root(self.root)
        if self.root != given:
            self.notes.append(f"data.root={given} is not the data set's folder: {self.root} is.")
        files = [name for part in ("train", "test") for name in part_files(part)]
        root = check_folder(self.root, files, "the folder 'UCI HAR Dataset'")
        names = class_names(root / "activity_labels.txt")
        train, test = (read_part(root, part, names) for part in ("train", "test"))
        if names is None:
            names = list(map(str, range(1, int(max(train.y.max(), test.y.max())) + 2)))
            names = ACTIVITIES if len(names) == len(ACTIVITIES) else names
        check_subjects(train, test)
        self.notes += class_notes(names, torch.cat([train.y, test.y]))
        return Parts(
            train=train,
            test=test,
            class_names=names,
            test_is="the data set's own test subjects",
        )


def find_root(root: Path | None) -> Path | None:
    """The folder with train/ and test/: ``root``, its folder 'UCI HAR Dataset', or one around
    ``root``; ``root`` itself if there is none.
    """
    if root is None:
        return None
    around = root.absolute()
    while around.name in ("Inertial Signals", "train", "test"):
        around = around.parent
    for folder in (root, root / "UCI HAR Dataset", around):
        if all((folder / part / f"y_{part}.txt").is_file() for part in ("train", "test")):
            return folder
    return root


def check_subjects(train: Samples, test: Samples) -> None:
    """Raises ``UserError`` if a subject is in both parts."""
    shared = set(train.groups.tolist()) & set(test.groups.tolist())
    if shared:
        raise UserError(
            f"train and test must have different subjects, both have {sorted(shared)} (data.root=…)"
        )


def part_files(part: str) -> list[str]:
    """The files of a part: nine channels, labels, subjects."""
    signals = [f"{part}/Inertial Signals/{channel}_{part}.txt" for channel in CHANNELS]
    return [*signals, f"{part}/y_{part}.txt", f"{part}/subject_{part}.txt"]


def read_part(root: Path, part: str, names: list[str] | None) -> Samples:
    """The samples of a part: x (N, 9, 128), y from 0, groups are the subjects.

    Args:
        names: of the classes; None: there are as many as the labels say.
    """
    *signals, labels, subjects = (root / name for name in part_files(part))
    y = read_column(labels, None)
    bad = (y < 1) | (y > (len(names) if names else np.inf))
    if bad.any():
        expected = f"1..{len(names)}" if names else "1 or more"
        first = int(bad.nonzero()[0][0])
        raise UserError(
            f"{line_of(labels, first)}: expected a label {expected}, got {y[first]} (data.root=…)"
        )
    groups = read_column(subjects, len(y))
    x = np.stack([check_rows(path, read_signal(path), len(y)) for path in signals], axis=1)
    return Samples(torch.from_numpy(x), torch.from_numpy(y - 1), torch.from_numpy(groups))


def read_signal(path: Path) -> Float[np.ndarray, "rows 128"]:
    return read_numbers(path, np.float32, columns=LENGTH)


def read_column(path: Path, rows: int | None) -> Int[np.ndarray, "rows"]:
    """Whole numbers, one on each line; ``rows`` None: any number of lines."""
    values = read_numbers(path, np.int64, columns=1)[:, 0]
    return values if rows is None else check_rows(path, values, rows)


def check_rows(path: Path, values: np.ndarray, rows: int) -> np.ndarray:
    """``values`` of a file; raises ``UserError`` unless there are ``rows`` rows."""
    if len(values) != rows:
        raise UserError(
            f"{path} must have a line for each of the {rows} labels, it has {len(values)} "
            "(data.root=…)"
        )
    return values


def class_names(path: Path) -> list[str] | None:
    """The activities in label order, from ``activity_labels.txt`` ("1 WALKING"); None if there is
    no such file.
    """
    if not path.is_file():
        return None
    names = []
    for number, line in enumerate(read_lines(path, "data.root"), 1):
        label, _, name = line.strip().partition(" ")
        if not label:
            continue
        if label != str(len(names) + 1) or not name.strip():
            raise UserError(
                f"{path}, line {number}: expected '{len(names) + 1} NAME', as activities are "
                f"numbered from 1, got {quoted(line)} (data.root=…)"
            )
        names.append(name.strip())
    return names
