import itertools
import json
import math

import numpy as np
import pytest
from made_sweeps import job, metrics, settings
from matplotlib.collections import QuadMesh

from kd_lightning import reports
from kd_lightning.reports import heatmap
from kd_lightning.reports.grids import best_cell

TEMPERATURES, THRESHOLDS = [1, 2.5, 8], [0, 0.25]


def grid(folder, more=None, missing=(), has_val=True):
    """Two seeds of every combination: val is 0.5 + T/100 + threshold ± 0.01; test is lower."""
    axes = {"T": TEMPERATURES, "threshold": THRESHOLDS, **(more or {}), "seed": [0, 1]}
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        name = " ".join(f"{key}={value}" for key, value in values.items() if key != "seed")
        val = 0.5 + values["T"] / 100 + values["threshold"] + 0.01 * (2 * values["seed"] - 1)
        outcome = metrics({"a": val - 0.3, "b": val - 0.2}, val if has_val else None)
        if (values["T"], values["threshold"], values["seed"]) in missing:
            outcome = "Boom"
        job(folder, name, values, outcome)
    return folder


def drawn(folder):
    (found,) = reports.build([folder]).grids
    return found, heatmap.draw(found)


def meshes(figure):
    return [c for ax in figure.axes[:-1] for c in ax.collections if isinstance(c, QuadMesh)]


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_every_cell_shows_the_mean_val_accuracy(tmp_path):
    found, figure = drawn(grid(tmp_path))
    (mesh,) = meshes(figure)
    values = [[50 + t + 100 * c for t in TEMPERATURES] for c in THRESHOLDS]
    np.testing.assert_allclose(mesh.get_array(), values)
    std = 100 * math.sqrt(2 * 0.01**2)
    assert sorted(texts(figure)) == sorted(
        f"{value:.2f}\n± {std:.2f}" for row in values for value in row
    )
    assert found.quantity == "val accuracy of the chosen weights, %"


def test_axes_are_named_by_their_keys_and_values(tmp_path):
    _, figure = drawn(grid(tmp_path))
    ax, bar = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("T", "threshold")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2.5", "8"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "0.25"]
    assert bar.get_ylabel() == "val accuracy of the chosen weights, %"


def test_a_missing_cell_is_hatched_and_shows_its_state(tmp_path):
    missing = [(1, 0, 0), (1, 0, 1), (8, 0, 1)]
    _, figure = drawn(grid(tmp_path, missing=missing))
    shown = texts(figure)
    assert shown.count("failed") == 1
    assert [text for text in shown if text.endswith("n = 1 of 2")] == ["57.00\nn = 1 of 2"]
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [pytest.approx((0.01, 0.01))]
    assert np.isnan(np.ma.filled(meshes(figure)[0].get_array(), np.nan)).sum() == 1


def test_a_cell_without_a_job_is_no_failure(tmp_path):
    for t, c in ((1, 0), (2, 0), (2, 1)):
        job(tmp_path, f"{t} {c}", {"T": t, "c": c, "seed": 0}, metrics({"a": 0.9}))
    _, figure = drawn(tmp_path)
    assert texts(figure).count("no job") == 1


def test_the_best_cell_on_val_is_framed(tmp_path):
    _, figure = drawn(grid(tmp_path))
    (frame,) = [p for p in figure.axes[0].patches if p.get_edgecolor() != "none"]
    assert frame.get_xy() == pytest.approx((2.04, 1.04))


def test_without_val_the_map_shows_test_of_the_last_epoch_and_nothing_is_framed(tmp_path):
    found, figure = drawn(grid(tmp_path, has_val=False))
    assert found.quantity == "test accuracy of the last epoch, mean of the students, %"
    # the mean of a and b is val - 0.25, and 0.01 less in the last epoch
    expected = [[50 + t + 100 * c - 26 for t in TEMPERATURES] for c in THRESHOLDS]
    np.testing.assert_allclose(meshes(figure)[0].get_array(), expected)
    assert not figure.axes[0].patches


def test_a_third_axis_makes_panels_with_one_color_scale(tmp_path):
    found, figure = drawn(grid(tmp_path, {"peer": [0, 0.5], "method": ["kd", "dual"]}))
    titles = [ax.get_title() for ax in figure.axes[:-1]]
    assert titles == [f"peer={p}, method={m}" for p in (0, 0.5) for m in ("kd", "dual")]
    scales = {(mesh.norm.vmin, mesh.norm.vmax) for mesh in meshes(figure)}
    assert len(meshes(figure)) == 4
    assert len(scales) == 1
    assert (found.x, found.y) == ("T", "threshold")


