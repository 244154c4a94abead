"""The folder that ``prepare`` writes: whose it is, what it is made of, when it is whole.

What it is made of is noted in it before anything else, so that what was stopped is gone on with,
and nothing else is mixed into it; the index that makes it a data set is written last.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import in_bytes, write_text
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.checks import check_samples, fingerprint
from kd_lightning.data.loading.image_files import ImageFiles, shorten
from kd_lightning.data.prepared import UNFINISHED

DONE = "done.jsonl"  # a line for every block that is on the disk


def described(data: ImageFiles) -> tuple[dict[str, Samples], dict[str, Any]]:
    """The parts of ``data``, and what is to be known of them."""
    loaded = data.load()
    parts = {"train": loaded.train, "val": loaded.val, "test": loaded.test}
    parts = {name: part for name, part in parts.items() if part is not None}
    for name, part in parts.items():
        check_samples(part, loaded.class_names, name)
    return parts, {
        "data": type(data).__name__,
        "val_fraction": data.val_fraction,
        "split_seed": data.split_seed,
        "test_is": loaded.test_is,
        "test_is_cut": loaded.test_is_cut,
        "class_names": loaded.class_names,
        "class_list_sha256": getattr(data, "class_list_sha256", None),
        "imagenet_rows": data.imagenet_rows,
        "parts": {
            name: {"source": fingerprint(part), "labels": part.y.tolist()}
            for name, part in parts.items()
        },
    }


@contextmanager
def claimed(
    out: Path, facts: dict[str, Any], index: str, say: Callable[[str], None]
) -> Iterator[bool]:
    """Inside, ``out`` is this process's, and noted to be of ``facts``; whether anything is to do.

    Args:
        index: the file that is written last.

    Raises:
        UserError: it is of something else, or another process's, or cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror} (out=…)") from error
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is preparing {out}: wait for it, or set out=…") from None
    with lock:
        if (out / index).exists():
            check_facts(out / index, facts, out)
            say(f"{out} is prepared already.")
        elif (out / UNFINISHED).exists():
            check_facts(out / UNFINISHED, facts, out)
            say(f"Going on with {out}")
        else:
            if others := sorted(path.name for path in out.iterdir() if path.name != ".lock"):
                raise UserError(f"out={out} must be empty, it has {shorten(others)}: set out=…")
            write_text(out / UNFINISHED, json.dumps(facts))
        yield not (out / index).exists()


def finish(out: Path, facts: dict[str, Any], index: str) -> None:
    """Writes the index, where it is not there, and removes what was only needed to go on."""
    if not (out / index).exists():
        write_text(out / index, json.dumps(facts))
    for name in (DONE, UNFINISHED):
        (out / name).unlink(missing_ok=True)


def room_for(needed: int, out: Path, advice: str) -> None:
    """Raises ``UserError`` where the disk has not the room."""
    if needed > (free := shutil.disk_usage(out).free):
        raise UserError(
            f"the images would take {in_bytes(needed)}, and {out} has {in_bytes(free)} left: "
            f"{advice}"
        )


def check_facts(path: Path, facts: dict[str, Any], out: Path) -> None:
    """Raises ``UserError`` where what is in ``out`` is made of something else."""
    was = json.loads(path.read_text())
    for part in was.get("parts", {}).values():
        part.pop("bad", None)
    if odd := [key for key in {**facts, **was} if facts.get(key) != was.get(key)]:
        key, both = odd[0], [str(one.get(odd[0])) for one in (was, facts)]
        said = ": " + ", now ".join(both) if max(map(len, both)) < 100 else ""
        raise UserError(
            f"{out} holds other images than these, or has them in another form (its {key} "
            f"differs{said}): remove it, or set another out=…"
        )
