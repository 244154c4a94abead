"""Image files to pixels: every format and mode, orientation, damage, and simplejpeg against PIL."""

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import sklearn
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tv

from kd_lightning.data.loading import decoding
from kd_lightning.data.loading.batches import BadImage
from kd_lightning.data.loading.decoding import read_jpeg, read_rgb, read_rgb_from


def save(path, pixels, mode=None, **kwargs):
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path, **kwargs)
    return path


RED = np.full((6, 5, 3), (250, 0, 0))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif"])
def test_every_format_is_decoded_to_rgb_bytes(tmp_path, ending):
    x = read_rgb(save(tmp_path / f"red.{ending}", RED))
    assert x.dtype == torch.uint8
    assert x.shape == (3, 6, 5)
    assert (x.float().mean((1, 2)) - torch.tensor([250.0, 0, 0])).abs().max() < 6


MODES = {"jpg": ["L", "CMYK"], "png": ["RGBA", "P", "1"], "tif": ["CMYK", "L", "P"]}


@pytest.mark.parametrize(("ending", "mode"), [(e, m) for e in MODES for m in MODES[e]])
def test_every_colour_mode_is_decoded_to_three_channels(tmp_path, ending, mode):
    grey = save(tmp_path / f"grey.{ending}", np.full((6, 5, 3), 255), mode)
    assert read_rgb(grey).shape == (3, 6, 5)
    assert (read_rgb(grey) > 250).all()


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png")[1].tolist() == [[0, 1, 128, 255]]


def test_the_format_is_read_from_the_content_and_not_from_the_extension(tmp_path):
    x = read_rgb(save(tmp_path / "photo.JPEG", RED, format="PNG"))  # ImageNet has such a file
    assert x[:, 0, 0].tolist() == [250, 0, 0]


def write_turned(path, orientation, **how):
    tags = Image.Exif()
    tags[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (13, 10, 3))
    return save(path, pixels, exif=tags, **how)


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 do not exist
def test_an_image_is_turned_as_by_pil(tmp_path, monkeypatch, orientation, ending, with_simplejpeg):
    if not with_simplejpeg:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    path = write_turned(tmp_path / f"turned.{ending}", orientation)
    with Image.open(path) as image:
        expected = tv.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    assert torch.equal(read_rgb(path, exif=True), expected)
    assert torch.equal(read_rgb_from(io.BytesIO(path.read_bytes()), "it", exif=True), expected)
    assert read_rgb(path).shape == (expected.shape if ending == "tif" else (3, 13, 10))
    assert expected.shape == ((3, 10, 13) if 5 <= orientation <= 8 else (3, 13, 10))


