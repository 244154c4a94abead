"""Your own images, one folder a class: ``<root>/train/<class>/…``, and val and test likewise."""

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream_seed
from kd_lightning.data.classification import Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import (
    ImageFiles,
    check_no_others,
    class_folders,
    imagenet_rows,
    labelled,
)
from kd_lightning.data.loading.splits import split


class ImageFolder(ImageFiles):
    """A tree of jpg, jpeg, png, webp and bmp files; the classes are the folders of train, sorted.

    ``<root>/val`` and ``<root>/test`` are what they are called, where they exist, and must have the
    classes of train. Where there is no test folder, the test part is cut from train, even if there
    is a val folder: checkpoints are chosen on val, so it cannot be the test. Where there is no val
    folder, val is cut from what is left of train. Folders named by ImageNet's wnids can use the
    rows of a 1000-class head.

    Args:
        test_fraction: share of train that becomes the test part, where there is no test folder:
            stratified by class, by ``split_seed``.
    """

    def __init__(self, *, test_fraction: float = 0.2, **common) -> None:
        super().__init__(**common)
        if not 0 < test_fraction < 1:
            raise UserError(f"data.test_fraction must be in (0, 1), got {test_fraction}")
        self.test_fraction = test_fraction

    def load(self) -> Parts:
        root = check_folder(self.root, ["train"], "a folder of images")
        folders = {"train": class_folders(root / "train")}
        folders |= {p: class_folders(root / p) for p in ("val", "test") if (root / p).is_dir()}
        classes = list(folders["train"])
        for part in folders:
            check_no_others(folders[part], classes, part)
        samples = {p: labelled(found, classes, p, "data.root=…") for p, found in folders.items()}
        self.imagenet_rows = imagenet_rows(classes)
        train, test, test_is = samples["train"], samples.get("test"), "the folder's own test part"
        if test is None:
            train, test, test_is = self._cut(train)
        return Parts(
            train=train,
            val=samples.get("val"),
            test=test,
            class_names=classes,
            test_is=test_is,
            test_is_cut="test" not in samples,
        )

    def _cut(self, samples: Samples) -> tuple[Samples, Samples, str]:
        """Train, test, and how the test part was cut."""
        if len(samples) == 0:
            raise UserError(f"there is no image below {self.root / 'train'} (data.root=…)")
        # A stream of its own: the same order as in the train/val split would couple the two cuts.
        seed = stream_seed(self.split_seed, "test")
        kept, held = split(samples.y, None, self.test_fraction, seed)
        how = f"{self.test_fraction:.0%} of train, stratified by class, as there is no test folder"
        return (
            samples.subset(kept),
            samples.subset(held),
            f"{how} (split_seed {self.split_seed})",
        )
