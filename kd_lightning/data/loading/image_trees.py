"""Finds and labels the images of a tree ``<part>/<class>/…``, and remembers what it passed over.

Each folder of a part is a class, and each image in it, at any depth, is a sample. Names that begin
with a dot, the folders that systems add (``SYSTEM_FOLDERS``), and files with other endings are no
samples.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.base.words import shorten
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import contents

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # in lower or upper case
# Of Synology, macOS and Linux: they hold thumbnails or nothing, and are no classes.
SYSTEM_FOLDERS = ("@eaDir", "__MACOSX", "lost+found")


def image_paths(folder: Path) -> list[Path]:
    """The images below a folder that has no classes, at any depth, sorted."""

    def counts(path: Path) -> bool:
        names = path.relative_to(folder).parts
        return not any(name.startswith(".") or name in SYSTEM_FOLDERS for name in names)

    paths = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path for path in paths if counts(path))


class ImageTree:
    """The images of one part.

    Args:
        part: name of the part, for messages.
        folders: folders of class folders; a class may have a folder in each of them.

    Attributes:
        classes: class name -> its folders, sorted by name.

    Raises:
        UserError: there is no class folder.
    """

    def __init__(self, part: str, *folders: Path) -> None:
        self.part = part
        self._passed_over: Counter[str] = Counter()  # of each ending
        self._loose = 0  # images in no class folder
        self._unreadable: list[tuple[str, str]] = []  # path, and what it is
        classes: dict[str, list[Path]] = {}
        for folder in folders:
            for entry in self._entries(os.fspath(folder)):
                if self._is_folder(entry):
                    classes.setdefault(printable(entry.name), []).append(Path(entry.path))
                elif entry.name.lower().endswith(ENDINGS):
                    self._loose += 1
        if not classes:
            raise UserError(
                f"expected a folder for each class, found {contents(folders[0])} (data.root=…)"
            )
        self.classes = dict(sorted(classes.items()))

    def label(self, classes: Sequence[str], keys: str) -> Samples:
        """The images of ``classes``, sorted by class and path; a label is an index in ``classes``.

        Args:
            classes: class names; other classes of the tree are ignored.
            keys: settings that the user can change, for error messages.

        Raises:
            UserError: a class has no folder.
        """
        missing = [name for name in classes if name not in self.classes]
        if missing:
            raise UserError(
                f"the {self.part} part lacks {len(missing)} of {len(classes)} classes: "
                f"{shorten(missing)} ({keys})"
            )
        paths = [
            [path for folder in self.classes[name] for path in self._images(folder)]
            for name in classes
        ]
        counts = torch.tensor([len(of_class) for of_class in paths])
        y = torch.arange(len(classes)).repeat_interleave(counts)
        return Samples([path for of_class in paths for path in of_class], y)

    def check_no_extra(self, classes: Sequence[str]) -> None:
        """Raises ``UserError`` if there are classes that train does not have."""
        extra = sorted(set(self.classes) - set(classes))
        if extra:
            raise UserError(
                f"the {self.part} part has {len(extra)} classes that train does not have: "
                f"{shorten(extra)} (data.root=…)"
            )

    def notes(self, *, skip_bad: bool) -> list[str]:
        """A sentence for each kind of thing that was passed over.

        Raises:
            UserError: something cannot be read, and ``skip_bad`` is False.
        """
        notes = []
        if self._unreadable:
            (path, what), count = self._unreadable[0], len(self._unreadable)
            if not skip_bad:
                more = f", as {count - 1} more of the {self.part} part" if count > 1 else ""
                raise UserError(
                    f"{path} is {what}{more}: repair or remove it, or set data.on_bad_image=skip"
                )
            names = shorten([path for path, _ in self._unreadable])
            notes.append(f"Left out of {self.part}, as they cannot be read: {count} ({names}).")
        if self._passed_over:
            kinds = [f"{number} {ending}" for ending, number in self._passed_over.most_common()]
            read = ", ".join(ENDINGS)
            notes.append(f"Passed over in {self.part}: {shorten(kinds)} (read are {read}).")
        if self._loose:
            notes.append(f"Passed over in {self.part}: {self._loose} images in no class folder.")
        return notes

    def _images(self, folder: Path) -> list[Path]:
        """The images in a class folder, at any depth, sorted."""
        images: list[str] = []
        pending: list[tuple[str, tuple[str, ...]]] = [(os.fspath(folder), ())]
        while pending:
            path, links = pending.pop()
            for entry in self._entries(path):
                if self._is_folder(entry):
                    if not entry.is_symlink():
                        pending.append((entry.path, links))
                    elif real := self._target(entry, path, links):
                        pending.append((entry.path, (*links, real)))
                elif not entry.name.lower().endswith(ENDINGS):
                    ending = os.path.splitext(entry.name)[1].lower()
                    self._passed_over[printable(ending) or "without ending"] += 1
                elif self._is_file(entry):
                    images.append(entry.path)
        return [Path(path) for path in sorted(images)]

    def _entries(self, folder: str) -> Iterator[os.DirEntry]:
        """The entries of a folder, without hidden ones and those that systems add."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.name not in SYSTEM_FOLDERS:
                        yield entry
        except OSError as error:
            self._add_unreadable(folder, f"a folder that cannot be read ({error.strerror})")

    def _is_folder(self, entry: os.DirEntry) -> bool:
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

    def _add_unreadable(self, path: str, what: str) -> None:
        self._unreadable.append((printable(path), what))
