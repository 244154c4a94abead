"""The folder of an export: complete or not there, and never mixed with other files."""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import lock_folder, read_json
from kd_lightning.records.run_directory import make_directory

CARD = "README.md"  # a person may write more into it
RECORD = "export.json"  # marks the folder of an export, and lists its files
TEMPORARY = ".{}-export-"  # the name of a temporary folder beside it, before random digits


def check_replaceable(out: Path) -> None:
    """Raises ``UserError`` unless ``out`` is missing, empty, or the folder of an earlier export to
    which nothing was added, with the card as it was written.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file, expected a folder for the export (--out …)")
    record = read_json(out / RECORD, "files") if (out / RECORD).is_file() else {"files": []}
    others = sorted({path.name for path in out.iterdir()} - {RECORD, *record["files"]})
    if others:
        raise UserError(
            f"{out} holds files that no export has written ({', '.join(others[:3])}): choose "
            "another folder (--out …), or move them"
        )
    card = out / CARD
    if card.is_file() and record.get("card_sha256") not in (None, hash_of(card.read_bytes())):
        raise UserError(
            f"{card} was changed after its export: choose another folder (--out …), or move it"
        )


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def replace_folder(out: Path) -> Iterator[Path]:
    """Gives a temporary folder to write to, which becomes ``out`` at the end.

    After an error or an interrupt it is removed, and ``out`` is unchanged. What an export leaves
    that was killed is removed by the next one.
    """
    clear_up(out)
    check_replaceable(out)
    make_directory(out.parent, "--out")
    temporary = out.with_name(TEMPORARY.format(out.name) + secrets.token_hex(6))
    temporary.mkdir()
    lock = lock_folder(temporary, wait=False)
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        check_replaceable(out)  # an export takes minutes, in which a person may add a file
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if (temporary / "old").exists() and not out.exists():
            (temporary / "old").rename(out)
        shutil.rmtree(temporary)
        if lock is not None:
            os.close(lock)


def clear_up(out: Path) -> None:
    """Removes the temporary folders of exports to ``out`` that were killed. If one of them had
    already moved an earlier export away, that comes back.
    """
    name = re.compile(re.escape(TEMPORARY.format(out.name)) + "[0-9a-f]{12}")
    for left in out.parent.iterdir() if out.parent.is_dir() else ():
        if not name.fullmatch(left.name):
            continue
        if (lock := lock_folder(left, wait=False)) is not None:
            if (left / "old").exists() and not out.exists():
                (left / "old").rename(out)
            shutil.rmtree(left)
            os.close(lock)
