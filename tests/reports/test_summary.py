import math

import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings

from kd_lightning import reports
from kd_lightning.base.errors import UserError


def tables(*directories, **options):
    return reports.build(directories, **options).tables


def cells(table):
    return {row[0]: dict(zip(table.heads[1:], row[1:], strict=True)) for row in table.rows}


def test_a_row_is_mean_and_deviation_over_its_seeds(tmp_path):
    (table,) = tables(rows_over_seeds(tmp_path, {"kd": [0.90, 0.92, 0.97]}))
    std = 100 * math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)
    row = cells(table)["kd"]
    assert row["n"] == "3"
    assert row["val/accuracy %"] == row["test/a/accuracy %"] == f"93.00 ± {std:.2f}"
    assert row["last/a/accuracy %"] == f"92.00 ± {std:.2f}"


def test_one_seed_has_no_deviation_and_a_note_says_so(tmp_path):
    (table,) = tables(rows_over_seeds(tmp_path, {"kd": [0.9], "labels": [0.8]}))
    assert cells(table)["labels"]["test/a/accuracy %"] == "80.00"
    assert table.notes[0].startswith("One seed (n = 1), so no standard deviation.")


def test_rows_are_in_the_order_of_the_sweep(tmp_path):
    (table,) = tables(rows_over_seeds(tmp_path, {"z": [0.1], "a": [0.3], "m": [0.2]}))
    assert [row[0] for row in table.rows] == ["z", "a *", "m"]


def test_val_chooses_and_test_does_not(tmp_path):
    job(tmp_path, "best on test", {"seed": 0}, metrics({"a": 0.99, "b": 0.98}, 0.80))
    job(tmp_path, "best on val", {"seed": 0}, metrics({"a": 0.70, "b": 0.75}, 0.85))
    job(tmp_path, "as good on val", {"seed": 0}, metrics({"a": 0.90, "b": 0.95}, 0.85))
    (table,) = tables(tmp_path)
    assert [row[0] for row in table.rows] == ["best on test", "best on val *", "as good on val"]
    assert (
        "* chosen on the validation set (val/accuracy 85.00 %, the highest of 3, the first of 2 "
        "equal ones): best on val. Its test accuracy: a 70.00 %, b 75.00 %."
    ) in table.notes


def test_accuracies_that_are_equal_in_float32_tie_and_the_first_is_chosen(tmp_path):
    job(tmp_path, "first", {"seed": 0}, metrics({"a": 0.70}, 0.58875865738))
    job(tmp_path, "second", {"seed": 0}, metrics({"a": 0.90}, 0.58875866731))
    (table,) = tables(tmp_path)
    assert [row[0] for row in table.rows] == ["first *", "second"]
    assert any("the first of 2 equal ones): first." in note for note in table.notes)


def test_one_row_is_no_choice(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9}))
    (table,) = tables(tmp_path)
    assert table.rows[0][0] == "kd"
    assert "No row was chosen: there is only one." in table.notes


def test_without_val_nothing_is_chosen_and_a_note_says_why(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9}, None))
    (table,) = tables(tmp_path)
    assert table.rows[0][:3] == ["kd", "1", ""]
    assert (
        "No row was chosen: this needs a validation set, which is missing in these runs."
    ) in table.notes
    assert (
        "There is no validation set, so test and last both use the weights of the last epoch"
    ) in table.notes[0]
    job(tmp_path, "with val", {"seed": 0}, metrics({"a": 0.9}, 0.5))
    (table,) = tables(tmp_path)
    assert "No row was chosen: this needs a validation set, which is missing in kd." in table.notes


def test_missing_jobs_are_named_and_their_rows_marked(tmp_path):
    error = "Traceback\n  in line 3\nRuntimeError: out of [memory]\n"
    rows_over_seeds(tmp_path, {"kd": [0.9, error, 0.8], "labels": [0.7, None], "dead": [error]})
    (table,) = tables(tmp_path)
    assert cells(table)["kd *"]["n"] == "2 of 3"
    assert cells(table)["kd *"]["test/a/accuracy %"].startswith("85.00 ±")
    assert cells(table)["labels"]["n"] == "1 of 2"
    assert set(cells(table)["dead"].values()) == {"0 of 1", ""}
    assert list(table.notes[-4:]) == [
        "Missing in these numbers: 3 of 6 jobs.",
        "job 2 (dead, seed 0): failed: RuntimeError: out of [memory]",
        "job 3 (kd, seed 1): failed: RuntimeError: out of [memory]",
        "job 4 (labels, seed 1): waiting",
    ]
    assert "Only 2 of 3 seeds are done." in " ".join(table.notes)


def test_running_and_stopped_jobs_are_named_with_their_state(tmp_path):
    running = job(tmp_path, "kd", {"seed": 0}, None)
    stopped = job(tmp_path, "kd", {"seed": 1}, None)
    for started in (running, stopped):
        started.report(phase="train", epoch=1)
    with running.locked():
        (table,) = tables(tmp_path)
    assert list(table.notes[-2:]) == ["job 0 (kd, seed 0): running", "job 1 (kd, seed 1): stopped"]


