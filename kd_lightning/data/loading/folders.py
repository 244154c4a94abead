"""Is the data set where ``data.root`` points? One sentence for every wrong folder."""

from collections.abc import Iterable
from pathlib import Path

from kd_lightning.base.errors import UserError


def contents(folder: Path) -> str:
    """What is in ``folder``, in a few words, for a sentence that says what came."""
    if not folder.is_dir():
        return f"no folder {folder}"
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:8]) + (f", … ({len(names)} entries)" if len(names) > 8 else "")
    return f"{shown or 'nothing'} in {folder}"


def check_folder(root: Path | None, needed: Iterable[str], what: str) -> Path:
    """``root``, if every path of ``needed`` exists below it.

    Args:
        root: the folder that came; None: none was given.
        needed: paths of files or folders, relative to ``root``.
        what: the folder that was expected, as a person would say it.

    Raises:
        UserError: no root, or something needed is not there.
    """
    if root is None:
        raise UserError(f"say where {what} is (data.root=…)")
    for name in needed:
        if not (root / name).exists():
            raise UserError(f"expected {what} with {name}, found {contents(root)} (data.root=…)")
    return root
