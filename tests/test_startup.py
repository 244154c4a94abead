"""Where the time of a start goes: what is read from Python's protocol, and from a watched run."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import startup, watched

SAID = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |     json.decoder
import time:        50 |        150 |   json
import time:        10 |         10 |       fast.core
import time:        20 |         30 |     fast
import time:         5 |         35 |   ours.part
import time:         1 |        186 | ours
"""


def test_times_are_summed_by_package_and_each_has_who_brought_it() -> None:
    own, brought = startup.by_package(SAID)
    assert own == {"json": 150, "fast": 30, "ours": 6}
    assert brought == {"json": "ours", "fast": "ours.part"}


def test_who_imports_a_part_of_itself_first_has_not_brought_itself() -> None:
    said = (
        "import time: 1 | 1 |     lib\nimport time: 2 | 3 |   lib.part\nimport time: 1 | 4 | ours"
    )
    assert startup.by_package(said)[1] == {"lib": "ours"}


def test_a_run_within_a_run_is_part_of_the_stage_that_needs_it() -> None:
    module = SimpleNamespace()
    module.build_data = lambda: None
    module.get_teacher = lambda: module.build_data() or "teacher"
    stages: dict[str, float] = {}
    watched.watch(module, stages)
    assert module.get_teacher() == "teacher"
    assert list(stages) == ["get_teacher"]
    module.build_data()
    assert list(stages) == ["get_teacher", "build_data"]


def test_all_seconds_have_a_name_once() -> None:
    notes = {"python": 1.0, "imported": 4.0, "run": 5.0, "over": 15.0}
    found = startup.seconds_of(0.5, notes, {"fit": 6.0, "build_data": 1.0}, 16.0)
    assert sum(seconds for _, seconds in found) == pytest.approx(15.5)
    assert dict(found)["else in the run"] == pytest.approx(3)
    assert dict(found)["fit"] == 6


def test_the_stages_are_functions_that_a_run_calls() -> None:
    from kd_lightning import run

    assert [name for name in watched.STAGES if not hasattr(run, name)] == []


@pytest.mark.slow
def test_a_watched_run_notes_all_of_it(tmp_path: Path, tiny: list[str]) -> None:
    file = tmp_path / "notes.json"
    words = ["-m", "benchmarks.watched", str(file), "method=kd", *tiny]
    subprocess.run([sys.executable, *words], cwd=startup.ROOT, check=True, capture_output=True)
    found = json.loads(file.read_text())
    assert list(found["notes"]) == ["python", "imported", "run", "first step", "over"]
    assert {"build_data", "get_teacher", "fit", "test_run"} <= found["stages"].keys()
    rows = startup.seconds_of(found["notes"]["python"], **found, ended=found["notes"]["over"])
    assert min(seconds for _, seconds in rows) >= 0


@pytest.mark.slow
def test_the_least_that_a_run_needs_builds_its_nets() -> None:
    nets = startup.nets_of(("data=digits",))
    assert len(nets) == 3
    assert startup.process("-c", startup.NETS, json.dumps(nets)) > 0
