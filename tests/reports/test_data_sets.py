import io
import math

import pytest
from made_sweeps import job, metrics, settings
from rich.console import Console
from scipy import stats

from kd_lightning import reports
from kd_lightning.reports import assemble, data_sets

# row -> its accuracy on each data set
MEANS = {
    "dual": [0.90, 0.80, 0.70, 0.95],
    "kd": [0.85, 0.81, 0.60, 0.90],
    "labels": [0.80, 0.70, 0.50, 0.90],
}
NAMES = ["Coffee", "GunPoint", "OSULeaf", "Plane"]


def sweep(folder, means=MEANS, seeds=2, key="data.name"):
    """The seeds' values are spread evenly around the mean."""
    for seed in range(seeds):
        for name, values in means.items():
            for data_set, value in zip(NAMES, values, strict=False):
                offset = 0.01 * (seed - (seeds - 1) / 2)
                outcome = value if isinstance(value, str) else metrics({"a": value + offset}, value)
                job(folder, name, {"variant": name, key: data_set, "seed": seed}, outcome)
    return folder


def tables(folder, **options):
    return [t for t in reports.build([folder], **options).tables if t.name == "data_sets"]


def test_each_data_set_has_its_own_table_and_its_own_chosen_row(tmp_path):
    found = [t for t in reports.build([sweep(tmp_path)]).tables if t.name == "table"]
    assert [table.title.partition(": ")[2] for table in found] == NAMES
    assert [[row[0] for row in table.rows if "*" in row[0]] for table in found] == [
        ["dual *"], ["kd *"], ["dual *"], ["dual *"],
    ]  # fmt: skip
    assert found[0].rows[1][3] == "85.00 ± 0.71"


def test_the_table_has_a_column_for_each_data_set_the_mean_and_the_mean_rank(tmp_path):
    (table,) = tables(sweep(tmp_path))
    assert table.heads == ["variant", *NAMES, "mean", "mean rank"]
    cells = [f"{100 * mean:.2f} ± 0.71" for mean in [*MEANS["dual"], 0.8375]]
    assert table.rows[0] == ["dual", *cells, "1.25"]
    # kd is second, except on GunPoint (first) and on Plane (it shares ranks 2 and 3)
    assert [row[-1] for row in table.rows] == ["1.25", "1.88", "2.88"]


def test_the_friedman_p_is_that_of_scipy_and_nemenyi_is_named(tmp_path):
    (table,) = tables(sweep(tmp_path))
    p = stats.friedmanchisquare(*MEANS.values()).pvalue
    # Demšar's table 5: q = 2.343 for three rows
    difference = 2.343 * math.sqrt(3 * 4 / (6 * 4))
    assert (
        f"Friedman test of 3 rows on 4 data sets: p = {p:.3f}. Nemenyi post-hoc test: two mean "
        f"ranks differ significantly (level 5%) if they are more than {difference:.2f} apart."
    ) in table.notes


def test_two_rows_or_two_data_sets_are_not_tested(tmp_path):
    two_rows = {name: MEANS[name] for name in ("dual", "kd")}
    two_sets = {name: values[:2] for name, values in MEANS.items()}
    for number, means in enumerate((two_rows, two_sets)):
        report = reports.build([sweep(tmp_path / str(number), means)])
        assert not report.diagrams
        assert "Friedman" not in " ".join(report.tables[-1].notes)
        assert report.tables[-1].heads[-1] == "mean rank"


def test_equal_rows_are_not_tested(tmp_path):
    found = reports.build([sweep(tmp_path, {name: MEANS["kd"] for name in "abc"})])
    assert "all rows are equal" in " ".join(found.tables[-1].notes)
    assert not found.diagrams
    assert {row[-1] for row in found.tables[-1].rows} == {"2.00"}


def test_ranks_leave_out_a_data_set_without_a_result_of_a_row_and_a_note_says_so(tmp_path):
    (table,) = tables(sweep(tmp_path, {**MEANS, "kd": [0.85, "Boom", 0.60, 0.90]}))
    assert table.rows[1][2] == ""
    assert (
        "Means and ranks leave out the data sets on which a row has no result: GunPoint."
    ) in table.notes
    # the mean of 0.85, 0.60 and 0.90, and dual's mean on the same three data sets
    assert [row[-2] for row in table.rows[:2]] == ["85.00 ± 0.71", "78.33 ± 0.71"]
    assert [row[-1] for row in table.rows] == ["1.00", "2.17", "2.83"]


def test_pairs_have_a_wilcoxon_test_over_the_means_of_the_data_sets(tmp_path):
    _, table = tables(sweep(tmp_path), pairs=[["dual", "kd"], ["kd", "labels"]])
    p = stats.wilcoxon([0.05, -0.01, 0.10, 0.05], method="auto").pvalue
    assert table.rows[0][:3] == ["dual − kd", "a", "4"]
    assert table.rows[0][3] == "+4.75"
    # 4.75 -+ t(0.975, 3) 4.5 / 2, the standard deviation of 5, -1, 10, 5 being 4.5
    assert table.rows[0][4] == "−2.41 to +11.91"
    assert table.rows[0][5] == f"{p:.3f}"
    # Plane is equal: 0.05, 0.11, 0.10 of one sign
    assert table.rows[1][5] == "0.250"
    assert table.rows[1][6] == "0.500"
    # the other pair differs on all four
    low = [note for note in table.notes if "cannot be below" in note]
    assert low == [
        "Where only 3 data sets differ, p cannot be below 0.25.",
        "Where only 4 data sets differ, p cannot be below 0.125.",
    ]


