"""benchmarks.growth: exponents, summaries, and the memory of a step."""

import pytest
import torch

from benchmarks import growth


def test_exponents_of_powers() -> None:
    xs = [1, 2, 8]
    assert growth.exponents(xs, [5, 5, 5]) == [0, 0]
    assert growth.exponents(xs, [x**2 for x in xs]) == pytest.approx([2, 2])


@pytest.mark.parametrize(
    ("ys", "text"),
    [
        ([1, 1, 1.1, 1.2], "1.2 times, nowhere faster than sqrt(K)"),
        ([1, 2, 4, 8], "8.0 times, everywhere faster than sqrt(K)"),
        ([1, 1, 2, 4], "4.0 times, faster than sqrt(K) from K = 2 on"),
        ([1, 2, 2, 4], "4.0 times, faster than sqrt(K) from K = 4 on"),  # only the last interval
        ([1, 2, 2, 2], "2.0 times, not faster than sqrt(K) at the end"),
    ],
)
def test_the_summary_of_a_growth(ys: list[float], text: str) -> None:
    assert growth.summary("K", [1, 2, 4, 8], ys) == text


def test_minus_zero_is_written_as_zero() -> None:
    assert growth.two_places(-0.001) == "0.00"
    assert growth.two_places(-0.5) == "-0.50"


def test_the_highest_sum_may_be_in_the_middle() -> None:
    assert growth.highest_sum([3, 4, -5, 2, -4]) == 7
    assert growth.highest_sum([]) == 0


def test_the_memory_of_a_step_is_what_it_holds_at_the_same_time() -> None:
    x = torch.ones(1000)

    def step() -> None:
        y = x + 1  # 4,000 bytes
        z = y + 1  # 4,000 bytes more
        del y
        z + 1  # 4,000 bytes again, after those of y were freed

    step()
    assert growth.peak(step) == pytest.approx(8000, abs=64)  # small: the scalars


def test_steps_take_turns_and_each_runs_once_untimed_before() -> None:
    order = []
    steps = [lambda: order.append("a"), lambda: order.append("b")]
    assert all(seconds > 0 for seconds in growth.shortest(steps, rounds=2))
    assert order == ["a", "a", "b", "b"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", growth.TABLES)
def test_a_table_can_be_made(name: str) -> None:
    table = growth.TABLES[name]
    small = growth.Growth(table.of, table.description, table.sizes[:2], table.words)
    lines = list(growth.lines_of(small, ["hardware=cpu"], rounds=1))
    assert len([line for line in lines if line.startswith("|")]) == 4
    assert any(line.startswith("- control") for line in lines)
