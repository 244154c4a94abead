import json
from dataclasses import replace

import pytest
from made_sweeps import job, metrics, rows_over_seeds

from kd_lightning.base.errors import UserError
from kd_lightning.reports.job_results import JobResult, packed, portable, unpacked
from kd_lightning.reports.sources import read


def test_records_are_read_back_as_they_were_packed(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9, "Boom", None], "é": [1 / 3]})
    (source,) = read([tmp_path])
    path = tmp_path / "records.jsonl"
    path.write_text(packed(source.records))
    assert packed(unpacked(path)) == path.read_text()
    assert len(path.read_text().splitlines()) == 6 - 2
    assert [r.state for r in unpacked(path)] == [r.state for r in source.records]
    assert unpacked(path)[1].values == source.records[1].values


def test_a_packed_record_names_no_folder_of_its_machine(tmp_path):
    overrides = ["outputs=/home/somebody/x", "+data.root=/data/y", "hardware.devices=2", "data=har"]
    job(tmp_path / "s", "kd", {"seed": 0}, metrics({"a": 0.9}), overrides=overrides)
    (source,) = read([tmp_path / "s"])
    (record,) = source.records
    assert list(record.overrides) == ["data=har", "seed=0"]
    assert record.metrics["nets"]["teacher"]["origin"] == "trained, teacher-mlp-1234"
    text = packed(source.records)
    assert "/home" not in text
    assert str(tmp_path) not in text
    assert portable(record) == record


def test_a_packed_record_keeps_what_was_tested_besides(tmp_path):
    overrides = ["evaluation.temperature_scaling=true", "threads=1"]
    job(tmp_path / "s", "kd", {"seed": 0}, metrics({"a": 0.9}), overrides=overrides)
    (source,) = read([tmp_path / "s"])
    assert list(source.records[0].overrides) == [overrides[0], "seed=0"]


def test_teachers_are_told_apart_by_origin_and_accuracy():
    record = JobResult("s", 0, "kd", {}, metrics=metrics({"a": 0.9}))
    others = [metrics({"a": 0.9}, origin="trained, x/other"), metrics({"a": 0.9}, teacher=0.5)]
    teachers = {record.teacher, *(replace(record, metrics=m).teacher for m in others)}
    assert len(teachers) == 3
    assert replace(record, metrics=metrics({"a": 0.9}, teacher=None)).teacher is None
    assert replace(record, metrics=None).teacher is None


@pytest.mark.parametrize(
    "change",
    [lambda line: line[:-5], lambda line: "{}", lambda line: "[]",
     lambda line: json.dumps({**json.loads(line), "state": "odd"}),
     lambda line: json.dumps({**json.loads(line), "metrics": {"nets": 3}})],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, change):
    good = packed([JobResult("s", 0, "kd", {}, metrics=metrics({"a": 0.9}))])
    path = tmp_path / "records.jsonl"
    path.write_text(good + change(good.strip()) + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*records\.jsonl is no record"):
        unpacked(path)
