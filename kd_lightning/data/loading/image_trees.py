"""Labels the images of a tree ``<part>/<class>/…``, and says what was passed over.

Each folder of a part is a class, and each image in it, at any depth, is a sample
(``image_search.py``).
"""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.base.words import shorten
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import contents
from kd_lightning.data.loading.image_search import ENDINGS, ImageSearch


class ImageTree:
    """The images of one part.

    Args:
        part: name of the part, for messages.
        folders: folders of class folders; a class may have a folder in each of them.

    Attributes:
        classes: class name -> its folders, sorted by name.

    Raises:
        UserError: there is no class folder, or two of them have names that look alike.
    """

    def __init__(self, part: str, *folders: Path) -> None:
        self.part = part
        self._search = ImageSearch()
        self._loose = 0  # images in no class folder
        classes: dict[str, list[Path]] = {}
        for folder in folders:
            for entry in self._search.entries(folder):
                if self._search.is_folder(entry):
                    classes.setdefault(printable(entry.name), []).append(Path(entry.path))
                elif entry.name.lower().endswith(ENDINGS):
                    self._loose += 1
        if not classes:
            raise UserError(
                f"expected a folder for each class, found {contents(folders[0])} (data.root=…)"
            )
        self.classes = dict(sorted(classes.items()))
        check_distinct(self.classes.values())

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
                f"{shorten(missing)}{other_spelling(missing, self.classes)} ({keys})"
            )
        paths = [
            [path for folder in self.classes[name] for path in self._search.images(folder)]
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
                f"the {self.part} part has classes that train does not have ({len(extra)}): "
                f"{shorten(extra)}{other_spelling(extra, classes)} (data.root=…)"
            )

    def notes(self, *, skip_bad: bool) -> list[str]:
        """A sentence for each kind of thing that was passed over.

        Raises:
            UserError: something cannot be read, and ``skip_bad`` is False.
        """
        notes, passed_over = [], self._search.passed_over
        if unreadable := [(printable(path), what) for path, what in self._search.unreadable]:
            (path, what), count = unreadable[0], len(unreadable)
            if not skip_bad:
                more = f", as {count - 1} more of the {self.part} part" if count > 1 else ""
                raise UserError(
                    f"{path} is {what}{more}: repair or remove it, or set data.on_bad_image=skip"
                )
            names = shorten([path for path, _ in unreadable])
            notes.append(f"Left out of {self.part}, as they cannot be read: {count} ({names}).")
        if passed_over:
            kinds = [f"{number} {ending}" for ending, number in passed_over.most_common()]
            read = ", ".join(ENDINGS)
            notes.append(f"Passed over in {self.part}: {shorten(kinds)} (read are {read}).")
        if self._loose:
            notes.append(f"Passed over in {self.part}: {self._loose} images in no class folder.")
        return notes


def look(name: str) -> str:
    """What a person sees of a name: an é may be stored as one character or as two."""
    return unicodedata.normalize("NFC", name)


def check_distinct(classes: Iterable[Sequence[Path]]) -> None:
    """Raises ``UserError`` if folders of one part have different names that look alike."""
    seen: dict[str, Path] = {}
    for folder in (folder for folders in classes for folder in folders):
        other = seen.setdefault(look(printable(folder.name)), folder)
        if other.name != folder.name:
            raise UserError(
                f"{printable(folder.parent)} has two folders whose names look alike and are stored "
                f"differently, {other.name!a} and {folder.name!a}: rename or join them "
                "(data.root=…)"
            )


def other_spelling(names: Sequence[str], others: Iterable[str]) -> str:
    """That the same names are there in another form, if they are."""
    alike = {look(name) for name in names} & {look(name) for name in others}
    if alike:
        return ", which look alike and are stored differently there"
    same = {name.casefold() for name in names} & {name.casefold() for name in others}
    return "; some are there with other capital letters" if same else ""
