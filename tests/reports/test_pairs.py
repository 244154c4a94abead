import itertools

import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings

from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.reports.pairs import resolve
from kd_lightning.reports.sources import DATA_SETS, read


def grid(folder, values):
    """A sweep over every combination with one seed; its rows are named as in a real sweep."""
    for combination in itertools.product(*values.values()):
        axes = dict(zip(values, combination, strict=True))
        name = " ".join(f"{key}={value}" for key, value in axes.items())
        job(folder, name, {**axes, "seed": 0}, metrics({"a": 0.9}))
    return folder


def found(folder, *requested):
    (source,) = read([folder])
    return [(p.a, p.b, p.title) for p in resolve(requested, source.results, DATA_SETS)]


def test_rows_are_compared_by_their_names(tmp_path):
    rows_over_seeds(tmp_path, {"kd + peer": [0.9], "kd": [0.8]})
    assert found(tmp_path, ("kd + peer", "kd")) == [("kd + peer", "kd", "kd + peer − kd")]


def test_two_values_of_a_key_compare_all_cells_that_agree_in_all_else(tmp_path):
    grid(tmp_path, {"peer": [0, 0.5], "T": [1, 4]})
    assert found(tmp_path, ("peer=0.5", "peer=0")) == [
        ("peer=0.5 T=1", "peer=0 T=1", "peer=0.5 − peer=0 at T=1"),
        ("peer=0.5 T=4", "peer=0 T=4", "peer=0.5 − peer=0 at T=4"),
    ]


def test_a_named_variant_in_a_grid_is_compared_cell_by_cell(tmp_path):
    for name, t in itertools.product(["kd", "dual"], [1, 4]):
        job(tmp_path, f"{name} T={t}", {"variant": name, "T": t, "seed": 0}, None)
    assert found(tmp_path, ("dual", "kd")) == [
        ("dual T=1", "kd T=1", "dual − kd at T=1"),
        ("dual T=4", "kd T=4", "dual − kd at T=4"),
    ]


def test_nets_with_different_names_are_compared_if_the_pair_names_them(tmp_path):
    for seed, gain in ((0, 0.01), (1, 0.03)):
        job(
            tmp_path,
            "five",
            {"seed": seed},
            metrics({"a, labels only": 0.8, "ensemble": 0.85 + gain}),
        )
        job(tmp_path, "one @ home", {"seed": seed}, metrics({"b": 0.8}))
    pairs = [("five @ ensemble", "one @ home @ b"), ("five @ ensemble", "five @ a, labels only")]
    report = reports.build([tmp_path], pairs=pairs)
    (table,) = [table for table in report.tables if table.name == "pairs"]
    assert [row[:4] for row in table.rows] == [
        ["five − one @ home: ensemble − b", "ensemble − b", "2", "+7.00"],
        ["five: ensemble − a, labels only", "ensemble − a, labels only", "2", "+7.00"],
    ]
    assert [(d.column, d.column_b) for d in report.differences] == [
        ("test/ensemble/accuracy", "test/b/accuracy"),
        ("test/ensemble/accuracy", "test/a, labels only/accuracy"),
    ]
    assert "Holm" not in " ".join(table.heads)  # a family is the tests of the same nets
    assert not any("no net in common" in note for note in table.notes)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("kd @ a", "labels"), "a pair names a net for both rows or for none"),
        (("kd @ c", "labels @ a"), r"unknown net of 'kd' in a pair 'c': expected one of a"),
        (("kd @ a", "labels @ ensemble"), "unknown net of 'labels' in a pair 'ensemble'"),
        (("dk @ a", "labels @ a"), "unknown row in a pair 'dk': did you mean kd"),
    ],
)
def test_a_net_that_a_row_does_not_have_is_refused(tmp_path, pair, message):
    rows_over_seeds(tmp_path, {"kd": [0.9], "labels": [0.8]})
    with pytest.raises(UserError, match=message):
        reports.build([tmp_path], pairs=[pair])


