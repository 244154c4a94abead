"""The folder of an export: complete or not there, and never mixed with other files."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import read_json
from kd_lightning.records.run_directory import make_directory

RECORD = "export.json"  # marks the folder of an export, and lists its files


def check_replaceable(out: Path) -> None:
    """Raises ``UserError`` unless ``out`` is missing, empty, or the folder of an earlier export to
    which nothing was added.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file, expected a folder for the export (--out …)")
    written = {RECORD}
    if (out / RECORD).is_file():
        written |= set(read_json(out / RECORD, "files")["files"])
    others = sorted({path.name for path in out.iterdir()} - written)
    if others:
        raise UserError(
            f"{out} holds files that no export has written ({', '.join(others[:3])}): choose "
            "another folder (--out …), or move them"
        )


@contextmanager
def replace_folder(out: Path) -> Iterator[Path]:
    """Gives a temporary folder to write to, which becomes ``out`` at the end.

    After an error or an interrupt it is removed, and ``out`` is unchanged.
    """
    check_replaceable(out)
    make_directory(out.parent, "--out")
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        shutil.rmtree(temporary)
