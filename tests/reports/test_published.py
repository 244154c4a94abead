"""Numbers from papers are shown beside ours, in every form of a report."""

import csv

import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings

from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.reports.published import read_published

A = "test/a/accuracy"


def entry(**more):
    return {"source": "a paper", "rows": {"kd": {A: 73.33}}, **more}


def sweep(folder, *entries, rows=None):
    return settings(
        rows_over_seeds(folder, rows or {"kd": [0.7, 0.8], "labels": [0.6, 0.6]}),
        reported=list(entries),
    )


def table_of(folder, **options):
    return reports.build([folder], **options).tables[0]


def column(table, head=f"reported {A} %"):
    place = table.heads.index(head)
    return {row[0].removesuffix(" *"): row[place] for row in table.rows}


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_it_is_the_column_after_ours_and_empty_where_nothing_is_published(tmp_path):
    table = table_of(sweep(tmp_path, entry()))
    assert table.heads == [
        "variant", "n", "val/accuracy %", f"{A} %", f"reported {A} %", "last/a/accuracy %",
    ]  # fmt: skip
    assert column(table) == {"kd": "73.33", "labels": ""}
    assert column(table, f"{A} %")["kd"].startswith("75.00")


def test_a_number_keeps_the_digits_of_its_column_and_its_unit(tmp_path):
    numbers = {A: 72.5, "test/a/ece": 0.0312, "net/a/parameters": 1233540}
    folder = sweep(tmp_path, entry(rows={"kd": numbers}))
    table = table_of(folder, columns=list(numbers))
    assert table.rows[0][3::2] == ["72.50", "0.031", "1,233,540"]


def test_a_note_names_its_source(tmp_path):
    table = table_of(sweep(tmp_path, entry(note="The class list is not stated.")))
    assert (
        "Reported by a paper: not directly comparable with our numbers: another protocol. The "
        "class list is not stated."
    ) in table.notes


def test_an_entry_with_only_a_note_has_no_column(tmp_path):
    table = table_of(sweep(tmp_path, {"source": "a paper", "note": ".85, of unnamed sets"}))
    assert "Reported by a paper: .85, of unnamed sets." in table.notes
    assert not [head for head in table.heads if "reported" in head]


def test_a_published_number_does_not_choose(tmp_path):
    with_it = table_of(sweep(tmp_path / "with", entry(rows={"labels": {A: 99}})))
    without = table_of(sweep(tmp_path / "without"))
    assert (
        [row[0] for row in with_it.rows] == [row[0] for row in without.rows] == ["kd *", "labels"]
    )


def test_a_column_that_is_not_shown_has_no_published_column_and_no_note(tmp_path):
    table = table_of(sweep(tmp_path, entry()), columns=["val/accuracy"])
    assert table.heads == ["variant", "n", "val/accuracy %"]
    assert "Reported" not in " ".join(table.notes)


def test_a_variant_has_its_number_in_each_of_its_rows_and_a_label_wins(tmp_path):
    for size in (16, 32):
        axes = {"variant": "kd", "data.batch_size": size, "seed": 0}
        job(tmp_path, f"kd data.batch_size={size}", axes, metrics({"a": 0.5}))
    rows = {"kd": {A: 70.5}, "kd data.batch_size=32": {A: 71.5}}
    settings(tmp_path, reported=[entry(rows=rows)])
    assert list(column(table_of(tmp_path)).values()) == ["70.50", "71.50"]


def test_the_first_of_two_sources_fills_a_cell_and_both_are_named(tmp_path):
    other = {"source": "another", "rows": {"kd": {A: 70.0}, "labels": {A: 69.0}}}
    table = table_of(sweep(tmp_path, entry(), other))
    assert column(table) == {"kd": "73.33", "labels": "69.00"}
    assert [note[:20] for note in table.notes if "another protocol" in note] == [
        "Reported by a paper:", "Reported by another:",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["data=imagenet100"], ["data=digits", "+data=imagenet100"]])
def test_where_is_matched_with_overrides(tmp_path, words):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.5}), overrides=words)
    settings(tmp_path, reported=[entry(where={"data": "imagenet100"})])
    assert column(table_of(tmp_path)) == {"kd": "73.33"}


