"""Bad input gives one sentence: what was expected, what came, and which key to change.

Before it nothing is written and no net is trained. A bug in this package keeps its traceback.
"""

import functools
import os
import pickle
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_runs import command_line
from helpers import TINY

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.data.synthetic import Synthetic
from kd_lightning.models.perceptron import mlp

WNIDS = ["n01440764", "n01443537", "n01484850"]  # the first three classes of ImageNet-1k


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def refusal(outputs: Path):
    """refusal("seed=x"): the sentence with which a run with these overrides ends."""

    def message_of(*overrides: str, base: tuple[str, ...] = TINY) -> str:
        for name in ("data", "method"):
            if any(o.startswith(f"{name}=") for o in overrides):
                other = {"data": "data.n", "method": "teacher."}[name]
                base = tuple(o for o in base if not o.startswith(other))
        with pytest.raises(UserError) as caught:
            distill(*base, f"outputs={outputs}", *overrides)
        sentence = str(caught.value)
        assert_one_sentence(sentence)
        return sentence

    return message_of


def assert_one_sentence(text: str) -> None:
    assert text
    assert len(text.splitlines()) == 1
    assert not re.search(r"[.!?] +[A-Z]", text)
    assert "Traceback" not in text


CHOICES = {
    "method=kdd": "unknown method 'kdd': did you mean kd? (method=…; all: ",
    "data=cifar11": "unknown data 'cifar11': did you mean cifar10 or cifar100? (data=…; all: ",
    "data=xyz": "unknown data 'xyz': expected one of arrays, biovid, cifar10",
    "data=null": "a choice must be a name, got data=null",
    "model@method.students.a=resnet81": "unknown model 'resnet81': did you mean resnet8 or ",
    "+model@method.students.c=mpl": "did you mean mlp",
    "model@method.students.c=mlp": "has no student c: its students are a, b (+model@",
    "hardware=gpus": "unknown hardware 'gpus': did you mean gpu or cpu? (hardware=…)",
    "logger=wandbb": "unknown logger 'wandbb': did you mean wandb? (logger=…)",
    "callbacks=quite": "unknown callbacks 'quite': did you mean quiet? (callbacks=…)",
    "optimizer=sdg": "unknown optimizer 'sdg': did you mean sgd? (optimizer=…)",
    "experiment=demos": "unknown experiment 'demos': did you mean demo",
    "confidence@method.confidence=entropie": "entropy_weight? (confidence@method.confidence=…)",
}
KEYS = {
    "method.temprature=3": "unknown key 'method.temprature': did you mean method.temperature or ",
    "+method.temprature=3": "unknown key 'method.temprature': did you mean method.temperature or ",
    "data.batchsize=8": "unknown key 'data.batchsize': did you mean data.batch_size or ",
    "temperature=3": "unknown key 'temperature': did you mean method.temperature or ",
    "+temprature=3": "unknown key 'temprature': expected one of ",
    "+dropout.hed=3": "unknown key 'dropout.hed': did you mean dropout.head or ",
    "+trainer.max_epoch=3": "did you mean trainer.max_epochs or ",
    "+optimizer.betta=1": "did you mean optimizer.betas",
    "~method.students.c": "has no student c: its students are a, b (+model@",
    "foo": "expected key=value, got 'foo'",
    "method.temperature==3": "expected key=value, got 'method.temperature==3'",
    "outputs=a=b": "needs quotes",
    "data.size=${": "expected key=value, got 'data.size=${'",
    "data.size=${data.sice}": "data.size needs a value: Interpolation key 'data.sice' not found",
}
KINDS = {
    "method.temperature=warm": "method.temperature must be a number > 0, got warm",
    "method.temperature=null": "method.temperature must be a number > 0, got null",
    "trainer.max_epochs=many": "trainer.max_epochs must be a whole number >= 1, got many",
    "trainer.max_epochs=1.5": "trainer.max_epochs must be a whole number >= 1, got 1.5",
    "data.batch_size=2.5": "data.batch_size must be a whole number >= 1, got 2.5",
    "data.root=[a,b]": "data.root must be text or null, got ['a', 'b']",
    "optimizer.lr=fast": "optimizer.lr must be a number, got fast",
    "resume=1": "resume must be text or null, got 1",
    "seed=x": "seed must be a whole number >= 0, got x",
    "hardware.devices=all": "hardware.devices must be a whole number or a list",
    "method.students.a.widths=wide": "method.students.a.widths must be a list of length >= 1",
    "method.confidence=entropy": "must be a choice (confidence@method.confidence=…), got entropy",
    "method.learning_rates={a:x}": "method.learning_rates must be keys and values, each a number",
    "trainer=null": "trainer must be keys and values, got null",
    "method.teacher=resnet8": "method.teacher must be keys and values, got resnet8",
    "threads=many": "threads must be a whole number >= 1 or null, got many",
    "baselines=random": "baselines must be labels_only or adversarial_training or a list",
}
VALUES = {
    "method.temperature=0": "method.temperature must be > 0, got 0",
    "method.peer_temperature=-1": "method.peer_temperature must be > 0, got -1",
    "method.soft_weight=-1": "method.soft_weight must be >= 0, got -1",
    "method.confidence_threshold=1.5": "method.confidence_threshold must be in [0, 1], got 1.5",
    "method.confidence_threshold=-0.1": "method.confidence_threshold must be in [0, 1], got -0.1",
    "method.confidence_gate=sof": "unknown gate 'sof': did you mean soft? (method.con",
    "method.learning_rates={a:-1}": "method.learning_rates.a must be > 0, got -1",
    "method.students.a.dropout=1": "method.students.a.dropout must be in [0, 1), got 1",
    "~method.students.b": "needs two students or more, got 1: add one with model@",
    "method.confidence_passes=3": "the teacher has no active dropout",
    "data.batch_size=-4": "data.batch_size must be >= 1, got -4",
    "data.batch_size=97": "data.batch_size=97 is larger than the training part, which has 86",
    "teacher.batch_size=97": "teacher.batch_size must be 1..86, for there are 86 training samples",
    "data.val_fraction=2": "data.val_fraction must be in [0, 1), got 2",
    "trainer.max_epochs=0": "trainer.max_epochs must be >= 1, got 0",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be >= 1, got 0",
    "optimizer.lr=-1": "the optimizer refuses its settings: Invalid learning rate: -1 (optimizer.",
    "teacher.optimizer.lr=-1": "Invalid learning rate: -1 (teacher.optimizer.",
    "scheduler.warmup=2": "scheduler.warmup must be in [0, 1), got 2",
    "hardware.devices=0": "refuses its settings: `Trainer(devices=0)` value is not a valid input",
    "hardware.precision=16-mixed": "hardware.precision=16-mixed needs a GPU",
    "hardware.precision=64": "hardware.precision must be 32, bf16-mixed or 16-mixed, got 64",
    "task.num_classes=7": "task.num_classes=7 does not agree with the data, which have 10",
    "method.num_classes=7": "method.num_classes must be the data's 10, got 7",
    "method.students.a.num_classes=7": "a must have the data's 10 classes, it has 7",
    "resume=tests": "resume=tests is no run directory: expected config.yaml in it",
    "teacher.source=trian": "there is no file or folder trian: teacher.source must be train, pretr",
    "teacher.source=pretrained": "teacher.source=pretrained needs a timm net, got mlp",
    "method.students.a.weights=gone.pt": "there is no file gone.pt (method.students.a.weights=…)",
}


