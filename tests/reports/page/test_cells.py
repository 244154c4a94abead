import pytest

from kd_lightning.reports.page.cells import breakable, sort_value


@pytest.mark.parametrize(
    ("cell", "number"),
    [("97.10 ± 0.25", "97.10"), ("1,091,833", "1091833"), ("−0.50", "-0.50"), ("+2", "+2"),
     ("< 0.001", "0.001"), ("59.9 ×", "59.9"), ("2 of 3", "2"), ("", ""), ("done", "")],
)  # fmt: skip
def test_a_cell_sorts_by_its_first_number(cell, number):
    assert sort_value(cell) == number


def test_heads_break_at_slashes_and_are_escaped():
    assert breakable("test/<a>/x") == "test/<wbr>&lt;a&gt;/<wbr>x"
