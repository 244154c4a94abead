"""Data sets and augmentations: one LightningDataModule per data set, shared by all methods.

``classification.py`` has the base class, ``augmentation.py`` the augmentations of whole batches
(with ``resampling.py`` for resizing). Every other module is one data set, named as its file in
``conf/data``. ``loading/`` has what the data sets share: samples, batches, loaders, splits and
checks. ``preparation/`` is the work of ``python -m kd_lightning.prepare``: it decodes or packs
images once, and the data sets ``prepared`` and ``streamed`` read the result.
"""

from kd_lightning.data.arrays import Arrays
from kd_lightning.data.augmentation import (
    BatchTransform,
    CenterCrop,
    Compose,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from kd_lightning.data.biovid import BioVid
from kd_lightning.data.cifar10 import CIFAR10
from kd_lightning.data.cifar100 import CIFAR100
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.digits import Digits
from kd_lightning.data.fashion_mnist import FashionMNIST
from kd_lightning.data.har import HAR
from kd_lightning.data.image_folder import ImageFolder
from kd_lightning.data.imagenet import ImageNet
from kd_lightning.data.imagenet100 import ImageNet100
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.sample_random import PerSampleRandom
from kd_lightning.data.prepared import Prepared
from kd_lightning.data.streamed import Streamed
from kd_lightning.data.synthetic import Synthetic
from kd_lightning.data.ucr import UCR

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "HAR",
    "UCR",
    "Arrays",
    "BatchTransform",
    "BioVid",
    "CenterCrop",
    "ClassificationData",
    "Compose",
    "Digits",
    "FashionMNIST",
    "ImageFiles",
    "ImageFolder",
    "ImageNet",
    "ImageNet100",
    "Parts",
    "PerSampleRandom",
    "Prepared",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Samples",
    "Streamed",
    "Synthetic",
]