def test_too_many_pairs_for_so_few_data_sets_are_named(tmp_path):
    for place in range(6):
        for row, accuracy in (("dual", 0.8 + place / 50), ("kd", 0.7), ("labels", 0.6)):
            axes = {"variant": row, "data.name": f"set {place}", "seed": 0}
            job(tmp_path, row, axes, metrics({"a": accuracy}))
    three = [["dual", "kd"], ["kd", "labels"], ["dual", "labels"]]
    said = (
        "With Holm's correction for the 3 pairs of a, p cannot be below 0.0938 where only 6 data "
    )
    _, table = tables(settings(tmp_path, pairs=three))
    assert any(note.startswith(said) for note in table.notes)
    _, table = tables(settings(tmp_path, pairs=three, primary=three[:1]))
    assert [row[1] for row in table.rows] == ["primary", "exploratory", "exploratory"]
    assert not any(" be below" in note for note in table.notes)


def test_a_pair_with_few_differences_hides_no_note_on_the_others(tmp_path):
    for place in range(6):
        odd = 0.7 if place else 0.71  # differs from kd on one data set alone
        accuracies = {"dual": 0.8 + place / 50, "kd": 0.7, "labels": 0.6, "odd": odd}
        for row, accuracy in accuracies.items():
            axes = {"variant": row, "data.name": f"set {place}", "seed": 0}
            job(tmp_path, row, axes, metrics({"a": accuracy}))
    pairs = [["dual", "kd"], ["kd", "labels"], ["odd", "kd"]]
    _, table = tables(settings(tmp_path, pairs=pairs))
    low = [note.partition(",")[0] for note in table.notes if " be below" in note]
    assert low == [
        "Where only 1 data set differs",
        "With Holm's correction for the 3 pairs of a",
    ]


def test_equal_differences_have_an_interval_without_width_and_a_note(tmp_path):
    for place in range(3):
        for row, accuracy in (("dual", 0.79), ("kd", 0.8)):
            axes = {"variant": row, "data.name": f"set {place}", "seed": 0}
            job(tmp_path, row, axes, metrics({"a": accuracy}))
    *_, table = tables(settings(tmp_path, pairs=[["dual", "kd"]]))
    assert table.rows[0][4] == "−1.00 to −1.00"
    assert any("the interval has no width" in note for note in table.notes)


def test_a_mean_uses_all_jobs_where_one_is_missing(tmp_path):
    """kd lacks its weak seed on one data set: the mean is that of the cells, without deviation."""
    values = {"Coffee": [0.6, 0.8], "Plane": [0.5, 0.7]}
    for data_set, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            axes = {"variant": "kd", "data.name": data_set, "seed": seed}
            outcome = "Boom" if (data_set, seed) == ("Coffee", 0) else metrics({"a": value})
            job(tmp_path, "kd", axes, outcome)
    (table,) = tables(tmp_path)
    assert table.rows[0][1:4] == ["80.00 (n = 1 of 2)", "60.00 ± 14.14", "70.00"]


def test_pairs_are_tested_to_be_equal_over_the_data_sets(tmp_path):
    above = [0.002, -0.001, 0.004, 0.0, 0.003, -0.002]
    for place, more in enumerate(above):
        for row, accuracy in (("dual", 0.8 + more), ("kd", 0.8)):
            axes = {"variant": row, "data.name": f"set {place}", "seed": 0}
            job(tmp_path, row, axes, metrics({"a": accuracy}))
    pair = [["dual", "kd"]]
    *_, table = tables(settings(tmp_path, pairs=pair))
    assert table.heads[-1] == "p, Holm"
    *_, table = tables(settings(tmp_path, pairs=pair, margin=0.5))
    p = stats.ttest_1samp(above, 0.005, alternative="less").pvalue  # the larger of the two
    assert p > stats.ttest_1samp(above, -0.005, alternative="greater").pvalue
    assert table.heads[-1] == "p, within ±0.5"
    assert table.rows[0][-1] == f"{p:.3f}"
    assert any("over the n data sets, with Holm" in note for note in table.notes)


def test_data_sets_on_which_all_rows_are_equal_are_named(tmp_path):
    table, *_ = tables(sweep(tmp_path))
    assert not any("no difference can be seen" in note for note in table.notes)
    for place, name in enumerate(["Coffee", "Beef"]):
        for row in ("dual", "kd", "labels"):
            axes = {"variant": row, "data.name": name, "seed": 0}
            accuracy = 1.0 - place * (0.2 if row == "kd" else 0.1)
            job(tmp_path / "more", row, axes, metrics({"a": accuracy}))
    (table,) = tables(tmp_path / "more")
    assert any(note.endswith("no difference can be seen, on: Coffee.") for note in table.notes)


