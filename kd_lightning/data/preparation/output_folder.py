"""The folder that ``kd_lightning.prepare`` writes, by ``decode.py`` or by ``pack.py``.

``unfinished.json`` is written first: it describes the source images, so that an interrupted
preparation can be resumed, and images of another source are never mixed in. The index is written
last and marks the folder as complete.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import format_bytes, write_text
from kd_lightning.base.reading import read_json
from kd_lightning.base.words import shorten
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.checks import check_samples, fingerprint
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.leaks import check_leak
from kd_lightning.data.prepared import UNFINISHED_FILE
from kd_lightning.records.resumed_config import EARLIER_READING

WRITTEN_BLOCKS_FILE = "done.jsonl"  # one line for each block that is on disk


def load_parts_and_facts(
    data: ImageFiles, say: Callable[[str], None]
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """The parts of ``data``, and the metadata that is written into the output folder."""
    loaded = data.load()
    data.notes += check_leak(loaded.train, loaded.val, loaded.test, data.on_leak)
    for note in data.notes:
        say(note)
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
        "exif": data.exif,
        "notes": data.notes,
        "parts": {
            name: {"source": fingerprint(part), "labels": part.y.tolist()}
            for name, part in parts.items()
        },
    }


@contextmanager
def open_output_folder(
    out: Path, facts: dict[str, Any], index: str, say: Callable[[str], None]
) -> Iterator[bool]:
    """Creates and locks ``out`` and writes ``facts`` into it; yields whether it is unfinished.

    Args:
        index: name of the file that is written last.

    Raises:
        UserError: ``out`` holds something else, cannot be created, or is locked by another process.
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
            check_same_facts(out / index, facts, out)
            say(f"{out} is already prepared.")
        elif (out / UNFINISHED_FILE).exists():
            check_same_facts(out / UNFINISHED_FILE, facts, out)
            say(f"Resuming {out}")
        else:
            own = (".lock", f"{UNFINISHED_FILE}.tmp")  # the second after a kill
            if others := sorted(path.name for path in out.iterdir() if path.name not in own):
                raise UserError(f"out={out} must be empty, it has {shorten(others)}: set out=…")
            write_text(out / UNFINISHED_FILE, json.dumps(facts))
        yield not (out / index).exists()


def finish_output_folder(out: Path, facts: dict[str, Any], index: str) -> None:
    """Writes the index if it does not exist, and removes the files that only resuming needs."""
    if not (out / index).exists():
        write_text(out / index, json.dumps(facts))
    for name in (WRITTEN_BLOCKS_FILE, UNFINISHED_FILE):
        (out / name).unlink(missing_ok=True)


def check_disk_space(needed: int, out: Path, advice: str) -> None:
    """Raises ``UserError`` if the disk has less than ``needed`` bytes left."""
    if needed > (free := shutil.disk_usage(out).free):
        raise UserError(
            f"the images need {format_bytes(needed)}, but the disk of {out} has "
            f"{format_bytes(free)} left: {advice}"
        )


def check_same_facts(path: Path, facts: dict[str, Any], out: Path) -> None:
    """Raises ``UserError`` if the facts in the file ``path`` differ from ``facts``."""
    old = EARLIER_READING | read_json(path, "out", "remove it")
    old["notes"] = facts["notes"]  # files that are passed over may change
    for part in old.get("parts", {}).values():
        part.pop("bad", None)
    facts = EARLIER_READING | facts
    if different := [key for key in {**facts, **old} if facts.get(key) != old.get(key)]:
        key, values = different[0], [str(each.get(different[0])) for each in (old, facts)]
        detail = ": " + ", now ".join(values) if max(map(len, values)) < 100 else ""
        raise UserError(
            f"{out} was prepared from other images or with other settings (its {key} "
            f"differs{detail}): remove it, or set another out=…"
        )
