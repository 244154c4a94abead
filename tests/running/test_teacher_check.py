"""The check of a teacher before a student trains: what is measured, said, recorded and refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ridge_net, with_order
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.config.schema import check_configuration
from kd_lightning.running import teacher_check
from kd_lightning.running.teacher_check import check_expectation
from kd_lightning.teachers.sources import load_student

QUICK = ("trainer.max_epochs=1", "callbacks=quiet", "logger=none", "hardware=cpu")


# What is measured and recorded


def test_the_accuracy_on_val_is_said_and_recorded(check: Callable) -> None:
    record = check(net := ridge_net(check.data))
    val = check.data.parts["val"]
    accuracy = (net(val.x).logits.argmax(-1) == val.y).double().mean().item()
    assert record["val"]["accuracy"] == pytest.approx(accuracy)
    assert record["val"]["samples"] == len(val) > 100
    assert record["val"]["p_value"] < 1e-30
    assert list(record) == ["val"]
    count = f"{round(accuracy * len(val))} of {len(val)} samples"
    assert check.said == [f"Teacher: {100 * accuracy:.1f} % on val ({count}), here"]


@pytest.mark.parametrize("mode", ["error", "warn"])
def test_outputs_that_are_not_finite_are_a_fault_of_the_teacher(
    mode: str, make_check: Callable
) -> None:
    check = make_check({"teacher.check": mode})
    net = ridge_net(check.data)
    with torch.no_grad():
        net.head.weight[3] = 3e38
    found = r"outputs are not finite for \d+ of \d+ val samples"
    with pytest.raises(UserError, match=rf"{found}, so its weights \(here\) are wrong"):
        check(net)


def test_without_a_val_part_train_is_checked_without_augmentation(make_check: Callable) -> None:
    erase = {"_target_": "torchvision.transforms.v2.RandomErasing", "p": 1.0, "scale": [0.5, 0.9]}
    check = make_check({"data.val_fraction": 0, "data.augmentation": erase})
    record = check(ridge_net(check.data))
    assert list(record) == ["train"]
    assert record["train"]["samples"] == 1000
    assert record["train"]["accuracy"] > 0.9
    assert "of 1000 random samples), without augmentation, as there is no val part" in check.said[0]


def test_a_small_val_part_is_not_checked_alone(make_check: Callable) -> None:
    check = make_check({"data.val_fraction": 0.01})
    record = check(ridge_net(check.data))
    assert record["val"]["samples"] < teacher_check.FEW
    assert record["train"]["samples"] == 1000
    assert " on val (" in check.said[0]
    assert " on train (" in check.said[0]


def test_the_same_random_samples_of_a_large_part_are_checked(
    check: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(teacher_check.MOST, "val", 110)
    records = [check(ridge_net(check.data)) for _ in range(2)]
    assert records[0] == records[1]
    assert records[0]["val"]["samples"] == 110
    assert "of 110 random samples)" in check.said[0]


def test_the_teacher_is_the_same_afterwards(make_check: Callable) -> None:
    check = make_check({"teacher.check": "warn"})
    net = with_order(ridge_net(check.data), torch.arange(10).roll(1))  # alternatives are tried
    net.train()  # of a method whose teacher learns too
    net.head.eval()
    before, prepare = sha256_of(net), net.prepare
    check(net)
    assert len(check.said) == 2
    assert sha256_of(net) == before
    assert net.prepare is prepare
    assert (net.training, net.trunk.training, net.head.training) == (True, True, False)


def test_bf16_is_checked_in_bf16(make_check: Callable) -> None:
    check = make_check({"hardware.precision": "bf16-mixed"})
    seen = []
    net = ridge_net(check.data)
    net.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert check(net)["val"]["accuracy"] > 0.9
    assert set(seen) == {torch.bfloat16}


def test_only_the_first_rank_checks(check: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert check(ridge_net(check.data)) is None
    assert not check.said


# What is refused


@pytest.mark.parametrize(
    "keys", [{"teacher.check": "off"}, {"teacher.check": False}, {"teacher.source": "untrained"}]
)
def test_nothing_is_checked_if_it_is_off_or_the_teacher_untrained(
    keys: dict[str, Any], make_check: Callable
) -> None:
    check = make_check(keys)
    check_configuration(check.cfg)
    assert check(with_order(ridge_net(check.data), torch.arange(10).roll(1))) is None
    assert not check.said


def test_warn_says_what_error_raises(make_check: Callable, check: Callable) -> None:
    wrong = with_order(ridge_net(check.data), torch.arange(10).roll(1))
    with pytest.raises(UserError) as caught:
        check(wrong)
    warned = make_check({"teacher.check": "warn"})
    assert warned(wrong)["val"]["accuracy"] < 0.1
    sentence = warned.said[1].removeprefix("Warning: ")
    assert str(caught.value) == f"{sentence} (teacher.check=warn trains all the same)"


@pytest.mark.parametrize("value", ["maybe", True])
def test_another_choice_is_refused(value: Any, composed: DictConfig) -> None:
    cfg = copy.deepcopy(composed)
    cfg.teacher.check = value
    with pytest.raises(UserError, match=r"teacher.check must be error or warn or off"):
        check_configuration(cfg)


def test_a_teacher_below_the_expected_accuracy_is_refused(make_check: Callable) -> None:
    check = make_check({"teacher.expect_accuracy": 0.99})
    with pytest.raises(UserError, match=r"less than teacher.expect_accuracy=0.99: look at "):
        check(ridge_net(check.data))
    check = make_check({"teacher.expect_accuracy": 0.8})
    assert check(ridge_net(check.data))["val"]["accuracy"] >= 0.8


@pytest.mark.parametrize("value", [77, 0, -0.5])
def test_an_expected_accuracy_is_a_share(value: float, composed: DictConfig) -> None:
    cfg = copy.deepcopy(composed)
    cfg.teacher.expect_accuracy = value
    with pytest.raises(UserError, match=rf"in \(0, 1\], where 77 % is 0.77, got {value}"):
        check_expectation(cfg)
    cfg.teacher.expect_accuracy = 1
    check_expectation(cfg)


@pytest.mark.parametrize("keys", [{"check": False}, {"source": "untrained"}])
def test_an_expected_accuracy_needs_the_check(keys: dict[str, Any], composed: DictConfig) -> None:
    cfg = copy.deepcopy(composed)
    cfg.teacher.update(expect_accuracy=0.5, **keys)
    with pytest.raises(UserError, match=r"teacher.expect_accuracy=0.5 has no effect"):
        check_expectation(cfg)


# No false alarm


@pytest.mark.parametrize(
    "keys",
    [{}, {"data.train_per_class": 5, "data.batch_size": 8}, {"data.label_noise": 0.3}],
)
def test_a_good_teacher_passes_on_every_split(keys: dict[str, Any], make_check: Callable) -> None:
    for split in range(8):
        check = make_check({"data.split_seed": split, **keys})
        assert check(ridge_net(check.data))
        assert len(check.said) == 1


@pytest.mark.parametrize("share", [1.0, 0.2, 0.07])
def test_a_good_teacher_of_two_classes_passes_however_unequal_they_are(
    share: float, make_check: Callable, files: Path, tmp_path: Path
) -> None:
    digits = np.load(files / "digits.npz")
    x, y = digits["x"], digits["y"]
    eights = np.flatnonzero(y == 8)
    chosen = [*np.flatnonzero(y == 0), *eights[: round(share * len(eights))]]
    np.savez(tmp_path / "two.npz", x=x[chosen], y=(y[chosen] == 8).astype("int64"))
    for split in range(8):
        for val in (0.1, 0.4):
            check = make_check({"data.root": str(tmp_path / "two.npz"),
                                "data.split_seed": split, "data.val_fraction": val})  # fmt: skip
            assert check(ridge_net(check.data))
            assert len(check.said) == 1


# Whole runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a real teacher."""
    outputs = tmp_path_factory.mktemp("teacher")
    return distill("method=supervised", "data=digits", "model@method.students.student=mlp",
                   *QUICK, "trainer.max_epochs=8", f"outputs={outputs}").directory  # fmt: skip