def test_an_orientation_in_xmp_is_found_as_by_pil(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = save(tmp_path / "xmp.jpg", RED, xmp=xmp)
    with Image.open(path) as image:
        assert ImageOps.exif_transpose(image).size == (6, 5)
    assert read_rgb(path, exif=True).shape == (3, 5, 6)


def test_an_orientation_behind_bytes_between_the_segments_is_found_as_by_pil(tmp_path):
    path = write_turned(tmp_path / "turned.jpg", 6)
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xff" + content[2:])  # fill bytes
    with Image.open(path) as image:
        expected = tv.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == (3, 10, 13)
    assert torch.equal(read_rgb(path, exif=True), expected)


def test_bytes_behind_the_start_of_the_pixels_are_no_orientation(tmp_path):
    path = save(tmp_path / "sound.jpg", RED)
    content = path.read_bytes()
    assert not decoding.has_orientation(content + b"Exif\x00\x00")
    assert decoding.has_orientation(write_turned(path, 6).read_bytes())


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_damaged_orientation_tag_is_ignored(tmp_path, ending):
    damaged = b"Exif\x00\x00XX", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01"
    for number, exif in enumerate(damaged):
        path = save(tmp_path / f"{number}.{ending}", RED, exif=exif)
        assert read_rgb(path, exif=True).shape == (3, 6, 5)


def test_a_turned_image_keeps_channels_last_in_memory(tmp_path):
    x = read_rgb(write_turned(tmp_path / "turned.jpg", 6), exif=True)
    assert x.permute(1, 2, 0).is_contiguous()


def test_of_several_pages_the_first_is_read(tmp_path):
    pages = [Image.new("RGB", (5, 6), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert read_rgb(tmp_path / "pages.tif")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_a_16_bit_tif_is_scaled_and_not_clipped(tmp_path, byte_order):
    values = np.array([[0, 256, 32768, 65535]], dtype=f"{byte_order}u2")
    Image.fromarray(values).save(tmp_path / "grey.tif")
    assert read_rgb(tmp_path / "grey.tif")[1].tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("values", [[0.0, 1.0], [0, 70000], [-1, 5]])
def test_pixels_of_unknown_range_are_refused(tmp_path, values):
    kind = np.float32 if isinstance(values[0], float) else np.int32
    Image.fromarray(np.array([values], dtype=kind)).save(tmp_path / "depth.tif")
    with pytest.raises(BadImage, match=r"depth\.tif .*32-bit numbers, which have no agreed range"):
        read_rgb(tmp_path / "depth.tif")


def test_32_bit_pixels_in_the_range_of_16_bits_are_read(tmp_path):
    Image.fromarray(np.array([[0, 65535]], dtype=np.int32)).save(tmp_path / "grey.tif")
    assert read_rgb(tmp_path / "grey.tif")[0].tolist() == [[0, 255]]


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL warns of damaged tags
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("keep", [0, 30, -40])
def test_a_damaged_file_is_named(tmp_path, ending, keep):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    path = save(tmp_path / f"damaged.{ending}", pixels)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadImage, match=rf"damaged\.{ending} must be an image"):
        read_rgb(path)


def test_a_damaged_chunk_or_header_is_a_bad_image_too(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (160, 160, 3))
    content = bytearray(save(tmp_path / "chunk.png", pixels).read_bytes())
    second = content.index(b"IDAT", content.index(b"IDAT") + 1)
    content[second : second + 4] = b"\x9bO\xa5\xca"
    (tmp_path / "chunk.png").write_bytes(content)
    content = bytearray(save(tmp_path / "huge.bmp", pixels).read_bytes())
    content[18:26] = (100_000).to_bytes(4, "little") * 2  # width and height
    (tmp_path / "huge.bmp").write_bytes(content)
    for name in ("chunk.png", "huge.bmp"):
        with pytest.raises(BadImage, match=name):
            read_rgb(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadImage, match=r"gone\.jpg"):
        read_rgb(tmp_path / "gone.jpg")


# JPEGs with simplejpeg

PHOTOS = [
    Path(sklearn.__file__).parent / f"datasets/images/{name}.jpg" for name in ("china", "flower")
]
PHOTOS.append(Path(matplotlib.__file__).parent / "mpl-data/sample_data/grace_hopper.jpg")


@pytest.fixture
def simplejpeg():
    return pytest.importorskip("simplejpeg")


def by_pil(path, monkeypatch):
    """The file decoded by PIL; None if PIL refuses it."""
    with monkeypatch.context() as patched, warnings.catch_warnings():
        patched.setattr(decoding, "simplejpeg", None)
        warnings.simplefilter("ignore")  # PIL warns of damaged tags
        try:
            return read_rgb(path)
        except BadImage:
            return None


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_photographs_have_the_same_pixels_as_with_pil(simplejpeg, path, monkeypatch):
    assert torch.equal(read_jpeg(path), by_pil(path, monkeypatch))


@pytest.mark.parametrize("size", [(160, 107), (97, 61), (1, 1), (1, 50)])
@pytest.mark.parametrize(
    "how",
    [
        *({"subsampling": s, "progressive": p} for s in (0, 1, 2) for p in (False, True)),
        {"mode": "L"},
        {"keep_rgb": True, "subsampling": 0},
    ],
    ids=str,
)
def test_every_kind_of_jpeg_has_the_same_pixels_as_with_pil(
    simplejpeg, tmp_path, monkeypatch, size, how
):
    with Image.open(PHOTOS[0]) as photo:
        pixels = np.asarray(photo.resize(size))
    path = save(tmp_path / "photo.jpg", pixels, **{"quality": 85, **how})
    assert torch.equal(read_jpeg(path), by_pil(path, monkeypatch))


def test_files_that_pil_must_decode_are_left_to_pil(simplejpeg, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    sound = save(tmp_path / "sound.jpg", pixels)
    assert read_jpeg(sound) is not None
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(sound.read_bytes()[:-40])
    others = [save(tmp_path / "four.jpg", pixels, "CMYK"), save(tmp_path / "a.png", pixels)]
    assert [read_jpeg(path) for path in (*others, cut, tmp_path / "gone.jpg")] == [None] * 4
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)
    assert read_jpeg(sound) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    monkeypatch.setattr(decoding, "simplejpeg", None)
    assert read_jpeg(sound) is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL warns of damaged tags
@pytest.mark.parametrize("progressive", [False, True])
def test_a_damaged_jpeg_is_refused_or_read_as_pil_does(
    simplejpeg, tmp_path, monkeypatch, progressive
):
    with Image.open(PHOTOS[0]) as photo:
        pixels = np.asarray(photo.resize((97, 61)))
    path = save(tmp_path / "photo.jpg", pixels, progressive=progressive)
    sound, rng, read = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([None, rng.randrange(len(sound))])])
        found, expected = read_jpeg(path), by_pil(path, monkeypatch)
        if found is not None:
            read += 1
            assert torch.equal(found, expected)
    assert read > 20