def test_a_sweep_without_a_finished_job_has_a_report_too(tmp_path):
    rows_over_seeds(tmp_path, {"kd": ["Boom", None]})
    settings(tmp_path, columns=["test/*/ece", "test/student/ece"], pairs=[["kd", "kd"]])
    table, _ = tables(tmp_path)
    assert table.rows == [["kd", "0 of 2", ""]]
    assert "No row was chosen: no job is done." in table.notes


def test_a_row_without_a_net_has_an_empty_cell(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"student": 0.9}))
    job(tmp_path, "dual", {"seed": 0}, metrics({"a": 0.8, "b": 0.7, "ensemble": 0.85}))
    found = cells(tables(tmp_path)[0])
    assert found["kd *"]["test/a/accuracy %"] == found["kd *"]["test/ensemble/accuracy %"] == ""
    assert found["dual"]["test/student/accuracy %"] == ""
    assert found["dual"]["test/ensemble/accuracy %"] == "85.00"


def test_a_cell_with_fewer_values_than_its_row_says_so(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9, "b": 0.5}))
    job(tmp_path, "kd", {"seed": 1}, metrics({"a": 0.9}))
    assert cells(tables(tmp_path)[0])["kd"]["test/b/accuracy %"] == "50.00 (n = 1)"


@pytest.mark.parametrize("source", ["sweep.yaml", "command line"])
def test_requested_columns_are_in_their_order(tmp_path, source):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9, "b": 0.8}))
    names = ["test/*/ece", "val/accuracy", "net/a/parameters"]
    if source == "sweep.yaml":
        settings(tmp_path, columns=names)
    (table,) = tables(tmp_path, columns=names if source == "command line" else None)
    assert table.heads == ["variant", "n", "test/a/ece", "test/b/ece", "val/accuracy %",
                           "net/a/parameters"]  # fmt: skip
    assert table.rows == [["kd", "1", "0.090", "0.080", "90.00", "1,000"]]


def test_every_column_shows_its_own_number(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.91, "ensemble": 0.77}, 0.66, teacher=0.5))
    names = ["val/accuracy", "val/a/nll", "val/a/epoch", "test/a/accuracy", "test/a/nll",
             "test/a/ece", "test/a/brier", "test/a/agreement", "last/a/accuracy",
             "test/ensemble/accuracy", "test/teacher/accuracy", "net/teacher/parameters",
             "net/a/parameters", "net/a/throughput"]  # fmt: skip
    (row,) = tables(tmp_path, columns=names)[0].rows
    assert row[2:] == ["66.00", "0.250", "3.0", "91.00", "1.090", "0.091", "0.182", "59.10",
                       "90.00", "77.00", "50.00", "4,000", "1,000", "30"]  # fmt: skip


def test_a_note_has_the_accuracy_of_a_shared_teacher_or_the_mean_of_several(tmp_path):
    for seed in (0, 1):
        job(tmp_path / "one", "kd", {"seed": seed}, metrics({"a": 0.9}))
        own = metrics({"a": 0.9}, teacher=0.9 + seed / 50, origin=f"trained, x/teacher-{seed}")
        job(tmp_path / "own", "kd", {"seed": seed}, own)
        job(tmp_path / "none", "kd", {"seed": seed}, metrics({"a": 0.9}, teacher=None))
    notes = {name: " ".join(tables(tmp_path / name)[0].notes) for name in ("one", "own", "none")}
    assert "All runs have the same teacher. Its test accuracy: 98.00 %." in notes["one"]
    assert (
        "Test accuracy of the teachers: 91.00 ± 1.41 %, mean ± standard deviation of 2 teachers."
        in notes["own"]
    )
    assert "eacher" not in notes["none"]


def test_rows_with_teachers_of_their_own_have_a_note_of_their_own(tmp_path):
    for seed in (0, 1):
        for row, teacher in (("kd", 0.8), ("labels", 0.8), ("SFTN", 0.9)):
            origin = f"trained, x/{'friendly' if row == 'SFTN' else 'usual'}-{seed}"
            job(tmp_path, row, {"seed": seed}, metrics({"a": 0.7}, teacher=teacher, origin=origin))
    (table,) = tables(tmp_path)
    of = "mean ± standard deviation of 2 teachers."
    assert f"Test accuracy of the teachers: 80.00 ± 0.00 %, {of}" in table.notes
    assert f"Other teachers, of SFTN: 90.00 ± 0.00 %, {of}" in table.notes


def search(folder):
    """Five trials: done, pruned, best, failed, and one that tries the first again."""
    for trial, val in enumerate([0.7, None, 0.9, "Boom", 0.7]):
        outcome = metrics({"a": 0.5}, val) if isinstance(val, float) else val
        made = job(folder, f"lr={trial % 4}", {"lr": trial % 4}, outcome)
        if trial == 1:
            (made.directory / "pruned.json").write_text("{}")
    return settings(folder, search={"trials": 5})


