import json

from made_runs import write_job, write_run

from kd_lightning import reports
from kd_lightning.reports.page.origin import command_of, facts_of, started_at
from kd_lightning.reports.page.records import records_of


def records(folder):
    return records_of(reports.build([folder]).source.results, [folder])


def with_command(folder, *words):
    path = write_run(folder) / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "command": list(words)}))
    return records(folder)[0]


def test_a_run_has_the_command_that_was_typed(tmp_path):
    record = with_command(tmp_path / "1", "kd-lightning", "method=kd", "title=a b")
    assert command_of(record).words == "python -m kd_lightning.run method=kd 'title=a b'"


def test_a_run_from_python_has_the_program_that_called_it(tmp_path):
    record = with_command(tmp_path / "1", "my_study.py", "--fast")
    assert command_of(record).words == "my_study.py --fast"


def test_a_job_has_its_overrides(tmp_path):
    write_job(tmp_path / "sweep", write_run(tmp_path / "run"), {"lr": 0.1, "seed": 0})
    (record,) = records(tmp_path / "sweep")
    expected = "python -m kd_lightning.run method=kd 'outputs=/a b' lr=0.1 seed=0"
    assert command_of(record).words == expected


def test_a_job_of_own_yaml_names_its_folder(tmp_path):
    folder = write_job(tmp_path / "sweep", write_run(tmp_path / "run"), {"seed": 0})
    spec = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**spec, "config_dir": "/my conf"}))
    (record,) = records(tmp_path / "sweep")
    assert command_of(record).words.startswith("python -m kd_lightning.run --config-dir '/my conf'")


def test_facts_that_no_file_has_are_left_out(tmp_path):
    folder = write_run(tmp_path / "2026-11-22_10-07-00_kd-digits_1f2e")
    assert started_at(folder) == "2026-11-22 10:07"
    (folder / "environment.json").unlink()
    names = [name for name, _ in facts_of(records(folder), [folder]).facts]
    assert names == ["runs", "started", "data", "teacher"]
