import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings

from kd_lightning import reports
from kd_lightning.base.errors import UserError


def sweep(folder, *overrides, seeds=(0,), val=0.9):
    for seed in seeds:
        job(folder, "T=1", {"T": 1, "seed": seed}, metrics({"a": val}, val), overrides=overrides)
    return folder


def test_further_seeds_of_the_same_rows_join_them(tmp_path):
    a, b = sweep(tmp_path / "a", seeds=(0, 1)), sweep(tmp_path / "b", seeds=(2,))
    (table,) = reports.build([a, b]).tables
    assert [row[:2] for row in table.rows] == [["T=1", "3"]]
    assert table.title == "a + b"


def test_a_result_is_never_counted_twice(tmp_path):
    a, b = sweep(tmp_path / "a", seeds=(0, 1)), sweep(tmp_path / "b", seeds=(1,))
    with pytest.raises(
        UserError, match=r"two results for T=1, seed 1: job 1 of a and job 0 of b; leave one out"
    ):
        reports.build([a, b])
    with pytest.raises(UserError, match="two results"):
        reports.build([a, a])


def test_settings_in_which_sweeps_differ_name_their_rows(tmp_path):
    a = sweep(tmp_path / "a", "method=kd", "outputs=/home/a")
    b = sweep(tmp_path / "b", "method=dual_student", "outputs=/home/b")
    (table,) = reports.build([a, b], pairs=[["method=kd", "method=dual_student"]]).tables[:1]
    assert [row[0] for row in table.rows] == ["T=1 method=kd *", "T=1 method=dual_student"]


def test_rows_with_different_names_keep_them(tmp_path):
    a = rows_over_seeds(tmp_path / "a", {"kd": [0.9]})
    b = sweep(tmp_path / "b", "method=dual_student")
    (table,) = reports.build([a, b]).tables
    assert [row[0] for row in table.rows] == ["kd *", "T=1"]


def test_sweeps_on_different_data_are_data_sets_and_not_averaged(tmp_path):
    sources = [sweep(tmp_path / name, f"data={name}") for name in ("digits", "har")]
    tables = reports.build(sources).tables
    assert [table.title for table in tables[:2]] == ["digits + har: digits", "digits + har: har"]
    assert tables[-1].heads == ["variant", "digits", "har", "mean", "mean rank"]


def test_a_sweep_on_the_default_data_is_a_data_set_too(tmp_path):
    sources = [sweep(tmp_path / "a"), sweep(tmp_path / "b", "data=har")]
    assert reports.build(sources).tables[-1].heads[1:3] == ["default", "har"]


def test_a_seed_that_is_fixed_in_each_sweep_counts_as_a_seed(tmp_path):
    for seed in (0, 1):
        over = [f"seed={seed}"]
        job(tmp_path / str(seed), "T=1", {"T": 1}, metrics({"a": 0.9}), overrides=over)
    (table,) = reports.build([tmp_path / "0", tmp_path / "1"]).tables
    assert table.rows[0][1] == "2"


def test_columns_and_pairs_of_all_sweeps_are_kept(tmp_path):
    a, b = (rows_over_seeds(tmp_path / n, {n: [0.9, 0.8], n + n: [0.7, 0.6]}) for n in "ab")
    settings(a, columns=["test/a/ece"], pairs=[["a", "aa"]])
    settings(b, columns=["test/a/nll"], pairs=[["b", "bb"]])
    table, pairs = reports.build([a, b]).tables
    assert table.heads[2:] == ["test/a/ece", "test/a/nll"]
    assert [row[0] for row in pairs.rows] == ["a − aa", "b − bb"]


def test_missing_jobs_are_named_with_their_sweep(tmp_path):
    a, b = (rows_over_seeds(tmp_path / n, {n: ["Boom"]}) for n in "ab")
    (table,) = reports.build([a, b]).tables
    assert list(table.notes[-2:]) == [
        "job 0 of a (a, seed 0): failed: Boom",
        "job 0 of b (b, seed 0): failed: Boom",
    ]
