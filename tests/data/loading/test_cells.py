"""A cell is a number as it is usually written, a missing value, or refused."""

import math

import pytest

from kd_lightning.data.loading.cells import is_missing, to_number


@pytest.mark.parametrize(
    ("cell", "number"), [("1", 1), (" -0.5 ", -0.5), ("+.5", 0.5), ("1.", 1), ("1e2", 100)]
)
def test_numbers_are_read(cell: str, number: float) -> None:
    assert to_number(cell) == number


@pytest.mark.parametrize("cell", ["", " ", "?", "NaN", " nan "])
def test_a_missing_value_is_nan(cell: str) -> None:
    assert is_missing(cell)
    assert math.isnan(to_number(cell))


@pytest.mark.parametrize(
    "cell", ["1_0", "１２", "−1", "0,5", "0x10", "1d5", "1#2", "1 2", "\ufeff1"]
)
def test_other_text_is_no_number(cell: str) -> None:
    assert not is_missing(cell)
    with pytest.raises(ValueError, match="could not convert string to float"):
        to_number(cell)
