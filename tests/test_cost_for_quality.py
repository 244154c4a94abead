"""benchmarks.cost_for_quality: costs worked out by hand, and what is committed."""

from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import cost_for_quality, equal_time
from benchmarks.cost_for_quality import EQUAL_IMAGES, EQUAL_TIME, Point, front
from benchmarks.pictures import save
from benchmarks.training_costs import FLOPS, LABELS, TIME, costs
from kd_lightning.reports.job_results import read_jsonl

BY_TIME = (TIME, False)


@pytest.fixture(scope="module")
def found() -> list[Point]:
    return cost_for_quality.points()


def point_of(found: list[Point], name: str, study: str) -> Point:
    (point,) = (p for p in found if (p.name, p.study) == (name, study))
    return point


def test_a_training_costs_its_epochs_its_stage_and_its_teacher() -> None:
    # zoo_cost.md: a step of KD's teacher takes 2.01 of one of KD, for 20 epochs; SFTN's teacher
    # 1.23 of that; MAG's step 1.03, and its stage, 4 of 15 epochs, 0.65
    time = costs(TIME)
    assert time["kd"].of_training(15, with_teacher=False) == 15
    assert time["kd"].of_training(15, with_teacher=True) == pytest.approx(15 + 40.2)
    assert time["SFTN"].of_training(15, with_teacher=False) == pytest.approx(15 + 40.2 * 0.23)
    assert time["SFTN"].of_training(15, with_teacher=True) == pytest.approx(15 + 40.2 * 1.23)
    mag = 15 * (1.03 + 4 / 15 * 0.65)
    assert time["MAG"].of_training(15, with_teacher=False) == pytest.approx(mag)
    for counted in (False, True):  # no teacher
        assert costs(FLOPS)["TESKD"].of_training(15, with_teacher=counted) == pytest.approx(8.1)


def test_rows_of_both_studies_are_the_same_systems(found: list[Point]) -> None:
    at_equal_images = [point.name for point in found if point.study == EQUAL_IMAGES]
    at_equal_time = [point.name for point in found if point.study == EQUAL_TIME]
    assert set(at_equal_time) - set(at_equal_images) == {equal_time.WITH_TEACHERS_TIME}
    assert set(at_equal_images) < set(at_equal_time)


@pytest.mark.parametrize("study", [EQUAL_IMAGES, EQUAL_TIME])
def test_epochs_are_those_of_the_records(study: str, found: list[Point]) -> None:
    records = read_jsonl(cost_for_quality.RESULTS / study / "seed_0" / "records.jsonl")
    for record in records:
        points = [p for p in found if (p.name, p.study) == (record.variant, study)]
        for point in points:
            assert f"trainer.max_epochs={point.epochs}" in record.overrides, record.variant
            assert record.overrides.count("trainer.max_epochs") <= 1


def test_labels_only_in_the_teachers_time_costs_its_epochs(found: list[Point]) -> None:
    point = point_of(found, equal_time.WITH_TEACHERS_TIME, EQUAL_TIME)
    assert point.costs[BY_TIME] == point.costs[TIME, True] == 143 * costs(TIME)[LABELS].epoch


def test_a_difference_is_system_minus_kd(found: list[Point]) -> None:
    labels = point_of(found, LABELS, EQUAL_IMAGES)  # in the study it is KD minus labels only
    kd = point_of(found, "kd", EQUAL_IMAGES)
    assert labels.minus_kd is not None
    mean, low, high = labels.minus_kd
    assert mean == pytest.approx(labels.mean - kd.mean)
    assert low < mean < high < 0
    assert kd.minus_kd is None


def test_the_front_has_what_no_cheaper_one_reaches() -> None:
    def at(cost: float, mean: float) -> Point:
        return Point("", EQUAL_TIME, 1, {BY_TIME: cost}, mean, 0.0, None)

    cheap, better, worse, level, best = at(1, 0.5), at(2, 0.6), at(2, 0.4), at(3, 0.6), at(4, 0.7)
    assert front([best, level, worse, better, cheap], BY_TIME) == [cheap, better, best]


def test_the_committed_table_is_what_the_records_give(
    found: list[Point], capsys: pytest.CaptureFixture[str]
) -> None:
    cost_for_quality.main([])
    assert capsys.readouterr().out.strip() == cost_for_quality.TABLE.read_text().strip()


def test_the_committed_picture_is_what_the_records_give(found: list[Point], tmp_path: Path) -> None:
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text().splitlines()
    if f"matplotlib=={version('matplotlib')}" not in pins:
        pytest.skip("another version of matplotlib than the pinned one, which made it")
    save(cost_for_quality.draw(found), tmp_path / "cost_for_quality.svg")
    made = (tmp_path / "cost_for_quality.svg").read_text()
    assert made == cost_for_quality.PICTURE.read_text()
    assert "test accuracy, %" in made