@pytest.mark.parametrize(("override", "message"), (CHOICES | KEYS | KINDS | VALUES).items())
def test_one_sentence_and_no_file_written(
    override: str, message: str, refusal, outputs: Path, capfd: pytest.CaptureFixture
) -> None:
    assert message in refusal(override)
    assert not outputs.exists()
    assert "trained" not in capfd.readouterr().out


TOGETHER = {
    "model@method.students.a=timm": "method.students.a.name must be given",
    "model@method.students.a=timm method.students.a.name=resnet81": (
        "unknown timm model 'resnet81': did you mean resnet18 or "
    ),
    "model@method.students.a=fcn": "this net takes series (B, C, L), got a batch of shape (2,",
    "method@teacher.method=supervised teacher.source=/t.pth": "no effect: teacher.source=/t.pth",
    "method=supervised method@teacher.method=student_friendly": "effect: method=supervised has",
    "method=supervised teacher.seed=1": "teacher.seed=1 has no effect: method=supervised has",
    "method=mutual_learning teacher.seed=1": "seed=1 has no effect: method=mutual_learning has",
    "method=supervised model@method.teacher=mlp": "er=… has no effect: method=supervised has",
    "method=kd model@method.students.a=mlp": "has no student a: its students are student (+model@",
    "method=supervised method.teacher.dropout=0": "dropout=… has no effect: method=supervised",
    "method=kd soft_loss@method.soft_loss=dkd method.soft_loss.target_weight=-1": (
        "soft_loss refuses its settings: target_weight and nontarget_weight must be >= 0"
    ),
    "callbacks=early_stopping data.val_fraction=0": (
        "early_stopping monitors val/accuracy, which is"
    ),
    "callbacks=early_stopping callbacks.early_stopping.monitor=loss": (
        "monitors loss, which is not logged: expected one of val/accuracy, val/a/accuracy"
    ),
    "hardware=ddp hardware.accelerator=cpu hardware.devices=16 data.batch_size=16": (
        "each of 16 devices needs a sample of val, which has "
    ),
    "callbacks=early_stopping callbacks.early_stopping.monitor=val/a/nll": (
        "with mode=max, which waits for it to become worse: set callbacks.early_stopping.mode=min"
    ),
    "callbacks=early_stopping callbacks.early_stopping.monitor=train/loss": (
        "monitors train/loss, which is not logged: expected one of val/accuracy, val/a/accuracy"
    ),
    "logger=mlflow logger.mlflow.tracking_uri=https://me:secret@example.org": (
        "logger.mlflow.tracking_uri has a password, which the files of the run would show"
    ),
    "augmentation@data.augmentation=shift": "the augmentation does not suit samples of shape (3,",
    "augmentation@data.augmentation=imagenet": "Interpolation key 'data.image_size' not found",
    "mixing@data.mixing=mixup data.mixing.alpha=-1": "the mixing refuses its settings: ",
    "logger=wandb logger.wandb.mode=of": "must be online or offline or disabled or null, got of",
    "method=stochastic_self_distillation method.guidance.bandwidth=wide": (
        "must be a number or auto, got wide"
    ),
    "data=ucr data.name=OSULeef": "no UCR/UEA problem 'OSULeef'",
}


