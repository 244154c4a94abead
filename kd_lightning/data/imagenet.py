"""ImageNet-1k (ILSVRC 2012): 1.28 million photographs, 1000 classes.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
A class is named by its wnid, the identifier of a WordNet entry, such as n01440764.
"""

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import Parts
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import ImageFiles, imagenet_rows
from kd_lightning.data.loading.image_trees import ImageTree

TEST_IS = "ImageNet's official val part, as the labels of its test part are not public"


class ImageNet(ImageFiles):
    """``<root>/train/<wnid>/…`` and ``<root>/val/<wnid>/…``; labels are in wnid order.

    The official val part is the test part, as in all published results; val is split off from
    train. The folder may hold all 1000 classes or only some of them.
    """

    def load(self) -> Parts:
        root = check_folder(self.root, ["train", "val"], "an ImageNet tree")
        train, val = (ImageTree(part, root / part) for part in ("train", "val"))
        classes = list(train.classes)
        val.check_no_extra(classes)
        self.imagenet_rows = imagenet_rows(classes)
        if self.imagenet_rows is None:
            raise UserError(
                f"the folders of {root / 'train'} must be named by ImageNet-1k's wnids, such as "
                "n01440764: for other classes use data=image_folder"
            )
        return Parts(
            train=self.read_tree(train, classes),
            test=self.read_tree(val, classes),
            class_names=classes,
            test_is=TEST_IS,
        )