# 16 bits for each pixel, of which the values use 12

COLOURS = {"grey": (0, 1), "colour": (2, 3), "grey and alpha": (4, 2), "colour and alpha": (6, 4)}


def write_16_bit_png(path, values, colour_type):
    """PIL cannot write 16 bits of several channels. ``values``: (height, width, channels)."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("kind", COLOURS)
def test_12_bit_values_in_16_bits_are_refused_and_never_read_as_black(tmp_path, kind):
    colour_type, channels = COLOURS[kind]
    values = np.full((2, 3, channels), 4095)
    values[0, 0] = 700
    if "alpha" in kind:
        values[..., -1] = 65535
    path = write_16_bit_png(tmp_path / "scan.png", values, colour_type)
    with pytest.raises(
        BadImage, match=r"scan.png .*16-bit values reach only .* multiply them by 16"
    ):
        read_rgb(path)
    values[..., : 1 if channels < 3 else 3] *= 16
    x = read_rgb(write_16_bit_png(path, values, colour_type))
    assert x[0].tolist() == [[43, 255, 255], [255, 255, 255]]


@pytest.mark.parametrize("kind", COLOURS)
def test_black_is_black_with_16_bits_too(tmp_path, kind):
    colour_type, channels = COLOURS[kind]
    values = np.zeros((2, 3, channels))
    assert not read_rgb(write_16_bit_png(tmp_path / "black.png", values, colour_type)).any()


def test_a_file_that_says_it_has_12_bits_is_scaled_from_12_bits(tmp_path):
    fields = [(256, 3, 1), (257, 1, 1), (258, 12, 1), (259, 1, 1), (262, 1, 1), (273, 8, 1)]
    fields += [(277, 1, 1), (278, 1, 1), (279, 5, 1)]  # three grey pixels in five bytes
    table = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, value, count in fields)
    pixels = bytes([0xFF, 0xF8, 0x00, 0x01, 0x00])  # 0xFFF, 0x800, 0x010
    content = b"II*\0" + struct.pack("<I", 14) + pixels + b"\0" + struct.pack("<H", len(fields))
    (tmp_path / "12.tif").write_bytes(content + table + bytes(4))
    assert read_rgb(tmp_path / "12.tif")[0].tolist() == [[255, 128, 1]]
