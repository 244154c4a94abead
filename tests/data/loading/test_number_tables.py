import numpy as np
import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.number_tables import line_of, read_numbers


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "table.txt").write_text(text, encoding="utf-8-sig")
        return tmp_path / "table.txt"

    return write


def test_a_table_is_read_with_its_blank_lines_and_mark_left_out(file):
    values = read_numbers(file("1 2\n\n  3 4\n"), np.int64)
    assert values.tolist() == [[1, 2], [3, 4]]
    values = read_numbers(
        file("a,b,c\n1,x,3\n4,,6\n"), np.float32, use=[2, 0], delimiter=",", skip=1
    )
    assert values.tolist() == [[3, 1], [6, 4]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("\n \n", {}, r"table.txt must be a table of numbers, it has none"),
        ("1 2\n\n3 x\n", {}, r"table.txt, line 3: expected a whole number, got 'x' \(data.root"),
        ("1 2\n3 4.5\n", {}, r"line 2: expected a whole number, got '4.5'"),
        ("1 2\n3 4 5\n", {}, r"line 2: expected 2 columns, got 3"),
        ("1 2\n3 4\n", {"columns": 1}, r"line 1: expected 1 column, got 2"),
        ("a b\n1 2\n3\n", {"skip": 1, "use": [1]}, r"line 3: expected 2 columns, got 1"),
        ("a b\n1\n2\n", {"skip": 1, "use": [1]}, r"line 2: expected 2 columns, got 1"),
        ("a b\n1\n2 3\n", {"skip": 1, "use": [1]}, r"line 2: expected 2 columns, got 1"),
        ("1 2\n3 99999999999999999999\n", {}, r"line 2: expected a whole number, got '9999"),
    ],
)
def test_a_fault_is_named_with_its_line(file, text, options, message):
    with pytest.raises(UserError, match=message):
        read_numbers(file(text), np.int64, **options)


@pytest.mark.parametrize("cell", ["NaN", "inf", "1e39", "0,5"])
def test_numbers_are_finite(file, cell):
    with pytest.raises(UserError, match=rf"line 2: expected a finite number, got '{cell}'"):
        read_numbers(file(f"0.5\n{cell}\n"), np.float32)


def test_the_line_of_a_row_counts_blank_lines(file):
    assert line_of(file("1\n\n2\n"), 1).endswith("table.txt, line 3")


@pytest.mark.parametrize("cell", ["1_0", "１２", "0.5#7", "#"])
def test_a_cell_is_one_number_as_it_is_usually_written(file, cell):
    with pytest.raises(UserError, match=rf"line 2: expected a finite number, got '{cell}'"):
        read_numbers(file(f"0.5\n{cell}\n"), np.float32)


def test_a_line_with_one_cell_more_shifts_nothing(file):
    text = "time\tgsr\n0\t0.5\n1\t9\t0.5\n"
    with pytest.raises(UserError, match=r"line 3: expected 2 columns, got 3"):
        read_numbers(file(text), np.float32, use=[1], delimiter="\t", skip=1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encoding_and_ends_of_lines_change_no_number(tmp_path, encoding, newline):
    path = tmp_path / "table.txt"
    path.write_bytes(newline.join(["1 2", "3 4", ""]).encode(encoding))
    assert read_numbers(path, np.int64).tolist() == [[1, 2], [3, 4]]


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "table.txt").write_bytes("1 2".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"table.txt must be text in UTF-8"):
        read_numbers(tmp_path / "table.txt", np.int64)
