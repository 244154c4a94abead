"""Knowledge distillation of classifiers, on images and time series, with numbers to believe."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_lightning.students.load import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports ``load`` when it is first asked for: it needs torch, which takes seconds."""
    if name == "load":
        from kd_lightning.students.load import load

        return load
    raise AttributeError(f"module 'kd_lightning' has no attribute '{name}'")
