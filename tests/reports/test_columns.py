import pytest
from made_sweeps import metrics

from kd_lightning.base.errors import UserError
from kd_lightning.reports import columns

TWO = columns.values_of(metrics({"a": 0.8, "b": 0.7, "ensemble": 0.85}, 0.9))
ONE = columns.values_of(metrics({"student": 0.6}, 0.75))


def test_every_number_of_a_run_is_a_column():
    assert TWO["val/accuracy"] == 0.9
    assert (TWO["val/a/accuracy"], TWO["val/a/nll"], TWO["val/a/epoch"]) == (0.9, 0.25, 3)
    assert (TWO["test/a/accuracy"], TWO["last/a/accuracy"]) == (0.8, 0.8 - 0.01)
    assert (TWO["test/b/nll"], TWO["test/b/ece"], TWO["test/b/brier"]) == (
        2 - 0.7,
        0.7 / 10,
        0.7 / 5,
    )
    assert TWO["test/ensemble/agreement"] == 0.5 + 0.85 / 10
    assert (TWO["net/teacher/parameters"], TWO["net/a/throughput"]) == (4000, 30)


def test_metrics_after_temperature_scaling_are_columns():
    content = metrics({"a": 0.8})
    content["nets"]["a"]["scaled"] = {"temperature": 1.5, "ece": 0.01, "aurc": 0.002}
    values = columns.values_of(content)
    assert (values["scaled/a/temperature"], values["scaled/a/ece"]) == (1.5, 0.01)
    names = ["scaled/*/temperature", "scaled/teacher/ece"]
    assert columns.expand(names, [values]) == ["scaled/a/temperature", "scaled/teacher/ece"]
    with pytest.raises(UserError, match="unknown column 'scaled/a/accuracy'"):
        columns.expand(["scaled/a/accuracy"], [values])


def test_combinations_follow_the_students_in_the_default_columns():
    content = metrics({"a": 0.8, "b": 0.7, "ensemble": 0.85})
    students = {name: content["nets"].pop(name) for name in ("a", "b", "ensemble")}
    content["nets"] |= {"greedy_soup": {"test": {"accuracy": 0.75, "nll": 1.0},
                                       "val": {"accuracy": 0.6}, "members": ["a"]},
                       "vote": {"test": {"accuracy": 0.82}, "agreement": 0.5},
                       **students}  # fmt: skip
    values = columns.values_of(content)
    assert columns.students_of([values]) == ["a", "b"]
    assert columns.default_columns([values])[-3:] == [
        "test/ensemble/accuracy", "test/vote/accuracy", "test/greedy_soup/accuracy"
    ]  # fmt: skip
    assert values["val/greedy_soup/accuracy"] == 0.6
    assert {c for c in values if "/vote/" in c} == {"test/vote/accuracy", "test/vote/agreement"}


@pytest.mark.parametrize("metric", ["balanced_accuracy", "adaptive_ece", "confidence_gap"])
def test_a_run_of_an_older_version_has_no_number_for_a_newer_metric(metric):
    assert columns.expand([f"test/*/{metric}"], [TWO]) == [f"test/a/{metric}", f"test/b/{metric}"]
    assert not [column for column in TWO if column.endswith(metric)]


def test_without_val_there_is_no_objective_and_no_chosen_epoch():
    values = columns.values_of(metrics({"a": 0.8}, None))
    assert not [name for name in values if name.startswith("val/")]


def test_the_default_is_val_then_each_student_then_the_ensemble():
    assert columns.default_columns([ONE, TWO]) == [
        "val/accuracy",
        *("test/student/accuracy", "last/student/accuracy"),
        *("test/a/accuracy", "last/a/accuracy", "test/b/accuracy", "last/b/accuracy"),
        "test/ensemble/accuracy",
    ]


def test_a_star_is_every_student_and_neither_teacher_nor_ensemble_nor_labels_only():
    content = metrics({"a": 0.8, "b": 0.7, "ensemble": 0.85})
    content["nets"]["a, labels only"] = content["nets"]["a"]
    values = columns.values_of(content)
    assert columns.expand(["test/*/ece"], [values]) == ["test/a/ece", "test/b/ece"]
    assert columns.expand(["test/a, labels only/ece"], [values]) == ["test/a, labels only/ece"]


def test_a_column_is_shown_once():
    names = ["test/b/accuracy", "test/*/accuracy", "val/accuracy"]
    assert columns.expand(names, [TWO]) == ["test/b/accuracy", "test/a/accuracy", "val/accuracy"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("accuracy", "did you mean val/accuracy or "),
        ("test/accuracy", "did you mean .*test/a/accuracy"),
        ("val/a/ece", "did you mean .*last/a/ece"),
        ("last/a/acuracy", "did you mean last/a/accuracy"),
        ("test/z/ece", r"expected one of the nets \*, teacher, a, b, ensemble.*, got z \("),
        ("0/1/2/3", r"expected val/accuracy, val/<net>/.*one of \*, teacher, a, b"),
    ],
)
def test_an_unknown_column_is_refused_with_what_may_be_meant(name, advice):
    with pytest.raises(UserError, match=f"unknown column '{name}': {advice}"):
        columns.expand([name], [TWO])


def test_a_presets_column_may_have_no_number_here():
    names = ["val/accuracy", "test/ensemble/ece", "test/teacher/nll"]
    assert columns.expand(names, [columns.values_of(metrics({"a": 0.8}, None))]) == names
    assert columns.expand(["test/a/ece", "test/*/ece"], []) == ["test/a/ece"]


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("test/a/accuracy", 0.95264, "95.26"),
        ("test/a/agreement", 1.0, "100.00"),
        ("test/a/nll", 0.16352, "0.164"),
        ("net/a/parameters", 308074.0, "308,074"),
        ("net/a/throughput", 1234.5678, "1,235"),
        ("val/a/epoch", 8.0, "8.0"),
        ("test/a/aurc", 0.00234, "0.0023"),
        ("scaled/a/temperature", 1.23456, "1.235"),
    ],
)
def test_the_format_of_a_value_depends_on_its_metric(column, value, shown):
    assert columns.format_value(column, value) == shown
    assert columns.heading(column).endswith("%") == (columns.split(column)[2] in columns.PERCENT)
