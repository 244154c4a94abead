"""Results of different data are not averaged, whatever their settings say."""

import json
from pathlib import Path

import pytest
import yaml
from made_sweeps import config, job, metrics

from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.reports.contents import hashes_of, mixed_data
from kd_lightning.reports.job_results import JobResult


def done(sweep: Path, seed: int, content: str, teacher: str = "t", **data) -> None:
    made = job(sweep, "kd", {"seed": seed, **data}, metrics({"a": 0.9}, seed=seed))
    of_run = config(seed)
    of_run["data"] |= {
        "root": f"/data/{content}",
        **{k.removeprefix("data."): v for k, v in data.items()},
    }
    (made.directory / "config.yaml").write_text(yaml.safe_dump(of_run))
    environment = {"data": {"fingerprint": content * 16}, "teacher": {"fingerprint": teacher}}
    (made.directory / "environment.json").write_text(json.dumps(environment))


def test_sweeps_over_other_files_are_not_joined(tmp_path: Path) -> None:
    done(tmp_path / "a", 0, "x")
    done(tmp_path / "b", 1, "y")
    done(tmp_path / "c", 2, "x")
    said = (
        r"results are of 2 data sets with the same settings, such as those of a job 0 \(xxxxxxxx\) "
    )
    with pytest.raises(
        UserError, match=said + r"and of b job 0 \(yyyyyyyy\).*report on them apart"
    ):
        reports.build([tmp_path / "a", tmp_path / "b"])
    (table,) = reports.build([tmp_path / "a", tmp_path / "c"]).tables
    assert [row[:2] for row in table.rows] == [["kd", "2"]]


def test_a_written_report_still_knows_its_data(tmp_path: Path) -> None:
    for name, content in (("a", "x"), ("b", "y")):
        done(tmp_path / name, int(name == "b"), content)
        reports.write(reports.build([tmp_path / name]), tmp_path / f"{name}-report")
    with pytest.raises(UserError, match="2 data sets with the same settings"):
        reports.build([tmp_path / "a-report", tmp_path / "b-report"])


def test_a_sweep_whose_files_changed_says_so(tmp_path: Path) -> None:
    done(tmp_path / "a", 0, "x")
    done(tmp_path / "a", 1, "y")
    (table,) = reports.build([tmp_path / "a"]).tables
    assert any("the files have changed while the sweep ran" in note for note in table.notes)


def test_settings_that_change_the_samples_are_no_fault(tmp_path: Path) -> None:
    done(tmp_path / "a", 0, "x", **{"data.split_seed": 0})
    done(tmp_path / "a", 1, "y", **{"data.split_seed": 1})
    (table, *_) = reports.build([tmp_path / "a"]).tables
    assert not any("changed" in note for note in table.notes)


def test_a_sweep_over_folders_has_rows_of_its_own(tmp_path: Path) -> None:
    done(tmp_path / "a", 0, "x", **{"data.root": "/data/x"})
    done(tmp_path / "a", 1, "y", **{"data.root": "/data/y"})
    assert not any("changed" in n for t in reports.build([tmp_path / "a"]).tables for n in t.notes)


def test_a_teachers_file_that_was_replaced_is_another_teacher(tmp_path: Path) -> None:
    done(tmp_path / "a", 0, "x", teacher="one")
    done(tmp_path / "a", 1, "x", teacher="two")
    (table,) = reports.build([tmp_path / "a"]).tables
    notes = " ".join(table.notes)
    assert "have the same teacher" not in notes
    assert "2 teachers" in notes


def test_a_run_without_a_teacher_does_not_have_that_of_the_others(tmp_path: Path) -> None:
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9}))
    job(tmp_path, "labels only", {"seed": 0}, metrics({"a": 0.9}, teacher=None))
    (table,) = reports.build([tmp_path]).tables
    assert any(note.startswith("All runs with a teacher have the same") for note in table.notes)


def test_only_settings_that_shape_the_samples_are_hashed() -> None:
    plain = {"data": {"_target_": "a.B", "split_seed": 0}}
    environment = {"data": {"fingerprint": "f"}, "teacher": {"fingerprint": None}}
    first = hashes_of(plain, environment)
    assert first.keys() == {"data", "data_settings"}
    for key in ("root", "seed", "batch_size", "num_workers", "mixing", "unlabeled_ratio"):
        assert hashes_of({"data": {**plain["data"], key: 7}}, environment) == first, key
    assert hashes_of({"data": {**plain["data"], "label_noise": 0.4}}, environment) != first


def test_results_of_older_versions_are_not_compared() -> None:
    results = [JobResult("a", n, "kd", {}, hashes=h) for n, h in enumerate(({}, {"data": "x"}))]
    assert mixed_data(results, ["data"]) is None
