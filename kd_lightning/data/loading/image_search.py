"""Finds the images below a folder, at any depth, and remembers what it passed over.

Names that begin with a dot, the folders that systems add (``SYSTEM_FOLDERS``), and files with other
endings are no images. Links are followed, but never back to a folder on the way to them.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kd_lightning.base.files import printable

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # in lower or upper case
# Of file servers (Synology, QNAP), macOS, Windows and Linux, in lower case: they hold thumbnails,
# what was deleted, earlier versions or nothing, and are no classes.
SYSTEM_FOLDERS = (
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found"),
)


def counts(name: str) -> bool:
    """Whether a file or a folder with this name is one of the person's own."""
    return not name.startswith(".") and name.lower() not in SYSTEM_FOLDERS


def image_paths(folder: Path) -> list[Path]:
    """The images below a folder that has no classes, sorted. What cannot be read is among them, so
    that it is not lost: reading it gives an error.
    """
    search = ImageSearch()
    return sorted([*search.images(folder), *(path for path, _ in search.unreadable)])


class ImageSearch:
    """Searches folders.

    Attributes:
        passed_over: number of files with each other ending.
        unreadable: paths, and what each is: a broken link, a folder without permission, …
    """

    def __init__(self) -> None:
        self.passed_over: Counter[str] = Counter()
        self.unreadable: list[tuple[Path, str]] = []

    def images(self, folder: Path) -> list[Path]:
        """The images in a folder, at any depth, sorted."""
        images: list[str] = []
        pending: list[tuple[str, tuple[str, ...]]] = [(os.fspath(folder), ())]
        while pending:
            path, links = pending.pop()
            for entry in self.entries(path):
                if self.is_folder(entry):
                    if not entry.is_symlink():
                        pending.append((entry.path, links))
                    elif real := self._target(entry, path, links):
                        pending.append((entry.path, (*links, real)))
                elif not entry.name.lower().endswith(ENDINGS):
                    ending = os.path.splitext(entry.name)[1].lower()
                    self.passed_over[printable(ending) or "without ending"] += 1
                elif self._is_file(entry):
                    images.append(entry.path)
        return [Path(path) for path in sorted(images)]

    def entries(self, folder: str | os.PathLike) -> Iterator[os.DirEntry]:
        """The entries of a folder, without hidden ones and those that systems add."""
        try:
            with os.scandir(folder) as entries:
                yield from (entry for entry in entries if counts(entry.name))
        except OSError as error:
            self._add_unreadable(folder, f"a folder that cannot be read ({error.strerror})")

    def is_folder(self, entry: os.DirEntry) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a link to itself: ``_is_file`` says so
            return False

    def _is_file(self, entry: os.DirEntry) -> bool:
        """Whether an entry can be opened; for a link this looks at its target."""
        try:
            if entry.is_file():
                return True
            is_broken = entry.is_symlink()
        except OSError:
            is_broken = True
        what = "not a file"
        if is_broken:
            what = f"a link to {printable(os.readlink(entry.path))}, where no file is"
        self._add_unreadable(entry.path, what)
        return False

    def _target(self, entry: os.DirEntry, folder: str, links: Sequence[str]) -> str | None:
        """The folder that a link leads to; None if it leads back to where the link was found.

        Args:
            links: the targets of all links on the way to ``folder``.
        """
        real, here = os.path.realpath(entry.path), os.path.realpath(folder)
        if real in links or os.path.commonpath([real, here]) == real:
            self._add_unreadable(entry.path, f"a link back to {printable(real)}")
            return None
        return real

    def _add_unreadable(self, path: str | os.PathLike, what: str) -> None:
        self.unreadable.append((Path(path), what))