def test_two_values_of_a_key_may_have_nets_too(tmp_path):
    grid(tmp_path, {"peer": [0, 0.5], "T": [1, 4]})
    assert [title for *_, title in found(tmp_path, ("peer=0.5 @ a", "peer=0 @ a"))] == [
        "peer=0.5 − peer=0 at T=1: a − a", "peer=0.5 − peer=0 at T=4: a − a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "value"),
    [("x=0", 0.0), ("x=1e-3", 0.001), ("x=null", None), ("x=[1,2]", [1, 2]), ("x=true", True)],
)
def test_a_value_is_found_by_its_form_on_the_command_line(tmp_path, word, value):
    grid(tmp_path, {"x": [value, "other"]})
    assert len(found(tmp_path, (word, "x=other"))) == 1


def test_neither_seed_nor_data_set_separates_rows(tmp_path):
    for data, seed, t in itertools.product(["digits", "har"], [0, 1], [1, 4]):
        job(tmp_path, f"T={t}", {"T": t, "data": data, "seed": seed}, None)
    assert len(found(tmp_path, ("T=1", "T=4"))) == 1


def test_a_pair_that_is_asked_for_twice_is_tested_once(tmp_path):
    grid(tmp_path, {"T": [1, 4]})
    assert len(found(tmp_path, ("T=1", "T=4"), ("T=1", "T=4"))) == 1


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("T=1", "T=8"), "unknown row in a pair 'T=8': did you mean"),
        (("T=1", "nothing like it"), "unknown row in a pair 'nothing like it': expected one of"),
        (("T=1", "T=[1"), r"unknown row in a pair 'T=\[1'"),
        (("T=1", "seed=0"), "unknown row in a pair 'seed=0'"),
        (
            ("T=1", "peer=0"),
            "a pair names two rows or two values of one key, got 'T=1' and 'peer=0'",
        ),
        (("T=1", "T=1", "T=1"), "a pair names two rows"),
        ("T=1", "a pair names two rows"),
    ],
)
def test_a_pair_that_names_nothing_is_refused(tmp_path, pair, message):
    grid(tmp_path, {"T": [1, 4], "peer": [0, 1]})
    with pytest.raises(UserError, match=message):
        found(tmp_path, pair)


def test_a_row_and_a_value_are_no_pair_and_the_unknown_one_is_named(tmp_path):
    job(tmp_path, "fitnet", {"variant": "fitnet"}, None)
    job(tmp_path, "T=1", {"T": 1}, None)
    job(tmp_path, "T=4", {"T": 4, "peer": 1}, None)
    settings(tmp_path)
    with pytest.raises(UserError, match="unknown row in a pair 'T=2': did you mean T="):
        found(tmp_path, ("fitnet", "T=2"))
    said = "got 'fitnet' and 'peer=1': the rows are fitnet, T=1, T=4"
    with pytest.raises(UserError, match=said):
        found(tmp_path, ("fitnet", "peer=1"))


def test_values_that_always_differ_with_others_are_refused(tmp_path):
    job(tmp_path, "one", {"T": 1, "peer": 0}, None)
    job(tmp_path, "two", {"T": 4, "peer": 1}, None)
    settings(tmp_path)
    with pytest.raises(UserError, match="no two rows differ only in 'T=1' and 'T=4'"):
        found(tmp_path, ("T=1", "T=4"))


def test_a_pair_of_a_preset_whose_rows_were_not_run_is_a_note(tmp_path):
    rows_over_seeds(tmp_path, {"T=1": [0.9, 0.8], "T=2": [0.7, 0.8]})
    settings(tmp_path, pairs=[["T=1", "T=2"], ["T=4", "T=1"]], columns=["test/zzz/accuracy"])
    report = reports.build([tmp_path])
    assert [difference.pair.title for difference in report.differences] == ["T=1 − T=2"]
    notes = [note for table in report.tables for note in table.notes]
    assert any(note.startswith("Left out: unknown row in a pair 'T=4'") for note in notes)
    assert any(note.startswith("Left out: unknown column 'test/zzz/accuracy'") for note in notes)
    with pytest.raises(UserError, match="unknown row in a pair 'T=4'"):
        reports.build([tmp_path], pairs=[["T=4", "T=1"]])
