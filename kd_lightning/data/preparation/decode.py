"""``prepare format=arrays``: decodes an image tree once, into one uint8 array for each part.

``data=prepared`` (``data/prepared.py``) reads the result. Each part is a single .npy file: any
program can memory-map it, and an image is a row. The file is allocated at full size first, so that
a full disk is noticed at the start. The loading processes of the data set decode images in blocks.
Each block that is on disk is recorded, so that an interrupted preparation can be resumed.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import atomic_write, format_bytes, printable, write_text
from kd_lightning.base.words import shorten
from kd_lightning.data.loading.batches import BadImage, Samples
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.data.preparation.output_folder import (
    WRITTEN_BLOCKS_FILE,
    check_disk_space,
    finish_output_folder,
    load_parts_and_facts,
    open_output_folder,
)
from kd_lightning.data.prepared import FORMAT, INDEX_FILE

BLOCK_SIZE = 256  # number of images in a block
PROGRESS_STEPS = 10  # how often progress is reported


class Block(NamedTuple):
    """Consecutive images of a part, beginning with number ``start``."""

    part: str
    start: int


class WrittenBlock(NamedTuple):
    """A block that is on disk; ``bad``: numbers of its images that could not be decoded."""

    part: str
    start: int
    bad: list[int]


def decode_tree(data: ImageFiles, out: Path, size: int, say: Callable[[str], None]) -> None:
    """Decodes the images of ``data`` into ``out``, for ``data=prepared``, or resumes doing so.

    Args:
        data: the data set; ``setup`` has not been called, because val is split off from train only
            when the prepared images are used.
        size: S; of each image a square of S x S pixels is kept. For ``data.resize=crop`` the short
            side is resized to S and the centre is kept; else it is the image, resized.

    Raises:
        UserError: ``out`` holds something else, the disk is too full, or an image cannot be
            decoded.
    """
    if size < data.image_size:
        raise UserError(f"size must be >= data.image_size={data.image_size}, got {size}")
    parts, facts = load_parts_and_facts(data, say)
    facts |= {
        "format": FORMAT,
        "size": size,
        "image_size": data.image_size,  # central_square depends on it
        "resize": data.resize,
        "interpolation": data.interpolation,
        "made_by": {"pillow": version("pillow"), "torchvision": torchvision.__version__},
    }
    with open_output_folder(out, facts, INDEX_FILE, say) as is_unfinished:
        if is_unfinished:
            allocate_arrays(parts, out, size, say)
            for part, rows in decode_missing_blocks(parts, data, out, size, say).items():
                facts["parts"][part]["bad"] = rows
                if rows:
                    names = shorten([printable(parts[part].x[row].name) for row in rows])
                    say(f"left out of {part}, as they cannot be decoded: {len(rows)} ({names})")
        finish_output_folder(out, facts, INDEX_FILE)
    say(f"Use it: python -m kd_lightning.run data=prepared data.root={out}")


def allocate_arrays(parts: dict[str, Samples], out: Path, size: int, say: Callable) -> None:
    """Allocates the arrays that do not exist yet.

    Raises:
        UserError: the disk is too full.
    """
    missing = {
        name: len(part) * bytes_per_image(size)
        for name, part in parts.items()
        if not (out / f"{name}.npy").exists()
    }
    check_disk_space(sum(missing.values()), out, f"lower size={size}, or set out=… on another disk")
    for name in missing:
        allocate_array(out / f"{name}.npy", (len(parts[name]), size, size, 3))
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    total = sum(map(len, parts.values())) * bytes_per_image(size)
    say(f"{sizes} images of {size} x {size}: {format_bytes(total)}, in {out}")


def bytes_per_image(size: int) -> int:
    return 3 * size * size


def allocate_array(path: Path, shape: tuple[int, ...]) -> None:
    """Writes a .npy file of uint8 whose full size is reserved on disk, but which holds no data."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        end = file.tell() + int(np.prod(shape))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, end)
        else:
            file.truncate(end)


