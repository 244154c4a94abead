import json
import shutil

import pytest
import yaml
from made_sweeps import config, job, metrics, rows_over_seeds, settings

from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import State
from kd_lightning.reports.sources import read


def run(folder, name, seed=0, val=0.9, done=True, **more):
    """The directory of a single run."""
    (folder / name).mkdir(parents=True)
    (folder / name / "config.yaml").write_text(yaml.safe_dump(config(seed, **more)))
    if done:
        (folder / name / "metrics.json").write_text(json.dumps(metrics({"a": val}, val)))
    return folder / name


def rows(*directories):
    (table,) = reports.build(directories).tables
    return {row[0].removesuffix(" *"): row[1] for row in table.rows}


def test_a_sweeps_results_are_those_of_its_jobs(tmp_path):
    job(tmp_path, "kd", {"variant": "kd", "seed": 3}, metrics({"a": 0.9}), split=7, teacher_seed=5)
    job(tmp_path, "kd", {"variant": "kd", "seed": 4}, "Traceback\nBoom\n")
    (source,) = read([tmp_path])
    done, failed = source.results
    assert (done.number, done.variant, done.seed, done.state) == (0, "kd", 3, State.DONE)
    assert done.seeds == {"seed": 3, "data.split_seed": 7, "teacher.seed": 5}
    assert (failed.state, failed.error, failed.metrics) == (State.FAILED, "Boom", None)
    assert source.title == tmp_path.name


def test_a_seed_that_does_not_vary_is_read_from_the_configuration(tmp_path):
    made = job(tmp_path, "kd", {"variant": "kd"}, metrics({"a": 0.9}))
    (made.directory / "config.yaml").write_text(yaml.safe_dump(config(11)))
    assert read([tmp_path])[0].results[0].seed == 11


def test_single_runs_of_one_title_are_seeds_of_one_row(tmp_path):
    for seed in (0, 1):
        run(tmp_path, f"run{seed}", seed)
    run(tmp_path, "other", title="a title")
    assert rows(tmp_path) == {"a title": "1", "kd on digits": "2"}


def test_what_follows_from_the_seed_and_the_evaluation_set_no_rows_apart(tmp_path):
    for seed in (0, 1):
        run(
            tmp_path, f"run{seed}", seed, method={"seed": seed}, evaluation={"plots": seed == 1},
            data={"seed": seed, "split_seed": seed}, teacher={"seed": seed},
        )  # fmt: skip
    ((_, n),) = rows(tmp_path).items()
    assert n == "2"


def test_a_split_that_does_not_follow_the_seed_sets_rows_apart(tmp_path):
    for seed in (0, 1):
        run(tmp_path, f"run{seed}", seed, data={"split_seed": 1 - seed})
    assert len(rows(tmp_path)) == 2


def test_one_run_directory_is_a_report_of_one_run(tmp_path):
    assert rows(run(tmp_path, "one")) == {"kd on digits": "1"}


def test_runs_with_different_settings_are_different_rows_wherever_they_are(tmp_path):
    one = run(tmp_path / "x", "one", 0, trainer={"max_epochs": 5}, outputs="/home/a")
    two = run(tmp_path / "y", "two", 1, trainer={"max_epochs": 9}, outputs="/home/b")
    assert rows(one, two) == {
        "kd on digits trainer.max_epochs=5": "1",
        "kd on digits trainer.max_epochs=9": "1",
    }


def test_what_follows_from_the_data_is_in_no_name(tmp_path):
    for number, root in enumerate(("/a", "/b")):
        net = {"in_chans": 3 + number, "mean": [0.5 + number], "width": 8}
        task = {"channels": 3 + number, "mean": [0.5 + number]}
        data = {"split_seed": 7, "length": number}
        run(tmp_path, root[1:], method={"_target_": "x.kd.KD", "students": {"a": net}},
            task=task, data={"_target_": "x.ucr.UCR", **data})  # fmt: skip
    assert set(rows(tmp_path)) == {"kd on ucr data.length=0", "kd on ucr data.length=1"}
    given = {"_target_": "x.kd.KD", "students": {"a": {"in_chans": 3, "mean": [0.9], "width": 8}}}
    other = {"channels": 3, "mean": [0.5]}
    data = {"_target_": "x.ucr.UCR", "split_seed": 7, "length": 0}
    run(tmp_path, "c", method=given, task=other, data=data)
    assert "kd on ucr data.length=0 method.students.a.mean=[0.9]" in rows(tmp_path)