def test_the_rows_of_a_search_are_its_trials_the_best_first(tmp_path):
    (table,) = tables(search(tmp_path))
    assert table.heads[0] == "trial"
    assert [row[0] for row in table.rows] == ["2: lr=2 *", "0: lr=0", "4: lr=0"]
    assert list(table.notes[-3:]) == [
        "Pruned by the search: 1 of 5 trials.",
        "Missing in these numbers: 1 of 5 jobs.",
        "job 3 (lr=3, seed 0): failed: Boom",
    ]


def test_rows_with_exactly_the_same_numbers_are_named(tmp_path):
    rows = {"T=1": [0.9, 0.8], "T=2": [0.9, 0.8], "T=3": [0.8, 0.9], "T=4": [0.9, "Boom"]}
    (table,) = tables(rows_over_seeds(tmp_path, rows))
    (note,) = [note for note in table.notes if note.startswith("These rows have exactly the same")]
    assert note.endswith("so the setting in which they differ had no effect: T=1; T=2.")


# What chooses


def attacked(folder, rows, **more):
    """Rows with one seed and the student a.

    Args:
        rows: name -> accuracy on val, the same under attack, accuracy on test, the same.
    """
    for name, (val, val_robust, test, test_robust) in rows.items():
        outcome = metrics({"a": test}, val)
        outcome["nets"]["a"]["test"]["robust_accuracy"] = test_robust
        if val_robust is not None:
            outcome["nets"]["a"]["val"]["robust_accuracy"] = val_robust
        job(folder, name, {"variant": name, "seed": 0}, outcome)
    return settings(folder, **more)


BY_ATTACK = "val/a/robust_accuracy"


def test_rows_can_be_chosen_by_their_accuracy_under_attack(tmp_path):
    rows = {"labels": (0.9, 0.1, 0.8, 0.15), "AKD": (0.7, 0.5, 0.6, 0.45)}
    (plain,) = tables(attacked(tmp_path / "plain", rows))
    assert [row[0] for row in plain.rows] == ["labels *", "AKD"]
    (robust,) = tables(attacked(tmp_path / "robust", rows, chosen_by=BY_ATTACK))
    assert [row[0] for row in robust.rows] == ["labels", "AKD *"]
    assert (
        "* chosen on the validation set (val/a/robust_accuracy 50.00 %, the highest of 2): AKD. "
        "Its test accuracy: a 60.00 %. Its test robust_accuracy: a 45.00 %."
    ) in robust.notes


def test_a_row_that_lacks_what_chooses_means_that_none_is_chosen(tmp_path):
    rows = {"labels": (0.9, None, 0.8, 0.15), "AKD": (0.7, 0.5, 0.6, 0.45)}
    (table,) = tables(attacked(tmp_path, rows, chosen_by=BY_ATTACK))
    assert not any("*" in row[0] for row in table.rows)
    assert (
        "No row was chosen: this needs val/a/robust_accuracy, which is missing in labels."
    ) in table.notes


@pytest.mark.parametrize("column", ["test/a/accuracy", "val/a/nll", "val/*/accuracy", "accuracy"])
def test_only_a_share_on_val_can_choose(tmp_path, column):
    folder = attacked(tmp_path, {"AKD": (0.7, 0.5, 0.6, 0.45)}, chosen_by=column)
    with pytest.raises(UserError, match=r"rows are chosen by val/accuracy or val/<net>/.*, got"):
        reports.build([folder])


def test_joined_sweeps_keep_what_chooses_if_they_agree(tmp_path):
    rows = {"labels": (0.9, 0.1, 0.8, 0.15), "AKD": (0.7, 0.5, 0.6, 0.45)}
    more = {"third": (0.6, 0.6, 0.5, 0.3)}
    one = attacked(tmp_path / "one", rows, chosen_by=BY_ATTACK)
    same = attacked(tmp_path / "same", more, chosen_by=BY_ATTACK)
    other = attacked(tmp_path / "other", more)
    for folder, best in ((same, "third *"), (other, "labels *")):
        (table,) = tables(one, folder)
        assert [row[0] for row in table.rows if "*" in row[0]] == [best]


def test_values_that_a_search_tried_twice_are_no_setting_without_effect(tmp_path):
    for number, value in enumerate((1, 1, 2)):
        job(tmp_path, f"t={value}", {"t": value}, metrics({"a": 0.9 + number // 2 / 100}, 0.9))
    settings(tmp_path, search={"trials": 3})
    assert not any("had no effect" in note for note in tables(tmp_path)[0].notes)
    job(tmp_path, "t=3", {"t": 3}, metrics({"a": 0.91}, 0.9))
    (note,) = [note for note in tables(tmp_path)[0].notes if "had no effect" in note]
    assert note.endswith("2: t=2; 3: t=3.")