def test_where_it_does_not_match_it_is_left_out_with_a_note(tmp_path):
    for number, words in enumerate((["data=digits"], [])):
        folder = tmp_path / str(number)
        job(folder, "kd", {"seed": 0}, metrics({"a": 0.5}), overrides=words)
        settings(folder, reported=[entry(where={"data": "imagenet100"})])
        table = table_of(folder)
        assert "Left out of what a paper reports: no job has data=imagenet100." in table.notes
        assert not [head for head in table.heads if "reported" in head]
        assert "Reported by" not in " ".join(table.notes)


def test_of_a_source_with_other_data_sets_nothing_is_called_left_out(tmp_path):
    words = [f"data={name}" for name in ("digits", "ucr", "har")]
    one, *others = [entry(where=dict([word.split("=")])) for word in words]
    for folder, entries in {"some": [one, *others], "none": others}.items():
        job(tmp_path / folder, "kd", {"seed": 0}, metrics({"a": 0.5}), overrides=["data=digits"])
        settings(tmp_path / folder, reported=entries)
    left_out = [
        [note for note in table_of(tmp_path / folder).notes if "Left out" in note]
        for folder in ("some", "none")
    ]
    assert left_out == [
        [], ["Left out of what a paper reports: no job has data=ucr or data=har."],
    ]  # fmt: skip


def test_rows_and_columns_that_do_not_exist_are_left_out_with_a_note(tmp_path):
    rows = {"kd": {A: 73.33}, "dkd": {A: 76.32}, "labels": {"test/b/accuracy": 70}}
    table = table_of(sweep(tmp_path, entry(rows=rows)))
    assert column(table) == {"kd": "73.33", "labels": ""}
    assert "Left out of what a paper reports: no row is called 'dkd'." in table.notes
    assert "Left out of what a paper reports: no run has test/b/accuracy." in table.notes


def test_before_any_job_is_done_no_column_is_called_missing(tmp_path):
    table = table_of(sweep(tmp_path, entry(), rows={"kd": [None]}))
    assert "Left out" not in " ".join(table.notes)


# Several data sets


def folds(folder, *entries, key="data.fold"):
    for name, values in {"kd": [0.8, 0.9, 0.7], "labels": [0.5, 0.6, 0.7]}.items():
        for place, value in enumerate(values):
            axes = {"variant": name, key: place, "seed": 0}
            job(folder, name, axes, metrics({"a": value}))
    return settings(folder, reported=list(entries))


def test_a_number_of_one_data_set_is_in_the_table_of_that_data_set(tmp_path):
    folds(tmp_path, entry(where={"data.fold": 1}))
    tables = [table for table in reports.build([tmp_path]).tables if table.name == "table"]
    assert [f"reported {A} %" in table.heads for table in tables] == [False, True, False]
    has_note = ["Reported by" in " ".join(table.notes) for table in tables]
    assert has_note == [False, True, False]


def test_a_mean_is_beside_our_mean_and_in_no_table_of_one_data_set(tmp_path):
    *single, over = reports.build([folds(tmp_path, entry(mean_over="data.fold"))]).tables
    assert over.heads[-3:] == ["mean", "reported mean", "mean rank"]
    assert [row[-3:-1] for row in over.rows] == [["80.00", "73.33"], ["60.00", ""]]
    assert (
        "Reported by a paper: means over all data.fold; not directly comparable with our numbers: "
        "another protocol."
    ) in over.notes
    assert "eported" not in str([(table.heads, table.notes) for table in single])


def test_a_mean_over_something_else_is_left_out_with_a_note(tmp_path):
    cases = {"one": {"rows": {"kd": [0.5]}}, "other": {"key": "data.name"}}
    for name, how in cases.items():
        make = sweep if name == "one" else folds
        table = make(tmp_path / name, entry(mean_over="data.fold"), **how)
        notes = [note for one in reports.build([table]).tables for note in one.notes]
        assert (
            "Left out of what a paper reports: the data sets of this report are not the values of "
            "data.fold."
        ) in notes
        assert "Reported by" not in " ".join(notes)


def test_a_mean_over_87_values_is_not_beside_a_mean_over_three(tmp_path):
    for values, is_shown in ((3, True), (87, False)):
        folder = folds(tmp_path / str(values), entry(mean_over="data.fold", values=values))
        report = reports.build([folder])
        notes = " ".join(note for table in report.tables for note in table.notes)
        assert ("Reported by" in notes) == is_shown
        assert ("this report are not the 87 values of data.fold." in notes) != is_shown


