import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from damage import DAMAGE
from helpers import TINY, compose
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.kept_files import write_kept
from kd_lightning.base.ranks import STARTED
from kd_lightning.teachers import store
from kd_lightning.teachers.store import directory_of_run, find_or_train, shape_hash, shape_of


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return compose(*TINY)


@pytest.fixture
def cfg(composed: DictConfig) -> DictConfig:
    return composed.copy()


class Training:
    """Leaves a finished run, and remembers what it was asked for and what was said."""

    def __init__(self) -> None:
        self.runs: list[DictConfig] = []
        self.said: list[str] = []

    def train(self, cfg: DictConfig) -> None:
        self.runs.append(cfg)
        directory = Path(cfg.run_dir or cfg.resume)
        directory.mkdir(exist_ok=True)
        sections = "{students: {a: {}}}, data: {}, task: {}, trainer: {}"
        (directory / "config.yaml").write_text("{method: " + sections + "}")
        torch.save({"epoch": 0}, directory / "best-a.ckpt")
        (directory / "metrics.json").write_text('{"nets": {}}')

    def find(self, cfg: DictConfig, store: Path, fingerprint: str = "data") -> Path:
        return find_or_train(
            cfg, store, "teacher-mlp", fingerprint, train=self.train, say=self.said.append
        )


@pytest.fixture
def training() -> Training:
    return Training()


# What is the same


IMMATERIAL = {
    "data.root": "/elsewhere",
    "data.on_leak": "error",
    "data.resize": "crop",  # newer keys, with what was done before they existed
    "data.interpolation": "bilinear",
    "data.exif": False,
    "data.num_workers": 4,
    "trainer.log_every_n_steps": 1,
    "teacher.store": "/elsewhere",
    "outputs": "/elsewhere",
    "title": "another",
    "run_dir": "/elsewhere",
    "hardware.precision": "bf16-mixed",
    "hardware.devices": 2,
    "logger": {"csv": None},
    "callbacks": {},
    "baselines": "labels_only",
}
MATERIAL = {
    "seed": 1,
    "method.temperature": 2.0,
    "method.students.a.widths": [16],
    "method.teacher.dropout": 0.1,
    "optimizer.lr": 0.5,
    "scheduler.warmup": 0.5,
    "trainer.max_epochs": 3,
    "data.batch_size": 8,
    "data.split_seed": 1,
    "data.val_fraction": 0.2,
    "data.resize": "squash",
    "data.interpolation": "bicubic",
    "data.exif": True,
    "data.augmentation": {"_target_": "any"},
}


def test_other_weights_under_the_name_of_a_file_make_another_run(
    cfg: DictConfig, tmp_path: Path
) -> None:
    """Fixed bug: a net that starts from a file was reused after the file had been replaced."""
    place = tmp_path / "start.pt"
    OmegaConf.update(cfg, "method.students.a.weights", str(place), force_add=True)
    directories = []
    for content in (b"one", b"another"):
        place.write_bytes(content)
        directories.append(directory_of_run(cfg, tmp_path, "teacher", "data"))
    assert directories[0] != directories[1]
    place.write_bytes(b"one")
    assert directory_of_run(cfg, tmp_path, "teacher", "data") == directories[0]


