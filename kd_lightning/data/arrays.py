"""Your own data, from one .npz file: images or series, with subjects or without.

``np.savez("mine.npz", x=x, y=y)``, then ``data=arrays data.root=mine.npz``. The file holds ``x``
and ``y``, of which a test part is cut, or ``x_train y_train x_test y_test`` and perhaps ``x_val
y_val``. Where samples come from subjects, ``groups`` (``groups_train`` …) numbers or names them,
and every cut is by subject. ``class_names``, in label order, is optional.
"""

from pathlib import Path
from zipfile import is_zipfile

import numpy as np
import torch
from jaxtyping import Num, Shaped
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream_seed
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.splits import split

FORMS = (
    "x and y (and groups), or x_train, y_train, x_test, y_test (and x_val with y_val, and "
    "groups_<part>), and class_names in either form"
)


class Arrays(ClassificationData):
    """``root`` is the .npz file.

    Args:
        test_fraction: share that becomes the test part, where the file has none: stratified by
            class, or in whole subjects; by ``split_seed``.
    """

    def __init__(self, *, test_fraction: float = 0.2, **common) -> None:
        super().__init__(**common)
        if not 0 < test_fraction < 1:
            raise UserError(f"data.test_fraction must be in (0, 1), got {test_fraction}")
        self.test_fraction = test_fraction

    def load(self) -> Parts:
        arrays = read_npz(self.root)
        ids = subject_ids(arrays)
        samples = {part: to_samples(arrays, part, ids) for part in part_names(arrays)}
        class_names = name_classes(arrays.get("class_names"), [s.y for s in samples.values()])
        if "" in samples:
            train, test, how = self._cut(samples[""])
            return Parts(train=train, test=test, class_names=class_names, test_is=how)
        check_parts(samples)
        return Parts(
            train=samples["_train"],
            val=samples.get("_val"),
            test=samples["_test"],
            class_names=class_names,
            test_is="the file's own test part",
        )

    def _cut(self, samples: Samples) -> tuple[Samples, Samples, str]:
        """Train, test, and how the test part was cut."""
        by = "stratified by class" if samples.groups is None else "by subject"
        # A stream of its own: the same order as in the train/val split would couple the two cuts.
        seed = stream_seed(self.split_seed, "test")
        if samples.groups is not None and len(samples.groups.unique()) < 2:
            raise UserError("a test part by subject needs two subjects or more (data.root=…)")
        kept, held = split(samples.y, samples.groups, self.test_fraction, seed)
        how = f"{self.test_fraction:.0%} of the file, {by} (split_seed {self.split_seed})"
        return samples.subset(kept), samples.subset(held), how


def read_npz(path: Path | None) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of an .npz file, by name. Nothing is unpickled."""
    if path is None or not path.is_file() or not is_zipfile(path):
        came = "nothing" if path is None else f"{path}, which is none"
        raise UserError(f"data=arrays reads an .npz file, got {came} (data.root=…)")
    with np.load(path, allow_pickle=False) as file:
        arrays = {}
        for name in file.files:
            try:
                arrays[name] = file[name]
            except ValueError as error:
                raise UserError(
                    f"'{name}' of {path} must be an array of numbers or text, not of Python "
                    f"objects: {error} (data.root=…)"
                ) from None
    return arrays


def part_names(arrays: dict[str, np.ndarray]) -> list[str]:
    """The parts' endings: "" for ``x`` and ``y``, or "_train", "_test" and perhaps "_val"."""
    names = set(arrays) - {"class_names"}
    split_form = ["_train", "_test", *(["_val"] if "x_val" in names else [])]
    for parts in ([""], split_form):
        needed = {f"{name}{part}" for name in "xy" for part in parts}
        if needed <= names <= needed | {f"groups{part}" for part in parts}:
            return parts
    raise UserError(
        f"an .npz file must hold {FORMS}; this one holds {', '.join(sorted(arrays)) or 'nothing'} "
        "(data.root=…)"
    )


def subject_ids(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """A number for every subject that any part names."""
    groups = {name: array for name, array in arrays.items() if name.startswith("groups")}
    for name, array in groups.items():
        if array.ndim != 1 or array.dtype.kind not in "iuU":
            raise UserError(
                f"{name} must be one row of integers or names, got {array.dtype} of shape "
                f"{array.shape} (data.root=…)"
            )
    names = sorted({str(subject) for array in groups.values() for subject in array.tolist()})
    return {name: i for i, name in enumerate(names)}


def to_samples(arrays: dict[str, np.ndarray], part: str, ids: dict[str, int]) -> Samples:
    """The samples of a part, checked."""
    x, y, groups = to_x(arrays[f"x{part}"], f"x{part}"), arrays[f"y{part}"], None
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UserError(
            f"y{part} must be one row of integers, got {y.dtype} of shape {y.shape} (data.root=…)"
        )
    if f"groups{part}" in arrays:
        groups = torch.tensor([ids[str(subject)] for subject in arrays[f"groups{part}"]])
    for name, array in ((f"y{part}", y), (f"groups{part}", groups)):
        if array is not None and len(array) != len(x):
            raise UserError(f"x{part} has {len(x)} samples, {name} has {len(array)} (data.root=…)")
    return Samples(x, torch.from_numpy(y.astype(np.int64)), groups)


def to_x(x: Num[np.ndarray, "N *size"], name: str) -> Num[Tensor, "N C *size"]:
    """Images (N, C, H, W), series (N, C, L), or (N, L), which are series of one channel.

    uint8 stays, for it is a step of 1/255 everywhere; every other number becomes float32.
    """
    if x.ndim not in (2, 3, 4) or x.dtype.kind not in "iuf" or 0 in x.shape:
        raise UserError(
            f"{name} must be numbers of shape (N, C, H, W), (N, C, L) or (N, L), got {x.dtype} of "
            f"shape {x.shape} (data.root=…)"
        )
    x = torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32))
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


def name_classes(names: np.ndarray | None, labels: list[Tensor]) -> list[str]:
    """The classes' names, from the file, or the labels' own where it has none.

    Raises:
        UserError: labels beyond the names; without names, labels that are not 0..C-1.
    """
    came = torch.cat(labels).unique().tolist()
    if names is None:
        names = np.arange(len(came))
    if names.ndim != 1 or names.dtype.kind not in "iuU" or len(set(names.tolist())) < len(names):
        raise UserError(f"class_names must be different names, got {names.tolist()} (data.root=…)")
    if came[0] < 0 or came[-1] >= len(names):
        shown = ", ".join(map(str, came[:10])) + (", …" if len(came) > 10 else "")
        raise UserError(
            f"labels must be the integers 0..{len(names) - 1}, as there are {len(names)} classes; "
            f"y has {shown} (data.root=…)"
        )
    return [str(name) for name in names.tolist()]


def check_parts(samples: dict[str, Samples]) -> None:
    """Raises ``UserError`` where parts differ in their samples' shape or share a subject."""
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