@pytest.mark.parametrize(("overrides", "message"), TOGETHER.items())
def test_settings_that_contradict(overrides: str, message: str, refusal, outputs: Path) -> None:
    assert message in refusal(*overrides.split())
    assert not outputs.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu(refusal) -> None:
    base = tuple(o for o in TINY if o != "hardware=cpu")
    assert "hardware.accelerator=gpu, and there is no GPU" in refusal("hardware=gpu", base=base)


# Files of weights


class Evil:
    """Its pickle creates a file, if it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("key", ["teacher.source", "method.students.a.weights"])
@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_checkpoint_does_not_run(key: str, save, refusal, tmp_path: Path) -> None:
    save({"state_dict": Evil(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    said = refusal(f"{key}={tmp_path / 'evil.ckpt'}")
    assert "loading those could run code: save the net's state_dict() alone" in said
    assert f"({key}=…)" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.ckpt", None, "cut.ckpt is damaged or cut short"),
        ("empty.ckpt", b"", "empty.ckpt is empty: expected a file of torch.save"),
        ("notes.txt", b"hello", "notes.txt is a text file and not a file of weights"),
        ("zeros.safetensors", b"\0" * 99, "zeros.safetensors is damaged or not a file of weights"),
    ],
)
def test_unreadable_checkpoints(name: str, content, said: str, refusal, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is None:
        torch.save({"weight": torch.zeros(10_000)}, path)
        content = path.read_bytes()[:20_000]
    path.write_bytes(content)
    sentence = refusal(f"teacher.source={path}")
    assert said in sentence
    assert "(teacher.source=…)" in sentence


def test_a_missing_checkpoint(refusal, tmp_path: Path) -> None:
    said = refusal(f"teacher.source={tmp_path / 'gone.ckpt'}")
    assert "a file of weights or a folder with one, or a run directory" in said
    assert "gone.ckpt" in said


def test_a_teacher_file_with_other_classes(refusal, tmp_path: Path) -> None:
    net = mlp(num_inputs=768, widths=[512, 512], num_classes=7, in_chans=3)
    torch.save(net.state_dict(), tmp_path / "seven.ckpt")
    said = refusal(f"teacher.source={tmp_path / 'seven.ckpt'}")
    assert "expected weights for 10 classes" in said
    assert "has 7: give weights that were trained on the data's classes" in said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a supervised run, on data of four classes."""
    base = [o for o in TINY if not o.startswith("teacher.")]
    outputs = tmp_path_factory.mktemp("finished")
    run = distill("method=supervised", *base, "data.num_classes=4", f"outputs={outputs}")
    return run.directory


