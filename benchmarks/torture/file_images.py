"""Image files of each format: how the framework and how PIL itself reads them."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.torture.file_kind import Kind, Numbers
from kd_lightning.data.image_folder import ImageFolder


def write_images(suffix: str, dtype: str = "u1") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        luck = np.random.default_rng(0)
        for label in "ab":
            folder = root / "train" / label
            folder.mkdir(parents=True)
            for i in range(4):
                shape = (24, 20, 3) if dtype == "u1" else (24, 20)
                pixels = luck.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
                Image.fromarray(pixels).save(folder / f"{i}{suffix}")

    return write


def read_images(root: Path, file: Path) -> Numbers:
    data = ImageFolder(root=str(root), batch_size=2, val_fraction=0, image_size=8)
    data.setup()
    return {"pixels": data.decode(file).numpy()}


def pil_pixels(file: Path) -> Numbers:
    content = file.read_bytes()
    if content.startswith(b"\x89PNG"):
        check_chunks(content)
    with Image.open(file) as image:
        if image.mode.startswith("I"):
            pixels = np.repeat(np.asarray(image)[None] // 256, 3, 0)
        else:
            pixels = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return {"pixels": pixels.astype(np.uint8)}


def check_chunks(content: bytes) -> None:
    """Raises ``ValueError`` if a chunk of a PNG file has another checksum than its content."""
    start, kind = 8, b""
    while kind != b"IEND":
        size = int.from_bytes(content[start : start + 4], "big")
        body, end = content[start + 4 : start + 8 + size], start + 12 + size
        kind = body[:4]
        if zlib.crc32(body) != int.from_bytes(content[end - 4 : end], "big"):
            raise ValueError(f"the checksum of chunk {kind!r} is wrong")
        start = end


KINDS = {
    f"{suffix[1:]}{bits}": Kind(
        "png" if suffix == ".png" else "binary", write_images(suffix, dtype),
        [f"train/a/1{suffix}"], read_images, pil_pixels,
    )
    for suffix, dtype, bits in [
        (".png", "u1", ""), (".png", "u2", ", 16 bits"), (".jpg", "u1", ""), (".webp", "u1", ""),
        (".bmp", "u1", ""), (".tif", "u1", ""), (".tif", "u2", ", 16 bits"),
    ]
}  # fmt: skip
