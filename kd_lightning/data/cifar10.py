"""CIFAR-10: 50,000 + 10,000 colour 32x32 photographs, 10 classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import torch
from torchvision import datasets

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import contents
from kd_lightning.data.loading.image_files import download


class CIFAR10(ClassificationData):
    """Read into memory with torchvision, from the files of the "python version" in ``root``.

    Args:
        download: whether torchvision downloads the files into ``root`` if they are missing.
    """

    source = datasets.CIFAR10

    def __init__(self, *, download: bool = False, **common) -> None:
        super().__init__(**common)
        self.download = download

    def prepare_data(self) -> None:
        if self.download:
            download(self.source, self.root)

    def load(self) -> Parts:
        train, test = self._read(train=True), self._read(train=False)
        return Parts(
            train=to_samples(train), test=to_samples(test), class_names=list(train.classes)
        )

    def _read(self, *, train: bool) -> datasets.CIFAR10:
        folder = self.source.base_folder
        if self.root is None:
            raise UserError(f"say which folder holds {folder} (data.root=…)")
        try:
            return self.source(self.root, train=train)
        except RuntimeError:
            files = ", ".join(name for name, _ in self.source.train_list + self.source.test_list)
            raise UserError(
                f"expected {self.root / folder} with {files} and {self.source.meta['filename']}, "
                f"but files are missing or damaged (wrong md5), found {contents(self.root)} "
                "(data.root=… or data.download=true)"
            ) from None


def to_samples(dataset: datasets.CIFAR10) -> Samples:
    """Converts images from (N, 32, 32, 3), as in torchvision, to (N, 3, 32, 32)."""
    x = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Samples(x, torch.tensor(dataset.targets))