def test_a_teacher_run_of_other_data(refusal, finished: Path) -> None:
    said = refusal(f"teacher.source={finished}")
    assert "must know the data's 10 classes" in said
    assert "was trained on 4 other classes (teacher.source=…)" in said


def test_a_damaged_or_missing_teacher_run(refusal, finished: Path, tmp_path: Path) -> None:
    assert "is no finished run: expected metrics.json" in refusal(f"teacher.source={tmp_path}")
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    best = copy / "best-student.ckpt"
    best.write_bytes(best.read_bytes()[:1000])
    said = refusal(f"teacher.source={copy}", "data.num_classes=4")
    assert "best-student.ckpt is damaged or cut short" in said


def test_a_teacher_folder_with_several_files_of_weights(refusal, tmp_path: Path) -> None:
    for name in ("a.pt", "b.ckpt"):
        (tmp_path / name).touch()
    said = refusal(f"teacher.source={tmp_path}")
    assert f"with teacher.source={tmp_path}/a.pt or teacher.source={tmp_path}/b.ckpt" in said
    (tmp_path / "config.yaml").touch()  # now it is a run that has been stopped
    assert "is no finished run: expected metrics.json" in refusal(f"teacher.source={tmp_path}")


def test_a_run_directory_is_used_once(refusal, finished: Path) -> None:
    before = sorted(finished.iterdir())
    said = refusal("method=supervised", f"run_dir={finished}")
    assert "already contains a run: resume it with resume=…" in said
    assert sorted(finished.iterdir()) == before


def test_the_values_of_a_resumed_run_are_checked_too(finished: Path) -> None:
    with pytest.raises(UserError, match="max_epochs must be a whole number >= 1, got many"):
        distill(f"resume={finished}", "trainer.max_epochs=many")


def test_weights_that_need_a_network(refusal, outputs: Path) -> None:
    said = refusal("teacher.source=pretrained", "model@method.teacher=resnet18")
    assert "there is no network to load them from" in said
    assert "(teacher.source=…)" in said
    assert "model@method.teacher=resnet18 teacher.source=train" in said
    assert not outputs.exists()


# Data


ROOTS = {
    "arrays": ".npz file",
    "biovid": "expected BioVid's part A with biosignals_filtered, found notes.txt in",
    "cifar10": "cifar-10-batches-py with data_batch_1",
    "cifar100": "cifar-100-python with train, test",
    "fashion_mnist": "expected train-images-idx3-ubyte",
    "har": "expected the folder 'UCI HAR Dataset' with train/Inertial Signals/",
    "image_folder": "expected a folder of images with train, found notes.txt in",
    "imagenet": "expected an ImageNet tree with train, found notes.txt in",
    "imagenet100": "expected train/ and val/ (an ImageNet tree), or train.X1/ to train.X4/",
    "prepared": "kd_lightning.prepare has made with index.json, found notes.txt in",
    "streamed": "prepare format=litdata has made with stream.json, found notes.txt in",
    "ucr": "expected OSULeaf/OSULeaf_TRAIN and OSULeaf_TEST as .ts, .tsv, .csv or .txt, found",
}


