"""UCI HAR: six activities of 30 subjects, measured by accelerometer and gyroscope of a phone.

Anguita et al., "A Public Domain Dataset for Human Activity Recognition Using Smartphones", ESANN
2013. A sample is a window of 2.56 s at 50 Hz: 9 channels x 128 time steps. The channels are body
acceleration (g), angular velocity (rad/s) and total acceleration (g), each along x, y and z.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import check_folder

CHANNELS = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
LENGTH = 128
ACTIVITIES = ["WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"]


class HAR(ClassificationData):
    """``root`` is the folder as it is distributed ("UCI HAR Dataset").

    The test part is that of the data set. Val is split off from train by subject. No subject may be
    in both train and test, which is checked.
    """

    def load(self) -> Parts:
        files = [name for part in ("train", "test") for name in part_files(part)]
        root = check_folder(self.root, files, "the folder 'UCI HAR Dataset'")
        train, test = read_part(root, "train"), read_part(root, "test")
        shared = set(train.groups.tolist()) & set(test.groups.tolist())
        if shared:
            raise UserError(
                f"train and test must have different subjects, both have {sorted(shared)} "
                "(data.root=…)"
            )
        return Parts(
            train=train,
            test=test,
            class_names=class_names(root / "activity_labels.txt"),
            test_is="the data set's own test subjects",
        )


def part_files(part: str) -> list[str]:
    """The files of a part: nine channels, labels, subjects."""
    signals = [f"{part}/Inertial Signals/{channel}_{part}.txt" for channel in CHANNELS]
    return [*signals, f"{part}/y_{part}.txt", f"{part}/subject_{part}.txt"]


def read_part(root: Path, part: str) -> Samples:
    """The samples of a part: x (N, 9, 128), y in 0..5, groups are the subjects."""
    *signals, labels, subjects = (root / name for name in part_files(part))
    y = read_numbers(labels, np.int64, None, 1)[:, 0]
    if y.min() < 1 or y.max() > len(ACTIVITIES):
        raise UserError(
            f"{labels} must have labels 1..{len(ACTIVITIES)}, it has {y.min()}..{y.max()} "
            "(data.root=…)"
        )
    groups = read_numbers(subjects, np.int64, len(y), 1)[:, 0]
    x = np.stack([read_numbers(path, np.float32, len(y), LENGTH) for path in signals], axis=1)
    return Samples(torch.from_numpy(x), torch.from_numpy(y - 1), torch.from_numpy(groups))


def read_numbers(
    path: Path, dtype: type, rows: int | None, columns: int
) -> Num[np.ndarray, "{rows} {columns}"]:
    """Reads a text file of numbers and checks its shape; ``rows`` None: any number of rows."""
    try:
        values = np.loadtxt(path, dtype=dtype, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} must be a table of numbers: {error} (data.root=…)") from None
    if values.shape != (rows or len(values), columns):
        expected = f"{rows or 'any number of'} rows of {columns}"
        raise UserError(
            f"{path} must have {expected}, it has {values.shape[0]} of {values.shape[1]} "
            "(data.root=…)"
        )
    return values


def class_names(path: Path) -> list[str]:
    """The activities in label order, from ``activity_labels.txt`` ("1 WALKING") if it exists."""
    if not path.is_file():
        return ACTIVITIES
    numbered = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    if [number for number, *_ in numbered] != [str(i + 1) for i in range(len(ACTIVITIES))]:
        raise UserError(f"{path} must number {len(ACTIVITIES)} activities from 1 (data.root=…)")
    return [" ".join(name).strip() for _, *name in numbered]
