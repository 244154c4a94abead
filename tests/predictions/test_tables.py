"""Arrays and tables of samples: what is read, and what is said of a sample that is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_lightning.predictions.tables import Sample, read_table

SERIES = {"kind": "series", "channels": 1, "size": 4}
CHANNELS = {"kind": "series", "channels": 2, "size": 4}
IMAGES = {"kind": "image", "channels": 3, "size": 2}


def halved(image: Tensor) -> Tensor:
    return image[:, ::2, ::2]


def read(path: Path, given: dict) -> list[Sample]:
    return list(read_table(path, given, halved))


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(("name", "separator"), [("x.csv", ","), ("x.TSV", "\t")])
@pytest.mark.parametrize("header", ["", "t0 t1 t2 t3\n"])
def test_a_row_is_a_series_and_a_header_is_none(
    name: str, separator: str, header: str, tmp_path: Path
) -> None:
    text = f"{header}1 2 3 4\n\n0.5 -1 1e3 0\n".replace(" ", separator)
    (tmp_path / name).write_text(text)
    samples = read(tmp_path / name, SERIES)
    assert [sample.index for sample in samples] == [0, 1]
    assert [sample.x.tolist() for sample in samples] == [[[1, 2, 3, 4]], [[0.5, -1, 1000, 0]]]
    assert {sample.x.dtype for sample in samples} == {torch.float32}


def test_what_is_wrong_with_a_row_is_said_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2,3,4\n1,2,cat,4\n1,2,3\n1,2,nan,4\n4,3,2,1\n")
    samples = read(tmp_path / "x.csv", SERIES)
    assert [sample.error for sample in samples] == [
        "",
        "line 2: expected numbers such as 0.5, got 'cat'",
        "3 values, the student takes series of 4",
        "NaN or infinite values",
        "",
    ]
    assert [sample.x is None for sample in samples] == [bool(s.error) for s in samples]


def test_arrays_are_samples_of_the_students_shape(tmp_path: Path) -> None:
    numbers = np.arange(24.0).reshape(3, 2, 4)
    samples = read(write(tmp_path / "x.npz", x=numbers), CHANNELS)
    assert torch.equal(torch.stack([s.x for s in samples]), torch.from_numpy(numbers).float())
    (sample,) = read(write(tmp_path / "bytes.npz", x=numbers[:1].astype(np.uint8)), CHANNELS)
    assert torch.equal(sample.x, torch.from_numpy(numbers[0]).float())
    (sample,) = read(write(tmp_path / "flat.npz", x=numbers[0, :1], y=numbers), SERIES)
    assert (sample.index, sample.x.shape) == (0, (1, 4))


def test_images_of_the_students_size_are_used_as_they_are_and_others_are_resized(
    tmp_path: Path,
) -> None:
    for side in (2, 4):
        images = np.arange(3 * side * side, dtype=np.uint8).reshape(1, 3, side, side)
        (sample,) = read(write(tmp_path / "x.npz", x=images), IMAGES)
        expected = torch.from_numpy(images[0])
        assert torch.equal(sample.x, expected if side == 2 else halved(expected))
        assert sample.x.dtype == torch.uint8


def test_grey_images_become_colours_and_colours_become_grey(tmp_path: Path) -> None:
    grey = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    (sample,) = read(write(tmp_path / "grey.npz", x=grey), IMAGES)
    assert torch.equal(sample.x, torch.from_numpy(grey[0]).expand(3, 2, 2))
    (sample,) = read(write(tmp_path / "same.npz", x=grey.repeat(3, 1)), {**IMAGES, "channels": 1})
    assert sample.x.shape == (1, 2, 2)
    assert (sample.x.int() - torch.from_numpy(grey[0]).int()).abs().max() <= 1  # rounding


@pytest.mark.parametrize(
    ("shape", "value", "given", "error"),
    [
        ((1, 3, 4), 0.0, CHANNELS, "3 channels, the student takes 2"),
        ((1, 2, 5), 0.0, CHANNELS, "5 values, the student takes series of 4"),
        ((1, 2, 4), np.inf, CHANNELS, "NaN or infinite values"),
        ((1, 4, 2, 2), 0.0, IMAGES, "4 channels, the student takes 3"),
        ((1, 3, 2, 2), 1.5, IMAGES, "images must be uint8 or in [0, 1], got values from 1.5 to"),
    ],
)
def test_a_sample_that_the_student_cannot_take_has_an_error(
    shape: tuple, value: float, given: dict, error: str, tmp_path: Path
) -> None:
    (sample,) = read(write(tmp_path / "x.npz", x=np.full(shape, value)), given)
    assert sample.error.startswith(error)
    assert sample.x is None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"a": np.ones((1, 2, 4))}, "must hold x, it holds a"),
        ({"x": np.ones(3)}, "x must be numbers of shape (N, C, L) or (N, L), got float64 of"),
        ({"x": np.array(["a"] * 4).reshape(1, 1, 4)}, "x must be numbers of shape"),
        (
            {"x": np.array([{}], dtype=object)},
            "must be an array of numbers or text, but it holds Python objects",
        ),
    ],
)
def test_a_file_without_samples_is_one_row_with_an_error(
    content: dict, error: str, tmp_path: Path
) -> None:
    (sample,) = read(write(tmp_path / "x.npz", **content), CHANNELS)
    assert error in sample.error
    assert (sample.index, sample.x) == (None, None)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.npz", b"PK\xff\xfe\x00 not what it says", "is damaged or of another kind: "),
        ("x.npz", b"", "is damaged or of another kind: "),
        ("x.csv", b"PK\xff\xfe\x00", "must be text in UTF-8"),
    ],
)
def test_a_damaged_file_is_one_row_with_an_error(
    name: str, content: bytes, error: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (sample,) = read(tmp_path / name, SERIES)
    assert sample.error.startswith(error)
    assert name not in sample.error


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encoding_and_ends_of_lines_change_no_sample(
    encoding: str, newline: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_bytes(newline.join(["1,2,3,4", "5,6,7,8"]).encode(encoding))
    samples = read(tmp_path / "x.csv", SERIES)
    assert [sample.x.tolist() for sample in samples] == [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]


def test_a_quote_that_is_not_closed_swallows_no_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('"1",2,3,4\n1,"2,3,4\n5,6,7,8\n1,2",3,4\n4,3,2,1\n')
    samples = read(tmp_path / "x.csv", SERIES)
    assert [bool(sample.error) for sample in samples] == [False, True, False, True, False]
    assert [sample.index for sample in samples] == [0, 1, 2, 3, 4]
    assert samples[2].x.tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize("cell", ["1_0", "１２", "", "?", "0,5", "0x1"])
def test_a_cell_that_is_no_usual_number_is_an_error_with_its_line(
    cell: str, tmp_path: Path
) -> None:
    (tmp_path / "x.tsv").write_text(f"1\t2\t3\t4\n\n1\t2\t3\t{cell}\n")
    sound, bad = read(tmp_path / "x.tsv", SERIES)
    assert sound.x is not None
    assert bad.error == f"line 3: expected numbers such as 0.5, got '{cell}'"


def test_an_empty_image_is_said(tmp_path: Path) -> None:
    for kind in (np.float32, np.uint8):
        x = np.zeros((2, 3, 0, 0), dtype=kind)
        given = {"kind": "image", "channels": 3, "size": 8}
        samples = read(write(tmp_path / "x.npz", x=x), given)
        assert [sample.error for sample in samples] == ["an empty sample"] * 2
