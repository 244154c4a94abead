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
    """Every seed's value is a little beside the mean, by as much on either side."""
    for seed in range(seeds):
        for name, values in means.items():
            for data_set, value in zip(NAMES, values, strict=False):
                off = 0.01 * (seed - (seeds - 1) / 2)
                outcome = value if isinstance(value, str) else metrics({"a": value + off}, value)
                job(folder, name, {"variant": name, key: data_set, "seed": seed}, outcome)
    return folder


def tables(folder, **options):
    return [t for t in reports.build([folder], **options).tables if t.name == "data_sets"]


def test_each_data_set_has_a_table_and_a_choice_of_its_own(tmp_path):
    found = [t for t in reports.build([sweep(tmp_path)]).tables if t.name == "table"]
    assert [table.title.partition(": ")[2] for table in found] == NAMES
    assert [[row[0] for row in table.rows if "*" in row[0]] for table in found] == [
        ["dual *"], ["kd *"], ["dual *"], ["dual *"],
    ]  # fmt: skip
    assert found[0].rows[1][3] == "85.00 ± 0.71"


def test_rows_stand_against_data_sets_with_their_mean_and_mean_rank(tmp_path):
    (table,) = tables(sweep(tmp_path))
    assert table.heads == ["variant", *NAMES, "mean", "mean rank"]
    cells = [f"{100 * mean:.2f} ± 0.71" for mean in [*MEANS["dual"], 0.8375]]
    assert table.rows[0] == ["dual", *cells, "1.25"]
    # kd is second but for GunPoint, where it is first, and Plane, where it shares 2 and 3
    assert [row[-1] for row in table.rows] == ["1.25", "1.88", "2.88"]


