"""Pairs are compared in the metrics that a preset or a person names."""

import csv

import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings
from scipy import stats

from kd_lightning import report as command
from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.reports.formats import format_difference, format_p
from kd_lightning.reports.page import write_page
from kd_lightning.reports.statistics import Sample, detectable_mean, holm

ROBUST = {"kd": [0.60, 0.63, 0.66, 0.61], "labels": [0.10, 0.12, 0.09, 0.10], "x": [0.5] * 4}
CLEAN = {"kd": [0.90, 0.93, 0.95, 0.91], "labels": [0.88, 0.92, 0.91, 0.90], "x": [0.7] * 4}
PAIRS = [["kd", "labels"], ["kd", "x"], ["labels", "x"]]
FOUR = ["accuracy", "robust_accuracy", "nll", "ece"]


@pytest.fixture
def sweep(tmp_path):
    """Three rows with four seeds; every net was attacked on test."""
    folder = tmp_path / "sweep"
    for name, values in CLEAN.items():
        for seed, value in enumerate(values):
            outcome = metrics({"student": value}, value, seed=seed)
            outcome["nets"]["student"]["test"]["robust_accuracy"] = ROBUST[name][seed]
            job(folder, name, {"variant": name, "seed": seed}, outcome)
    return settings(folder, pairs=PAIRS)


def pair_tables(*folders, **options):
    tables = reports.build(folders, **options).tables
    return [table for table in tables if table.name == "pairs"]


def differences_of(rows, a, b):
    return [x - y for x, y in zip(rows[a], rows[b], strict=True)]


def test_each_metric_has_a_table_that_names_it(sweep):
    tables = pair_tables(sweep, compared=FOUR)
    assert [(table.title, table.heads[3]) for table in tables] == [
        ("Pairs", "test accuracy, points"),
        ("Pairs: robust_accuracy", "test robust_accuracy, points"),
        ("Pairs: nll", "test nll"),
        ("Pairs: ece", "test ece"),
    ]
    for table, metric in zip(tables, FOUR, strict=True):
        assert [row[0] for row in table.rows] == [f"{a} − {b}" for a, b in PAIRS]
        assert table.notes[0].startswith(f"A − B: difference in test {metric}")
        assert ("in percentage points" in table.notes[0]) == metric.endswith("accuracy")


def test_without_the_key_it_is_accuracy_and_nothing_else(sweep):
    (alone,) = pair_tables(sweep)
    (named,) = pair_tables(sweep, compared=["accuracy"])
    assert alone == named == pair_tables(sweep, compared=FOUR)[0]


def test_shares_are_in_points_and_other_metrics_in_their_own_unit(sweep):
    _, robust, nll, ece = pair_tables(sweep, compared=FOUR)
    low, high = stats.ttest_rel(ROBUST["kd"], ROBUST["labels"]).confidence_interval(0.95)
    assert robust.rows[0][3:5] == ["+52.25", f"+{100 * low:.2f} to +{100 * high:.2f}"]
    # in the made sweeps nll is 2 - accuracy, and ece a tenth of the accuracy
    assert nll.rows[0][3] == "−0.0200"
    assert ece.rows[0][3] == "+0.0020"
    assert nll.rows[0][5] == ece.rows[0][5]


def test_holm_corrects_within_one_net_and_one_metric(sweep):
    for table, rows in zip(pair_tables(sweep, compared=FOUR[:2]), (CLEAN, ROBUST), strict=True):
        p_values = [stats.ttest_1samp(differences_of(rows, a, b), 0).pvalue for a, b in PAIRS]
        assert [row[6] for row in table.rows] == [format_p(p) for p in holm(p_values)]
    robust = pair_tables(sweep, compared=["robust_accuracy"])
    assert robust == pair_tables(sweep, compared=FOUR)[1:2]