@pytest.mark.parametrize(("data", "layout"), ROOTS.items())
def test_the_error_for_a_wrong_root_has_what_was_expected_and_found(
    data: str, layout: str, refusal, tmp_path: Path
) -> None:
    root = tmp_path / "wrong"
    root.mkdir()
    (root / "notes.txt").touch()
    said = refusal("method=supervised", f"data={data}", f"data.root={root}")
    assert layout in said
    assert "data.root=…" in said
    assert "notes.txt in" in said or data == "arrays"
    assert str(root) in said


def arrays(path: Path, **changes) -> str:
    y = np.arange(60) % 3
    x = np.random.default_rng(0).standard_normal((60, 1, 20)).astype(np.float32)
    np.savez(path, **{"x": x, "y": y, **changes})
    return f"data.root={path}"


def test_bad_arrays(refusal, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    series = np.zeros((60, 1, 20), np.float32)
    series[7, 0, 3] = np.nan
    y = np.arange(60) % 3
    for changes, expected in (
        (
            {"y": y + 1, "class_names": np.array(["a", "b", "c"])},
            "0..2, as there are 3 class_names",
        ),
        ({"y": y / 2}, "y must be one row of integers or names, got float64"),
        ({"x": series}, "x has NaN or infinite values, in 1 samples, the first is number 7"),
        ({"class_names": np.array(["a", "b", "c", "d"])}, "1 of 4 have none: d"),
    ):
        said = refusal("method=supervised", "data=arrays", arrays(path, **changes))
        assert expected in said
        assert "(data.root=…)" in said


def test_a_value_missing_inside_a_series(refusal, tmp_path: Path) -> None:
    folder = tmp_path / "Mine"
    folder.mkdir()
    rows = "1\t0.1\t0.2\t0.3\n2\t0.1\tNaN\t0.3\n"
    for part in ("TRAIN", "TEST"):
        (folder / f"Mine_{part}.tsv").write_text(rows)
    said = refusal("method=supervised", "data=ucr", "data.name=Mine", f"data.root={tmp_path}")
    assert "Mine_TRAIN.tsv, line 2: values are missing inside a series" in said


IMAGES = ("method=supervised", "model@method.students.student=mlp", "data.image_size=8",
          "data.num_workers=0")  # fmt: skip


def test_a_class_of_the_list_that_is_missing(refusal, tmp_path: Path, write_tree) -> None:
    write_tree(tmp_path, {f"{part}/{wnid}": 2 for part in ("train", "val") for wnid in WNIDS[:2]})
    (tmp_path / "three.txt").write_text("\n".join(WNIDS))
    said = refusal(*IMAGES, "data=imagenet100", f"data.root={tmp_path}",
                   f"data.class_list={tmp_path / 'three.txt'}")  # fmt: skip
    assert f"the train part lacks 1 of 3 classes: {WNIDS[2]}" in said
    assert "data.root=…, or another list than data.class_list=" in said


def test_a_class_without_images(refusal, tmp_path: Path, write_tree) -> None:
    write_tree(tmp_path, {"train/cat": 12, "train/dog": 0})
    said = refusal(*IMAGES, "data=image_folder", f"data.root={tmp_path}")
    assert "every class needs a training sample, 1 of 2 have none: dog (data.root=…)" in said


@pytest.fixture
def with_a_bad_image(tmp_path: Path, write_tree) -> list[str]:
    """The overrides of a run over a folder in which one image is cut short."""
    root = write_tree(tmp_path / "images", {"train/cat": 12, "train/dog": 12})
    path = root / "train" / "dog" / "dog_0.JPEG"
    path.write_bytes(path.read_bytes()[:-99])  # it is read, whatever part it is in
    return [*IMAGES, "data=image_folder", f"data.root={root}", "data.batch_size=4"]


def test_a_truncated_image_is_named(refusal, with_a_bad_image: list[str]) -> None:
    said = refusal(*with_a_bad_image)
    assert re.search(r"train/dog/dog_0\.JPEG must be an image: ", said)
    assert ": repair it and start again, or go on without it: python -m kd_lightning.run " in said


def test_a_truncated_image_may_be_skipped(with_a_bad_image: list[str], outputs: Path) -> None:
    base = [o for o in TINY if not o.startswith(("teacher.", "data.n"))]
    with pytest.warns(UserWarning, match=r"left out: .*/dog_0\.JPEG must be an image"):
        distill(*base, *with_a_bad_image, f"outputs={outputs}", "data.on_bad_image=skip")


def test_a_run_that_stops_at_a_bad_test_image_ends_without_it(
    refusal, tmp_path: Path, write_tree, outputs: Path
) -> None:
    root = write_tree(
        tmp_path / "images", {f"{p}/{c}": 12 for p in ("train", "test") for c in ("cat", "dog")}
    )
    (root / "test" / "dog" / "dog_0.JPEG").write_text("no image")
    words = [*IMAGES, "data=image_folder", f"data.root={root}", "data.batch_size=4"]
    said = refusal(*words, f"run_dir={outputs / 'run'}")
    command = f"python -m kd_lightning.run resume={outputs / 'run'} data.on_bad_image=skip"
    assert said.endswith(f": repair it and start again, or go on without it: {command}")
    done = command_line(tmp_path, *command.split()[3:])
    assert done.returncode == 0, done.stderr
    assert re.search(r"left out: .*/dog_0\.JPEG must be an image: .*file\n", done.stderr)
    assert (outputs / "run" / "metrics.json").exists()


# Places to write to


@pytest.mark.parametrize("key", ["outputs", "run_dir", "teacher.store"])
def test_places_that_cannot_be_written(key: str, refusal, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        method = [] if key == "teacher.store" else ["method=supervised"]
        said = refusal(*method, f"{key}={place}")
        assert f"cannot make the folder {place}" in said
        assert f"{key}=…" in said


# A loss that turns NaN


def test_a_loss_that_turns_nan_stops_and_keeps_the_last_good_epoch(refusal, outputs: Path) -> None:
    # in the second of two epochs the learning rate is near 1e12
    said = refusal("method=supervised", "optimizer=sgd", "optimizer.lr=1", "scheduler=multistep",
                   "scheduler.milestones=[0.5]", "scheduler.gamma=1e12")  # fmt: skip
    assert re.search(r"the loss term student/hard was not finite at step [6-9]:", said)
    assert "lower optimizer.lr" in said
    (directory,) = outputs.iterdir()
    assert {path.name for path in directory.iterdir()} == {
        *("config.yaml", "environment.json", "epochs.csv", "last.ckpt", "best-student.ckpt"),
        *("SHA256SUMS", ".lock"),
    }
    last = torch.load(directory / "last.ckpt", weights_only=True)
    best = torch.load(directory / "best-student.ckpt", weights_only=True)
    assert (last["epoch"], best["epoch"]) == (0, 0)
    for weights in (last["state_dict"], best["state_dict"]):
        assert all(value.isfinite().all() for value in weights.values())
    assert len((directory / "epochs.csv").read_text().splitlines()) == 2


def test_a_teacher_whose_outputs_are_not_finite_is_the_cause(refusal, tmp_path: Path) -> None:
    net = mlp(num_inputs=768, widths=[8], num_classes=10, in_chans=3)
    with torch.no_grad():
        net.head.weight.fill_(3e38)
    torch.save(net.state_dict(), tmp_path / "huge.ckpt")
    words = [f"teacher.source={tmp_path / 'huge.ckpt'}", "method.teacher.widths=[8]", "method=kd"]
    said = refusal(*words, base=TINY)
    assert "the teacher's outputs are not finite for" in said
    assert "huge.ckpt) are wrong: give it other weights (teacher.source=…)" in said
    said = refusal(*words, "teacher.check=off", base=TINY)
    assert "the teacher's own outputs are not finite, so its weights are wrong" in said
    assert "(teacher.source=…)" in said
    assert "optimizer.lr" not in said


# Bugs in this package


@pytest.mark.parametrize("bug", [AssertionError, AttributeError, TypeError, KeyError, ValueError])
@pytest.mark.parametrize("place", ["__init__", "load", "_measure"])
def test_a_bug_has_no_sentence(bug, place: str, outputs: Path, monkeypatch) -> None:
    @functools.wraps(getattr(Synthetic, place))
    def fails(*args, **kwargs):
        raise bug("ours")

    monkeypatch.setattr(Synthetic, place, fails)
    with pytest.raises(Exception, match="ours") as caught:
        distill(*TINY, f"outputs={outputs}")
    assert not isinstance(caught.value, UserError)


# Real processes


def process(*overrides: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kd_lightning.run", *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
    )


def assert_refused(done: subprocess.CompletedProcess, said: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert said in line
    assert_one_sentence(line)


@pytest.mark.slow
def test_a_process_with_a_misspelt_key(outputs: Path) -> None:
    done = process(*TINY, f"outputs={outputs}", "method.temprature=3")
    assert_refused(done, "unknown key 'method.temprature': did you mean method.temperature or ")
    assert done.stdout == ""
    assert not outputs.exists()


@pytest.mark.slow
def test_a_process_whose_loading_process_meets_a_bad_image(
    with_a_bad_image: list[str], outputs: Path, tmp_path: Path
) -> None:
    base = [o for o in TINY if not o.startswith(("teacher.", "data.n"))]
    words = [*base, *with_a_bad_image, f"outputs={outputs}", "data.num_workers=1"]
    done = command_line(tmp_path, *words)
    assert_refused(done, "dog_0.JPEG must be an image: ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, dict]]:
    """A folder that is full at 200 kB, and the options with which a process must be started."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder, {}
        subprocess.run(["umount", str(folder)], check=True)
    else:  # mounting is not allowed: instead limit the size of a file
        limit = (resource.RLIMIT_FSIZE, (200_000, 200_000))
        yield folder, {"before": functools.partial(resource.setrlimit, *limit)}


@pytest.mark.slow
def test_a_process_on_a_full_disk(small_disk: tuple[Path, dict], tmp_path: Path) -> None:
    folder, options = small_disk
    base = [o for o in TINY if not o.startswith("teacher.")]
    done = command_line(tmp_path, "method=supervised", *base, f"outputs={folder}", **options)
    if not options:
        assert_refused(done, f"the disk of {folder} is full, writing {folder}/")
    assert_refused(done, "is full, writing ")
    (directory,) = folder.iterdir()
    left = {path.name for path in directory.iterdir()}
    assert "metrics.json" not in left
    assert left <= {
        ".lock",
        "config.yaml",
        "environment.json",
        "best-student.ckpt",
        "SHA256SUMS",
    }, "a half-written file"
    assert not (directory / "best-student.ckpt").exists() or torch.load(
        directory / "best-student.ckpt", weights_only=True
    )


@pytest.fixture
def broken_network() -> Iterator[tuple[str, list[object]]]:
    """The address of a proxy that closes each connection at once, and the list of its callers."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_connections() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    connection, caller = server.accept()
                    calls.append(caller)
                    connection.close()

        threading.Thread(target=close_connections, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_a_process_without_a_network_tries_once(
    broken_network: tuple[str, list[object]], outputs: Path, tmp_path: Path
) -> None:
    proxy, calls = broken_network
    env = {name: proxy for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = process(*TINY, "teacher.source=pretrained", "model@method.teacher=resnet18",
                   f"outputs={outputs}", env=env)  # fmt: skip
    assert_refused(done, "there is no network to load them from")
    assert not outputs.exists()
    assert len(calls) == 1  # by default the library would retry for most of a minute
