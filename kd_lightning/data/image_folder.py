"""Your own images, one folder for each class: ``<root>/train/<class>/…``, also val and test."""

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import InnerShare
from kd_lightning.base.streams import stream_seed
from kd_lightning.data.classification import Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.classes import class_notes
from kd_lightning.data.loading.image_files import ImageFiles, imagenet_rows
from kd_lightning.data.loading.image_trees import ImageTree
from kd_lightning.data.loading.part_folders import find_parts
from kd_lightning.data.loading.splits import split


class ImageFolder(ImageFiles):
    """Folders of jpg, jpeg, png, webp, bmp, tif and tiff files.

    The classes are the sorted names of the folders in ``<root>/train``. ``<root>/val`` and
    ``<root>/test`` are optional and must have the same classes; other usual names of these folders
    are known too (``data/loading/part_folders.py``). Without a test folder, the test
    part is split off from train. This holds even if there is a val folder: checkpoints are selected
    on val, so val cannot be the test part. Without a val folder, val is then split off from the
    remaining train part. If the folders are named by ImageNet's wnids, a pretrained 1000-class head
    can be reduced to these classes.

    Args:
        test_fraction: share of train that becomes the test part if there is no test folder. The
            split is stratified by class and follows from ``split_seed``.
    """

    def __init__(self, *, test_fraction: InnerShare = 0.2, exif: bool = True, **common) -> None:
        super().__init__(exif=exif, **common)
        self.test_fraction = test_fraction

    def load(self) -> Parts:
        folders, notes = find_parts(self.root)
        trees = {part: ImageTree(part, folder) for part, folder in folders.items()}
        classes = list(trees["train"].classes)
        for tree in trees.values():
            tree.check_no_extra(classes)
        self.notes += notes
        samples = {part: self.read_tree(tree, classes) for part, tree in trees.items()}
        self.imagenet_rows = imagenet_rows(classes)
        train, test, test_is = samples["train"], samples.get("test"), "the folder's own test part"
        if test is None:
            train, test, test_is = self._split_off_test(train)
        self.notes += class_notes(classes, train.y)
        return Parts(
            train=train,
            val=samples.get("val"),
            test=test,
            class_names=classes,
            test_is=test_is,
            test_is_cut="test" not in samples,
        )

    def _split_off_test(self, samples: Samples) -> tuple[Samples, Samples, str]:
        """The train part, the test part, and a description of how test was split off."""
        if len(samples) == 0:
            raise UserError(f"there is no image in the train part of {self.root} (data.root=…)")
        # A separate random stream: the order of the train/val split would couple the two splits.
        seed = stream_seed(self.split_seed, "test")
        train, test = split(samples.y, None, self.test_fraction, seed)
        test_is = (
            f"{self.test_fraction:.0%} of train, stratified by class, as there is no test folder "
            f"(split_seed {self.split_seed})"
        )
        return samples.subset(train), samples.subset(test), test_is
