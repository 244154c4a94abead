"""A changed .npz file is refused, or it is read as before: there are no silent other values."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.npz_files import is_npz, read_npz, received

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    request.param(tmp_path / "mine.npz", x=X, y=np.array(["a", "é", "b"]))
    return tmp_path / "mine.npz"


def rewritten(path: Path, **members: bytes) -> Path:
    """An .npz file whose checksums fit, with other content in some members."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (contents | {f"{k}.npy": v for k, v in members.items()}).items():
            archive.writestr(name, content)
    return path


def stored(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_arrays_are_those_of_numpy(file: Path) -> None:
    arrays = read_npz(file, "data.root")
    with np.load(file) as expected:
        assert list(arrays) == expected.files
        for name, array in arrays.items():
            assert array.dtype == expected[name].dtype
            assert np.array_equal(array, expected[name])


def test_a_changed_byte_is_refused_or_changes_nothing(file: Path) -> None:
    sound, expected, refused = file.read_bytes(), read_npz(file, "data.root"), 0
    for place in range(0, len(sound), 7):
        changed = bytearray(sound)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        try:
            arrays = read_npz(file, "data.root")
        except UserError:
            refused += 1
        else:
            of_same_name = {name: expected[name] for name in arrays if name in expected}
            assert all(np.array_equal(arrays[name], of_same_name[name]) for name in of_same_name)
    assert refused > len(sound) / 14


@pytest.mark.parametrize("kept", [0, 1, 30, -30, -1])
def test_a_cut_file_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"mine.npz is damaged or of another kind"):
        read_npz(file, "data.root")


@pytest.mark.parametrize("shape", ["(3, 2)", "(2, 4)", "(3, 5)", "(3, 4", "(10000000000, 4)"])
def test_a_shape_that_does_not_fit_the_values_is_refused(file: Path, shape: str) -> None:
    content = stored(X)
    old = content[: content.index(b"\n") + 1]
    new = old.rstrip().replace(b"(3, 4)", shape.encode()).ljust(len(old) - 1) + b"\n"
    with pytest.raises(UserError, match=r"mine.npz (is damaged|needs more memory)|'x' in .*memory"):
        read_npz(rewritten(file, x=new + content[len(old) :]), "data.root")


def test_python_objects_are_refused_and_not_unpickled(file: Path) -> None:
    np.savez(file, x=np.array([{}, 1], dtype=object))
    with pytest.raises(UserError, match=r"'x' in .*mine.npz must be an array of numbers or text"):
        read_npz(file, "data.root")


def test_what_is_there_instead_is_said(file: Path) -> None:
    assert is_npz(file)
    assert received(None) == "nothing"
    assert received(file.parent).endswith("which is a folder")
    assert received(file.parent / "gone").endswith("which does not exist")
    file.write_bytes(b"")
    assert received(file).endswith("which is empty")
    file.write_bytes(b"text")
    assert not is_npz(file)
    assert "damaged or another kind of file" in received(file)
