"""A note under every table says what made its numbers."""

import json
from pathlib import Path

from kd_lightning.reports.provenance import notes_on_origin, read_origin

ENVIRONMENT = {
    "git": {"commit": "a" * 40, "dirty": False},
    "versions": {"python": "3.11.7", "torch": "2.15.0", "lightning": "2.6.6", "timm": None},
    "machine": {"cpus": 2, "gpus": []},
}
COMMAND = ["-m", "sweep=ssd_ucr", "teacher.seed=${seed}", "sweep.dir=/somewhere", "outputs=/else"]


def written(folder: Path, *environments: dict) -> Path:
    for number, environment in enumerate(environments):
        job = folder / "jobs" / f"{number:04d}"
        job.mkdir(parents=True)
        (job / "environment.json").write_text(json.dumps(environment))
    return folder


def test_the_note_has_command_commit_versions_and_machine(tmp_path: Path) -> None:
    made = read_origin(COMMAND, written(tmp_path, ENVIRONMENT, ENVIRONMENT))
    assert made[0]["versions"] == {
        "python": ["3.11.7"],
        "torch": ["2.15.0"],
        "lightning": ["2.6.6"],
    }
    assert notes_on_origin(made) == [
        "Made by python -m kd_lightning.run -m sweep=ssd_ucr 'teacher.seed=${seed}' "
        "(commit aaaaaaa, python 3.11.7, torch 2.15.0, lightning 2.6.6, 2 CPU cores)."
    ]


def test_the_command_names_ones_own_folder_and_the_files_that_it_compares(tmp_path: Path) -> None:
    words = ["-m", "sweep=mine", "data.root=/a/x.npz", "outputs=/else", "logger=[csv,wandb]"]
    (entry,) = read_origin(words, written(tmp_path, ENVIRONMENT), "/home/somebody/my_conf")
    assert entry["command"] == ["-m", "--config-dir", "my_conf", "sweep=mine"]
    (entry,) = read_origin(["-m", "data.root=/a/x.npz,/a/y.npz"], tmp_path)
    assert entry["command"] == ["-m", "data.root=/a/x.npz,/a/y.npz"]


def test_the_note_names_everything_that_differs_between_jobs(tmp_path: Path) -> None:
    other = {
        **ENVIRONMENT,
        "git": {"commit": "b" * 40, "dirty": True},
        "machine": {"cpus": 16, "gpus": ["H200", "H200"]},
    }
    (note,) = notes_on_origin(read_origin(COMMAND, written(tmp_path, ENVIRONMENT, other)))
    assert "commit aaaaaaa and bbbbbbb with changes, " in note
    assert "2 CPU cores, H200)." in note


def test_an_installed_package_has_no_commit_and_before_the_first_job_there_is_no_note(
    tmp_path: Path,
) -> None:
    made = read_origin(COMMAND, written(tmp_path / "a", {**ENVIRONMENT, "git": None}))
    assert "(python 3.11.7" in notes_on_origin(made)[0]
    assert read_origin(COMMAND, tmp_path / "b") == []
    half = written(tmp_path / "c", ENVIRONMENT)
    (half / "jobs" / "0000" / "environment.json").write_text('{"git": ')
    assert read_origin(COMMAND, half) == []
