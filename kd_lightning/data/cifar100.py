"""CIFAR-100: 50,000 + 10,000 colour 32x32 photographs, 100 classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The labels are the 100
fine classes; the 20 superclasses are not used.
"""

from torchvision import datasets

from kd_lightning.data.cifar10 import CIFAR10


class CIFAR100(CIFAR10):
    """Read in the same way as CIFAR-10."""

    source = datasets.CIFAR100
