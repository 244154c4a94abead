"""Decodes image files to RGB, turned as their orientation tag (EXIF) says."""

from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.files import printable
from kd_lightning.data.loading.batches import BadImage

try:  # kd_lightning[jpeg]
    import simplejpeg
except ImportError:
    simplejpeg = None

JPEG = b"\xff\xd8\xff"  # the first bytes of every JPEG file
START_OF_SCAN = b"\xff\xda"  # the pixels of a JPEG come after this marker
ORIENTATION_TAGS = (b"Exif\x00\x00", b"tiff:Orientation")  # a JPEG without them has no orientation
# Of each orientation: whether rows become columns, and then the dimensions (rows, columns) whose
# order is reversed.
TURNS = {
    2: (False, [1]),
    3: (False, [0, 1]),
    4: (False, [0]),
    5: (True, []),
    6: (True, [1]),
    7: (True, [0, 1]),
    8: (True, [0]),
}


def read_rgb(path: Path, *, exif: bool = False) -> UInt8[Tensor, "3 H W"]:
    """Decodes an image file of any colour mode to RGB; transparency is dropped.

    A JPEG is decoded by simplejpeg if the result equals PIL's, anything else by PIL.
    ``torchvision.io.decode_image`` is not used: it is deprecated, reads fewer formats, and returns
    the same values for a JPEG. Of a file with several pages the first one is read.

    Args:
        exif: whether the image is turned as its orientation tag says, as PIL's ``exif_transpose``
            does. A tag that cannot be read is ignored. PIL turns TIFF files in any case.

    Raises:
        BadImage: the file is missing, truncated, not an image, or has pixels of unknown range.
    """
    return read_rgb_from(path, path, exif=exif)


def read_rgb_from(
    source: Path | BytesIO, name: Path | str, *, exif: bool = False
) -> UInt8[Tensor, "3 H W"]:
    """``read_rgb`` for a file or its content; ``name`` is the name in error messages."""
    if (pixels := read_jpeg(source, exif=exif)) is not None:
        return pixels
    try:
        with Image.open(source) as image:
            pixels = tv.pil_to_tensor(with_8_bits(image))
            return turned(pixels, orientation(image)) if exif else pixels
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = printable(str(error).removesuffix(f" {str(source)!r}").replace(repr(source), "it"))
        message = f"{printable(name)} must be an image: {reason}{BadImage.ADVICE}"
        raise BadImage(message, reason) from None


def with_8_bits(image: Image.Image) -> Image.Image:
    """The image as RGB with 8 bits. Its 16-bit grey values are scaled: PIL would clip them at 255.

    Raises:
        ValueError: the values have 32 bits, so that it is unknown which of them is white; or they
            have 16 bits and all are so low that white is probably not 65535.
    """
    form = stored_form(image)
    if not image.mode.startswith(("I", "F")):
        colours = image.convert("RGB")
        if ";16" in form:
            check_white(256 * max(high for _, high in colours.getextrema()))
        return colours
    values = image.convert("I")
    low, high = values.getextrema()
    if image.mode == "F" or low < 0 or high >= 1 << 16:
        raise ValueError("its pixels are 32-bit numbers, which have no agreed range")
    has_12_bits = ";12" in form
    if not has_12_bits:
        check_white(high)
    scale = 1 / 16 if has_12_bits else 1 / 256
    return values.point(lambda value: value * scale).convert("L").convert("RGB")


def stored_form(image: Image.Image) -> str:
    """PIL's name for how the pixels are stored, such as "RGB;16B"; "" if there is none."""
    form = image.tile[0].args if image.tile else ""
    return str(form[0] if isinstance(form, tuple) and form else form)


def check_white(high: int) -> None:
    """Raises ``ValueError`` for 16-bit values that are no brighter than 12-bit values can be: many
    cameras and scanners store 12 bits so, and the image would become nearly black.
    """
    if 0 < high < 1 << 12:
        raise ValueError(
            f"its 16-bit values reach only {high} where white is 65535, as 12-bit values do, so "
            "multiply them by 16"
        )


def read_jpeg(source: Path | BytesIO, *, exif: bool = False) -> UInt8[Tensor, "3 H W"] | None:
    """Decodes a JPEG to RGB with simplejpeg: the same pixels as PIL, faster (benchmarks.loading).

    Returns None if PIL must decode the file: simplejpeg is not installed, the file is damaged or in
    another format, its mode is CMYK (which simplejpeg converts differently), or PIL would warn that
    it is too large.
    """
    if simplejpeg is None:
        return None
    try:
        with source.open("rb") if isinstance(source, Path) else BytesIO(source.getvalue()) as file:
            first_bytes = file.read(len(JPEG))
            if first_bytes != JPEG:
                return None
            data = first_bytes + file.read()
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray") or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        pixels = torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)
        if exif and has_orientation(data):
            with Image.open(BytesIO(data)) as image:  # reads the header and decodes nothing
                return turned(pixels, orientation(image))
        return pixels
    except (OSError, ValueError):
        return None


def has_orientation(data: bytes) -> bool:
    """Whether the segments of a JPEG before its pixels may hold an orientation.

    To search only these takes a tenth of the time of searching the whole file.
    """
    start = 2
    while data[start : start + 1] == b"\xff" and data[start : start + 2] != START_OF_SCAN:
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    is_whole = data[start : start + 2] == START_OF_SCAN
    end = start if is_whole else len(data)  # bytes between segments: look everywhere
    return any(data.find(tag, 0, end) >= 0 for tag in ORIENTATION_TAGS)


def orientation(image: Image.Image) -> int:
    """The orientation in an image's EXIF or XMP data, 1 to 8; 1 (not turned) if there is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # PIL raises many kinds of errors for damaged tags; the pixels are sound
        return 1


def turned(pixels: UInt8[Tensor, "3 H W"], orientation: int) -> UInt8[Tensor, "3 H2 W2"]:
    """The image as it is looked at; the result keeps channels last in memory, as is fastest."""
    if orientation not in TURNS:
        return pixels
    is_transposed, reversed_dims = TURNS[orientation]
    rows = pixels.permute(1, 2, 0)
    rows = rows.transpose(0, 1) if is_transposed else rows
    return rows.flip(reversed_dims).contiguous().permute(2, 0, 1)