def test_the_margin_is_for_shares_alone(sweep):
    tables = pair_tables(sweep, compared=FOUR, margin=60)
    assert ["p, within ±60" in table.heads for table in tables] == [True, True, False, False]
    assert ["within ±60" in " ".join(t.notes) for t in tables] == [True, True, False, False]
    gained = differences_of(ROBUST, "kd", "labels")
    above = stats.ttest_1samp(gained, -0.6, alternative="greater").pvalue
    below = stats.ttest_1samp(gained, 0.6, alternative="less").pvalue
    others = [
        max(
            stats.ttest_1samp(differences_of(ROBUST, a, b), -0.6, alternative="greater").pvalue,
            stats.ttest_1samp(differences_of(ROBUST, a, b), 0.6, alternative="less").pvalue,
        )
        for a, b in PAIRS[1:]
    ]
    assert tables[1].rows[0][-1] == format_p(holm([max(above, below), *others])[0])


def test_every_file_has_every_metric(sweep, tmp_path):
    settings(sweep, pairs=PAIRS, compared=FOUR, margin=2)
    report = reports.build([sweep])
    reports.write(report, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "pairs.csv").read_text().splitlines()))
    assert [row["column"] for row in rows[::3]] == [f"test/student/{name}" for name in FOUR]
    assert [row["margin"] for row in rows[::3]] == ["2", "2", "", ""]
    assert [row["p_within_margin"] != "" for row in rows[::3]] == [True, True, False, False]
    assert float(rows[6]["difference"]) == pytest.approx(-0.02)
    p_values = [stats.ttest_1samp(differences_of(CLEAN, *pair), 0).pvalue for pair in PAIRS]
    assert [float(row["p_holm"]) for row in rows[:3]] == pytest.approx(holm(p_values))
    page = write_page(report, [sweep], tmp_path / "page.html").read_text()
    for text in (
        (tmp_path / "out" / "table.md").read_text(),
        (tmp_path / "out" / "pairs.tex").read_text().replace("\\_", "_"),
        page,
    ):
        assert all(f"Pairs: {metric}" in text for metric in FOUR[1:])
    again = reports.write(reports.build([tmp_path / "out"]), tmp_path / "again")
    for path in again:
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_two_nets_of_one_row_are_compared_in_every_metric(tmp_path):
    for seed, gain in ((0, 0.01), (1, 0.03)):
        job(tmp_path, "five", {"seed": seed}, metrics({"a": 0.8, "ensemble": 0.85 + gain}))
    tables = pair_tables(
        tmp_path, pairs=[["five @ ensemble", "five @ a"]], compared=["nll", "accuracy"]
    )
    assert [table.rows[0][1:4] for table in tables] == [
        ["ensemble − a", "2", "−0.0700"], ["ensemble − a", "2", "+7.00"],
    ]  # fmt: skip


def test_a_metric_that_some_rows_lack_names_the_pairs_that_are_not_compared(sweep):
    job(sweep, "later", {"variant": "later", "seed": 0}, metrics({"student": 0.9}))
    tables = pair_tables(sweep, compared=FOUR[:2], pairs=[["kd", "later"]])
    said = "the rows have no net with test robust_accuracy in common: kd − later."
    assert [any(said in note for note in table.notes) for table in tables] == [False, True]
    assert [len(table.rows) for table in tables] == [4, 3]


def test_a_metric_that_no_run_has_is_a_note_and_not_a_table(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9, 0.8], "labels": [0.7, 0.8]})
    settings(tmp_path, pairs=[["kd", "labels"]], compared=["accuracy", "robust_accuracy"])
    main, *others = reports.build([tmp_path]).tables
    assert [table.title for table in others] == ["Pairs"]
    assert "Left out: no run has test robust_accuracy (compared)." in main.notes


def test_several_data_sets_have_a_test_in_each_metric(tmp_path):
    for place, name in enumerate(["Coffee", "Beef", "Plane"]):
        for row, gain in (("kd", 0.1 + place / 100), ("labels", 0.0)):
            axes = {"variant": row, "data.name": name, "seed": 0}
            job(tmp_path, row, axes, metrics({"a": 0.5 + gain}))
    tables = reports.build(
        [tmp_path], pairs=[["kd", "labels"]], compared=["accuracy", "nll"]
    ).tables
    assert [table.title for table in tables[-2:]] == [
        "Pairs over data sets", "Pairs over data sets: nll",
    ]  # fmt: skip
    assert [table.rows[0][2:4] for table in tables[-2:]] == [["3", "+11.00"], ["3", "−0.1100"]]


