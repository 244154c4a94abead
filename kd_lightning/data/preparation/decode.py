"""Decodes the images of a tree once, into one array of bytes for each part.

One file a part, and not many: any program can map it, and a row is found by its number. It is laid
out in full before it is filled, so that a disk that has not the room says so at the beginning.
Images are filled in by blocks, in the loading processes of the data set; which blocks are on the
disk is noted after each, so what was stopped is gone on with.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import in_bytes, whole, write_text
from kd_lightning.data.loading.batches import BadImage, Samples
from kd_lightning.data.loading.image_files import ImageFiles, shorten
from kd_lightning.data.preparation.output_folder import DONE, claimed, described, finish, room_for
from kd_lightning.data.prepared import FORMAT, INDEX

BLOCK = 256  # images
TENTHS = 10  # in which progress is said


class Block(NamedTuple):
    """Some images of a part, one after another."""

    part: str
    start: int


class Done(NamedTuple):
    """A block that is on the disk, and which images of the part in it could not be decoded."""

    part: str
    start: int
    bad: list[int]


def prepare(data: ImageFiles, out: Path, size: int, say: Callable[[str], None]) -> None:
    """Writes ``data`` into ``out``, or goes on with that, for ``data=prepared``.

    Args:
        data: not set up: its val part is cut from train when the prepared images are used.
        size: side of the square in the middle that is kept, S; the short side becomes as long.

    Raises:
        UserError: ``out`` is something else, or has no room; or an image cannot be decoded.
    """
    if size < data.image_size:
        raise UserError(f"size must be >= data.image_size={data.image_size}, got {size}")
    parts, facts = described(data)
    facts |= {
        "format": FORMAT,
        "size": size,
        "image_size": data.image_size,  # the square is so placed that its centre is the image's
        "made_by": {"pillow": version("pillow"), "torchvision": torchvision.__version__},
    }
    with claimed(out, facts, INDEX, say) as is_new:
        if is_new:
            begin(parts, out, size, say)
            for part, rows in fill(parts, data, out, size, say).items():
                facts["parts"][part]["bad"] = rows
                if rows:
                    names = shorten([parts[part].x[row].name for row in rows])
                    say(f"left out of {part}, as they cannot be decoded: {len(rows)} ({names})")
        finish(out, facts, INDEX)
    say(f"Use it: python -m kd_lightning.run data=prepared data.root={out}")


def begin(parts: dict[str, Samples], out: Path, size: int, say: Callable) -> None:
    """Lays out the arrays, where that has not been done.

    Raises:
        UserError: there is no room.
    """
    lacking = {
        name: len(part) * row_bytes(size)
        for name, part in parts.items()
        if not (out / f"{name}.npy").exists()
    }
    room_for(sum(lacking.values()), out, f"lower size={size}, or set out=… on another disk")
    for name in lacking:
        lay_out(out / f"{name}.npy", (len(parts[name]), size, size, 3))
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    total = sum(map(len, parts.values())) * row_bytes(size)
    say(f"{sizes} images of {size} x {size}: {in_bytes(total)}, in {out}")


def row_bytes(size: int) -> int:
    return 3 * size * size


def lay_out(path: Path, shape: tuple[int, ...]) -> None:
    """A .npy file of bytes with all its room on the disk, and nothing in it yet."""
    says = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, says)
        file.flush()
        end = file.tell() + int(np.prod(shape))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, end)
        else:
            file.truncate(end)
        os.fsync(file.fileno())


def fill(
    parts: dict[str, Samples], data: ImageFiles, out: Path, size: int, say: Callable
) -> dict[str, list[int]]:
    """Decodes the blocks that are missing; which images of each part could not be decoded."""
    known = [one for one in read_done(out / DONE) if data.skip_bad or not one.bad]
    write_text(out / DONE, "".join(json.dumps(one) + "\n" for one in known))
    have = {(one.part, one.start) for one in known}
    blocks = [
        Block(name, start)
        for name, part in parts.items()
        for start in range(0, len(part), BLOCK)
        if (name, start) not in have
    ]
    decoded = Blocks(blocks, {name: part.x for name, part in parts.items()}, out, size, data)
    loader = DataLoader(
        decoded, batch_size=None, num_workers=data.num_workers, generator=torch.Generator()
    )
    total, begun, tenth = sum(len(decoded.rows(block)) for block in blocks), time.monotonic(), 0
    images = 0
    with (out / DONE).open("a", encoding="utf-8") as file:
        for one in loader:
            file.write(json.dumps(one) + "\n")
            file.flush()
            os.fsync(file.fileno())
            known.append(one)
            images += len(decoded.rows(Block(one.part, one.start)))
            if images * TENTHS // total > tenth:
                tenth = images * TENTHS // total
                rate = images / (time.monotonic() - begun)
                left = (total - images) / rate
                say(f"{images} of {total} images, {rate:.0f} images/s, {left:.0f} s left")
    return {
        name: sorted(row for one in known if one.part == name for row in one.bad) for name in parts
    }


def read_done(path: Path) -> Iterator[Done]:
    """The blocks that are on the disk; a line that was cut short is of none."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield Done(*json.loads(line))


class Blocks(Dataset):
    """Decodes a block and writes it to its place, when it is asked for: (part, start, bad)."""

    def __init__(
        self,
        blocks: list[Block],
        paths: dict[str, list[Path]],
        out: Path,
        size: int,
        data: ImageFiles,
    ) -> None:
        self.blocks = blocks
        self.paths = paths
        self.out = out
        self.size = size
        self.image_size = data.image_size
        self.decode = data.decode
        self.skip_bad = data.skip_bad

    def __len__(self) -> int:
        return len(self.blocks)

    def rows(self, block: Block) -> range:
        """The images of a block."""
        return range(block.start, min(block.start + BLOCK, len(self.paths[block.part])))

    def __getitem__(self, number: int) -> Done:
        block, bad = self.blocks[number], []
        rows = self.rows(block)
        images = torch.zeros(len(rows), self.size, self.size, 3, dtype=torch.uint8)
        for place, row in enumerate(rows):
            try:
                image = self.decode(self.paths[block.part][row])
            except BadImage:
                if not self.skip_bad:
                    raise
                bad.append(row)
            else:
                images[place] = square(image, self.size, self.image_size).permute(1, 2, 0)
        with (self.out / f"{block.part}.npy").open("r+b") as file:
            behind = (len(self.paths[block.part]) - block.start) * row_bytes(self.size)
            file.seek(-behind, os.SEEK_END)
            file.write(images.numpy().data)
            file.flush()
            os.fsync(file.fileno())
        return Done(*block, bad)


def square(
    image: UInt8[Tensor, "3 H W"], size: int, image_size: int
) -> UInt8[Tensor, "3 size size"]:
    """The middle of an image whose short side is made ``size``, by evaluation's own functions.

    Of an odd number of pixels too many, which side has one more is chosen so that the crop of
    ``image_size`` from the middle of the square is that from the middle of the image.
    """
    image = tv.resize(image, [size], antialias=True)
    top, left = (
        begin_of(side, image_size) - begin_of(size, image_size) for side in image.shape[1:]
    )
    return image[:, top : top + size, left : left + size]


def begin_of(side: int, crop: int) -> int:
    """Where torchvision's crop from the middle of a side begins."""
    return round((side - crop) / 2)
