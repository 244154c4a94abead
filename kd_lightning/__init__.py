"""Knowledge distillation of classifiers, on images and time series, with numbers to believe.

``kd_lightning.distill`` is a run from Python, ``kd_lightning.load`` loads a student's file. They
are imported when they are first used: ``import kd_lightning`` imports no large package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_lightning.running.run import distill
    from kd_lightning.students.load import load

__version__ = "0.1.0"
__all__ = ["__version__", "distill", "load"]

MODULES = {"distill": "kd_lightning.running.run", "load": "kd_lightning.students.load"}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'kd_lightning' has no attribute '{name}'")
