"""What the modules of a package define, to be compared with what the package exports."""

import importlib
import inspect
import pkgutil
from types import ModuleType


def public_names(package: ModuleType) -> dict[str, set[str]]:
    """Module -> the functions and classes that it defines, without those with an underscore."""
    names = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        names[info.name.rpartition(".")[2]] = {
            name
            for name, value in vars(module).items()
            if (inspect.isfunction(value) or inspect.isclass(value))
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    return names


def check_exports(package: ModuleType, not_exported: set[str] = frozenset()) -> None:
    """Fails unless ``__all__`` has all public names but ``not_exported``, and hides no module."""
    modules = public_names(package)
    assert not_exported <= set().union(*modules.values()), "an exception that no module defines"
    assert set(package.__all__) == set().union(*modules.values()) - not_exported
    assert len(package.__all__) == len(set(package.__all__))
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith(f"{package.__name__}.")
    # Hydra follows the attributes of a package to find a class in one of its modules
    for name in modules:
        assert inspect.ismodule(getattr(package, name)), f"an export hides the module {name}"
