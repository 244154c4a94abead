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
    """Read whole into memory, by torchvision, from the "python version" in ``root``.

    Args:
        download: let torchvision download the files into ``root`` if they are not there.
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
                f"their md5 as published, found them missing or damaged: {contents(self.root)} "
                "(data.root=… or data.download=true)"
            ) from None


def to_samples(source: datasets.CIFAR10) -> Samples:
    """(N, 32, 32, 3) of torchvision -> (N, 3, 32, 32)."""
    x = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return Samples(x, torch.tensor(source.targets))
