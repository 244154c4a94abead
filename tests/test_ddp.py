"""A run in two real processes computes the same as one process, and writes one record."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked_runs import run_on_two_ranks
from written_runs import read_wandb

from kd_lightning import distill
from kd_lightning.base.errors import UserError

pytestmark = pytest.mark.slow

SETTING = [
    "method=dual_student",
    "data=synthetic",
    "data.num_train=96",
    "data.num_test=33",  # two ranks get different numbers of them
    "data.batch_size=16",
    "trainer.max_epochs=2",
    "teacher.trainer.max_epochs=1",
    "teacher.check=warn",
    "method.confidence_threshold=0.05",  # half of the samples have a lower confidence
    "method.normalize_confidence=true",
    "optimizer=sgd",
    "callbacks=quiet",
    "logger=csv",
]
TWO = ["hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2"]


def command_line(*words: str, program: str | None = None) -> subprocess.CompletedProcess:
    start = ["-m", "kd_lightning.run"] if program is None else [program]
    return subprocess.run(
        [sys.executable, *start, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def no_batch_norm(cfg_root: str = "model@method.students") -> list[str]:
    return [f"{cfg_root}.a=mlp", f"{cfg_root}.b=mlp", "method.students.b.widths=[24]"]


CACHE = ["teacher.cache=2", "data.size=32", "augmentation@data.augmentation=crop_flip"]


@pytest.mark.parametrize("more", [[], CACHE], ids=["online", "cached"])
def test_two_processes_have_the_gradients_of_one(
    more: list[str], tmp_path: Path, store: Path
) -> None:
    shared = [*SETTING, *no_batch_norm(), f"teacher.store={store}", *more]
    one = distill(*shared, f"outputs={tmp_path}/one", "hardware=cpu")
    words = [*shared, f"outputs={tmp_path}/two", *TWO]
    if more:
        printed = run_on_two_ranks(tmp_path / "logs", *words)
        (two,) = (tmp_path / "two").glob("2*")  # one run directory for both ranks
    else:
        done = command_line(*words, "logger=[csv,wandb]")
        assert done.returncode == 0, done.stderr
        printed = done.stderr
        (two,) = (tmp_path / "two").glob("2*")
        assert printed.count("wandb: no key found") == 1
        assert "test/a/accuracy" in read_wandb(two).names  # one run for both ranks
    assert "sync_dist" not in printed  # all logged values are averaged over the ranks
    ends = [torch.load(d / "last.ckpt", weights_only=True) for d in (one.directory, two)]
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(value, ends[1]["state_dict"][name], rtol=1e-4, atol=1e-6)
    metrics = json.loads((two / "metrics.json").read_text())
    assert metrics["objective"] == pytest.approx(one.objective, abs=1e-6)
    for name, net in one.metrics["nets"].items():
        # each of the 33 test samples is counted once
        assert metrics["nets"][name]["test"]["accuracy"] == pytest.approx(
            net["test"]["accuracy"], abs=1e-6
        )
    rows = [
        (d / "epochs.csv").read_text().splitlines()[-1].split(",") for d in (one.directory, two)
    ]
    for a, b in zip(*rows, strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-3, abs=1e-4)
    bins = [(d / "confidence.csv").read_text() for d in (one.directory, two)]
    assert bins[0] == bins[1]
    for outputs in (tmp_path / "one", tmp_path / "two"):
        assert len(list(outputs.glob("teacher_cache/*/facts.json"))) == bool(more)


@pytest.mark.parametrize("fails", [False, True])
def test_two_processes_compute_a_cache_together(fails: bool, tmp_path: Path, store: Path) -> None:
    # like `python -m kd_lightning.run`, but each process logs the blocks that it computes, or fails
    (tmp_path / "logged.py").write_text(
        "import os, sys, time\n"
        "from kd_lightning.run import main\n"
        "from kd_lightning.teacher_cache import files, filling\n"
        "from kd_lightning.base.errors import UserError\n"
        "files.BLOCK, write = 8, filling.write_block\n"
        "def logged(values, view, indices, *rest):\n"
        "    time.sleep(0.05)  # so that both have work to do\n"
        f"    with open(f'{tmp_path}/' + os.environ['LOCAL_RANK'] + '.txt', 'a') as file:\n"
        "        print(view, indices.start, file=file)\n"
        f"    if {fails} and indices.start == 8:\n"
        "        raise UserError('number 8 must be an image')\n"
        "    write(values, view, indices, *rest)\n"
        "filling.write_block = logged\n"
        "main()\n"
    )
    words = [*SETTING, *no_batch_norm(), f"teacher.store={store}", *CACHE, *TWO]
    program, words = str(tmp_path / "logged.py"), [*words, f"outputs={tmp_path}/outputs"]
    if fails:  # in either process: one sentence, and both processes end
        done = command_line(*words, program=program)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("number 8 must be an image") == 1
        return  # one process may have failed before the other had a block to log
    printed = run_on_two_ranks(tmp_path / "logs", *words, program=program)
    lists = [(tmp_path / f"{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert all(lists)
    blocks = [*lists[0], *lists[1]]
    assert len(blocks) == len(set(blocks)) == 2 * 11  # 2 views of 86 samples: a tenth of 96 is val
    said = re.findall(r"teacher cache: (\d+) of 22 blocks", printed)
    assert int(said[-1]) > 11  # it counts the blocks of both processes


def test_a_batch_that_does_not_divide_is_refused_before_any_process_starts(
    tmp_path: Path, store: Path
) -> None:
    with pytest.raises(UserError, match=r"data.batch_size=15 is global and must divide over 2"):
        distill(*SETTING, *TWO, "data.batch_size=15", f"outputs={tmp_path}",
                f"teacher.store={store}")  # fmt: skip


def test_a_ddp_run_resumes(tmp_path: Path, store: Path) -> None:
    directory = tmp_path / "run"
    printed = run_on_two_ranks(
        tmp_path, *SETTING, *no_batch_norm(), f"teacher.store={store}", *TWO,
        "method.confidence_threshold=1", "trainer.max_epochs=1", f"run_dir={directory}",
    )  # fmt: skip
    assert printed.count("the teacher has hardly any effect") == 1  # from one of two ranks
    run_on_two_ranks(tmp_path, f"resume={directory}", "trainer.max_epochs=2")
    assert len((directory / "epochs.csv").read_text().splitlines()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"run", "rank0.log", "rank1.log"}


def test_torchrun_starts_the_ranks_and_one_of_them_trains_the_teacher(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         "-m", "kd_lightning.run", *SETTING, *TWO, f"outputs={tmp_path}", "trainer.max_epochs=1"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("2*"))) == 1
    assert len(list(tmp_path.glob("2*/metrics.json"))) == 1
    assert done.stdout.count("ensemble of the students") == 1
    assert len(re.findall(r"Teacher: \d.* % on val \(", done.stdout)) == 1  # by one of the ranks
    assert len(list(tmp_path.glob("teachers/*/metrics.json"))) == 1


def test_unequal_shares_of_val_and_batch_norm_do_not_hang(tmp_path: Path, store: Path) -> None:
    words = [*SETTING, f"teacher.store={store}", "hardware.devices=2", "hardware.accelerator=cpu",
             "model@method.students.a=resnet8", f"run_dir={tmp_path}/run"]  # fmt: skip
    # 17 samples are val: two batches for one rank, one for the other
    run_on_two_ranks(tmp_path / "logs", *words, "data.num_train=88", "data.val_fraction=0.19")
    weights = torch.load(tmp_path / "run" / "best-a.ckpt", weights_only=True)["state_dict"]
    assert any("running_var" in name for name in weights)
