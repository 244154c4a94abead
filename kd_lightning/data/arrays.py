"""Your own data from one .npz file: images or time series, with or without subjects.

Write the file with ``np.savez("mine.npz", x=x, y=y)`` and use it with ``data=arrays
data.root=mine.npz``. It holds either ``x`` and ``y``, from which a test part is split off, or
``x_train``, ``y_train``, ``x_test`` and ``y_test``, and optionally ``x_val`` and ``y_val``. If the
samples come from subjects, ``groups`` (or ``groups_train`` …) holds the subject of each sample, as
a number or a name, and every split is by subject. Labels are numbers or names. ``class_names``, in
label order, is optional.
"""

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import InnerShare
from kd_lightning.base.streams import stream_seed
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.array_labels import as_texts, encode_arrays, renaming_notes
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.classes import class_notes
from kd_lightning.data.loading.npz_files import is_npz, read_npz, received
from kd_lightning.data.loading.shapes import shape_notes
from kd_lightning.data.loading.splits import split

KEY = "data.root"  # that names the file, for messages
ACCEPTED_ARRAYS = (
    "x and y (and groups), or x_train, y_train, x_test, y_test (and x_val with y_val, and "
    "groups_<part>), and class_names in either form"
)


class Arrays(ClassificationData):
    """Images or time series from the .npz file ``root``.

    Args:
        test_fraction: share of the samples that becomes the test part, if the file has none. The
            split is stratified by class, or by subject if there are groups, and follows from
            ``split_seed``.
    """

    def __init__(self, *, test_fraction: InnerShare = 0.2, **common) -> None:
        super().__init__(**common)
        self.test_fraction = test_fraction

    def load(self) -> Parts:
        if not is_npz(self.root):
            raise UserError(f"data=arrays reads an .npz file, got {received(self.root)} ({KEY}=…)")
        arrays = read_npz(self.root, KEY)
        ids = subject_ids(arrays)
        suffixes = part_suffixes(arrays)
        labels = {f"y{part}": arrays[f"y{part}"] for part in suffixes}
        y, class_names = encode_arrays(labels, arrays.get("class_names"))
        samples = {part: to_samples(arrays, part, y[f"y{part}"], ids) for part in suffixes}
        for part in suffixes:
            self.notes += shape_notes(f"x{part}", samples[part].x, str(arrays[f"x{part}"].dtype))
        if "class_names" not in arrays:
            self.notes += renaming_notes(class_names, labels)
        self.notes += class_notes(class_names, torch.cat(list(y.values())))
        if "" in samples:
            train, test, test_is = self._split_off_test(samples[""])
            return Parts(train=train, test=test, class_names=class_names, test_is=test_is)
        check_parts(samples)
        return Parts(
            train=samples["_train"],
            val=samples.get("_val"),
            test=samples["_test"],
            class_names=class_names,
            test_is="the file's own test part",
        )

    def _split_off_test(self, samples: Samples) -> tuple[Samples, Samples, str]:
        """The train part, the test part, and a description of how test was split off."""
        by = "stratified by class" if samples.groups is None else "by subject"
        # A separate random stream: the order of the train/val split would couple the two splits.
        seed = stream_seed(self.split_seed, "test")
        if samples.groups is not None and len(samples.groups.unique()) < 2:
            raise UserError("a test part by subject needs two subjects or more (data.root=…)")
        train, test = split(samples.y, samples.groups, self.test_fraction, seed)
        # whole subjects may be more or less than was asked for
        share = self.test_fraction if samples.groups is None else len(test) / len(samples)
        test_is = f"{share:.0%} of the file, {by} (split_seed {self.split_seed})"
        return samples.subset(train), samples.subset(test), test_is


def part_suffixes(arrays: dict[str, np.ndarray]) -> list[str]:
    """The suffixes of the parts: "" for ``x`` and ``y``, or "_train", "_test" and maybe "_val"."""
    names = set(arrays) - {"class_names"}
    separate_parts = ["_train", "_test", *(["_val"] if "x_val" in names else [])]
    for parts in ([""], separate_parts):
        needed = {f"{name}{part}" for name in "xy" for part in parts}
        if needed <= names <= needed | {f"groups{part}" for part in parts}:
            return parts
    raise UserError(
        f"an .npz file must hold {ACCEPTED_ARRAYS}; this one holds "
        f"{', '.join(sorted(arrays)) or 'nothing'} (data.root=…)"
    )


