"""Checks that ``data.root`` holds the expected files, and describes what it holds instead."""

from collections.abc import Iterable
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable


def contents(folder: Path) -> str:
    """A short description of what is in ``folder``, for error messages."""
    if not folder.is_dir():
        return f"no folder {folder}"
    names = sorted(printable(path.name) for path in folder.iterdir())
    shown = ", ".join(names[:8]) + (f", … ({len(names)} entries)" if len(names) > 8 else "")
    return f"{shown or 'nothing'} in {folder}"


def check_folder(root: Path | None, needed: Iterable[str], what: str) -> Path:
    """Returns ``root`` if every path of ``needed`` exists in it.

    Args:
        root: the folder in the configuration; None: it is not set.
        needed: paths of files or folders, relative to ``root``.
        what: description of the expected folder, for error messages.

    Raises:
        UserError: ``root`` is not set, or something in ``needed`` is missing.
    """
    if root is None:
        raise UserError(f"say where {what} is (data.root=…)")
    for name in needed:
        if not (root / name).exists():
            raise UserError(f"expected {what} with {name}, found {contents(root)} (data.root=…)")
    return root
