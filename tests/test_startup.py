"""benchmarks.startup: reading Python's import times, and the times of a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked_runs import command_line

from benchmarks import startup, timed_run

OUTPUT = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |     json.decoder
import time:        50 |        150 |   json
import time:        10 |         10 |       fast.core
import time:        20 |         30 |     fast
import time:         5 |         35 |   ours.part
import time:         1 |        186 | ours
"""


def test_times_are_summed_by_package_and_each_package_has_its_first_importer() -> None:
    own, importers = startup.by_package(OUTPUT)
    assert own == {"json": 150, "fast": 30, "ours": 6}
    assert importers == {"json": "ours", "fast": "ours.part"}


def test_the_importer_of_a_package_is_a_module_of_another_package() -> None:
    output = (
        "import time: 1 | 1 |     lib\nimport time: 2 | 3 |   lib.part\nimport time: 1 | 4 | ours"
    )
    assert startup.by_package(output)[1] == {"lib": "ours"}


def test_a_stage_inside_another_stage_is_not_counted_separately() -> None:
    module = SimpleNamespace()
    module.build_data = lambda: None
    module.get_teacher = lambda: module.build_data() or "teacher"
    stages: dict[str, float] = {}
    timed_run.time_stages(module, stages)
    assert module.get_teacher() == "teacher"
    assert list(stages) == ["get_teacher"]
    module.build_data()
    assert list(stages) == ["get_teacher", "build_data"]


def test_every_second_is_counted_once() -> None:
    moments = {"python": 1.0, "imported": 4.0, "run": 5.0, "over": 15.0}
    rows = startup.seconds_of(0.5, moments, {"fit": 6.0, "build_data": 1.0}, 16.0)
    assert sum(seconds for _, seconds in rows) == pytest.approx(15.5)
    assert dict(rows)["rest of the run"] == pytest.approx(3)
    assert dict(rows)["fit"] == 6


def test_the_stages_are_functions_that_a_run_calls() -> None:
    from kd_lightning.running import run

    assert [name for name in timed_run.STAGES if not hasattr(run, name)] == []


@pytest.mark.slow
def test_a_timed_run_records_its_moments_and_stages(tmp_path: Path, tiny: list[str]) -> None:
    file = tmp_path / "times.json"
    done = command_line(tmp_path, str(file), "method=kd", *tiny, program="benchmarks.timed_run")
    assert done.returncode == 0, done.stderr[-3000:]
    times = json.loads(file.read_text())
    assert list(times["moments"]) == ["python", "imported", "run", "first step", "over"]
    assert {"build_data", "get_teacher", "fit", "test_run"} <= times["stages"].keys()
    moments = times["moments"]
    rows = startup.seconds_of(moments["python"], **times, end=moments["over"])
    assert min(seconds for _, seconds in rows) >= 0


@pytest.mark.slow
def test_the_shortest_possible_start_builds_the_nets() -> None:
    nets = startup.nets_of(("data=digits",))
    assert len(nets) == 3
    assert startup.process("-c", startup.BUILD_NETS, json.dumps(nets)) > 0