def test_an_unfinished_run_is_named(tmp_path):
    run(tmp_path, "done", 0)
    run(tmp_path, "broken-off", 1, done=False)
    (table,) = reports.build([tmp_path]).tables
    assert table.rows[0][1] == "1 of 2"
    assert table.notes[-1] == "broken-off (kd on digits, seed 1): stopped"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is empty or no valid JSON"), ("[]", "is empty or has no keys and values"),
     ('{"nets": {}}', "does not hold the metrics of a run.*KeyError"),
     ('{"objective": 1, "has_val": true, "nets": {"a": {}}}', "does not hold .*KeyError")],
)  # fmt: skip
def test_an_unreadable_metrics_file_is_named_with_its_path(tmp_path, content, message):
    made = job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9}))
    (made.directory / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=rf"jobs/0000/metrics.json {message}.*: remove it"):
        reports.build([tmp_path])


@pytest.mark.parametrize("content", ["{", '{"number": 0}', '{"unheard": 1}'])
def test_an_unreadable_order_is_named_with_its_path(tmp_path, content):
    made = job(tmp_path, "kd", {"seed": 0}, None)
    (made.directory / "job.json").write_text(content)
    with pytest.raises(UserError, match=r"jobs/0000/job.json is not what was written"):
        reports.build([tmp_path])
    (made.directory / "SHA256SUMS").unlink()  # of an earlier version
    with pytest.raises(UserError, match=r"jobs/0000/job.json (is empty or no|does not describe)"):
        reports.build([tmp_path])


@pytest.mark.parametrize("content", ["a: [", "- a", ""])
@pytest.mark.parametrize("name", ["sweep.yaml", "jobs/0000/config.yaml"])
def test_invalid_yaml_is_named_with_its_path(tmp_path, name, content):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9}))
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        reports.build([tmp_path])


def test_a_sweep_without_sweep_yaml_is_refused(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"a": 0.9}))
    (tmp_path / "sweep.yaml").unlink()
    with pytest.raises(UserError, match=r"has no sweep\.yaml"):
        reports.build([tmp_path])


def test_a_directory_without_results_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        reports.build([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="nothing to report on"):
        reports.build([tmp_path])
    (settings(tmp_path) / "records.jsonl").write_text("")
    with pytest.raises(UserError, match=r"its records\.jsonl is empty"):
        reports.build([tmp_path])
    with pytest.raises(UserError, match="got none"):
        reports.build([])


def test_results_may_be_in_a_read_only_directory(tmp_path):
    sweep = rows_over_seeds(tmp_path / "sweep", {"kd": [0.9, "Boom"]})
    for path in (*sweep.rglob("*"), sweep):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        written = reports.write(reports.build([sweep]), tmp_path / "out")
    finally:
        for path in (sweep, *sweep.rglob("*")):
            path.chmod(0o755)
    assert tmp_path / "out" / "table.md" in written


def test_checkpoints_and_logs_are_not_needed(tmp_path):
    sweep = rows_over_seeds(tmp_path / "sweep", {"kd": [0.9, "Boom"], "x": [0.8, 0.7]})
    copy = tmp_path / "elsewhere"
    for path in sweep.glob("jobs/*/*"):
        if path.name in ("job.json", "metrics.json", "config.yaml", "error.txt"):
            (copy / path.relative_to(sweep)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(sweep))
    shutil.copy(sweep / "sweep.yaml", copy)
    assert reports.build([copy]).tables == reports.build([sweep]).tables
