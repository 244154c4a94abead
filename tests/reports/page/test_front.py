import pytest
from made_sweeps import job, metrics

from kd_lightning import reports
from kd_lightning.reports.page.front import (
    Net,
    count_nets,
    format_seconds,
    front_figures,
    nets_of,
    pareto,
)
from kd_lightning.reports.page.records import records_of
from kd_lightning.reports.statistics import Sample


def net(name, accuracy, parameters):
    return Net(name, "", accuracy, None, parameters, 1.0)


def test_the_front_has_the_nets_that_no_cheaper_net_beats():
    nets = [net("large", 0.95, 100), net("worse", 0.8, 50), net("small", 0.9, 10),
            net("as small", 0.85, 10), net("no better", 0.95, 200)]  # fmt: skip
    assert [n.name for n in pareto(nets, lambda n: n.parameters)] == ["small", "large"]


def records(folder, rows):
    for name, accuracies in rows.items():
        for seed, accuracy in enumerate(accuracies):
            outcome = metrics({"a": accuracy}, seed=seed)
            job(folder, name, {"variant": name, "seed": seed}, outcome)
    return records_of(reports.build([folder]).source.results, [folder])


def test_a_net_over_seeds_has_the_interval_of_its_mean(tmp_path):
    nets = {n.name: n for n in nets_of(records(tmp_path / "s", {"kd": [0.8, 0.9, 0.85]}))}
    sample = Sample((0.8, 0.9, 0.85))
    assert nets["a"].accuracy == pytest.approx(sample.mean)
    assert nets["a"].interval == pytest.approx(sample.interval())
    assert nets["a"].row == ""
    assert nets["a"].seconds == pytest.approx(1 / 30)


def test_each_row_has_its_nets_and_intervals_stay_in_percent(tmp_path):
    nets = nets_of(records(tmp_path / "s", {"kd": [0.5, 1.0], "labels": [0.7]}))
    assert [(n.name, n.row) for n in nets] == [
        ("teacher", "kd"), ("a", "kd"), ("teacher", "labels"), ("a", "labels")]  # fmt: skip
    assert nets[1].interval == (0.0, 1.0)
    assert nets[3].interval is None  # one seed, and no file has the number of test samples


def test_one_net_alone_has_no_chart():
    assert front_figures([]) == []


def test_times_have_a_unit():
    assert [format_seconds(s) for s in (2.0, 0.0031, 4.5e-6, 9e-8)] == ["2 s", "3.1 ms", "4.5 µs",
                                                                       "90 ns"]  # fmt: skip


def test_each_data_set_has_charts_of_its_own(tmp_path):
    for number in range(8):
        axes = {"data.name": "AB"[number // 4], "T": number // 2 % 2, "seed": number % 2}
        job(tmp_path, f"T={axes['T']}", axes, metrics({"a": 0.5 + number / 100}))
    source = reports.build([tmp_path]).source
    found = records_of(source.results, [tmp_path], source.data_sets)
    titles = [f"Accuracy and {x} on {name}" for name in "AB" for x in ("size", "time")]
    assert [figure.title for figure in front_figures(found)] == titles
    assert count_nets(found) == 8  # two sets, two rows, teacher and student
    assert len({record.name for record in found}) == 8


def test_intervals_over_resamples_are_corrected_as_in_the_tables(tmp_path):
    for seed, accuracy in enumerate((0.8, 0.9, 0.85)):
        outcome = metrics({"a": accuracy}) | {"protocol": "of it (30 / 10 / 120 samples)"}
        job(tmp_path, "kd", {"seed": seed}, outcome, resample=seed)
    found = records_of(reports.build([tmp_path]).source.results, [tmp_path])
    (student,) = [n for n in nets_of(found) if n.name == "a"]
    low, high = Sample((0.8, 0.9, 0.85), 3).interval()
    assert student.interval == pytest.approx((max(low, 0), min(high, 1)))