# In every form of a report, and again from records.jsonl


def test_every_form_of_a_report_has_it_and_so_has_the_report_of_a_written_report(tmp_path):
    folder = sweep(tmp_path / "sweep", entry())
    out, again = tmp_path / "out", tmp_path / "again"
    reports.write(reports.build([folder]), out)
    assert "reported test/a/accuracy %" in (out / "table.md").read_text()
    assert "73.33" in (out / "table.tex").read_text()
    reports.write(reports.build([out]), again)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in out.iterdir()
    }


def test_table_csv_has_it_in_the_unit_of_our_mean(tmp_path):
    folder = sweep(tmp_path, entry(), rows={"kd": [0.7, 0.8], "labels": ["Boom"]})
    reports.write(reports.build([folder]), folder)
    found = {
        (row["variant"], f"{row['split']}/{row['net']}/{row['metric']}"): row
        for row in read_csv(folder / "table.csv")
    }
    assert found["kd", A]["reported"] == "0.7333"
    assert float(found["kd", A]["mean"]) == 0.75
    assert {row["reported"] for place, row in found.items() if place != ("kd", A)} == {""}


def test_a_row_without_a_finished_job_has_its_published_number(tmp_path):
    folder = sweep(tmp_path, entry(rows={"dead": {A: 70}}), rows={"kd": [0.7], "dead": ["Boom"]})
    report = reports.build([folder])
    assert column(report.tables[0]) == {"kd": "", "dead": "70.00"}
    reports.write(report, folder)
    (row,) = [row for row in read_csv(folder / "table.csv") if row["variant"] == "dead"]
    assert (row["metric"], row["mean"], row["n"], row["reported"]) == ("accuracy", "", "0", "0.7")


def test_data_sets_csv_has_our_means_and_the_published_means(tmp_path):
    folder = folds(tmp_path, entry(mean_over="data.fold"))
    reports.write(reports.build([folder]), folder)
    kd, labels = read_csv(folder / "data_sets.csv")
    assert float(kd["mean"]) == pytest.approx(0.8)
    assert (kd["std"], kd["reported"], labels["reported"]) == ("", "0.7333", "")


def test_two_sweeps_in_one_report_keep_their_own_published_numbers(tmp_path):
    for name in ("ours", "theirs"):
        words = [f"data={name}"]
        job(tmp_path / name, "kd", {"variant": "kd", "seed": 0}, metrics({"a": 0.5}),
            overrides=words)  # fmt: skip
        settings(tmp_path / name, reported=[entry(where={"data": "theirs"})])
    tables = reports.build([tmp_path / "ours", tmp_path / "theirs"]).tables
    assert ["reported" in str(table.heads) for table in tables[:2]] == [False, True]
    assert sum("Reported by" in note for table in tables for note in table.notes) == 1


# Entries that are not valid


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("73.33", r"sweep.reported\[0\] must be keys and values \(source, rows, where"),
        ({"rows": {}}, r"sweep.reported\[0\].source must be text, got None"),
        (entry(sauce="x"), r"unknown key 'sweep.reported\[0\].sauce': did you mean .*source"),
        (entry(values=1), r"sweep.reported\[0\].values must be a whole number >= 2, got 1"),
        (entry(mean_over=3), r"sweep.reported\[0\].mean_over must be text, got 3"),
        (entry(where="data"), r"sweep.reported\[0\].where must be keys and values, got data"),
        ({"source": "x"}, r"must have numbers or a note, got neither"),
        (entry(rows={"kd": 73.33}), r"rows.kd must be columns and numbers, got 73.33"),
        (entry(rows={"kd": {"accuracy": 73}}), "unknown column 'accuracy'"),
        (
            entry(rows={"kd": {"test/*/accuracy": 73}}),
            r"belongs to one net, got 'test/\*/accuracy'",
        ),
        (entry(rows={"kd": {A: "73 %"}}), f"rows.kd.{A} must be a number, got 73 %"),
        (entry(rows={"kd": {A: True}}), f"rows.kd.{A} must be a number, got True"),
        (entry(rows={"kd": {A: 0.7333}}), f"rows.kd.{A} must be in percent, got 0.7333"),
    ],
)
def test_an_invalid_entry_is_refused_with_one_sentence(wrong, message):
    with pytest.raises(UserError, match=message):
        read_published([wrong])