@pytest.fixture
def weights(trained: Path) -> dict[str, Tensor]:
    return load_student(trained, "student").state_dict()


def run_with(weights: dict[str, Tensor], tmp_path: Path, *words: str) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    words = (*words, f"teacher.source={path}", f"outputs={tmp_path}/out")
    return distill("method=kd", "data=digits", "model@method.teacher=mlp", *QUICK, *words).directory


def test_a_file_with_other_statistics_stops_the_run_and_the_advice_repairs_it(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    bare = {name: value for name, value in weights.items() if not name.startswith("prepare")}
    wrong = ["method.teacher.mean=[-1]", "method.teacher.std=[1.2]"]
    with pytest.raises(UserError, match="with the mean and std of the data: add ") as caught:
        run_with(bare, tmp_path, *wrong)
    assert not (tmp_path / "out").exists()
    advice = str(caught.value).partition(": add ")[2].partition(" (")[0].split()
    record = json.loads((run_with(bare, tmp_path, *advice) / "environment.json").read_text())
    assert record["teacher"]["val"]["accuracy"] > 0.95
    assert record["teacher"]["train"] is None


def test_a_file_with_its_classes_in_another_order_stops_the_run(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    order = [3, 0, 1, 2, 9, 8, 4, 5, 6, 7]
    permuted = {**weights, **{f"head.{n}": weights[f"head.{n}"][order] for n in ("weight", "bias")}}
    with pytest.raises(UserError, match="with its classes in another order") as caught:
        run_with(permuted, tmp_path)
    assert f"add teacher.class_order={order}".replace(", ", ",") in str(caught.value)
    assert (run_with(permuted, tmp_path, "teacher.check=off") / "metrics.json").exists()


def test_an_untrained_file_stops_the_run(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    random = {n: v if "prepare" in n else torch.randn_like(v) / 8 for n, v in weights.items()}
    with pytest.raises(UserError, match="not significantly above the share of the most frequent"):
        run_with(random, tmp_path)


def test_a_resumed_run_takes_the_record_of_its_first_start(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = run_with(weights, tmp_path) / "environment.json"
    record = json.loads(path.read_text())
    record["teacher"]["val"]["accuracy"] = 0.125
    write_kept(path.parent, {path.name: json.dumps(record)})
    capsys.readouterr()
    for epochs, check in ((2, "warn"), (3, "off")):
        distill(f"resume={path.parent}", f"trainer.max_epochs={epochs}", f"teacher.check={check}")
        assert json.loads(path.read_text())["teacher"] == record["teacher"]
        assert " on val (" not in capsys.readouterr().out


def test_a_run_that_was_not_checked_is_checked_when_it_is_resumed(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = run_with(weights, tmp_path, "teacher.check=off") / "environment.json"
    assert json.loads(path.read_text())["teacher"]["val"] is None
    distill(f"resume={path.parent}", "trainer.max_epochs=2", "teacher.check=error")
    assert json.loads(path.read_text())["teacher"]["val"]["accuracy"] > 0.9
