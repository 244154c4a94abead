"""Python's audit hooks see no pickle, no program and no connection when a received run is used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

# git for the commit in a record; the other two are started by Python's platform and by torch
PROGRAMS = {"git", "uname", "/sbin/ldconfig"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    place = tmp_path_factory.mktemp("audit")
    program = [sys.executable, str(Path(__file__).parent / "audited_commands.py"), str(place)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        program, cwd=place, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_no_file_of_a_run_is_unpickled(found: dict) -> None:
    assert [what for event, what in found["seen"] if event == "pickle.find_class"] == []
    assert not found["called"]


@pytest.mark.slow
def test_a_run_starts_no_program_but_fixed_ones(found: dict) -> None:
    assert {what for event, what in found["seen"] if event == "subprocess.Popen"} <= PROGRAMS
    others = {event for event, _ in found["seen"]} - {"subprocess.Popen"}
    assert not others & {"os.system", "os.exec", "os.posix_spawn", "os.fork"}


@pytest.mark.slow
def test_a_run_without_a_logger_connects_to_nothing(found: dict) -> None:
    assert [event for event in found["seen"] if event[0].startswith(("socket", "urllib"))] == []
