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
