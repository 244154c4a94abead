"""``prepare format=litdata``: packs the files of an image tree unchanged into large litdata chunks.

``data=streamed`` (``data/streamed.py``) reads the result. Nothing is decoded, so one process is as
fast as the disk. Each part is written to a temporary folder, which is renamed when it is complete;
``stream.json``, which marks the whole output as complete, is written last.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.packed_files import check_litdata
from kd_lightning.data.preparation.output_folder import (
    check_disk_space,
    finish_output_folder,
    load_parts_and_facts,
    open_output_folder,
)
from kd_lightning.data.streamed import FORMAT, INDEX_FILE

CHUNK = "64MB"


def pack_tree(data: ImageFiles, out: Path, say: Callable[[str], None]) -> None:
    """Packs the files of ``data`` unchanged into ``out``, for ``data=streamed``.

    A part that already exists is not packed again.

    Raises:
        UserError: ``out`` holds something else, or the disk is too full.
    """
    check_litdata()
    parts, facts = load_parts_and_facts(data, say)
    facts |= {"format": FORMAT}
    for name, part in parts.items():
        sizes = [path.stat().st_size for path in part.x]
        names = [f"{path.parent.name}/{path.name}" for path in part.x]
        facts["parts"][name] |= {"names": names, "sizes": sizes}
    with open_output_folder(out, facts, INDEX_FILE, say) as is_unfinished:
        if is_unfinished:
            missing = [name for name in parts if not (out / name).exists()]
            needed = sum(sum(facts["parts"][name]["sizes"]) for name in missing)
            check_disk_space(needed, out, "set out=… on another disk")
            for name in missing:
                pack(parts[name].x, out / name, say)
        finish_output_folder(out, facts, INDEX_FILE)
    say(f"Use it: python -m kd_lightning.run data=streamed data.root={out}")


def pack(files: Sequence[Path], folder: Path, say: Callable[[str], None]) -> None:
    """Writes ``files`` into chunks in ``folder``, which appears only when it is complete."""
    check_litdata()
    from litdata.streaming import Cache

    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    chunks = Cache(str(unfinished), chunk_bytes=CHUNK)
    for row, file in enumerate(files):
        chunks[row] = file.read_bytes()
        if (row + 1) * 10 // len(files) > row * 10 // len(files):
            say(f"{folder.name}: {row + 1} of {len(files)} images")
    chunks.done()
    chunks.merge(1)
    unfinished.rename(folder)
