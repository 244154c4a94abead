"""ImageNet-1k (ILSVRC 2012): 1.28 million photographs, 1000 classes, each a wnid of WordNet.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
"""

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import Parts
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import (
    ImageFiles,
    check_no_others,
    class_folders,
    imagenet_rows,
    labelled,
)

TEST_IS = "ImageNet's official val part, as the labels of its test part are not public"


class ImageNet(ImageFiles):
    """``<root>/train/<wnid>/…`` and ``<root>/val/<wnid>/…``, labels in the order of the wnids.

    The official val part is the test part, as in all published results; val is cut from train. A
    tree with some of the 1000 classes will do.
    """

    def load(self) -> Parts:
        root = check_folder(self.root, ["train", "val"], "an ImageNet tree")
        train, val = class_folders(root / "train"), class_folders(root / "val")
        classes = list(train)
        check_no_others(val, classes, "val")
        self.imagenet_rows = imagenet_rows(classes)
        if self.imagenet_rows is None:
            raise UserError(
                f"the folders of {root / 'train'} must be named by ImageNet-1k's wnids, such as "
                "n01440764: for other classes there is data=image_folder"
            )
        return Parts(
            train=labelled(train, classes, "train", "data.root=…"),
            test=labelled(val, classes, "val", "data.root=…"),
            class_names=classes,
            test_is=TEST_IS,
        )