def test_friedman_is_scipys_and_nemenyi_is_named(tmp_path):
    (table,) = tables(sweep(tmp_path))
    p = stats.friedmanchisquare(*MEANS.values()).pvalue
    # Demšar's table 5: q = 2.343 for three rows
    difference = 2.343 * math.sqrt(3 * 4 / (6 * 4))
    assert (
        f"Friedman test of 3 rows on 4 data sets: p = {p:.3f}. Post-hoc: Nemenyi, mean ranks "
        f"differ at 5% if by more than {difference:.2f}."
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


def test_ranks_leave_out_a_data_set_that_lacks_a_row_and_say_so(tmp_path):
    (table,) = tables(sweep(tmp_path, {**MEANS, "kd": [0.85, "Boom", 0.60, 0.90]}))
    assert table.rows[1][2] == ""
    assert "Means and ranks leave out data sets that lack a row: GunPoint." in table.notes
    # of 0.85, 0.60 and 0.90, and of dual's on the same three
    assert [row[-2] for row in table.rows[:2]] == ["85.00 ± 0.71", "78.33 ± 0.71"]
    assert [row[-1] for row in table.rows] == ["1.00", "2.17", "2.83"]


def test_pairs_have_wilcoxon_over_the_means_of_the_data_sets(tmp_path):
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
    assert "4 data sets can give no p below 0.125." in table.notes


def test_pairs_are_tested_on_each_data_set_too(tmp_path):
    report = reports.build([sweep(tmp_path)], pairs=[["dual", "kd"]])
    assert [one.data_set for one in report.differences] == NAMES
    (table,) = [table for table in report.tables if table.name == "pairs"]
    assert table.rows[0][0] == "dual − kd on Coffee"


def test_what_names_a_data_set_is_a_setting(tmp_path):
    sweep(tmp_path, key="data.subject")
    with pytest.raises(Exception, match="two records of dual, seed 0"):
        reports.build([tmp_path])
    settings(tmp_path, data_sets=["data.subject"])
    assert len(tables(tmp_path)) == 1


def test_without_the_extra_a_sentence_stands_for_the_diagram(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "find_spec", lambda name: None)
    found = reports.build([sweep(tmp_path)])
    assert not found.diagrams
    assert "pip install kd_lightning[stats]" in " ".join(found.tables[-1].notes)


def test_the_critical_difference_separates_what_scikit_posthocs_separates(tmp_path):
    pandas = pytest.importorskip("pandas")
    posthocs = pytest.importorskip("scikit_posthocs")
    (one,) = reports.build([sweep(tmp_path)]).across
    p = posthocs.posthoc_nemenyi_friedman(pandas.DataFrame(one.means))
    ranks = list(one.mean_ranks().values())
    for i, a in enumerate(ranks):
        for j, b in enumerate(ranks):
            if i != j:
                apart = abs(a - b) > one.critical_difference()
                assert apart == (p.iloc[i, j] < data_sets.ALPHA)


def test_a_cell_that_lacks_a_seed_says_so_and_the_table_too(tmp_path):
    sweep(tmp_path)
    job(tmp_path, "kd", {"variant": "kd", "data.name": "Plane", "seed": 2}, "out of memory")
    (table,) = tables(tmp_path)
    assert table.rows[1][4] == "90.00 ± 0.71 (n = 2 of 3)"
    assert (
        "Where jobs are missing (n = … of …) means, ranks and tests are of what there is."
        in table.notes
    )


def test_a_mean_spreads_over_seeds_and_not_over_data_sets(tmp_path):
    """Data sets differ a lot and the seeds' means do not: a mean's deviation is theirs."""
    values = {"Coffee": [0.9, 0.8], "Plane": [0.3, 0.5]}
    for data_set, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            axes = {"variant": "kd", "data.name": data_set, "seed": seed}
            job(tmp_path, "kd", axes, metrics({"a": value}))
    (table,) = tables(tmp_path)
    # 0.60 and 0.65
    assert table.rows[0][3] == f"62.50 ± {100 * 0.05 / math.sqrt(2):.2f}"


def test_data_sets_without_a_seed_in_common_have_a_mean_without_deviation(tmp_path):
    for seed, (data_set, value) in enumerate({"Coffee": 0.9, "Plane": 0.3}.items()):
        axes = {"variant": "kd", "data.name": data_set, "seed": seed}
        job(tmp_path, "kd", axes, metrics({"a": value}))
    (table,) = tables(tmp_path)
    assert table.rows[0][3] == "60.00"


def many(folder):
    """Two rows on more data sets than stand in columns, one job of which has failed."""
    for number in range(data_sets.MOST + 1):
        for name in ("kd", "dual"):
            axes = {"variant": name, "data.fold": number, "seed": 0}
            failed = (name, number) == ("kd", 4)
            job(folder, name, axes, "Boom" if failed else metrics({"a": 0.5 + number / 100}))
    return settings(folder, pairs=[["dual", "kd"], ["dual", "ghost"]])


def test_many_data_sets_are_no_columns_and_come_after_what_is_over_them(tmp_path):
    report = reports.build([many(tmp_path)])
    first, *others = report.tables
    assert first.heads == ["variant", "mean", "mean rank"]
    # of 0 to 12 without 4: 74 / 12
    assert first.rows[0][1] == f"{50 + 74 / 12:.2f}"
    assert [table.name for table in others] == ["data_sets"] + ["table"] * 13 + ["pairs"]


def test_of_many_data_sets_a_terminal_shows_what_is_over_them_and_what_is_missing(tmp_path):
    console = Console(file=io.StringIO(), width=300)
    report = reports.build([many(tmp_path)])
    reports.print_report(report, console)
    said = console.file.getvalue()
    assert "Over data sets: a" in said
    assert "Pairs over data sets" in said
    assert "job 8 (kd, seed 0): failed: Boom" in said
    assert "Left out: unknown row in a pair 'ghost'" in said
    assert "Each of the 13 data sets has a table of its own in table.md." in said
    assert f"{tmp_path.name}: 3" not in said
    reports.write(report, tmp_path)
    assert f"## {tmp_path.name}: 3" in (tmp_path / "table.md").read_text()
