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

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # files of the package dataset-fashion-mnist
FILES = [
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


class FashionMNIST(ClassificationData):
    """Read from four idx files, plain or gzipped.

    The files are in ``<root>/FashionMNIST/raw`` (where torchvision puts them) or in ``root``. If no
    ``root`` is given, they are read from the Debian package ``dataset-fashion-mnist``.

    Args:
        download: whether torchvision downloads the files into ``root`` if they are missing.
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
        folders = [DEBIAN]
        if self.root is not None:
            folders = [self.root / "FashionMNIST" / "raw", self.root]
        for folder in folders:
            found = [
                next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
                for name in FILES
            ]
            if all(found):
                return found
        raise UserError(
            f"expected {', '.join(FILES)}, each plain or as .gz, in "
            f"{' or '.join(map(str, folders))}, found {contents(folders[-1])} "
            "(data.root=… or data.download=true)"
        )


def read_idx(path: Path) -> UInt8[Tensor, "N *size"]:
    """Reads an idx file of bytes, plain or gzipped.

    Its content is: 0, 0, type (8), number of dimensions, size of each dimension, values.

    Raises:
        UserError: the file is incomplete or damaged.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read()
        shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(f"{path} is not a complete idx file: {error} (data.root=…)") from None
    return torch.from_numpy(values.copy())
