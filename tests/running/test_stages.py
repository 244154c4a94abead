"""A method's stage: done once, kept, reused, resumed, and by one process alone."""

from pathlib import Path

import pytest
import torch
from damage import DAMAGE
from helpers import THROWAWAY_CONF, compose
from methods.throwaway.everything import FitHead
from omegaconf import DictConfig
from safetensors.torch import load_file

from kd_lightning import distill
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.methods.base import Learner
from kd_lightning.methods.stage import Stage
from kd_lightning.running.build import build_data, build_method
from kd_lightning.running.stages import (
    RESULT,
    complete_stages,
    directory_of,
    fit_stage,
    take_length,
)
from kd_lightning.teachers.sources import Teacher, build_net

WORDS = ["method=everything", "data=synthetic", "data.num_train=64", "data.num_test=16",
         "data.batch_size=16", "model@method.teacher=resnet8"]  # fmt: skip


class Case:
    """A run up to its stage."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        self.cfg = compose(*WORDS, f"outputs={tmp_path}", *words)
        self.data = build_data(self.cfg)
        net = build_net(self.cfg.method.teacher, self.cfg.teacher.seed, "teacher")
        self.method = build_method(self.cfg, Teacher(net, "a test", "resnet8"))
        self.directory = directory_of(self.cfg, self.data, self.method.stage())
        self.said: list[str] = []

    def complete(self) -> Learner:
        complete_stages(self.cfg, self.data, self.method, apart=pytest.fail, say=self.said.append)
        return self.method


def weights(method: Learner) -> torch.Tensor:
    return method.rotation_head.weight.detach().clone()


def test_a_stage_trains_its_module_which_is_then_frozen(tmp_path: Path) -> None:
    case = Case(tmp_path)
    before = weights(case.method)
    method = case.complete()
    assert not torch.equal(weights(method), before)
    assert not method.rotation_head.weight.requires_grad
    assert not method.train().rotation_head.training
    state = load_file(case.directory / RESULT)
    assert torch.equal(state["head.weight"], weights(method))
    epochs = (case.directory / "epochs.csv").read_text().splitlines()
    assert epochs[0].split(",")[:3] == ["epoch", "step", "loss"]
    assert len(epochs) == 3


def test_it_is_done_once_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Case(tmp_path)
    first.complete()
    monkeypatch.setattr(FitHead, "training_step", lambda *_: pytest.fail("done twice"))
    again = Case(tmp_path)
    assert torch.equal(weights(again.complete()), weights(first.method))
    assert again.said == [f"rotation-head: reused from {first.directory}"]


@pytest.mark.parametrize("damage", ["one flipped bit", "empty"])
def test_a_damaged_one_is_set_aside_and_done_again(damage: str, tmp_path: Path) -> None:
    first = Case(tmp_path)
    expected = weights(first.complete())
    DAMAGE[damage](first.directory / RESULT)
    again = Case(tmp_path)
    assert torch.equal(weights(again.complete()), expected)
    assert again.said[0].startswith(f"rotation-head: {first.directory / RESULT} is ")
    assert again.said[0].endswith(f", so it is set aside as {first.directory}.damaged")
    assert Path(f"{first.directory}.damaged", RESULT).exists()


@pytest.mark.parametrize(
    "words",
    [["method.stage_epochs=3"], ["method.stage_learning_rate=0.1"], ["data.num_train=80"],
     ["teacher.seed=1"], ["seed=1"], ["method.teacher.input_size=16"]],
)  # fmt: skip
def test_what_shapes_it_makes_another(words: list[str], tmp_path: Path) -> None:
    assert Case(tmp_path, *words).directory != Case(tmp_path).directory


@pytest.mark.parametrize(
    "words", [["data.num_workers=2"], ["trainer.max_epochs=3"], ["optimizer.lr=0.5"]]
)
def test_what_does_not_shape_it_does_not(words: list[str], tmp_path: Path) -> None:
    assert Case(tmp_path, *words).directory == Case(tmp_path).directory


def test_a_stage_that_was_stopped_is_resumed_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Case(tmp_path / "whole").complete()
    case = Case(tmp_path / "stopped")
    step = FitHead.training_step

    def stopping(self: Stage, batch: list, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1:
            raise Interrupted(2)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FitHead, "training_step", stopping)
        with pytest.raises(Interrupted) as caught:
            case.complete()
    assert caught.value.advice == (
        "run the same command again: rotation-head is resumed where it stopped"
    )
    assert not (case.directory / RESULT).exists()
    again = Case(tmp_path / "stopped")
    assert torch.equal(weights(again.complete()), weights(whole))
    assert again.said[0] == f"rotation-head: resumed in {case.directory}"


class Matching(Stage):
    """Only computes: the mean of the samples."""

    def __init__(self, teacher: torch.nn.Module, mean: torch.nn.BatchNorm1d) -> None:
        super().__init__(name="mean", teacher=teacher)
        self.automatic_optimization = False
        self.mean = mean
        self.total, self.count = torch.zeros(3), 0

    def training_step(self, batch: list, batch_idx: int) -> None:
        self.total += (batch[0].float() / 255).mean((2, 3)).sum(0)
        self.count += len(batch[0])

    def on_train_end(self) -> None:
        self.mean.running_mean.copy_(self.total / self.count)

    def configure_optimizers(self) -> None:
        return None


def test_a_stage_without_an_optimizer_fills_its_buffers(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.method.mean = torch.nn.BatchNorm1d(3)
    case.method.stage = lambda: Matching(case.method.teacher, case.method.mean)
    case.complete()
    x = torch.cat([x for x, _ in case.data.loader("train")]).float() / 255
    torch.testing.assert_close(case.method.mean.running_mean, x.mean((0, 2, 3)))


def test_where_ranks_come_from_outside_it_is_done_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path)
    requested = []

    def apart(cfg: DictConfig) -> None:
        requested.append(cfg)
        stage = Case(tmp_path).method.stage()
        fit_stage(cfg, case.data, stage, case.directory, case.said.append)

    monkeypatch.setattr("kd_lightning.running.stages.launcher_rank", lambda: 0)
    complete_stages(case.cfg, case.data, case.method, apart=apart, say=case.said.append)
    assert requested == [case.cfg]
    assert torch.equal(weights(case.method), load_file(case.directory / RESULT)["head.weight"])


def test_a_run_with_a_stage_reuses_it_when_it_is_resumed(tiny: list[str], tmp_path: Path) -> None:
    words = ["method=everything", "model@method.teacher=resnet8", *tiny, "trainer.max_epochs=1"]
    first = distill(*words, config_dir=THROWAWAY_CONF)
    resume = [f"resume={first.directory}", "allow=[methods.throwaway]", "trainer.max_epochs=2"]
    again = distill(*resume, config_dir=THROWAWAY_CONF)
    assert again.metrics["epochs"] == 2
    assert len(list(tmp_path.glob(f"stages/*/{RESULT}"))) == 1


def test_a_projection_of_other_views_is_another_result(tmp_path: Path) -> None:
    views = ["method.series_views=[reverse,jitter,scaling]"]
    more = ["augmentation@method.view_augmentation=shift"]
    words = ["method=self_supervision", "data=digits", f"outputs={tmp_path}"]

    def directory(*changes: str) -> Path:
        cfg = compose(*words, *changes)
        data = build_data(cfg)
        teacher = Teacher(build_net(cfg.method.teacher, 1, "teacher"), "a test", "net")
        return directory_of(cfg, data, build_method(cfg, teacher).stage())

    assert directory() == directory()
    assert len({directory(), directory(*views), directory(*more)}) == 3


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (["trainer.max_epochs=100", "trainer.max_steps=40"], 10),  # 4 steps an epoch
        (["trainer.max_epochs=3", "trainer.max_steps=40"], 3),
        (
            [
                "trainer.max_epochs=100",
                "trainer.max_steps=40",
                "trainer.accumulate_grad_batches=2",
            ],
            20,
        ),
        (["trainer.max_epochs=100"], 100),
        (["trainer.max_steps=40", "method.stage_recipe.run_epochs=7"], 7),
    ],
)
def test_a_stage_takes_its_share_of_the_epochs_that_there_will_be(
    words: list[str], epochs: int
) -> None:
    size = ["data.num_train=64", "data.batch_size=16", "data.val_fraction=0"]
    cfg = compose("method=self_supervision", "data=synthetic", *size, *words)
    take_length(cfg, build_data(cfg))
    assert cfg.method.stage_recipe.run_epochs == epochs
