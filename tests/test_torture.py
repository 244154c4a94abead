"""The short form of ``make torture``: some kills and faults; and the tools see what is lost."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import popen_forkserver
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from benchmarks.torture import faults, kills, points, soak
from benchmarks.torture.cases import CASES, RUN, differences, log_of
from benchmarks.torture.forked import start_run, wait_for_all
from benchmarks.torture.soak import Sample, growth
from benchmarks.torture.write_points import Point, WritePoints, first_and_last, read_points
from kd_lightning.records.jobs import State

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torture")
    (folder / "teachers").mkdir()
    return folder


@pytest.fixture(scope="module")
def plain(root: Path) -> kills.Undisturbed:
    return kills.undisturbed(faults.PLAIN, root)


def test_runs_that_are_killed_at_random_moments_end_as_undisturbed_ones(tmp_path: Path) -> None:
    found = list(kills.trials([CASES["kd"]], kills=3, seed=0, root=tmp_path, workers=1))
    assert sum(len(trial.kills) for trial in found) == 3
    assert not [trial.fault for trial in found if trial.fault]


@pytest.mark.parametrize(
    "point",
    [
        Point("half a file", f"{RUN}/last.ckpt", 1),
        Point("after the rename", f"{RUN}/last.ckpt", 2),
        Point("before the rename", f"{RUN}/metrics.json", 0),
    ],
    ids=str,
)
def test_a_run_that_is_killed_at_a_point_of_writing_ends_as_an_undisturbed_one(
    point: Point, plain: kills.Undisturbed, tmp_path: Path, root: Path
) -> None:
    folder = tmp_path / "killed"
    death = points.killed_at(plain.case, point, folder, root, plain.outcome)
    assert death.fault is None


@pytest.mark.parametrize(
    "name",
    ["run's folder is removed", "clock jumps by years", "logger wandb: its process is killed",
     "run's folder becomes read-only"],
)  # fmt: skip
def test_a_fault_leaves_equal_numbers_or_one_sentence(
    name: str, plain: kills.Undisturbed, root: Path
) -> None:
    (fault,) = [fault for fault in faults.FAULTS if fault.name == name]
    ended = faults.endured(fault, fault.case.folder(root, name), plain.outcome)
    assert ended.how in ("equal numbers", "one sentence"), ended


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_one_sentence_and_the_run_can_be_resumed(
    plain: kills.Undisturbed, root: Path
) -> None:
    fault = faults.Fault("full", **faults.FULL_DISK)
    ended = faults.endured(fault, root / "full", plain.outcome)
    assert ended.how in ("one sentence", "skipped"), ended


# The tools see what they look for


def test_a_run_that_was_not_disturbed_has_not_survived_a_fault(
    plain: kills.Undisturbed, root: Path
) -> None:
    fault = faults.Fault("nothing happens", trace="what nobody prints")
    ended = faults.endured(fault, root / "nothing", plain.outcome)
    assert (ended.how, ended.says) == ("lost", "was not disturbed")


def raise_an_error(folder: Path) -> None:
    raise KeyError(folder.name)


def test_a_lost_run_is_named_by_what_it_says(plain: kills.Undisturbed, root: Path) -> None:
    fault = faults.Fault("an error", action=raise_an_error, trace="what nobody prints")
    ended = faults.endured(fault, root / "error", plain.outcome)
    assert ended == faults.Ended("an error", "lost", "a traceback: KeyError: 'error'")


def test_a_forked_run_does_not_write_through_the_wandb_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "a process of this one")
    program, log = tmp_path / "show.py", tmp_path / "log"
    program.write_text("import os; print('WANDB_SERVICE' in os.environ)")
    assert wait_for_all([start_run(log, program=str(program))], 60)
    assert log.read_text() == "False\n"


def test_every_step_of_a_write_is_a_point(tmp_path: Path) -> None:
    record = tmp_path / "points.tsv"
    watch = WritePoints(tmp_path / "disk", record)
    target = tmp_path / "disk" / "teacher-0123456789ab" / "last.ckpt"
    target.parent.mkdir(parents=True)
    temporary = target.with_name("last.ckpt.tmp")
    for _ in range(3):
        temporary.write_text("new")
        watch.heard("open", (temporary, "w", os.O_WRONLY))
        watch.watching(os.replace)(temporary, target)
    watch.watching(os.replace)(target, target.with_name("whole"))
    watch.heard("open", (target, "r", os.O_RDONLY))
    watch.heard("open", (tmp_path / "elsewhere", "w", os.O_WRONLY))
    found = [point for point in read_points(record) if not point.file.endswith("whole")]
    assert "half a file" not in {p.kind for p in read_points(record) if p not in found}
    assert {point.file for point in found} == {
        "teacher-…/last.ckpt.tmp",
        "teacher-…/last.ckpt",
    }
    kinds = ["open", "half a file", "before the rename", "after the rename", "power failure"]
    assert [point.kind for point in found] == 3 * kinds
    chosen = first_and_last(found)
    assert [(p.kind, p.count) for p in chosen if p.count] == [(kind, 2) for kind in kinds[1:]]


def test_numbers_that_differ_and_files_that_are_missing_are_seen() -> None:
    one = {"metrics.json": {"a": 1.0}, "last.ckpt": {"w": b"1"}, "epochs.csv": [["0"]]}
    assert not differences(one, dict(one))
    other = {"metrics.json": {"a": 1.5}, "last.ckpt": {"w": b"1"}}
    assert differences(one, other) == ["epochs.csv", "metrics.json"]


def test_a_run_that_prints_a_traceback_or_says_nothing_is_lost(
    plain: kills.Undisturbed, tmp_path: Path
) -> None:
    for program, says in (
        ("raise KeyError('x')", "a traceback: KeyError: 'x'"),
        ("import sys; sys.exit(3)", "exit code 3, 0 sentences"),
    ):
        path = tmp_path / "program.py"
        path.write_text(program)
        log = log_of(tmp_path / "run")
        log.touch()
        process = start_run(log, program=str(path))
        ended = faults.judged(process, plain.case, tmp_path / "run", plain.outcome)
        assert (ended.how, ended.says) == ("lost", says)


def test_growth_is_that_of_the_last_fifth_over_the_first() -> None:
    samples = [Sample(100 + n, 20, 4, n) for n in range(10)]
    assert growth(samples, "files") == 0
    assert growth(samples, "own") == pytest.approx(108.5 / 100.5 - 1)


@pytest.mark.slow
def test_a_sweep_of_jobs_is_measured_while_it_runs(tmp_path: Path) -> None:
    samples, states = soak.soaked(4, 2, tmp_path)
    assert [str(state) for state in states] == ["done"] * 4
    assert samples
    assert all(sample.own > 0 and sample.files > 0 for sample in samples)


@pytest.mark.parametrize(
    ("samples", "states", "said"),
    [
        ([], [State.FAILED] * 2, ("0 of 2 jobs done", "no job has ended", "log.txt")),
        ([Sample(100 + 5 * n, 20, 4, n) for n in range(10)], [State.DONE] * 2,
         ("2 of 2 jobs done", "- lost: memory grew by 39%")),
    ],
)  # fmt: skip
def test_a_soak_says_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    samples: list[Sample], states: list[State], said: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.setattr(soak, "soaked", lambda *_: (samples, states))
    assert soak.main(["--jobs", "2"]) == (1 if samples else 2)
    printed = capsys.readouterr().out
    assert all(text in printed for text in said), printed


def test_a_run_that_starts_takes_no_exit_code_from_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = popen_forkserver.forkserver.read_signed

    def slowly(source: int) -> int:
        time.sleep(0.3)  # enough for another thread to begin to read the same code
        return read(source)

    program = tmp_path / "ends.py"
    program.write_text("raise SystemExit(3)")
    first = start_run(tmp_path / "first.log", program=str(program))
    wait([first.sentinel])
    monkeypatch.setattr(popen_forkserver.forkserver, "read_signed", slowly)
    with ThreadPoolExecutor() as pool:
        has_ended = pool.submit(wait_for_all, [first], 60)
        second = pool.submit(start_run, tmp_path / "second.log", program=str(program)).result()
    assert has_ended.result()
    assert wait_for_all([second], 60)
    assert (first.exitcode, second.exitcode) == (3, 3)
