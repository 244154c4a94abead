"""Under every table stands what made its numbers."""

import json
from pathlib import Path

from kd_lightning.reports.provenance import made_by, sentences

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


def test_command_commit_versions_and_machine_are_said(tmp_path: Path) -> None:
    made = made_by(COMMAND, written(tmp_path, ENVIRONMENT, ENVIRONMENT))
    assert made[0]["versions"] == {
        "python": ["3.11.7"],
        "torch": ["2.15.0"],
        "lightning": ["2.6.6"],
    }
    assert sentences(made) == [
        "Made by python -m kd_lightning.run -m sweep=ssd_ucr 'teacher.seed=${seed}' "
        "(commit aaaaaaa, python 3.11.7, torch 2.15.0, lightning 2.6.6, 2 CPU cores)."
    ]


def test_what_differs_between_jobs_is_all_named(tmp_path: Path) -> None:
    other = {
        **ENVIRONMENT,
        "git": {"commit": "b" * 40, "dirty": True},
        "machine": {"cpus": 16, "gpus": ["H200", "H200"]},
    }
    (sentence,) = sentences(made_by(COMMAND, written(tmp_path, ENVIRONMENT, other)))
    assert "commit aaaaaaa and bbbbbbb with changes, " in sentence
    assert "2 CPU cores, H200)." in sentence


def test_an_installed_package_has_no_commit_and_nothing_begun_says_nothing(tmp_path: Path) -> None:
    made = made_by(COMMAND, written(tmp_path / "a", {**ENVIRONMENT, "git": None}))
    assert "(python 3.11.7" in sentences(made)[0]
    assert made_by(COMMAND, tmp_path / "b") == []
    half = written(tmp_path / "c", ENVIRONMENT)
    (half / "jobs" / "0000" / "environment.json").write_text('{"git": ')
    assert made_by(COMMAND, half) == []
