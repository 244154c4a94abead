import json
from dataclasses import replace

import pytest
from made_sweeps import job, metrics, rows_over_seeds

from kd_lightning.base.errors import UserError
from kd_lightning.reports.job_results import JobResult, portable, read_jsonl, to_jsonl
from kd_lightning.reports.sources import read


def test_results_are_read_back_as_they_were_written(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9, "Boom", None], "é": [1 / 3]})
    (source,) = read([tmp_path])
    path = tmp_path / "records.jsonl"
    path.write_text(to_jsonl(source.results))
    assert to_jsonl(read_jsonl(path)) == path.read_text()
    assert len(path.read_text().splitlines()) == 6 - 2
    assert [r.state for r in read_jsonl(path)] == [r.state for r in source.results]
    assert read_jsonl(path)[1].values == source.results[1].values


def test_a_written_result_names_no_folder_of_its_machine(tmp_path):
    overrides = ["outputs=/home/somebody/x", "+data.root=/data/y", "hardware.devices=2", "data=har"]
    job(tmp_path / "s", "kd", {"seed": 0}, metrics({"a": 0.9}), overrides=overrides)
    (source,) = read([tmp_path / "s"])
    (result,) = source.results
    assert list(result.overrides) == ["data=har", "seed=0"]
    assert result.metrics["nets"]["teacher"]["origin"] == "trained, teacher-mlp-1234"
    text = to_jsonl(source.results)
    assert "/home" not in text
    assert str(tmp_path) not in text
    assert portable(result) == result


def test_a_written_result_keeps_the_settings_of_the_evaluation(tmp_path):
    overrides = ["evaluation.temperature_scaling=true", "threads=1"]
    job(tmp_path / "s", "kd", {"seed": 0}, metrics({"a": 0.9}), overrides=overrides)
    (source,) = read([tmp_path / "s"])
    assert list(source.results[0].overrides) == [overrides[0], "seed=0"]


def test_teachers_are_told_apart_by_origin_and_accuracy():
    result = JobResult("s", 0, "kd", {}, metrics=metrics({"a": 0.9}))
    others = [metrics({"a": 0.9}, origin="trained, x/other"), metrics({"a": 0.9}, teacher=0.5)]
    teachers = {result.teacher, *(replace(result, metrics=m).teacher for m in others)}
    assert len(teachers) == 3
    assert replace(result, metrics=metrics({"a": 0.9}, teacher=None)).teacher is None
    assert replace(result, metrics=None).teacher is None


@pytest.mark.parametrize(
    "change",
    [lambda line: line[:-5], lambda line: "{}", lambda line: "[]",
     lambda line: json.dumps({**json.loads(line), "state": "odd"}),
     lambda line: json.dumps({**json.loads(line), "metrics": {"nets": 3}})],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, change):
    good = to_jsonl([JobResult("s", 0, "kd", {}, metrics=metrics({"a": 0.9}))])
    path = tmp_path / "records.jsonl"
    path.write_text(good + change(good.strip()) + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*records\.jsonl is not the result of a job"):
        read_jsonl(path)


def test_a_written_result_keeps_the_precision_which_changes_numbers(tmp_path):
    overrides = ["hardware.precision=bf16-mixed", "hardware.devices=2"]
    job(tmp_path / "s", "kd", {"seed": 0}, metrics({"a": 0.9}), overrides=overrides)
    (source,) = read([tmp_path / "s"])
    assert list(source.results[0].overrides) == [overrides[0], "seed=0"]


def test_a_title_may_have_signs_that_end_lines_elsewhere(tmp_path):
    job(tmp_path, "a\u2028b", {"seed": 0}, metrics({"a": 0.9}, title="x\u0085y"))
    (source,) = read([tmp_path])
    (tmp_path / "records.jsonl").write_text(to_jsonl(source.results), encoding="utf-8")
    (result,) = read_jsonl(tmp_path / "records.jsonl")
    assert (result.variant, result.metrics["title"]) == ("a\u2028b", "x\u0085y")
