"""The order in which the jobs of a sweep are started: none waits for a teacher without need."""

from pathlib import Path

import pytest

from kd_lightning.records.jobs import Job, JobSpec, create_job
from kd_lightning.sweeps.engine import FixedJobs


def jobs_with(teachers: list[str], directory: Path) -> FixedJobs:
    for number, teacher in enumerate(teachers):
        spec = JobSpec(number=number, variant="", axes={}, overrides=[], teacher=teacher)
        create_job(directory / "jobs" / f"{number:04d}", spec)
    return FixedJobs(directory, len(teachers))


def end(job: Job) -> None:
    (job.directory / "metrics.json").write_text("{}")


def test_jobs_start_in_order_if_each_ends_before_the_next(tmp_path: Path) -> None:
    order = []
    for job in jobs_with(["a", "a", "b", "b", ""], tmp_path).remaining():
        order.append(job.number)
        end(job)
    assert order == [0, 1, 2, 3, 4]


def test_a_job_does_not_wait_for_a_teacher_while_others_can_start(tmp_path: Path) -> None:
    remaining = jobs_with(["a", "a", "b", "", "b"], tmp_path).remaining()
    started = [next(remaining) for _ in range(3)]
    assert [job.number for job in started] == [0, 2, 3]
    end(started[0])  # so its teacher is there
    assert [job.number for job in remaining] == [1, 4]  # nothing else is left: job 4 waits


def test_a_teacher_that_is_kept_by_a_finished_job_makes_no_job_wait(tmp_path: Path) -> None:
    jobs = jobs_with(["a", "a", "a"], tmp_path)
    end(jobs.jobs[1])
    remaining = jobs.remaining()
    assert [job.number for job in remaining] == [0, 2]


def test_a_job_that_another_process_runs_comes_last(tmp_path: Path) -> None:
    jobs = jobs_with(["", "", ""], tmp_path)
    with jobs.jobs[0].locked():
        assert [job.number for job in jobs.remaining()] == [1, 2, 0]


@pytest.mark.parametrize("count", [300])
def test_each_job_of_a_large_sweep_is_started_once(count: int, tmp_path: Path) -> None:
    jobs = jobs_with([str(number % 7) for number in range(count)], tmp_path)
    assert sorted(job.number for job in jobs.remaining()) == list(range(count))
