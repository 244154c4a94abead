"""scikit-learn's digits: 1,797 grey 8x8 images, 10 classes; part of scikit-learn, no download."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.splits import split


class Digits(ClassificationData):
    """Handwritten digits. The test part is a fixed, stratified fifth, the same for all seeds."""

    has_files = False

    def load(self) -> Parts:
        table = torch.from_numpy(np.loadtxt(digits_file(), delimiter=",", dtype=np.uint8))
        # pixels are 0..16: scale them to the full range of uint8, as in other grey images
        images = table[:, :64].double().mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        samples = Samples(images, table[:, 64].long())
        train, test = split(samples.y, None, 0.2, seed=0)
        return Parts(
            train=samples.subset(train),
            test=samples.subset(test),
            class_names=[str(digit) for digit in range(10)],
            test_is="a fixed stratified fifth",
        )


def digits_file() -> Path:
    """The file in scikit-learn with one image a line: 64 pixels and the digit.

    scikit-learn is located but not imported: its import also loads pandas and takes a second.
    """
    package = importlib.util.find_spec("sklearn").submodule_search_locations[0]
    return Path(package) / "datasets" / "data" / "digits.csv.gz"
