"""What cannot be read of a person's file is one sentence with its name, its line and its key."""

import os
import tokenize
import zlib
from pathlib import Path
from zipfile import BadZipFile

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import read_json, read_lines, read_text, reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encoding_and_ends_of_lines_change_no_text(
    tmp_path: Path, encoding: str, newline: str
) -> None:
    (tmp_path / "names").write_bytes(f"café{newline}01{newline}".encode(encoding))
    assert read_lines(tmp_path / "names", "data.root") == ["café", "01", ""]


@pytest.mark.parametrize(
    "content", ["cat".encode("utf-16-be"), "cat".encode("utf-32"), b"\xff\xfec", b"a\0b"]
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(UserError, match=r"names must be text in UTF-8, Latin-1, .*\(data.root=…\)"):
        read_text(tmp_path / "names", "data.root")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone cannot be read: No such file .*\(data.root=…\)"):
        read_text(tmp_path / "gone", "data.root")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_text(tmp_path, "data.root")


@pytest.mark.parametrize(
    "error",
    [
        *(EOFError(), KeyError("x"), ValueError("a. B"), TypeError("\0"), RecursionError("deep")),
        *(BadZipFile("bad"), zlib.error("bad"), tokenize.TokenError("EOF", (1, 2))),
        *(NotImplementedError(), OverflowError("large"), OSError(5, "Input/output error")),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_library_raises_becomes_one_printable_sentence(error: Exception) -> None:
    path = Path(os.fsdecode(b"caf\xe9.npz"))
    with pytest.raises(UserError) as caught, reading(path, "data.root"):
        raise error
    said = str(caught.value)
    assert said.startswith(r"caf\xe9.npz ")
    assert said.endswith(" (data.root=…)")
    assert said.isprintable()
    assert ". " not in said
    assert caught.value.__cause__ is error


def test_a_sentence_that_is_one_already_stays() -> None:
    with pytest.raises(UserError, match=r"^mine$"), reading(Path("x"), "data.root"):
        raise UserError("mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": }', r"a.json, line 2, column 7: expected JSON \(Expecting value\)"),
        ("", r"a.json, line 1, column 1: expected JSON"),
        ('{"a": 1} 2', r"a.json, line 1, column 10: expected JSON \(Extra data\)"),
        ("[" * 100_000, r"a.json is JSON in too many levels"),
    ],
)
def test_what_is_no_json_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_json(tmp_path / "a.json", "data.root")


def test_json_is_read_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ["é"]}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", "data.root") == {"a": ["é"]}
