"""A job of a sweep whose data have changed since other jobs were trained is not trained."""

from pathlib import Path

import numpy as np
import pytest

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import JOB_VARIABLE, JobSpec, State, create_job


def write_data(path: Path, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(80, 1, 12)).astype(np.float32)
    np.savez(path, x=x, y=np.arange(80) % 2)


def test_a_sweep_goes_on_with_the_same_data_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        *("method=supervised", "data=arrays", f"data.root={tmp_path / 'mine.npz'}"),
        *("model@method.students.student=mlp", "method.students.student.widths=[4]"),
        *("hardware=cpu", "callbacks=quiet", "logger=none", "threads=1", "trainer.max_epochs=1"),
    ]

    def run_job(number: int, *own: str) -> None:
        directory = tmp_path / "sweep" / "jobs" / f"{number:04}"
        job = create_job(directory, JobSpec(number, "", {}, [*words, *own]))
        monkeypatch.setenv(JOB_VARIABLE, str(directory))
        distill(*words, *own, f"run_dir={directory}")
        assert job.state() is State.DONE

    write_data(tmp_path / "mine.npz", 0)
    run_job(0, "data.batch_size=16")
    run_job(1, "data.batch_size=8")  # the same samples
    run_job(2, "data.batch_size=8", "data.split_seed=1")  # others, by other settings
    write_data(tmp_path / "mine.npz", 1)
    sentence = (
        r"the data have changed since job 0 of this sweep was trained, .* \(fingerprint .*\): put "
        r"the earlier files back \(data.root=…\), or start a new sweep"
    )
    with pytest.raises(UserError, match=sentence):
        run_job(3, "data.batch_size=8")
    assert not (tmp_path / "sweep/jobs/0003/config.yaml").exists()
    run_job(4, "data.split_seed=2")  # no job that is done has these settings
    monkeypatch.delenv(JOB_VARIABLE)
    distill(*words, f"run_dir={tmp_path / 'alone'}")
