"""The checkpoints that a run resumes from: ``last.ckpt``, and ``previous.ckpt``, the one before it,
in case the last one is damaged.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_lightning.base.errors import Damaged
from kd_lightning.base.files import atomic_write, set_aside, sync
from kd_lightning.base.ranks import is_first_rank

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


@contextmanager
def next_generation(directory: Path) -> Iterator[Path]:
    """Gives a temporary path for a checkpoint, which then becomes ``last.ckpt``.

    A process that is killed in between leaves the earlier checkpoint, perhaps under the name
    ``previous.ckpt``.
    """
    last = directory / LAST
    with atomic_write(last) as unfinished:
        yield unfinished
        sync(unfinished)  # before the earlier one loses its name
        if last.exists():
            os.replace(last, directory / PREVIOUS)


def has_checkpoint(directory: Path) -> bool:
    return any((directory / name).exists() for name in (LAST, PREVIOUS))


def good_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that is not damaged; None if there is no checkpoint.

    Raises:
        Damaged: there is one, and none is good.
    """
    from kd_lightning.base.tensor_files import read_checkpoint  # here: torch takes seconds

    first: Damaged | None = None
    for path in (directory / LAST, directory / PREVIOUS):
        try:
            read_checkpoint(path, mmap=True)
        except Damaged as error:
            first = first or error
        else:
            return path
    if first is None or not has_checkpoint(directory):
        return None
    raise Damaged(
        first.path,
        f"{first.what}, and there is no good {PREVIOUS} beside it",
        f"remove {LAST} and {PREVIOUS}, and the run begins again with its first epoch",
    ) from first


def choose_checkpoint(directory: Path, say: Callable[[str], None]) -> Path | None:
    """``good_checkpoint`` for a run that resumes from it now. A damaged ``last.ckpt`` is set aside
    by the first rank, so that the next checkpoint does not replace the good one by it.

    Args:
        say: tells the person that the last one is not used.
    """
    chosen, last = good_checkpoint(directory), directory / LAST
    if chosen is None or chosen == last or not is_first_rank():
        return chosen
    state = f"is damaged (set aside as {set_aside(last).name})" if last.exists() else "is missing"
    say(f"{last} {state}: resumed from {PREVIOUS}, which is older")
    return chosen
