"""A student is found in its run, and a run is used only for its own students."""

import json
from pathlib import Path

import pytest

from kd_lightning.exports.source import record_of, run_of

TESTED = {"accuracy": 0.5}
INFO = {"key": "a", "metrics": {"test": TESTED}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    (run / "students" / "a").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "metrics.json").write_text(json.dumps({"nets": {"a": {"test": TESTED}}}))
    return run


def test_a_run_is_found_from_each_of_its_student_files(run: Path, tmp_path: Path) -> None:
    file = run / "students" / "a" / "student.safetensors"
    for source in (run, file, file.parent):
        assert run_of(source) == run.resolve()
    assert run_of(tmp_path / "student.safetensors") is None
    assert run_of(run / "student.safetensors") is None  # received, beside some config.yaml
    assert run_of(file.parent / "deeper" / "student.safetensors") is None


def test_a_record_is_used_only_if_it_is_that_of_the_student(run: Path) -> None:
    assert record_of(run, INFO) == {"nets": {"a": {"test": TESTED}}}
    assert record_of(run, INFO | {"key": "b"}) is None
    assert record_of(run, INFO | {"metrics": {"test": {"accuracy": 0.6}}}) is None
    assert record_of(run, {}) is None
    assert record_of(None, INFO) is None
    (run / "metrics.json").unlink()
    assert record_of(run, INFO) is None
