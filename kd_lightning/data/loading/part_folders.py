"""Finds the folders of train, val and test in ``data.root``, under the names that are in use."""

from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.base.words import shorten
from kd_lightning.data.loading.folders import check_folder, contents
from kd_lightning.data.loading.image_search import ENDINGS, counts

NAMES = {  # in lower or upper case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
WANTED = "a folder of images with train"


def find_parts(root: Path | None) -> tuple[dict[str, Path], list[str]]:
    """The folder of each part that exists, and notes about other names and other folders.

    Raises:
        UserError: there is no folder of train, or a part has two folders.
    """
    root = check_folder(root, [], "a folder of images")
    if not root.is_dir():
        raise UserError(f"expected {WANTED}, found {contents(root)} (data.root=…)")
    folders = subfolders(root)
    parts = {}
    for part, names in NAMES.items():
        found = [folder for folder in folders if folder.name.lower() in names]
        if len(found) > 1:
            raise UserError(
                f"{root} has {len(found)} folders of the {part} part, "
                f"{' and '.join(folder.name for folder in found)}: keep one (data.root=…)"
            )
        if found:
            parts[part] = found[0]
    if "train" not in parts:
        raise UserError(explain_missing_train(root, folders))
    return parts, notes_on_folders(parts, folders)


def notes_on_folders(parts: dict[str, Path], folders: list[Path]) -> list[str]:
    """A sentence for each part with an unusual name, and one for the folders that are not read."""
    notes = [
        f"The folder {folder.name} is read as {part}."
        for part, folder in parts.items()
        if folder.name != part
    ]
    others = [printable(folder.name) for folder in folders if folder not in parts.values()]
    if others:
        notes.append(f"Not read, as they are no part: {shorten(others)}.")
    return notes


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted, without hidden ones and those that systems add."""
    return sorted(path for path in folder.iterdir() if counts(path.name) and path.is_dir())


def explain_missing_train(root: Path, folders: list[Path]) -> str:
    """What ``root`` is instead of a folder with train, and the root to give."""
    found = f"expected {WANTED}, found {contents(root)}"
    below = [folder for folder in folders if has_train(folder)]
    if below:
        return f"{found}: train is one level below (data.root={printable(below[0])})"
    for above, what in ((root.parent, "the train part"), (root.parent.parent, "a class of train")):
        inside = root if above == root.parent else root.parent
        if is_train(inside) and has_train(above):
            return f"{found}: this is {what} itself (data.root={printable(above)})"
    if any(root.name.lower() in names for names in NAMES.values()) and has_train(root.parent):
        return f"{found}: this is one part alone (data.root={printable(root.parent)})"
    if any(has_images(folder) for folder in folders):
        return (
            f"{found}: it holds the class folders themselves, so move them into "
            f"{printable(root / 'train')} (data.root=…)"
        )
    return f"{found} (data.root=…)"


def is_train(folder: Path) -> bool:
    return folder.name.lower() in NAMES["train"] and folder.is_dir()


def has_train(folder: Path) -> bool:
    return any(is_train(below) for below in folder.iterdir())


def has_images(folder: Path) -> bool:
    return any(path.name.lower().endswith(ENDINGS) for path in folder.iterdir())
