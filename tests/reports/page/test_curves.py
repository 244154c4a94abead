import pytest

from kd_lightning.reports.page.curves import MAX_POINTS, line_figure, points_of, thinned


def test_thinned_lines_keep_their_ends():
    points = [(float(i), 0.0) for i in range(1000)]
    found = thinned(points)
    assert len(found) == MAX_POINTS
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert thinned(points[:10]) == points[:10]


def test_missing_and_not_finite_values_are_left_out():
    rows = [{"epoch": 0, "v": 1.0}, {"epoch": 1}, {"epoch": 2, "v": float("nan")}]
    assert points_of(rows, "v", scale=100) == [(0, 100)]


def test_a_chart_without_lines_is_none():
    assert line_figure("t", {"a": []}, "x", "y") is None


@pytest.mark.parametrize(
    ("values", "is_log"), [([100, 1], True), ([10, 1], False), ([100, 0], False)]
)
def test_a_loss_over_orders_of_magnitude_has_a_logarithmic_axis(values, is_log):
    figure = line_figure("t", {"a": list(enumerate(values))}, "x", "y")
    ticks = [text.split("<")[0] for text in figure.svg.split('text-anchor="end">')[1:]]
    ratio = float(ticks[-1]) / float(ticks[0]) if float(ticks[0]) else 0
    assert (ratio >= 10) == is_log


def test_the_chosen_epoch_has_a_ring():
    figure = line_figure("t", {"a": [(0, 1), (1, 2)]}, "epoch", "y", {"a": 1})
    assert figure.svg.count("ring") == 1
    assert "chosen on val, epoch 1, 2" in figure.svg
