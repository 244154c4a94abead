"""In which order a teacher has the data's classes, and the rows of its head in the data's order.

A teacher with the right classes in another order is wrong about every sample, and nothing fails. So
the names in a file are compared with the data's, and ``teacher.class_order`` gives names to a file
that has none.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import read_json, read_text
from kd_lightning.base.words import shorten
from kd_lightning.models.timm_nets import IMAGENET_CLASSES

KEY = "teacher.class_order"


class Rows(NamedTuple):
    """Which row of the teacher's head belongs to each class of the data.

    Attributes:
        rows: by class of the data; None: the head stays as it is.
        are_known: whether the order follows from names, and is not only assumed.
        note: what a person should know about it; "" for nothing.
        names: of the class of each output of the teacher, those of the data among them; None: the
            outputs of ImageNet were chosen by their place.
    """

    rows: list[int] | None
    are_known: bool
    note: str
    names: list[str] | None = None


def rows_for(
    classes: Sequence[str],
    outputs: int,
    *,
    order: str | Sequence[str | int] | None,
    names: Sequence[str] | None,
    imagenet_rows: Sequence[int] | None,
    source: str,
) -> Rows:
    """The rows of a teacher's head that belong to the data's classes.

    Args:
        classes: names of the data's classes, in label order.
        outputs: number of classes of the teacher.
        order: ``teacher.class_order``: for each output of the teacher, the name or the index of
            a class of the data; or a file with that.
        names: the class names in the teacher's file.
        imagenet_rows: the data's classes among those of ImageNet-1k, if they are such.
        source: of the teacher, for messages.

    Raises:
        UserError: the teacher does not have all classes of the data, or its order is not known.
    """
    if order is not None:
        return by_order(classes, outputs, order, source)
    if names is not None and set(classes) <= set(names):
        if len(names) != outputs:
            raise UserError(
                f"{source} names {len(names)} classes and has {outputs} outputs: name the class of "
                f"each output ({KEY}=…)"
            )
        return by_names(classes, names, f"the names in {source}")
    if outputs == IMAGENET_CLASSES and imagenet_rows is not None:
        return Rows(list(imagenet_rows), True, "")
    if names is not None:
        raise UserError(
            f"{source} was trained on classes with other names: it does not have "
            f"{shorten([name for name in classes if name not in names])}, it has {shorten(names)}; "
            f"if they are the data's classes, name the data's class of each output ({KEY}=…)"
        )
    if outputs != len(classes):
        or_named = f"or name the class of each output ({KEY}=…), " if outputs > len(classes) else ""
        raise UserError(
            f"expected weights for {len(classes)} classes, {source} has {outputs}: give weights "
            f"that were trained on the data's classes, {or_named}or train the teacher "
            "(teacher.source=train)"
        )
    note = (
        f"Teacher: no class names in {source}, so its outputs are taken to be in the data's order: "
        f"{shorten(classes)} ({KEY}=… if they are not)"
    )
    return Rows(None, False, note, list(classes))


def by_order(
    classes: Sequence[str], outputs: int, order: str | Sequence[str | int], source: str
) -> Rows:
    """``rows_for`` with ``teacher.class_order``."""
    given, note = read_order(order) if isinstance(order, str) else list(order), ""
    if len(given) != outputs:
        raise UserError(
            f"{KEY} must name the class of each of the {outputs} outputs of {source}, got "
            f"{len(given)}"
        )
    if given and all(isinstance(one, int) and not isinstance(one, bool) for one in given):
        wrong = [one for one in given if not 0 <= one < len(classes)]
        if wrong:
            raise UserError(
                f"a number in {KEY} is the index of a class of the data, 0 to {len(classes) - 1}, "
                f"got {wrong[0]}: for names that are numbers, write them in quotes"
            )
        names, given = [str(one) for one in given], [classes[one] for one in given]
        if names != given and set(names) <= set(classes):
            note = (
                f"Teacher: the numbers in {KEY} are taken as indices of the data's classes, and "
                "not as their names, which are numbers too (write names in quotes)"
            )
    given = [str(one) for one in given]
    twice = sorted({name for name in classes if given.count(name) > 1})
    if twice:
        raise UserError(f"{KEY} must name each class once, got {shorten(twice)} more than once")
    missing = [name for name in classes if name not in given]
    if missing:
        extra = [name for name in given if name not in classes]
        has = f", and has {shorten(extra)}" if extra else ""
        raise UserError(
            f"{KEY} must have all {len(classes)} classes of the data, {shorten(classes)}: it does "
            f"not have {shorten(missing)}{has}"
        )
    rows = by_names(classes, given, KEY)
    return rows._replace(note="; ".join(filter(None, [rows.note, note])))


def by_names(classes: Sequence[str], names: Sequence[str], by: str) -> Rows:
    """``rows_for`` with a name for each output.

    Args:
        by: where the names come from, for the note.
    """
    twice = sorted({name for name in classes if list(names).count(name) > 1})
    if twice:
        raise UserError(
            f"the teacher has more than one output for {shorten(twice)}, by {by}: say which output "
            f"is which class ({KEY}=[…])"
        )
    row = {name: i for i, name in enumerate(names)}
    rows = [row[name] for name in classes]
    if rows == list(range(len(names))):
        return Rows(None, True, "", list(names))
    if len(names) > len(classes):
        done = f"the data's {len(classes)} classes are taken out of its {len(names)}"
    else:
        done = "its classes are brought into the data's order"
    return Rows(rows, True, f"Teacher: {done}, by {by}", list(names))


def corrected(names: Sequence[str], classes: Sequence[str], order: Sequence[int]) -> list[str]:
    """``teacher.class_order`` with which a teacher has another order of the data's classes.

    Args:
        names: of the class of each output in the teacher's file, by which it is used now.
        classes: names of the data's classes.
        order: for each output of the teacher as it is used now, the index of the right class.
    """
    right = dict(zip(classes, (classes[one] for one in order), strict=True))
    return [right.get(name, name) for name in names]


def read_order(path: str) -> list[str | int]:
    """The classes in a file: a JSON list, or one name a line."""
    file = Path(path).expanduser()
    if not os.path.isfile(file):  # of a path, this raises for a name that is too long
        raise UserError(
            f"{KEY} must be a list, or a file with one name a line or a JSON list, and there is no "
            f"such file {path}"
        )
    text = read_text(file, KEY)
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.split("\n") if line.strip()]
    content = read_json(file, KEY)
    if not all(isinstance(one, str | int) for one in content):
        raise UserError(f"{path} must be a list of names or of numbers ({KEY}=…)")
    return content
