"""ImageNet-100: a hundred classes of ImageNet-1k. There are several such hundreds: name yours.

``cmc`` is that of Tian, Krishnan, Isola, "Contrastive Multiview Coding", ECCV 2020; ``kaggle`` is
that of the Kaggle data set "ImageNet100". Results on one say nothing about the other.
"""

import hashlib
from pathlib import Path

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.data.classification import Parts
from kd_lightning.data.imagenet import TEST_IS
from kd_lightning.data.loading.folders import check_folder, contents
from kd_lightning.data.loading.image_files import ImageFiles, class_folders, imagenet_rows, labelled

LISTS = Path(__file__).parent / "class_lists"


class ImageNet100(ImageFiles):
    """Labels are in the order of the wnids, as ImageFolder has them; not in that of the list.

    Two layouts are recognised: an ImageNet tree, ``train/<wnid>`` and ``val/<wnid>``, with these
    classes or all 1000; and Kaggle's, ``train.X1/<wnid>`` … ``train.X4/<wnid>`` and
    ``val.X/<wnid>``. The official val part is the test part; val is cut from train.

    Args:
        class_list: ``cmc``, ``kaggle``, or a file with one wnid a line.

    Attributes:
        class_list_sha256: of the list's file, for the record.
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
        train, val = (class_folders(*folders) for folders in find_parts(self.root))
        return Parts(
            train=labelled(train, self.wnids, "train", keys),
            test=labelled(val, self.wnids, "val", keys),
            class_names=self.wnids,
            test_is=TEST_IS,
        )


def find_parts(root: Path | None) -> tuple[list[Path], list[Path]]:
    """The folders of train, and those of val, in either layout."""
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
    """The file of a list of ours, or the file itself."""
    known = sorted(path.stem for path in LISTS.glob("*.txt"))
    path = LISTS / f"{name}.txt" if name in known else Path(name).expanduser()
    if not path.is_file():
        raise unknown("class list or file", name, known, "data.class_list")
    return path


def read_class_list(path: Path) -> list[str]:
    """The wnids of a list, sorted.

    Raises:
        UserError: one stands there twice.
    """
    wnids = sorted(path.read_text().split())
    twice = sorted({wnid for wnid in wnids if wnids.count(wnid) > 1})
    if twice:
        raise UserError(
            f"{path} must name every class once, it has {twice[0]} twice (data.class_list=…)"
        )
    return wnids
