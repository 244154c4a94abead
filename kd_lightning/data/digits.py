"""scikit-learn's digits: 1,797 grey 8x8 images of 10 classes, inside the package, no download."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.splits import split


class Digits(ClassificationData):
    """Handwritten digits. The test part is a fixed stratified fifth, the same for every seed."""

    has_files = False

    def load(self) -> Parts:
        table = torch.from_numpy(np.loadtxt(digits_file(), delimiter=",", dtype=np.uint8))
        # 0..16 in steps of 1: as uint8 over the whole range, like any other grey image
        images = table[:, :64].double().mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        samples = Samples(images, table[:, 64].long())
        kept, held = split(samples.y, None, 0.2, seed=0)
        return Parts(
            train=samples.subset(kept),
            test=samples.subset(held),
            class_names=[str(digit) for digit in range(10)],
            test_is="a fixed stratified fifth",
        )


def digits_file() -> Path:
    """The table inside scikit-learn: 64 pixels and the digit a line. Found, not loaded by it: its
    import, which brings pandas, takes a second.
    """
    package = importlib.util.find_spec("sklearn").submodule_search_locations[0]
    return Path(package) / "datasets" / "data" / "digits.csv.gz"
