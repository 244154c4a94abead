"""ImageNet-100: a hundred classes of ImageNet-1k.

Several different lists of a hundred classes are in use, so a list must be chosen. ``cmc`` is the
list of Tian, Krishnan, Isola, "Contrastive Multiview Coding", ECCV 2020; ``kaggle`` is the list of
the Kaggle data set "ImageNet100". Results on different lists cannot be compared.
"""

import hashlib
from pathlib import Path

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.reading import read_text
from kd_lightning.data.classification import Parts
from kd_lightning.data.imagenet import TEST_IS
from kd_lightning.data.loading.folders import check_folder, contents
from kd_lightning.data.loading.image_files import ImageFiles, imagenet_rows
from kd_lightning.data.loading.image_trees import ImageTree

LISTS = Path(__file__).parent / "class_lists"


class ImageNet100(ImageFiles):
    """Labels are in the order of the sorted wnids, as in ImageFolder, not in the order of the list.

    Two folder layouts are recognised. ImageNet's is ``train/<wnid>`` and ``val/<wnid>``, with these
    classes or all 1000. Kaggle's is ``train.X1/<wnid>`` … ``train.X4/<wnid>`` and
    ``val.X/<wnid>``. The official val part is the test part; val is split off from train.

    Args:
        class_list: ``cmc``, ``kaggle``, or a file with one wnid a line.

    Attributes:
        class_list_sha256: hash of the file with the list, which is recorded with the results.
    """

    def __init__(self, *, class_list: str, **common) -> None:
        super().__init__(**common)
        path = find_class_list(class_list)
        self.class_list = class_list
        self.class_list_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.wnids = read_class_list(path)

    def load(self) -> Parts:
        self.imagenet_rows = imagenet_rows(self.wnids)
        if self.imagenet_rows is None:
            raise UserError(
                "every line of a class list must be a wnid of ImageNet-1k, such as n01440764 "
                f"(data.class_list={self.class_list})"
            )
        keys = f"data.root=…, or another list than data.class_list={self.class_list}"
        train, val = (
            ImageTree(part, *folders)
            for part, folders in zip(("train", "val"), find_parts(self.root), strict=True)
        )
        return Parts(
            train=self.read_tree(train, self.wnids, keys),
            test=self.read_tree(val, self.wnids, keys),
            class_names=self.wnids,
            test_is=TEST_IS,
        )


def find_parts(root: Path | None) -> tuple[list[Path], list[Path]]:
    """The folders of train and the folders of val, in either layout."""
    root = check_folder(root, [], "ImageNet-100")
    for train, val in (("train", "val"), ("train.X*", "val.X")):
        found = sorted(root.glob(train)), sorted(root.glob(val))
        if all(found):
            return found
    raise UserError(
        "expected train/ and val/ (an ImageNet tree), or train.X1/ to train.X4/ and val.X/ "
        f"(Kaggle's ImageNet100), found {contents(root)} (data.root=…)"
    )


def find_class_list(name: str) -> Path:
    """The path of a built-in list, or of the user's own file."""
    names = sorted(path.stem for path in LISTS.glob("*.txt"))
    path = LISTS / f"{name}.txt" if name in names else Path(name).expanduser()
    if not path.is_file():
        raise unknown("class list or file", name, names, "data.class_list")
    return path


def read_class_list(path: Path) -> list[str]:
    """The wnids of a list, sorted.

    Raises:
        UserError: there is no wnid, or one appears twice.
    """
    wnids = sorted(read_text(path, "data.class_list").split())
    if not wnids:
        raise UserError(f"{path} must name the classes, it is empty (data.class_list=…)")
    twice = sorted({wnid for wnid in wnids if wnids.count(wnid) > 1})
    if twice:
        raise UserError(
            f"{path} must name every class once, it has {twice[0]} twice (data.class_list=…)"
        )
    return wnids