def decode_missing_blocks(
    parts: dict[str, Samples], data: ImageFiles, out: Path, size: int, say: Callable
) -> dict[str, list[int]]:
    """Decodes and writes the missing blocks; returns the undecodable images of each part."""
    record = out / WRITTEN_BLOCKS_FILE
    written = [block for block in read_written_blocks(record) if data.skip_bad or not block.bad]
    write_text(record, "".join(json.dumps(block) + "\n" for block in written))
    starts = {(block.part, block.start) for block in written}
    missing = [
        Block(name, start)
        for name, part in parts.items()
        for start in range(0, len(part), BLOCK_SIZE)
        if (name, start) not in starts
    ]
    writer = BlockWriter(missing, {name: part.x for name, part in parts.items()}, out, size, data)
    loader = DataLoader(
        writer, batch_size=None, num_workers=data.num_workers, generator=torch.Generator()
    )
    total, begin, step = sum(len(writer.rows(block)) for block in missing), time.monotonic(), 0
    images = 0
    with record.open("a", encoding="utf-8") as file:
        for block in loader:
            file.write(json.dumps(block) + "\n")
            file.flush()
            os.fsync(file.fileno())
            written.append(block)
            images += len(writer.rows(Block(block.part, block.start)))
            if images * PROGRESS_STEPS // total > step:
                step = images * PROGRESS_STEPS // total
                rate = images / (time.monotonic() - begin)
                left = (total - images) / rate
                say(f"{images} of {total} images, {rate:.0f} images/s, {left:.0f} s left")
    return {
        name: sorted(row for block in written if block.part == name for row in block.bad)
        for name in parts
    }


def read_written_blocks(path: Path) -> Iterator[WrittenBlock]:
    """The blocks that are recorded as on disk. A truncated last line is ignored."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield WrittenBlock(*json.loads(line))


class BlockWriter(Dataset):
    """A Dataset whose items are blocks: ``writer[i]`` decodes block i and writes it to disk."""

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
        self.resizing = data.eval_transform()
        self.decode = data.decode
        self.skip_bad = data.skip_bad

    def __len__(self) -> int:
        return len(self.blocks)

    def rows(self, block: Block) -> range:
        """The numbers of the images of a block."""
        return range(block.start, min(block.start + BLOCK_SIZE, len(self.paths[block.part])))

    def __getitem__(self, number: int) -> WrittenBlock:
        block, bad = self.blocks[number], []
        rows = self.rows(block)
        images = torch.zeros(len(rows), self.size, self.size, 3, dtype=torch.uint8)
        for i, row in enumerate(rows):
            try:
                image = self.decode(self.paths[block.part][row])
            except BadImage:
                if not self.skip_bad:
                    raise
                bad.append(row)
            else:
                images[i] = prepared_square(image, self.size, self.resizing).permute(1, 2, 0)
        with (self.out / f"{block.part}.npy").open("r+b") as file:
            to_end = (len(self.paths[block.part]) - block.start) * bytes_per_image(self.size)
            file.seek(-to_end, os.SEEK_END)
            file.write(images.numpy().data)
            file.flush()
            os.fsync(file.fileno())
        return WrittenBlock(*block, bad)


def prepared_square(
    image: UInt8[Tensor, "3 H W"], size: int, resizing: Resizing
) -> UInt8[Tensor, "3 size size"]:
    """The square of side ``size`` that is kept of an image, resized as evaluation does."""
    if resizing.resize == "crop":
        return central_square(image, size, resizing)
    return replace(resizing, image_size=size)(image)


def central_square(
    image: UInt8[Tensor, "3 H W"], size: int, resizing: Resizing
) -> UInt8[Tensor, "3 size size"]:
    """Resizes the short side to ``size``, and crops the central square.

    If the number of surplus pixels is odd, the square cannot be exactly central. It is then placed
    such that the centre crop of ``image_size`` of the square equals that of the resized image.
    """
    image, crop = resizing.resized(image, [size]), resizing.image_size
    top, left = (crop_start(side, crop) - crop_start(size, crop) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def crop_start(side: int, crop: int) -> int:
    """The first pixel of torchvision's centre crop along one side."""
    return round((side - crop) / 2)
