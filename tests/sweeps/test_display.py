"""The display of a sweep shows what its files say."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from kd_lightning.records.jobs import Job, JobSpec, create_job
from kd_lightning.sweeps.display import (
    Monitor,
    ProgressLines,
    duration,
    long_table,
    seconds_left,
    short_names,
    summary,
    table,
)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    def spec(number: int) -> JobSpec:
        axes = {"T": number // 2, "seed": number % 2}
        return JobSpec(number=number, variant=f"T={number // 2}", axes=axes, overrides=[])

    return [create_job(tmp_path / "jobs" / f"{number:04d}", spec(number)) for number in range(6)]


def finish(job: Job, seconds: float, accuracy: float = 0.5) -> None:
    now = time.time()
    progress = {"phase": "done", "begun": now - seconds, "time": now}
    (job.directory / "progress.json").write_text(json.dumps(progress))
    (job.directory / "metrics.json").write_text(json.dumps({"objective": accuracy}))


def printed(renderable, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    console.file.close()
    return console.export_text()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (120, "2 min"), (3600, "60 min"), (7500, "2 h 05 min")],
)
def test_a_time_has_a_short_text(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_before_the_first_job_has_ended_no_time_left_is_shown(jobs: list[Job]) -> None:
    monitor = Monitor(jobs, 6)
    assert seconds_left(monitor(), 6) is None
    assert summary(monitor(), 6) == "0 of 6 done, 6 waiting"


def test_the_time_left_is_estimated_from_the_median_job(jobs: list[Job]) -> None:
    for job, seconds in zip(jobs, (100, 10, 10), strict=False):  # the first trained the teacher
        finish(job, seconds)
    snapshots = Monitor(jobs, 6)()
    assert seconds_left(snapshots, 6) == pytest.approx(30)
    assert summary(snapshots, 6) == "3 of 6 done, 3 waiting; about 30 s left"
    with jobs[3].locked(), jobs[4].locked():
        for job in jobs[3:5]:
            job.report(phase="student", begun=time.time() - 4)
        snapshots = Monitor(jobs, 6)()
        # one waits (10 s), two have 6 s left, and two run at once
        assert seconds_left(snapshots, 6) == pytest.approx((10 + 6 + 6) / 2, abs=0.5)


def test_trials_of_a_search_that_do_not_exist_yet_are_waiting(jobs: list[Job]) -> None:
    finish(jobs[0], 10)
    assert summary(Monitor(jobs[:2], 20)(), 20) == "1 of 20 done, 19 waiting; about 3 min left"


def test_a_running_job_shows_its_phase_its_epoch_and_its_time_left(jobs: list[Job]) -> None:
    now = time.time()
    with jobs[2].locked():
        jobs[2].report(
            phase="teacher mlp", epoch=6, epochs=10, first=2, started=now - 8, accuracy={"a": 0.9}
        )
        text = printed(table("sweep", Monitor(jobs, 6)(), 6, rows=6))
    (line,) = [line for line in text.splitlines() if "running" in line and "teacher" in line]
    assert "T=1 seed=0" in line
    assert "epoch 6/10" in line
    assert "val/accuracy a 0.900" in line
    assert "8 s left" in line


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_narrow_terminal_cuts_names_and_never_numbers_or_states(
    jobs: list[Job], width: int
) -> None:
    (jobs[5].directory / "error.txt").write_text("ValueError: " + "no such thing " * 20)
    text = printed(table("sweep", Monitor(jobs, 6)(), 6, rows=6, width=width), width=width)
    (line,) = [line for line in text.splitlines() if "ValueError" in line]
    assert line.split()[:3] == ["5", "failed", "T=2"]
    assert len(line) <= width
    assert all(len(line) <= width for line in text.splitlines())


def made(folder: Path, names: list[str]) -> list[Job]:
    specs = [
        JobSpec(number=number, variant=name, axes={"data.name": "GunPoint"}, overrides=[])
        for number, name in enumerate(names)
    ]
    return [create_job(folder / f"{spec.number:04d}", spec) for spec in specs]


def test_the_live_table_shows_what_varies(tmp_path: Path) -> None:
    jobs = made(tmp_path, ["kd method.temperature=2 method.x.w=1 method.y.w=1", "kd method.y.w=2"])
    assert list(short_names(Monitor(jobs, 2)()).values()) == [
        "temperature=2 method.x.w=1 method.y.w=1",
        "method.y.w=2",
    ]
    text = printed(table("sweep", Monitor(jobs, 2)(), 2, rows=2, width=80), width=80)
    assert "GunPoint" not in text
    assert "temperature=2 method.x.w=1 method.y.w=1" in text
    (job,) = made(tmp_path / "one", ["kd"])
    assert short_names(Monitor([job], 1)()) == {"kd data.name=GunPoint": "kd name=GunPoint"}


@pytest.mark.parametrize("width", [80, 100])
def test_the_long_table_cuts_and_breaks_no_word(tmp_path: Path, width: int) -> None:
    name = "method.temperature=2 method.students.a.widths=[4,4,8,16] optimizer.lr=0.001"
    jobs = made(tmp_path, [f"{name} method.peer_weight={number}" for number in range(3)])
    error = "UserError: method.temperature must be > 0, and this sentence is long " * 3
    (jobs[1].directory / "error.txt").write_text(error)
    text = printed(long_table("sweep", Monitor(jobs, 3)(), 3), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert Counter(text.split())["method.students.a.widths=[4,4,8,16]"] == 3
    for word in set(f"{name} {error}".split()):
        assert word in text.split()


def test_failed_jobs_are_shown_before_finished_ones(
    jobs: list[Job],
) -> None:
    for job in jobs[:4]:
        finish(job, 1)
    (jobs[5].directory / "error.txt").write_text("Traceback …\nValueError: no such thing\n")
    text = printed(table("sweep", Monitor(jobs, 6)(), 6, rows=2))
    assert "ValueError: no such thing" in text
    assert "… and 4 more" in text
    assert "4 of 6 done, 1 waiting, 1 failed" in text


def test_lines_name_the_job_its_time_and_its_accuracy(jobs: list[Job]) -> None:
    with open("/dev/null", "w") as file:
        console = Console(width=200, record=True, file=file)
        lines = ProgressLines(Monitor(jobs, 6), console)
        lines.sweep_started(Path("there"))
        finish(jobs[0], 12, accuracy=0.75)
        lines.job_ended(jobs[0])
    assert console.export_text().splitlines() == [
        "6 jobs to run: there",
        "job 0 (T=0 seed=0): done, in 12 s, val/accuracy 0.7500",
        "  1 of 6 done, 5 waiting; about 60 s left",
    ]


def test_the_slot_of_a_job_that_has_ended_counts_for_the_time_left(jobs: list[Job]) -> None:
    with open("/dev/null", "w") as file:
        console = Console(width=200, record=True, file=file)
        lines = ProgressLines(Monitor(jobs, 6), console)
        with jobs[1].locked():
            jobs[1].report(phase="student", begun=time.time())
            finish(jobs[0], 10)
            lines.job_ended(jobs[0])
    # four wait, one has all its 10 s left, and two run at once
    assert "1 of 6 done, 4 waiting, 1 running; about 25 s left" in console.export_text()


def test_jobs_that_are_over_are_read_once(jobs: list[Job]) -> None:
    monitor = Monitor(jobs, 6)
    finish(jobs[0], 1)
    monitor()
    (jobs[0].directory / "job.json").unlink()
    assert len(monitor()) == 6


def test_square_brackets_in_a_name_are_not_markup(tmp_path: Path) -> None:
    axes = {"logger": ["csv"], "teacher.source": "[/x]"}
    spec = JobSpec(number=0, variant="logger=[csv] teacher.source=[/x]", axes=axes, overrides=[])
    job = create_job(tmp_path / "jobs" / "0000", spec)
    (job.directory / "error.txt").write_text("there is no [/x]")
    with open("/dev/null", "w") as file:
        console = Console(width=200, record=True, file=file)
        ProgressLines(Monitor([job], 1), console).job_ended(job)
    line = "job 0 (logger=[csv] teacher.source=[/x]): failed, there is no [/x]"
    assert line in console.export_text()
    assert "logger=[csv] teacher.source=[/x]" in printed(table("s", Monitor([job], 1)(), 1, rows=1))