def test_joined_sweeps_are_compared_in_the_metrics_of_all(sweep, tmp_path):
    settings(sweep, pairs=PAIRS, compared=["accuracy", "nll"])
    other = rows_over_seeds(tmp_path / "other", {"more": [0.9, 0.8]})
    settings(other, compared=["accuracy", "ece"])
    titles = [table.title for table in pair_tables(sweep, other)]
    assert titles == ["Pairs", "Pairs: nll", "Pairs: ece"]
    settings(other)
    assert [table.title for table in pair_tables(sweep, other)] == ["Pairs", "Pairs: nll"]


def test_the_command_line_names_metrics(sweep, capsys):
    command.main([str(sweep), "--compared", "robust_accuracy", "nll"])
    assert "Pairs: nll" in (sweep / "table.md").read_text()
    with pytest.raises(SystemExit) as ended:
        command.main([str(sweep), "--compared", "robust"])
    assert ended.value.code == 2
    assert "unknown metric 'robust': did you mean robust_accuracy" in capsys.readouterr().err


def test_an_unknown_metric_is_refused(sweep):
    with pytest.raises(UserError, match=r"unknown metric 'acuracy': did you mean accuracy"):
        reports.build([sweep], compared=["acuracy"])


def test_a_difference_has_one_more_digit_than_its_metric_and_zero_has_no_sign():
    assert format_difference("aurc", -0.001234) == "−0.00123"
    assert format_difference("nll", -0.00001) == "0.0000"
    assert format_difference("agreement", 0.5) == "+50.00"


def test_primary_contrasts_come_first_and_are_corrected_apart(tmp_path):
    rows = {"kd": [0.90, 0.93, 0.95, 0.91], "labels": [0.88, 0.92, 0.91, 0.90],
            "x": [0.89, 0.90, 0.90, 0.89]}  # fmt: skip
    sweep = rows_over_seeds(tmp_path / "sweep", rows)
    settings(sweep, pairs=PAIRS, primary=[PAIRS[1]])
    (table,) = pair_tables(sweep)
    assert [row[:2] for row in table.rows] == [
        ["kd − x", "primary"], ["kd − labels", "exploratory"], ["labels − x", "exploratory"],
    ]  # fmt: skip
    first, of_primary, last = (
        stats.ttest_1samp(differences_of(rows, *pair), 0).pvalue for pair in PAIRS
    )
    corrected = [of_primary, *holm([first, last])]
    assert corrected != pytest.approx(holm([of_primary, first, last]), rel=0.1)
    place = table.heads.index("p, Holm")
    assert [row[place] for row in table.rows] == list(map(format_p, corrected))
    assert any(note.startswith("Contrast: the primary ones were named") for note in table.notes)
    reports.write(reports.build([sweep]), tmp_path / "out")
    written = csv.DictReader((tmp_path / "out" / "pairs.csv").read_text().splitlines())
    assert [row["contrast"] for row in written] == ["primary", "exploratory", "exploratory"]
    assert pair_tables(tmp_path / "out") == [table]


def test_primary_contrasts_are_exploratory_in_other_columns_than_the_primary_one(tmp_path):
    for row, accuracies in {"kd": [0.9, 0.93, 0.95], "labels": [0.88, 0.92, 0.9]}.items():
        for seed, accuracy in enumerate(accuracies):
            outcome = metrics({"a": accuracy, "b": accuracy - seed / 50}, seed=seed)
            job(tmp_path, row, {"variant": row, "seed": seed}, outcome)
    settings(tmp_path, pairs=PAIRS[:1], compared=["accuracy", "nll"])
    alone = pair_tables(tmp_path)
    assert "contrast" not in alone[0].heads
    settings(tmp_path, pairs=PAIRS[:1], compared=["accuracy", "nll"],
             primary_column="test/a/accuracy")  # fmt: skip
    of_accuracy, of_nll = pair_tables(tmp_path)
    assert [row[1:3] for row in of_accuracy.rows] == [["primary", "a"], ["exploratory", "b"]]
    assert {row[1] for row in of_nll.rows} == {"exploratory"}
    reports.write(reports.build([tmp_path]), tmp_path / "out")
    assert pair_tables(tmp_path / "out") == [of_accuracy, of_nll]


