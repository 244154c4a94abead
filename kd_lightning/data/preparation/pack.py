"""Packs the files of a tree into large chunks, as they are, by litdata.

Nothing is decoded, so one process is as fast as the disk. A part is a folder that is renamed into
place when it is whole, and ``stream.json``, which makes the folder a data set, is written last.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.packed_files import check_litdata
from kd_lightning.data.preparation.output_folder import claimed, described, finish, room_for
from kd_lightning.data.streamed import FACTS, FORMAT

CHUNK = "64MB"


def pack_tree(data: ImageFiles, out: Path, say: Callable[[str], None]) -> None:
    """Packs the files of ``data`` into ``out``, as they are, for ``data=streamed``; a part that is
    there already is not packed again.

    Raises:
        UserError: ``out`` is something else, or has no room.
    """
    check_litdata()
    parts, facts = described(data)
    facts |= {"format": FORMAT}
    for name, part in parts.items():
        sizes = [path.stat().st_size for path in part.x]
        names = [f"{path.parent.name}/{path.name}" for path in part.x]
        facts["parts"][name] |= {"names": names, "sizes": sizes}
    with claimed(out, facts, FACTS, say) as is_new:
        if is_new:
            missing = [name for name in parts if not (out / name).exists()]
            needed = sum(sum(facts["parts"][name]["sizes"]) for name in missing)
            room_for(needed, out, "set out=… on another disk")
            for name in missing:
                pack(parts[name].x, out / name, say)
        finish(out, facts, FACTS)
    say(f"Use it: python -m kd_lightning.run data=streamed data.root={out}")


def pack(files: Sequence[Path], folder: Path, say: Callable[[str], None]) -> None:
    """Writes files into chunks, whole or not at all."""
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
