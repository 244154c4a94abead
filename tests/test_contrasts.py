"""benchmarks.contrasts: numbers from small tables worked out by hand, and what is committed."""

import csv
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import PAGES
from scipy import stats

from benchmarks import contrasts
from benchmarks.contrasts import Interval, differences, over_data_sets
from benchmarks.pictures import FOLDER, save
from kd_lightning.reports.statistics import detectable_mean

HEAD = "a,b,data_set,column,column_b,difference,low,high\n"


def test_a_difference_is_that_of_its_pair_and_column_in_points(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(
        f"{HEAD}kd,labels only,,test/a/accuracy,test/a/accuracy,0.04,0.01,0.07\n"
        "kd,labels only,,test/b/accuracy,test/b/accuracy,0.5,0.5,0.5\n"
        "kd,labels only,,test/a/accuracy,test/ensemble/accuracy,0.5,0.5,0.5\n"
        "kd + peer,kd,,test/a/accuracy,test/a/accuracy,0.5,0.5,0.5\n"
    )
    found = differences(tmp_path, "kd", "labels only", "test/a/accuracy")
    assert found == {"": pytest.approx(Interval(4, 1, 7))}


def test_the_mean_over_data_sets_counts_each_once() -> None:
    # 1 and 3: mean 2, standard error 1, and Student's t with one degree of freedom is 12.706
    found = {"one": Interval(1, 0, 2), "other": Interval(3, -9, 15)}
    assert over_data_sets(found) == pytest.approx(Interval(2, 2 - 12.706, 2 + 12.706), abs=1e-3)


def test_each_pair_that_is_drawn_is_in_the_tables() -> None:
    for part in contrasts.DUAL_PARTS.values():
        for pair in contrasts.DUAL_PAIRS:
            assert len(differences(contrasts.RESULTS / part, *pair, "last/a/accuracy")) == 1
    for pair, studies in contrasts.SSD_PAIRS.items():
        for study in studies:
            found = differences(contrasts.RESULTS / study, *pair, "test/student/accuracy")
            assert len(found) == 8
    for other in contrasts.FINETUNED_PAIRS:
        for column in ("test/student/accuracy", "last/student/accuracy"):
            assert len(differences(contrasts.RESULTS / "ssd_finetune", "SSD", other, column)) == 1


@pytest.mark.parametrize("name", contrasts.PICTURES)
def test_the_committed_picture_is_what_the_tables_give(name: str, tmp_path: Path) -> None:
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text().splitlines()
    if f"matplotlib=={version('matplotlib')}" not in pins:
        pytest.skip("another version of matplotlib than the pinned one, which made it")
    save(contrasts.PICTURES[name](), tmp_path / name)
    assert (tmp_path / name).read_text() == (FOLDER / name).read_text()


def test_what_is_drawn_as_declared_is_so_in_the_table() -> None:
    with (contrasts.RESULTS / "ssd_finetune" / "pairs.csv").open(newline="") as file:
        named = {row["b"] for row in csv.DictReader(file) if row["contrast"] == "primary"}
    assert named == {other for other, declared in contrasts.FINETUNED_PAIRS.items() if declared}


def test_the_page_says_how_much_the_differences_varied() -> None:
    found = []
    for a in ("kd + confidence (mean 1)", "kd + peer", "dual_student (mean 1)"):
        (value,) = differences(
            contrasts.RESULTS / "dual_contrasts", a, "kd", "last/a/accuracy"
        ).values()
        found.append((value.high - value.mean) / stats.t.ppf(0.975, 9) * 10**0.5)
    said = f"these differences varied by {min(found):.1f} to {max(found):.1f} points"
    assert said in " ".join(PAGES["docs/studies.md"].split())


def test_the_page_says_how_much_the_fine_tuned_differences_varied() -> None:
    found = []
    for other, declared in contrasts.FINETUNED_PAIRS.items():
        if declared:
            folder = contrasts.RESULTS / contrasts.FINETUNED
            (value,) = differences(folder, "SSD", other, "test/student/accuracy").values()
            found.append((value.high - value.mean) / stats.t.ppf(0.975, 19) * 20**0.5)
    said = f"These differences varied by {min(found):.1f} to {max(found):.1f} points from seed"
    assert said in " ".join(PAGES["docs/studies.md"].split())
    sees = [detectable_mean(20, std, level=0.05 / 4) for std in (min(found), max(found))]
    said = f"so the study could see {sees[0]:.1f} to {sees[1]:.1f} points"
    assert said in " ".join(PAGES["docs/studies.md"].split())
    said = f"They varied by {min(found):.1f} to {max(found):.1f} points from seed to seed."
    assert said in " ".join((contrasts.RESULTS / "README.md").read_text().split())