def subject_ids(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """A number for each subject of all parts together."""
    groups = [
        as_texts(array, name, "integers or names")
        for name, array in arrays.items()
        if name.startswith("groups")
    ]
    names = sorted(set().union(*groups))
    return {name: i for i, name in enumerate(names)}


def to_samples(
    arrays: dict[str, np.ndarray], part: str, y: Int[Tensor, "N"], ids: dict[str, int]
) -> Samples:
    """Checks the arrays of a part and makes its samples, with the class indices ``y``."""
    x, groups = to_x(arrays[f"x{part}"], f"x{part}"), None
    if f"groups{part}" in arrays:
        texts = as_texts(arrays[f"groups{part}"], f"groups{part}", "integers or names")
        groups = torch.tensor([ids[text] for text in texts])
    for name, array in ((f"y{part}", y), (f"groups{part}", groups)):
        if array is not None and len(array) != len(x):
            raise UserError(f"x{part} has {len(x)} samples, {name} has {len(array)} (data.root=…)")
    return Samples(x, y, groups)


def to_x(x: Num[np.ndarray, "N *size"], name: str) -> Num[Tensor, "N C *size"]:
    """Checks images (N, C, H, W), series (N, C, L), or series of one channel (N, L).

    Images of uint8 are kept, because models read them as steps of 1/255; all other numbers become
    float32.
    """
    if x.dtype.kind in "iuf" and 0 in x.shape:
        raise UserError(f"{name} is empty, of shape {x.shape} (data.root=…)")
    if x.ndim not in (2, 3, 4) or x.dtype.kind not in "iuf":
        raise UserError(
            f"{name} must be numbers of shape (N, C, H, W), (N, C, L) or (N, L), got {x.dtype} of "
            f"shape {x.shape} (data.root=…)"
        )
    if x.ndim == 4 and x.shape[1] == x.shape[2] != x.shape[3]:
        raise UserError(
            f"images must be square, with the axes (samples, channels, height, width), {name} has "
            f"the shape {x.shape}: if its last axis is the channels, save "
            f"{name}.transpose(0, 3, 1, 2) (data.root=…)"
        )
    with np.errstate(over="ignore"):  # an infinite value is refused below
        x = torch.from_numpy(x if x.dtype == np.uint8 and x.ndim == 4 else x.astype(np.float32))
    x = x.unsqueeze(1) if x.ndim == 2 else x
    bad = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"{name} has NaN or infinite values, in {len(bad)} samples, the first is number "
            f"{bad[0]} (data.root=…)"
        )
    if x.ndim == 4 and x.is_floating_point() and not (x.min() >= 0 and x.max() <= 1):
        raise UserError(
            f"images must be uint8 or in [0, 1], {name} is {x.dtype} from {x.min():g} to "
            f"{x.max():g} (data.root=…)"
        )
    return x


def check_parts(samples: dict[str, Samples]) -> None:
    """Raises ``UserError`` if the parts differ in sample shape or type, or share a subject."""
    train = samples["_train"]
    for part, other in samples.items():
        if other.x.shape[1:] != train.x.shape[1:] or other.x.dtype != train.x.dtype:
            raise UserError(
                f"all parts must have samples of one shape and type, x_train has "
                f"{tuple(train.x.shape[1:])} {train.x.dtype}, x{part} "
                f"{tuple(other.x.shape[1:])} {other.x.dtype} (data.root=…)"
            )
    grouped = [(p, set(s.groups.tolist())) for p, s in samples.items() if s.groups is not None]
    for i, (part, subjects) in enumerate(grouped):
        for other, others in grouped[:i]:
            if subjects & others:
                raise UserError(
                    f"no subject may be in two parts, groups{other} and groups{part} share "
                    f"{len(subjects & others)} (data.root=…)"
                )
