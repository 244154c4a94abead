"""How a step grows: exponents, bends, and the memory of a step."""

import pytest
import torch

from benchmarks import growth


def test_exponents_are_those_of_powers() -> None:
    xs = [1, 2, 8]
    assert growth.exponents(xs, [5, 5, 5]) == [0, 0]
    assert growth.exponents(xs, [x**2 for x in xs]) == pytest.approx([2, 2])


@pytest.mark.parametrize(
    ("ys", "said"),
    [
        ([1, 1, 1.1, 1.2], "1.2 times, nowhere faster than the root of K"),
        ([1, 2, 4, 8], "8.0 times, faster than the root of K throughout"),
        ([1, 1, 2, 4], "4.0 times; it bends at K = 2"),
        ([1, 2, 2, 4], "4.0 times; it bends at K = 4"),  # from where on it is steep for good
        ([1, 2, 2, 2], "2.0 times, flat at the end"),
    ],
)
def test_where_it_bends(ys: list[float], said: str) -> None:
    assert growth.bend("K", [1, 2, 4, 8], ys) == said


def test_there_is_no_minus_nothing() -> None:
    assert growth.two_places(-0.001) == "0.00"
    assert growth.two_places(-0.5) == "-0.50"


def test_the_highest_point_is_on_the_way() -> None:
    assert growth.highest([3, 4, -5, 2, -4]) == 7
    assert growth.highest([]) == 0


def test_the_memory_of_a_step_is_what_it_holds_at_once() -> None:
    x = torch.ones(1000)

    def step() -> None:
        y = x + 1  # 4,000 bytes
        z = y + 1  # and 4,000
        del y
        z + 1  # and again, in the place of y

    step()
    assert growth.peak(step) == pytest.approx(8000, abs=64)  # and the ones themselves


def test_steps_take_turns_each_after_one_that_is_not_timed() -> None:
    taken = []
    steps = [lambda: taken.append("a"), lambda: taken.append("b")]
    assert all(seconds > 0 for seconds in growth.shortest(steps, rounds=2))
    assert taken == ["a", "a", "b", "b"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", growth.TABLES)
def test_a_table_can_be_made(name: str) -> None:
    table = growth.TABLES[name]
    small = growth.Growth(table.of, table.said, table.sizes[:2], table.words)
    lines = list(growth.lines_of(small, ["hardware=cpu"], rounds=1))
    assert len([line for line in lines if line.startswith("|")]) == 4
    assert any(line.startswith("- control") for line in lines)
