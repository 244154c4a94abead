import pytest
from made_runs import write_run

from kd_lightning import reports
from kd_lightning.reports.page.curves import (
    MAX_POINTS,
    line_figure,
    overview_figure,
    points_of,
    thinned,
)
from kd_lightning.reports.page.records import records_of


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


def test_a_long_line_keeps_the_chosen_epoch():
    points = [(float(i), 0.5) for i in range(1000)]
    points[2] = (2.0, 0.9)
    assert (2.0, 0.9) not in thinned(points)
    assert (2.0, 0.9) in thinned(points, keep=2)
    assert line_figure("t", {"a": points}, "epoch", "y", {"a": 2}).svg.count("ring") == 1


def test_the_best_of_a_run_is_that_of_all_its_epochs(tmp_path):
    folder = write_run(tmp_path / "run", epochs=1000)
    rows = (folder / "epochs.csv").read_text().splitlines()
    cells = rows[3].split(",")
    cells[rows[0].split(",").index("val/accuracy")] = "0.9999"
    (folder / "epochs.csv").write_text("\n".join([*rows[:3], ",".join(cells), *rows[4:]]))
    records = records_of(reports.build([folder]).source.results, [folder])
    assert "best 99.99 %" in overview_figure(records).svg


def test_the_learning_rate_follows_the_steps_over_many_starts(tmp_path):
    folder = write_run(tmp_path / "run")
    for version in range(12):
        place = folder / "csv" / f"version_{version}"
        place.mkdir(parents=True)
        lines = [f"{step},{version}" for step in (10 * version, 10 * version + 10)]
        (place / "metrics.csv").write_text("\n".join(["step,lr/a", *lines]))
    (record,) = records_of(reports.build([folder]).source.results, [folder])
    assert [row["step"] for row in record.steps] == list(range(0, 121, 10))
    assert [row["lr/a"] for row in record.steps] == [*range(12), 11]
