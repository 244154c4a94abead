import pytest

from kd_lightning.reports.page.scales import linear_axis, log_axis, short


@pytest.mark.parametrize("values", [[0.2, 0.9], [0, 1e-6], [-3, 1e9], [5, 5], [0], []])
def test_a_linear_axis_spans_its_values_with_few_round_ticks(values):
    axis = linear_axis("x", values)
    assert all(axis.low <= value <= axis.high for value in values)
    assert 2 <= len(axis.ticks) <= 8
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


@pytest.mark.parametrize("values", [[2400, 300_000], [1, 1e9], [5, 5.5], [7]])
def test_a_log_axis_spans_its_values_with_few_ticks(values):
    axis = log_axis("x", values)
    assert all(axis.low <= value <= axis.high for value in values)
    assert 1 <= len(axis.ticks) <= 7
    assert axis.position(axis.low) == 0
    assert axis.position((axis.low * axis.high) ** 0.5) == pytest.approx(0.5)


def test_not_finite_values_do_not_spoil_an_axis():
    assert linear_axis("x", [1.0, float("nan"), 2.0, float("inf")]).high < 3


def test_numbers_are_short():
    assert [short(v) for v in (0.5, 3000, 12_000, 3.2e6, -2)] == [
        "0.5",
        "3000",
        "12k",
        "3.2M",
        "−2",
    ]