def test_each_data_set_has_its_own_file(tmp_path):
    report = reports.build([grid(tmp_path, {"data": ["digits", "a/b"]})])
    assert [grid.name for grid in report.grids] == ["heatmap-digits.png", "heatmap-a-b.png"]
    assert [panel.title for grid in report.grids for panel in grid.panels] == ["", ""]
    reports.write(report, tmp_path)
    assert (tmp_path / "heatmap-a-b.png").exists()


@pytest.mark.parametrize(
    "axes",
    [
        {"T": [1, 2]},
        {"T": [1, 2], "method": ["kd", "x"]},
        {"T": [1, 2], "peer": [True, False]},
        {"T": [1, 2], "constant": [3]},
        {"T": [1, 2], "data.fold": [1, 2]},
    ],
)
def test_fewer_than_two_numeric_axes_have_no_map(tmp_path, axes):
    for values in itertools.product(*axes.values()):
        values = {**dict(zip(axes, values, strict=True)), "seed": 0}
        job(tmp_path, str(values), values, metrics({"a": 0.9}))
    assert not reports.build([tmp_path]).grids


def test_a_search_has_a_map_where_it_tried_the_whole_grid(tmp_path):
    places = [(1, 1), (1, 2), (2, 1)]
    for t, c in places:
        job(tmp_path, f"{t} {c}", {"T": t, "c": c}, metrics({"a": 0.9}))
    settings(tmp_path, search={"trials": 4})
    assert not reports.build([tmp_path]).grids
    job(tmp_path, "2 2", {"T": 2, "c": 2}, metrics({"a": 0.9}))
    assert len(reports.build([tmp_path]).grids) == 1


def test_equal_numbers_and_no_numbers_can_be_drawn(tmp_path):
    for name, outcome in (("equal", metrics({"a": 0.9})), ("failed", "Boom"), ("waiting", None)):
        for t, c in itertools.product([1, 2], [1, 2]):
            job(tmp_path / name, f"{t} {c}", {"T": t, "c": c, "seed": 0}, outcome)
        reports.write(reports.build([tmp_path / name]), tmp_path / name)
        assert (tmp_path / name / "heatmap.png").stat().st_size > 1000


def test_the_map_shows_what_chooses(tmp_path):
    grid(tmp_path)
    for path in tmp_path.glob("jobs/*/metrics.json"):
        outcome = json.loads(path.read_text())
        for net in ("a", "b"):
            outcome["nets"][net]["val"]["robust_accuracy"] = 1 - outcome["objective"]
        path.write_text(json.dumps(outcome))
    settings(tmp_path, chosen_by="val/a/robust_accuracy")
    found, _ = drawn(tmp_path)
    assert found.quantity == "val robust accuracy of the chosen weights, %"
    (best,) = [c for panel in found.panels for c in panel.cells.values() if c is best_cell(found)]
    assert best.sample.mean == pytest.approx(1 - 0.51)


def test_data_sets_whose_names_differ_in_signs_have_files_of_their_own(tmp_path):
    report = reports.build([grid(tmp_path, {"data": ["a b", "a-b"]})])
    assert [found.name for found in report.grids] == ["heatmap-a-b.png", "heatmap-a-b-2.png"]


def test_the_framed_cell_is_the_row_that_the_table_marks(tmp_path):
    """Equal counts of right answers, in float32: the first row counts as the best."""
    for (x, y), right in {(1, 1): (130, 131, 135), (1, 2): (130, 130, 136), (2, 1): (1, 1, 1),
                          (2, 2): (1, 1, 1)}.items():  # fmt: skip
        for seed, count in enumerate(right):
            val = float(np.float32(count) / np.float32(143))
            job(tmp_path, f"x={x} y={y}", {"x": x, "y": y, "seed": seed}, metrics({"a": 0.9}, val))
    report = reports.build([tmp_path])
    (found,) = report.grids
    assert report.tables[0].rows[0][0].startswith("x=1 y=1 ")
    assert [cell.is_best for cell in found.panels[0].cells.values()] == [True, *[False] * 3]
    assert best_cell(found) is found.panels[0].cells[1, 1]


def test_a_dollar_sign_is_no_formula(tmp_path):
    settings(tmp_path, title="loss $L_{kd$ of $x")
    found, figure = drawn(grid(tmp_path, {"peer": ["$a_$b"]}))
    assert found.title == "loss $L_{kd$ of $x"
    figure.savefig(tmp_path / "drawn.png")  # a formula that is wrong would end here