def test_pairs_are_tested_on_each_data_set_too(tmp_path):
    report = reports.build([sweep(tmp_path)], pairs=[["dual", "kd"]])
    assert [difference.data_set for difference in report.differences] == NAMES
    (table,) = [table for table in report.tables if table.name == "pairs"]
    assert table.rows[0][0] == "dual − kd on Coffee"


def test_the_keys_that_name_a_data_set_are_a_setting(tmp_path):
    sweep(tmp_path, key="data.subject")
    with pytest.raises(Exception, match="two results for dual, seed 0"):
        reports.build([tmp_path])
    settings(tmp_path, data_sets=["data.subject"])
    assert len(tables(tmp_path)) == 1


def test_without_scikit_posthocs_a_note_replaces_the_diagram(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "find_spec", lambda name: None)
    found = reports.build([sweep(tmp_path)])
    assert not found.diagrams
    assert "pip install kd_lightning[stats]" in " ".join(found.tables[-1].notes)


def test_the_critical_difference_agrees_with_scikit_posthocs(tmp_path):
    pandas = pytest.importorskip("pandas")
    posthocs = pytest.importorskip("scikit_posthocs")
    (comparison,) = reports.build([sweep(tmp_path)]).comparisons
    p = posthocs.posthoc_nemenyi_friedman(pandas.DataFrame(comparison.means))
    ranks = list(comparison.mean_ranks().values())
    for i, a in enumerate(ranks):
        for j, b in enumerate(ranks):
            if i != j:
                apart = abs(a - b) > comparison.critical_difference()
                assert apart == (p.iloc[i, j] < data_sets.ALPHA)


def test_a_cell_with_a_missing_seed_says_so_and_a_note_too(tmp_path):
    sweep(tmp_path)
    job(tmp_path, "kd", {"variant": "kd", "data.name": "Plane", "seed": 2}, "out of memory")
    (table,) = tables(tmp_path)
    assert table.rows[1][4] == "90.00 ± 0.71 (n = 2 of 3)"
    assert (
        "Where jobs are missing (n = … of …), means and ranks use the jobs that are done, so rows "
        "may differ by their seeds; the pairs compare equal seeds alone."
    ) in table.notes


def test_the_deviation_of_a_mean_is_over_seeds_and_not_over_data_sets(tmp_path):
    """The data sets differ a lot, but the seeds' means over the data sets do not."""
    values = {"Coffee": [0.9, 0.8], "Plane": [0.3, 0.5]}
    for data_set, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            axes = {"variant": "kd", "data.name": data_set, "seed": seed}
            job(tmp_path, "kd", axes, metrics({"a": value}))
    (table,) = tables(tmp_path)
    # the seeds' means are 0.60 and 0.65
    assert table.rows[0][3] == f"62.50 ± {100 * 0.05 / math.sqrt(2):.2f}"


def test_data_sets_without_a_seed_in_common_have_a_mean_without_deviation(tmp_path):
    for seed, (data_set, value) in enumerate({"Coffee": 0.9, "Plane": 0.3}.items()):
        axes = {"variant": "kd", "data.name": data_set, "seed": seed}
        job(tmp_path, "kd", axes, metrics({"a": value}))
    (table,) = tables(tmp_path)
    assert table.rows[0][3] == "60.00"


def many(folder):
    """Two rows on more data sets than the table has columns for; one job has failed."""
    for number in range(data_sets.MAX_COLUMNS + 1):
        for name in ("kd", "dual"):
            axes = {"variant": name, "data.fold": number, "seed": 0}
            failed = (name, number) == ("kd", 4)
            job(folder, name, axes, "Boom" if failed else metrics({"a": 0.5 + number / 100}))
    return settings(folder, pairs=[["dual", "kd"], ["dual", "ghost"]])


def test_many_data_sets_have_no_columns_and_their_tables_come_last(tmp_path):
    report = reports.build([many(tmp_path)])
    first, *others = report.tables
    assert first.heads == ["variant", "mean", "mean rank"]
    # the mean of 0 to 12 without 4 is 74 / 12
    assert first.rows[0][1] == f"{50 + 74 / 12:.2f}"
    assert [table.name for table in others] == ["data_sets"] + ["table"] * 13 + ["pairs"]


def test_with_many_data_sets_the_terminal_shows_the_tables_over_all_and_the_missing_jobs(tmp_path):
    console = Console(file=io.StringIO(), width=300)
    report = reports.build([many(tmp_path)])
    reports.print_report(report, console)
    printed = console.file.getvalue()
    assert "Over data sets: a" in printed
    assert "Pairs over data sets" in printed
    assert "job 8 (kd, seed 0): failed: Boom" in printed
    assert "Left out: unknown row in a pair 'ghost'" in printed
    assert "Each of the 13 data sets has its own table in table.md." in printed
    assert f"{tmp_path.name}: 3" not in printed
    reports.write(report, tmp_path)
    assert f"## {tmp_path.name}: 3" in (tmp_path / "table.md").read_text()
