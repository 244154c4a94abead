"""A file that is no file of weights is told from one that is damaged, in one sentence."""

import gzip
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.checkpoints import read_checkpoint

STATE = {"weight": torch.ones(20, 30), "bias": torch.zeros(2)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"


def refusal(path: Path) -> str:
    """The sentence about a file."""
    with pytest.raises(UserError) as raised:
        read_checkpoint(path, "teacher.source")
    message = str(raised.value)
    assert message.startswith(f"{path} ")
    assert message.endswith("(teacher.source=…)")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert " is empty: expected a file of torch.save or safetensors" in refusal(tmp_path / name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP"])
def test_an_image_is_called_an_image(kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    image.save(tmp_path / "net.pt", kind)
    assert f" {kind} image and not a file of weights (" in refusal(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"some words\n" * 200, "is a text file and not a file of weights (2.2 kB): expected"),
        ("größe".encode() * 120, "is a text file and"),
        (b'{"a": 1}', "is a text file and not a file of weights (8 bytes)"),
        (b"\n<!DOCTYPE html><html>", "is a web page (HTML) and"),
        (POINTER, "is a pointer of Git LFS, whose file `git lfs pull` fetches, and"),
        (gzip.compress(b"x", mtime=0), "is a gzip file, which must be unpacked first, and"),
        (b"\0" * 600, "(600 bytes, it begins with the bytes 00 00 00 00 00 00 00 00): expected"),
        (pickle.dumps([1], protocol=2), "is a pickle that torch.save has not written: save the"),
    ],
)
def test_other_files_are_called_what_they_are(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated")
def test_arrays_programs_and_archives_are_no_weights(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.ones(3))
    assert "is a NumPy array and" in refusal(tmp_path / "array.npy")
    np.savez(tmp_path / "arrays.npz", x=np.ones(3), y=np.ones(3), z=np.ones(3))
    assert "is a ZIP file with x.npy, y.npy, … in it and" in refusal(tmp_path / "arrays.npz")
    torch.jit.trace(nn.ReLU(), torch.ones(1)).save(tmp_path / "program.pt")
    assert "is a TorchScript program, whose net's state_dict()" in refusal(tmp_path / "program.pt")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.mkdir("folder")
    assert "is a ZIP file with folder/ in it" in refusal(tmp_path / "none.zip")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_that_was_cut_short_says_its_size(form: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    message = refusal(path)
    assert "is damaged or cut short (" in message
    assert message.endswith("): copy or download it again (teacher.source=…)")
    if share == 0.01:
        assert f"({int(len(whole) * share)} bytes)" in message
    elif form == "safetensors":
        assert f" kB of {len(whole) / 1000:.1f} kB): copy" in message


def test_the_length_of_a_safetensors_header_is_not_taken_for_another_kind(tmp_path: Path) -> None:
    header = {"bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    length = int.from_bytes(b"BM", "little")  # a BMP image begins so
    text = json.dumps(header).ljust(length).encode()
    (tmp_path / "net.pt").write_bytes(length.to_bytes(8, "little") + text + bytes(4))
    assert list(read_checkpoint(tmp_path / "net.pt").states) == [""]


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(STATE, path)
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        assert " cannot be read: Permission denied (" in refusal(path)
    else:
        pytest.skip("this user may read every file")


@pytest.mark.parametrize("end", [{}, "far", None, [1]], ids=str)
def test_a_header_with_other_things_than_places_is_called_damaged(
    end: object, tmp_path: Path
) -> None:
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"a": tensor, "b": {**tensor, "data_offsets": [4, end]}}).encode()
    (tmp_path / "net.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(8)
    )
    assert " is damaged or cut short" in refusal(tmp_path / "net.safetensors")
