"""scikit-learn's digits: 1,797 grey 8x8 images of 10 classes, inside the package, no download."""

import torch
from sklearn.datasets import load_digits

from kd_lightning.data.batches import Samples
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.splits import split


class Digits(ClassificationData):
    """Handwritten digits. The test part is a fixed stratified fifth, the same for every seed."""

    has_files = False

    def load(self) -> Parts:
        digits = load_digits()
        # 0..16 in steps of 1: as uint8 over the whole range, like any other grey image
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        samples = Samples(images, torch.from_numpy(digits.target).long())
        kept, held = split(samples.y, None, 0.2, seed=0)
        return Parts(
            train=samples.subset(kept),
            test=samples.subset(held),
            class_names=[str(name) for name in digits.target_names],
            test_is="a fixed stratified fifth",
        )