def test_other_weights_in_a_folder_make_another_run(cfg: DictConfig, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "model.safetensors"
    file.parent.mkdir()
    OmegaConf.update(cfg, "method.teacher.weights", str(file.parent), force_add=True)
    places = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        places.append(directory_of_run(cfg, tmp_path, "t", "data"))
    assert places[0] != places[1]


def test_a_store_that_may_only_be_read_serves_what_is_there(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    first = training.find(cfg, tmp_path / "store")
    lock = first.with_name(f"{first.name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()  # as in a folder of others, no lock can be made
    assert training.find(cfg, tmp_path / "store") == first
    assert len(training.runs) == 1


class Waited(Exception):
    """Instead of a wait without an end."""


def test_no_rank_waits_for_a_first_one_that_has_failed(
    cfg: DictConfig, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: DictConfig) -> None:
        raise OSError(28, "no space left on device")

    def wait(seconds: float) -> None:
        raise Waited

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in (("SLURM_NTASKS", "2"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match="no space"):
        find_or_train(cfg, tmp_path, "t", "data", train=fail, say=str)
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setattr(store, "time", SimpleNamespace(sleep=wait))
    with pytest.raises(UserError, match="the first process has failed to train t: see its message"):
        find_or_train(cfg, tmp_path, "t", "data", train=fail, say=str)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    find_or_train(cfg, tmp_path, "t", "data", train=training.train, say=str)
    assert not list(tmp_path.glob("*.failed-*"))


def test_the_mark_of_an_earlier_launch_with_the_same_id_is_none(
    cfg: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: DictConfig) -> None:
        raise KeyboardInterrupt

    def wait(seconds: float) -> None:
        raise Waited

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # of torchrun with a port
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(KeyboardInterrupt):
        find_or_train(cfg, tmp_path, "t", "data", train=fail, say=str)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(store, "time", SimpleNamespace(sleep=wait))
    with pytest.raises(UserError, match="the first process has failed to train t"):
        find_or_train(cfg, tmp_path, "t", "data", train=fail, say=str)
    (mark,) = tmp_path.glob("*.failed-*")
    os.utime(mark, (0, STARTED - 1))
    with pytest.raises(Waited):
        find_or_train(cfg, tmp_path, "t", "data", train=fail, say=str)


@pytest.mark.parametrize(("key", "value"), IMMATERIAL.items())
def test_what_changes_no_weight_changes_no_hash(key: str, value, cfg: DictConfig) -> None:
    before = shape_hash(shape_of(cfg), "data")
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    assert shape_hash(shape_of(cfg), "data") == before


def test_newer_keys_of_nets_change_no_hash_while_they_are_null(cfg: DictConfig) -> None:
    was = shape_hash(shape_of(cfg))
    older = OmegaConf.create(OmegaConf.to_container(cfg))
    for net in older.method.students.values():
        for name in ("weights_key", "interpolation", "input_size"):
            assert net.pop(name, "missing") is None
    assert shape_hash(shape_of(older)) == was
    next(iter(cfg.method.students.values())).interpolation = "bicubic"
    assert shape_hash(shape_of(cfg)) != was


@pytest.mark.parametrize(("key", "value"), MATERIAL.items())
def test_what_shapes_weights_changes_the_hash(key: str, value, cfg: DictConfig) -> None:
    before = shape_hash(shape_of(cfg), "data")
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    assert shape_hash(shape_of(cfg), "data") != before


def test_other_data_have_another_hash(cfg: DictConfig) -> None:
    assert shape_hash(shape_of(cfg), "data") != shape_hash(shape_of(cfg), "other data")


def test_the_order_of_keys_does_not_matter(cfg: DictConfig) -> None:
    turned = OmegaConf.create(dict(reversed(list(OmegaConf.to_container(cfg).items()))))
    assert shape_hash(shape_of(turned), "data") == shape_hash(shape_of(cfg), "data")


# Training once


def test_trained_once_then_reused_and_says_so(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    first, again = (training.find(cfg, tmp_path / "store") for _ in range(2))
    assert first == again
    assert first.parent == tmp_path / "store"
    assert [run.run_dir for run in training.runs] == [str(first)]
    assert training.said == [
        f"teacher-mlp: trained now, kept in {first}",
        f"teacher-mlp: reused from {first}",
    ]
    assert cfg.run_dir is None  # what was asked with is as it was


def test_another_one_is_trained_beside_it(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    assert training.find(cfg, tmp_path) != training.find(cfg, tmp_path, "other data")
    assert len(training.runs) == 2


def test_a_run_that_finished_an_epoch_is_resumed(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    directory = training.find(cfg, tmp_path)
    (directory / "metrics.json").unlink()
    torch.save({}, directory / "last.ckpt")
    training.find(cfg, tmp_path)
    assert (training.runs[1].resume, training.runs[1].run_dir) == (str(directory), None)
    assert training.said[-1] == f"teacher-mlp: resumed in {directory}"


def test_a_resumed_one_may_use_the_classes_that_it_names(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    cfg.method.students.a._target_ = "own_nets.Net"
    directory = training.find(cfg, tmp_path)
    (directory / "metrics.json").unlink()
    torch.save({}, directory / "last.ckpt")
    training.find(cfg, tmp_path)
    assert [list(run.allow) for run in training.runs] == [[], ["own_nets"]]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "best-a.ckpt"])
def test_what_is_damaged_is_set_aside_and_trained_again(
    name: str, damage: str, cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    directory = training.find(cfg, tmp_path)
    DAMAGE[damage](directory / name)
    if (name, damage) == ("config.yaml", "one flipped bit"):  # its checksum finds that
        write_kept(directory, {name: (directory / name).read_text()})
        DAMAGE[damage](directory / name)
    assert training.find(cfg, tmp_path) == directory
    assert len(training.runs) == 2
    assert training.runs[1].run_dir == str(directory)
    if (name, damage) == ("metrics.json", "missing"):
        return  # a run that has not finished
    assert training.said[1].startswith(f"teacher-mlp: {directory / name} ")
    assert training.said[1].endswith(f"so it is set aside as {directory}.damaged")
    assert Path(f"{directory}.damaged").is_dir()
    training.find(cfg, tmp_path)
    assert training.said[-1] == f"teacher-mlp: reused from {directory}"


def test_an_unfinished_one_whose_checkpoints_are_damaged_is_begun_anew(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    directory = training.find(cfg, tmp_path)
    (directory / "metrics.json").unlink()
    torch.save({"epoch": 0}, directory / "previous.ckpt")
    (directory / "last.ckpt").write_bytes(b"")
    training.find(cfg, tmp_path)
    assert training.runs[1].resume == str(directory)  # from the one before
    (directory / "metrics.json").unlink()
    (directory / "previous.ckpt").write_bytes(b"")
    training.find(cfg, tmp_path)
    assert training.runs[2].run_dir == str(directory)
    assert Path(f"{directory}.damaged", "last.ckpt").exists()


def test_what_finished_no_epoch_is_begun_anew(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    directory = training.find(cfg, tmp_path)
    (directory / "metrics.json").unlink()
    (directory / "environment.json").touch()  # a new run finds nothing of the old one
    training.find(cfg, tmp_path)
    assert (training.runs[1].resume, training.runs[1].run_dir) == (None, str(directory))
    assert not (directory / "environment.json").exists()


def test_an_interrupt_says_how_to_go_on(cfg: DictConfig, tmp_path: Path) -> None:
    def train(cfg: DictConfig) -> None:
        raise Interrupted(2)

    with pytest.raises(Interrupted) as caught:
        find_or_train(cfg, tmp_path, "teacher", "data", train=train, say=print)
    assert caught.value.advice.startswith("run the same command again: teacher is resumed")


def test_after_an_error_the_lock_is_free(
    cfg: DictConfig, training: Training, tmp_path: Path
) -> None:
    def train(cfg: DictConfig) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        find_or_train(cfg, tmp_path, "teacher-mlp", "data", train=train, say=print)
    training.find(cfg, tmp_path)
    assert not any("waiting" in sentence for sentence in training.said)


def test_a_store_that_cannot_be_made(cfg: DictConfig, training: Training, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*file.*teacher.store=…"):
        training.find(cfg, tmp_path / "file" / "store")
    assert not training.runs


# Processes. What they run imports no torch, so they start at once.


PROGRAM = """
import sys, time
from pathlib import Path
from kd_lightning.base.kept_files import read_json
from kd_lightning.teachers.store import find_or_make

directory, seconds = Path(sys.argv[1]) / "it", float(sys.argv[2])
done = directory / "metrics.json"

def make():
    directory.mkdir(exist_ok=True)
    (directory / "last.ckpt").touch()
    print("training", flush=True)
    time.sleep(seconds)
    done.write_text("{}")

def check(directory):
    if done.exists():
        read_json(done)

say = lambda sentence: print(sentence, flush=True)
print(find_or_make(directory, done.name, "it", make=make, check=check, say=say).parent)
"""


def start(store: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(store), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the lock and trains for as long as it lives."""
    process = start(tmp_path, 1000)
    for line in process.stdout:
        if line == "training\n":
            break
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_processes_that_want_the_same_train_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.5) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(lines.count("training") for lines in said) == 1
    assert len({lines[-1] for lines in said}) == 1  # all get the same directory
    assert sum(line.startswith("it: reused from") for lines in said for line in lines) == 2


def test_processes_that_find_the_same_damage_train_it_once_again(tmp_path: Path) -> None:
    said = start(tmp_path, 0).communicate(timeout=60)[0].splitlines()
    (Path(said[-1]) / "metrics.json").write_text("")
    processes = [start(tmp_path, 0.3) for _ in range(3)]
    lines = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    everything = [line for each in lines for line in each]
    assert everything.count("training") == 1
    assert sum("so it is set aside as" in line for line in everything) == 1
    assert {each[-1] for each in lines} == {said[-1]}
    assert len(list(tmp_path.glob("*.damaged*"))) == 1


def test_a_dead_holder_blocks_nobody_and_its_run_is_resumed(
    holder: subprocess.Popen, tmp_path: Path
) -> None:
    other = start(tmp_path, 0)
    assert other.stdout.readline() == "another run is training it: waiting for it\n"
    holder.kill()
    said = other.communicate(timeout=60)[0].splitlines()
    directory = said[-1]
    assert said == [f"it: resumed in {directory}", "training", directory]
    assert json.loads((Path(directory) / "metrics.json").read_text()) == {}
