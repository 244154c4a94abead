"""The local launcher: jobs are taken when they can start; each has its own process and devices."""

import json
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import Interrupted, interruptible
from kd_lightning.launchers import local, process
from kd_lightning.launchers.local import Local, visible_gpus
from kd_lightning.records.jobs import Job, JobSpec, create_job

# A replacement for a training: it writes about.json, and ends as the variant of its job says.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
directory = Path(sys.argv[1])
variant = json.loads((directory / "job.json").read_text())["variant"]
about = {"pid": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
         "rank": os.environ.get("LOCAL_RANK"), "begun": time.time()}
(directory / "about.json").write_text(json.dumps(about))
time.sleep(0.3)
if variant.startswith("beside"):  # ends only if so many others run at the same time
    deadline = time.monotonic() + 60
    while len(list(directory.parent.glob("*/about.json"))) <= int(variant.split()[1]):
        if time.monotonic() > deadline:
            sys.exit(4)
        time.sleep(0.01)
if variant == "fails":
    sys.exit(3)
if variant == "dies":
    os.kill(os.getpid(), 9)
(directory / "about.json").write_text(json.dumps({**about, "ended": time.time()}))
(directory / "metrics.json").write_text("{}")
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """jobs("fine", "fails"): one job for each variant; their command is PROGRAM."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(
        Job, "command", lambda job: [sys.executable, f"{tmp_path}/program.py", str(job.directory)]
    )

    def jobs(*variants: str, **spec) -> list[Job]:
        return [
            create_job(
                tmp_path / "jobs" / f"{number:04d}",
                JobSpec(number=number, variant=variant, axes={}, overrides=[], **spec),
            )
            for number, variant in enumerate(variants)
        ]

    return jobs


def about(job: Job) -> dict:
    return json.loads((job.directory / "about.json").read_text())


def most_at_once(made: Sequence[Job]) -> int:
    times = [(about(job)["begun"], about(job)["ended"]) for job in made]
    return max(sum(a <= begun < b for a, b in times) for begun, _ in times)


def test_every_job_is_yielded_however_it_ended(jobs) -> None:
    made = jobs("fine", "fails", "dies", "fine")
    ended = list(Local(workers=2, warm=False).run(made))
    assert sorted(job.number for job in ended) == [0, 1, 2, 3]
    assert [job.is_over() for job in made] == [True, False, False, True]
    assert made[1].error() == "its process was ended with exit code 3"
    assert made[2].error().startswith("its process was ended by SIGKILL")
    assert len({about(job)["pid"] for job in made}) == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_jobs_run_at_once_as_there_are_workers(jobs, workers: int) -> None:
    made = jobs(*["fine"] * 6)
    list(Local(workers=workers, warm=False).run(made))
    assert most_at_once(made) <= workers
    assert workers == 1 or most_at_once(made) > 1


def test_a_job_is_taken_only_when_it_can_start(jobs) -> None:
    made = jobs(*["fine"] * 4)
    taken: list[int] = []

    def source() -> Iterator[Job]:
        for job in made:
            taken.append(job.number)
            yield job

    for ended in Local(workers=1, warm=False).run(source()):
        # a search chooses the next job after this one has been yielded
        assert taken == list(range(ended.number + 1))


def test_without_jobs_nothing_is_started() -> None:
    assert list(Local().run([])) == []


def test_jobs_have_their_own_gpus(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["4", "5", "7"])
    made = jobs(*["fine"] * 3, devices=2)
    list(Local(warm=False).run(made))
    assert {about(job)["gpus"] for job in made} == {"4,5"}
    times = sorted((about(job)["begun"], about(job)["ended"]) for job in made)
    for (_, ended), (begun, _) in pairwise(times):
        assert begun >= ended - 0.05  # with three GPUs, only one job with two GPUs runs at a time


@pytest.mark.parametrize(("workers", "at_once"), [(None, 4), (3, 3)])
def test_small_jobs_may_share_a_gpu(jobs, monkeypatch, workers: int | None, at_once: int) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["4", "5"])
    made = jobs(*[f"beside {at_once - 1}"] * 8)
    list(Local(workers=workers, jobs_per_gpu=2, warm=False).run(made))
    assert all(job.is_over() for job in made)
    assert [about(job)["gpus"] for job in made[:3]] == ["4", "5", "4"]
    assert most_at_once(made) <= at_once
    for gpu in ("4", "5"):
        assert most_at_once([job for job in made if about(job)["gpus"] == gpu]) <= 2


def test_the_gpus_of_one_job_are_different_ones(jobs, monkeypatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["4", "5"])
    made = jobs(*["beside 1"] * 3, devices=2)
    list(Local(jobs_per_gpu=2, warm=False).run(made))
    assert all(job.is_over() for job in made)
    assert {about(job)["gpus"] for job in made} == {"4,5"}
    assert most_at_once(made) <= 2


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [
        ("MIG-a,MIG-b", 1, ["MIG-a", "MIG-b"]),  # torch counts one slice alone
        ("MIG-a,MIG-b", 0, []),
        ("4,5,7", 2, ["4", "5"]),
        ("", 2, ["0", "1"]),
    ],
)
def test_the_gpus_that_may_be_used(
    named: str, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(local.torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == expected


def test_less_than_one_job_on_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"launcher\.jobs_per_gpu must be >= 1, got 0"):
        Local(jobs_per_gpu=0)


def test_workers_counts_jobs_and_not_devices(jobs, monkeypatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1", "2", "3"])
    second = jobs("fine", "fine", devices=2)[1]
    (first,) = jobs("fine")
    list(Local(workers=1, warm=False).run([first, second]))
    assert (about(first)["gpus"], about(second)["gpus"]) == ("0", "0,1")
    assert about(second)["begun"] >= about(first)["ended"] - 0.05


def test_jobs_on_the_cpu_get_no_gpu(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (job,) = jobs("fine", accelerator="cpu")
    list(Local(warm=False).run([job]))
    assert about(job)["gpus"] is None


def test_jobs_on_the_cpu_and_on_gpus_may_be_mixed(jobs, monkeypatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["4", "5"])
    made = jobs(*["fine"] * 4)
    first = jobs("fine", accelerator="cpu")
    list(Local(warm=False).run([*first, *made[1:]]))
    assert about(first[0])["gpus"] is None
    assert sorted(about(job)["gpus"] for job in made[1:3]) == ["4", "5"]


def test_gpus_have_the_names_in_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8932f937")
    assert visible_gpus() == ["3", "GPU-8932f937"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def test_a_job_does_not_inherit_a_rank(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    (job,) = jobs("fine")
    list(Local(warm=False).run([job]))
    assert about(job)["rank"] is None


def test_running_jobs_end_with_the_sweep(jobs) -> None:
    made = jobs("fine", "fine")
    running = Local(workers=1, warm=False).run(made)
    next(running)
    running.close()  # as after Ctrl-C
    assert made[0].is_over()
    assert not made[1].is_over()
    assert made[1].error() is None


def test_a_job_that_starts_during_an_interrupt_is_ended(jobs, monkeypatch) -> None:
    processes = list[subprocess.Popen]()

    def start_and_interrupt(*arguments: object) -> subprocess.Popen:
        processes.append(process.start(*arguments))
        signal.raise_signal(signal.SIGTERM)
        return processes[0]

    monkeypatch.setattr(
        Local, "start", lambda _, job, devices: start_and_interrupt(job.command(), job.log)
    )
    with pytest.raises(Interrupted), interruptible():
        list(Local().run(jobs("beside 1")))
    assert processes[0].poll() == -signal.SIGTERM


def test_a_job_that_ignores_sigterm_is_killed(jobs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(process, "SECONDS_TO_END", 0.2)
    (tmp_path / "program.py").write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(f'{sys.argv[1]}/began', 'w').close()\ntime.sleep(600)\n"
    )
    (job,) = jobs("deaf")
    running = local.Running(job, Local(warm=False).start(job, []), [])
    while not (job.directory / "began").exists():
        pass
    local.end_all([running])
    assert running.exit_code() == -signal.SIGKILL


def test_zero_workers_are_refused() -> None:
    with pytest.raises(UserError, match=r"launcher.workers must be >= 1 or null, got 0"):
        Local(workers=0)


@pytest.mark.slow
def test_a_forked_job_starts_other_processes_as_a_new_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "says_how.py").write_text(
        "import multiprocessing, os, pathlib, sys\n"
        "how = [multiprocessing.get_start_method(), *sorted(os.environ)]\n"
        "pathlib.Path(sys.argv[1]).write_text(' '.join(how))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command = [sys.executable, "-m", "says_how", str(tmp_path / "how.txt")]
    context = multiprocessing.get_context("forkserver")
    job = context.Process(target=local.run_forked, args=(command, {"ONLY": "this"}))
    with local.hide_main_module():
        job.start()
    job.join()
    new = [sys.executable, "-c", "import multiprocessing as m; print(m.get_start_method())"]
    usual = subprocess.run(new, capture_output=True, text=True).stdout.strip()
    assert (tmp_path / "how.txt").read_text() == f"{usual} KD_LIGHTNING_PARENT ONLY"
