"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 pictures of clothing, 10 classes.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision import datasets

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import contents
from kd_lightning.data.loading.image_files import download

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist is
FILES = [
    f"{part}-{of}-ubyte" for part in ("train", "t10k") for of in ("images-idx3", "labels-idx1")
]


class FashionMNIST(ClassificationData):
    """Read from four idx files, each as it is or gzipped, in ``<root>/FashionMNIST/raw`` (where
    torchvision puts them) or in ``root`` itself. Without a root, from the place of Debian's package
    ``dataset-fashion-mnist``.

    Args:
        download: let torchvision download the files into ``root`` if they are not there.
    """

    def __init__(self, *, download: bool = False, **common) -> None:
        super().__init__(**common)
        self.download = download

    def prepare_data(self) -> None:
        if self.download:
            download(datasets.FashionMNIST, self.root)

    def load(self) -> Parts:
        train_x, train_y, test_x, test_y = (read_idx(path) for path in self._find())
        return Parts(
            train=Samples(train_x.unsqueeze(1), train_y.long()),
            test=Samples(test_x.unsqueeze(1), test_y.long()),
            class_names=list(datasets.FashionMNIST.classes),
        )

    def _find(self) -> list[Path]:
        """The four files, in the order of ``FILES``."""
        places = [DEBIAN]
        if self.root is not None:
            places = [self.root / "FashionMNIST" / "raw", self.root]
        for place in places:
            found = [
                next((p for p in (place / name, place / f"{name}.gz") if p.exists()), None)
                for name in FILES
            ]
            if all(found):
                return found
        raise UserError(
            f"expected {', '.join(FILES)}, each as it is or as .gz, in "
            f"{' or '.join(map(str, places))}, found {contents(places[-1])} "
            "(data.root=… or data.download=true)"
        )


def read_idx(path: Path) -> UInt8[Tensor, "N *size"]:
    """An idx file of bytes, gzipped or not: 0, 0, type (8), number of dimensions, sizes, values.

    Raises:
        UserError: the file is not whole.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read()
        shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(f"{path} is not a whole idx file: {error} (data.root=…)") from None
    return torch.from_numpy(values.copy())