def test_parts_of_a_study_that_are_joined_keep_its_primary_column(tmp_path):
    for seed, part in enumerate("xyz"):
        for row, accuracy in {"kd": 0.9, "labels": 0.8 + seed / 50}.items():
            outcome = metrics({"a": accuracy, "b": accuracy}, seed=seed)
            job(tmp_path / part, row, {"variant": row, "seed": seed}, outcome)
        settings(tmp_path / part, pairs=PAIRS[:1], primary_column="test/a/accuracy")
    report = reports.build([tmp_path / part for part in "xyz"])
    assert [difference.kind for difference in report.differences] == ["primary", "exploratory"]


def test_a_study_that_has_not_all_its_seeds_says_so(tmp_path):
    """Fixed defect: six of ten seeds had the same p, without a word, as all of them."""
    for seed, part in enumerate("xyz"):
        for row, accuracy in {"kd": 0.9, "labels": 0.8 + seed / 50}.items():
            outcome = metrics({"a": accuracy}, seed=seed)
            job(tmp_path / part, row, {"variant": row, "seed": seed}, outcome)
        more = {"primary_column": "test/a/accuracy"} if part == "z" else {}  # named later
        grid = {"seed": [0, 1, 2, 3]}
        settings(tmp_path / part, pairs=PAIRS[:1], primary=PAIRS[:1], grid=grid, **more)
    report = reports.build([tmp_path / part for part in "xyz"])
    (table,) = [table for table in report.tables if table.name == "pairs"]
    assert table.rows[0][table.heads.index("n")] == "3 of 4"
    assert any(note.startswith("Not all seeds that the study named") for note in table.notes)
    assert report.source.settings["primary_column"] == "test/a/accuracy"
    settings(tmp_path / "x", pairs=PAIRS[:1], primary=PAIRS[:1], grid={"seed": [0]})
    (table,) = pair_tables(tmp_path / "x")
    assert table.rows[0][table.heads.index("n")] == "1"
    assert not any(note.startswith("Not all seeds") for note in table.notes)


def test_without_primary_contrasts_no_column_tells_them_apart(sweep):
    (table,) = pair_tables(sweep)
    assert "contrast" not in table.heads


def test_pairs_are_compared_with_the_weights_of_the_last_epoch(tmp_path):
    for name, accuracies in {"kd": [0.7, 0.8], "labels": [0.6, 0.4]}.items():
        for seed, last in enumerate(accuracies):
            outcome = metrics({"a": 0.9}, 0.9, seed=seed)
            outcome["nets"]["a"]["last"]["accuracy"] = last
            job(tmp_path, name, {"variant": name, "seed": seed}, outcome)
    pairs = [["kd", "labels"]]
    chosen, last = pair_tables(tmp_path, pairs=pairs, compared=["accuracy", "last/accuracy"])
    assert (last.title, last.heads[3]) == ("Pairs: last/accuracy", "last accuracy, points")
    assert (chosen.rows[0][3], last.rows[0][3]) == ("0.00", "+25.00")
    assert "with the weights of the last epoch" in last.notes[0]


def test_a_note_says_what_so_many_seeds_can_show(sweep):
    (table,) = pair_tables(sweep)
    stds = sorted(Sample(tuple(differences_of(CLEAN, *pair))).std for pair in PAIRS)
    seen = detectable_mean(4, stds[1])
    assert any(f"with n = 4 finds {100 * seen:.2f} points" in note for note in table.notes)
