"""``python -m kd_lightning.run --plan``: what runs will cost, before anything is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from omegaconf import OmegaConf
from rich.console import Console

from kd_lightning import run
from kd_lightning.config.command_line import compose
from kd_lightning.config.console import console
from kd_lightning.running import cost
from kd_lightning.running.run import distill
from kd_lightning.sweeps import cost_plan

KD = ("method=kd", *TINY)


def planned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["run", "--plan", *words])
    monkeypatch.setattr(console, "width", 200)  # made before; longer times would wrap at 80
    run.main()
    return capsys.readouterr().out


def rows(text: str) -> dict[str, list[str]]:
    """The name of each training -> the words of its row."""
    lines = [line.split("  ") for line in text.partition("───")[2].splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {name: others for name, *others in (row for row in cells if len(row) > 1)}


def test_a_run_and_its_teacher_and_baseline_are_planned_and_nothing_is_written(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    outputs = tmp_path / "outputs"
    words = (*KD, "baselines=labels_only", f"outputs={outputs}")
    found = rows(planned(monkeypatch, capsys, *words))
    assert list(found) == ["teacher-mlp", "labels-only", "students"]
    # 96 samples, a tenth of them val, in batches of 16, the teacher's of 32
    assert [row[:3] for row in found.values()] == [
        ["1", "1", "2"],
        ["1", "2", "10"],
        ["1", "2", "10"],
    ]
    assert not outputs.exists()


def test_a_teacher_that_is_kept_is_not_counted(tmp_path: Path, monkeypatch, capsys) -> None:
    words = (*KD, f"outputs={tmp_path}")
    distill(*words)
    found = rows(planned(monkeypatch, capsys, *words, "seed=1"))
    assert found["teacher-mlp"] == ["0, 1 kept"]
    assert found["students"][0] == "1"


@pytest.mark.parametrize(("teacher_seed", "teachers"), [("0", "1"), ("${seed}", "2")])
def test_a_sweep_counts_shared_teachers_once(
    teacher_seed: str, teachers: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    words = ("-m", "seed=0,1", "method=kd,supervised", *TINY, f"outputs={tmp_path / 'new'}",
             "model@method.teacher=mlp", "method.teacher.widths=[64]")  # fmt: skip
    found = rows(planned(monkeypatch, capsys, *words, f"teacher.seed={teacher_seed}"))
    assert found["teacher-mlp"][0] == teachers
    assert found["method=kd"][0] == found["method=supervised"][0] == "2"
    assert not (tmp_path / "new").exists()


def test_nets_that_are_chosen_by_the_shape_of_the_data_have_one_teacher(tmp_path: Path) -> None:
    x, y = np.zeros((96, 8), np.float32), np.arange(96) % 3
    np.savez(tmp_path / "data.npz", x=x + y[:, None], y=y)
    words = ["method=kd", "data=arrays", f"data.root={tmp_path}/data.npz", f"outputs={tmp_path}"]
    jobs = [("kd", compose([*words, f"method.temperature={value}"])) for value in (1, 2)]
    teacher, first, second = cost_plan.trainings(jobs)
    assert len(teacher.places) == 1
    assert first.cfg.method.teacher == second.cfg.method.teacher
    assert "by_shape" not in str(second.cfg.method.teacher)


def test_splits_of_the_data_cost_the_same(tmp_path: Path) -> None:
    words = [*KD, f"outputs={tmp_path}", "teacher.seed=${seed}", "data.split_seed=${seed}"]
    teacher, student = cost_plan.trainings(
        [("kd", compose([*words, f"seed={seed}"])) for seed in (0, 1)]
    )
    assert len(teacher.places) == len(student.places) == 2


def test_a_stage_has_a_row_of_its_own(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ("method=multi_granularity", *TINY, "trainer.max_epochs=4", f"outputs={tmp_path}")
    found = rows(planned(monkeypatch, capsys, *words))
    assert found["students, stage codecs"][:2] == ["1", "1"]


def test_what_cannot_be_planned_is_said(monkeypatch, capsys, tmp_path: Path) -> None:
    for words, said in {
        ("--cfg", "job"): "--plan does not go with --cfg",
        (f"resume={tmp_path}",): "--plan is for runs that have not begun",
        ("-m", "sweep=search", *KD): "a search chooses them itself",
        (*KD, "method.soft_weight=-1"): "method.soft_weight",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            planned(monkeypatch, capsys, *words)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(("limit", "batches"), [(None, 10), (4, 4), (40, 10), (0.5, 5), (0.01, 1)])
def test_batches_of_an_epoch(limit: float | None, batches: int) -> None:
    assert cost.limited(10, limit) == batches


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 3}, (3, 30)),
        ({"max_epochs": 3, "max_steps": -1}, (3, 30)),
        ({"max_epochs": 3, "max_steps": 12}, (1.2, 12)),
        ({"max_epochs": 3, "max_steps": 12, "accumulate_grad_batches": 2}, (2.4, 24)),
        ({"max_epochs": -1, "max_steps": 15}, (1.5, 15)),
    ],
)
def test_the_length_of_a_training(trainer: dict, expected: tuple[float, int]) -> None:
    assert cost.length_of(OmegaConf.create(trainer), 10) == expected


def test_a_gpu_that_nothing_has_used_yet_is_started_before_its_memory_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    monkeypatch.setattr(torch.cuda, "init", lambda: called.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", called.append)
    cost.forget_peak(torch.device("cpu"))
    assert not called
    cost.forget_peak(torch.device("cuda", 1))
    assert called == ["init", torch.device("cuda", 1)]


def test_steps_are_timed_from_end_to_end_without_what_is_between_epochs() -> None:
    clock = cost.Clock()
    # a first step of 5 s, then steps of 2 s that wait 1 s for their batch; an hour between epochs
    first = [(0.0, 5.0), (6.0, 8.0), (9.0, 11.0)]
    second = [(3600.0, 3602.0), *((3600.0 + 3 * n, 3602.0 + 3 * n) for n in (1, 2, 3))]
    clock.times = [first, second]
    assert clock.step == pytest.approx(3)
    assert clock.waiting == pytest.approx(1 / 3)
    assert clock.start_up == pytest.approx(2)


def test_steps_are_timed_with_the_threads_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    cost.measure(compose([*KD, "threads=3", f"outputs={tmp_path}"]))
    assert set_to == [3]


def test_two_devices_share_the_batch_and_the_steps(tmp_path: Path) -> None:
    cfg = compose([*KD, "hardware.devices=2", "data.num_train=192", f"outputs={tmp_path}"])
    (found,) = cost.measure(cfg)
    assert found.steps == 2 * (173 // 16)  # as on one device, with half of each batch


def test_disk_is_about_that_of_the_run(tmp_path: Path) -> None:
    words = (*KD, "model@method.students.student=resnet8", f"outputs={tmp_path}")
    directory = distill(*words).directory
    names = ["last.ckpt", "previous.ckpt", "best-student.ckpt", "student.safetensors"]
    files = [path for path in directory.rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in files if path.stat().st_size > 50_000)
    assert {path.name for path in files if path.stat().st_size > 50_000} <= {*names}
    (found,) = cost.measure(compose(list(words)))
    assert found.disk == pytest.approx(written, rel=0.1)


def test_the_table_adds_up(monkeypatch, tmp_path: Path) -> None:
    one = cost.Cost("students", 2, 10, 0.5, 0.25, 600.0, 10**9, 10**6)
    training = cost_plan.Training("kd", compose([*KD, f"outputs={tmp_path}"]), {"a", "b", "c"})
    table = cost_plan.table_of([training], {id(training): [one]})
    assert list(table.rows) == [["kd", "3", "2", "10", "500", "25%", "1.0 GB", "30:00"]]
    assert table.notes[0].startswith("Together 30:00, one run after another")
    assert table.notes[1].startswith("Disk: 3.0 MB in ")
    cost_plan.print_tables([table], Console(quiet=True))
