"""Averaged students, on real training: the average is what is validated, saved and tested."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forked_runs import run_on_two_ranks
from helpers import DISTILLERS, METHODS, TINY, compose, net, of_method
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.callbacks.averaging import EMA, SWA, AveragedStudents
from kd_lightning.callbacks.best_students import BestStudents
from kd_lightning.evaluation import metrics as evaluation
from kd_lightning.methods.base import Learner
from kd_lightning.methods.supervised import Supervised
from kd_lightning.running.build import build_data, build_method
from kd_lightning.running.trainer import bare_trainer
from kd_lightning.teachers.sources import Teacher, build_net, load_student

# a net with batch norm, data that takes more than two epochs to learn, a constant learning rate
SUPERVISED = [
    *(word for word in TINY if not word.startswith(("callbacks", "teacher"))),
    "method=supervised",
    "model@method.students.student=resnet8",
    "method.students.student.widths=[4, 4, 8, 16]",
    "data.noise=1",
    "data.val_fraction=0.3",
    "scheduler=none",
    "optimizer.lr=0.01",
    "trainer.max_epochs=4",
]
SWA_ON = ["callbacks=swa", "callbacks.swa.start=0.5"]
EMA_ON = ["callbacks=ema", "callbacks.ema.decay=0.9"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("plain")
    return distill(*SUPERVISED, "callbacks=quiet", f"outputs={outputs}").directory


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "epochs.csv").open() as file:
        return list(csv.DictReader(file))


def best(run: Path, key: str = "student") -> dict[str, Tensor]:
    return torch.load(run / f"best-{key}.ckpt", weights_only=True)["state_dict"]


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt", weights_only=True)


def of_student(state: dict[str, Tensor], key: str = "student") -> dict[str, Tensor]:
    start = f"students.{key}."
    return {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in a if "num_batches" not in name)


def numbers_of(run: Path) -> dict[str, Any]:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("averaging", None)
    for of_net in metrics["nets"].values():
        del of_net["throughput"]
    return metrics


def assert_saved_metrics_are_reproduced(
    run: Path, overrides: list[str], *, rounding: float = 1e-4
) -> None:
    data = build_data(compose(*overrides))
    for path in run.glob("best-*.ckpt"):
        saved = torch.load(path, weights_only=True)
        student = load_student(run, saved["key"])
        logits, labels = evaluation.predict({"student": student}, data.loader("val"))
        metrics = evaluation.classification_metrics(logits["student"], labels)
        assert metrics["accuracy"] == pytest.approx(saved["accuracy"], abs=rounding)
        assert metrics["nll"] == pytest.approx(saved["nll"], rel=rounding)


def test_the_best_weights_have_the_val_metrics_stored_with_them(averaged: dict[str, Path]) -> None:
    for run in averaged.values():
        saved = torch.load(run / "best-student.ckpt", weights_only=True)
        assert float(rows(run)[saved["epoch"]]["val/student/nll"]) == saved["nll"]
        assert_saved_metrics_are_reproduced(run, SUPERVISED)


def test_batch_norm_is_refreshed_in_the_precision_of_the_run(tmp_path: Path) -> None:
    words = [*SUPERVISED, *SWA_ON, "hardware.precision=bf16-mixed"]
    run = distill(*words, f"outputs={tmp_path}").directory
    assert_saved_metrics_are_reproduced(run, SUPERVISED, rounding=0.05)


def test_each_of_two_students_has_its_own_best_average(tiny: list[str]) -> None:
    words = ["method=dual_student", *tiny, "data.noise=1", "callbacks=ema", "trainer.max_epochs=3"]
    run = distill(*words).directory
    assert_saved_metrics_are_reproduced(run, words)
    assert len(list(run.glob("best-*.ckpt"))) == 2


def test_an_ema_with_decay_0_equals_the_plain_run(plain: Path, tmp_path: Path) -> None:
    run = distill(*SUPERVISED, "callbacks=ema", "callbacks.ema.decay=0", f"outputs={tmp_path}")
    assert rows(run.directory) == rows(plain)
    assert_equal(best(run.directory), best(plain))
    assert_equal(last(run.directory)["state_dict"], last(plain)["state_dict"])
    assert numbers_of(run.directory) == numbers_of(plain)


def test_swa_over_one_epoch_equals_that_epoch(plain: Path, tmp_path: Path) -> None:
    words = ["callbacks=swa", "callbacks.swa.start=0.75", "callbacks.swa.refresh_batch_norm=false"]
    run = distill(*SUPERVISED, *words, f"outputs={tmp_path}").directory
    assert rows(run) == rows(plain)
    assert_equal(last(run)["state_dict"], last(plain)["state_dict"])
    # earlier epochs are not candidates for the best weights
    assert_equal(best(run), of_student(last(plain)["state_dict"]))
    student = numbers_of(run)["nets"]["student"]
    assert student["epoch"] == 3
    assert student["test"] == numbers_of(plain)["nets"]["student"]["last"]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    outputs = tmp_path_factory.mktemp("averaged")
    return {
        words[0]: distill(*SUPERVISED, *words, f"outputs={outputs}").directory
        for words in (SWA_ON, EMA_ON)
    }


def test_averaging_changes_the_best_weights_but_not_the_training(
    averaged: dict[str, Path], plain: Path
) -> None:
    for run in averaged.values():
        assert_equal(last(run)["current_model_state"], last(plain)["state_dict"])
        assert differ(last(run)["state_dict"], last(plain)["state_dict"])
        assert differ(best(run), best(plain))


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (SWA_ON, "callbacks.swa.start=0"),
        (SWA_ON, "callbacks.swa.refresh_batch_norm=false"),
        (EMA_ON, "callbacks.ema.decay=0.5"),
        (EMA_ON, "callbacks.ema.warmup=false"),
        (EMA_ON, "callbacks.ema.refresh_batch_norm=true"),
    ],
)
def test_every_option_changes_the_average(
    words: list[str], option: str, averaged: dict[str, Path], tmp_path: Path
) -> None:
    run = distill(*SUPERVISED, *words, option, f"outputs={tmp_path}").directory
    assert differ(last(run)["state_dict"], last(averaged[words[0]])["state_dict"])


# Averages computed by hand


class RecordedWeights(Callback):
    """The trained weights and batch-norm statistics after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, method: Learner, *_: object) -> None:
        self.steps.append({n: value.detach().clone() for n, value in floats_of(method)})


def floats_of(method: Learner) -> list[tuple[str, Tensor]]:
    everything = [*method.named_parameters(), *method.named_buffers()]
    return [(name, value) for name, value in everything if value.is_floating_point()]


def built(method: str = "supervised", *more: str) -> tuple[Learner, Any, Any]:
    """A method whose teacher or student has batch norm."""
    of_net = "teacher" if method in DISTILLERS else "students.student"
    with_norm = [] if method == "mutual_learning" else [f"model@method.{of_net}=resnet8"]
    cfg = compose(*of_method(method, list(TINY)), f"method={method}", *with_norm, *more)
    data = build_data(cfg)
    teacher = None
    if "teacher" in cfg.method:
        teacher = Teacher(build_net(cfg.method.teacher, 1, "teacher"), "a test", "")
    return build_method(cfg, teacher), data, cfg


def fit(cfg: Any, learner: Learner, data: Any, *callbacks: Callback) -> Trainer:
    trainer = bare_trainer(cfg, logger=False, enable_checkpointing=False, callbacks=[*callbacks])
    trainer.fit(learner, datamodule=data)
    return trainer


def test_swa_is_the_mean_of_the_weights_at_the_ends_of_epochs() -> None:
    learner, data, cfg = built("supervised", "trainer.max_epochs=4", "scheduler=none")
    recorded = RecordedWeights()
    fit(cfg, learner, data, recorded, SWA(start=0.25))
    each = len(recorded.steps) // 4
    ends = recorded.steps[each - 1 :: each][1:]
    assert len(ends) == 3
    for name, value in learner.named_parameters():
        mean = torch.stack([end[name].double() for end in ends]).mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-7)


def test_swa_includes_an_epoch_that_max_steps_cuts_short() -> None:
    learner, data, cfg = built("supervised", "trainer.max_epochs=9", "trainer.max_steps=7")
    recorded, swa = RecordedWeights(), SWA(start=0)
    fit(cfg, learner, data, recorded, swa)
    assert (len(recorded.steps), swa.num_averaged) == (7, 2)  # five batches per epoch
    for name, value in learner.named_parameters():
        torch.testing.assert_close(value, (recorded.steps[4][name] + recorded.steps[6][name]) / 2)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_ema_follows_its_recursion_over_the_steps(warmup: bool, accumulated: int) -> None:
    learner, data, cfg = built(
        "supervised", f"trainer.accumulate_grad_batches={accumulated}", "scheduler=none"
    )
    recorded, ema = RecordedWeights(), EMA(decay=0.8, warmup=warmup)
    trainer = fit(cfg, learner, data, recorded, ema)
    each = len(recorded.steps) // 2  # batches per epoch; the last one always makes a step
    steps = [
        step
        for i, step in enumerate(recorded.steps)
        if (i % each + 1) % accumulated == 0 or i % each == each - 1
    ]
    assert len(steps) == trainer.global_step == ema.num_averaged
    assert any("running_var" in name for name, _ in floats_of(learner))
    for name, value in floats_of(learner):
        expected = steps[0][name].double()
        for n, step in enumerate(steps[1:], start=1):
            decay = min(0.8, (1 + n) / (10 + n)) if warmup else 0.8
            expected = decay * expected + (1 - decay) * step[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("val", [0.1, 0])
def test_batch_norm_statistics_are_those_of_the_average_on_the_training_part(val: float) -> None:
    learner, data, cfg = built("supervised", f"data.val_fraction={val}")
    fit(cfg, learner, data, SWA(start=0))
    student = learner.students["student"]
    statistics = {n: b.clone() for n, b in student.named_buffers() if "running" in n}

    class LogitsOnly(nn.Module):  # update_bn needs a net that returns a tensor
        def __init__(self) -> None:
            super().__init__()
            self.net = student

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).logits

    update_bn(data.loader("train"), LogitsOnly())
    for name, buffer in student.named_buffers():
        if name in statistics:
            torch.testing.assert_close(statistics[name], buffer)


def test_the_constants_of_a_net_do_not_change() -> None:
    learner, data, cfg = built("supervised")
    before = {k: v.clone() for k, v in learner.state_dict().items() if "prepare" in k}
    assert before
    fit(cfg, learner, data, EMA(decay=0.7, warmup=False))
    assert_equal(before, {k: v for k, v in learner.state_dict().items() if k in before})


# Averages within a run

# two students, a teacher that moves, one net for both roles, several optimizers
OF_EACH_KIND = (
    "dual_student",
    "mean_teacher",
    "stochastic_self_distillation",
    "consistent_features",
)


@pytest.mark.filterwarnings("ignore:the mean weight")  # because the teachers are untrained
@pytest.mark.parametrize(
    ("method", "make"),
    [(method, lambda: SWA(start=0)) for method in METHODS] + [(m, EMA) for m in OF_EACH_KIND],
)
def test_the_teacher_is_neither_changed_nor_averaged_nor_saved(
    method: str, make: Any, tmp_path: Path
) -> None:
    few = ["method.num_passes=2"] if "stochastic" in method else []
    learner, data, cfg = built(method, *few, "trainer.max_epochs=2")
    teacher = getattr(learner, "teacher", None)
    if teacher is not None:
        learner.make_fast = None  # which copies the teacher once
        teacher.__deepcopy__ = refuse  # a large one may not fit on the device once more
    before = {} if teacher is None else {k: v.clone() for k, v in teacher.state_dict().items()}
    averaging = make()
    trainer = fit(cfg, learner, data, averaging)
    assert averaging.num_averaged == (2 if isinstance(averaging, SWA) else trainer.global_step)
    if teacher is not None:
        assert learner.teacher is teacher
        assert_equal(before, dict(teacher.state_dict()))
        assert not any(module.training for module in teacher.modules())
        averaged = set(map(id, averaging._average_model.module.teacher.parameters()))
        assert not averaged  # there is no copy in memory either
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == learner.state_dict().keys()
    assert not [key for key in saved["state_dict"] if "teacher" in key]


def refuse(memo: dict) -> None:
    raise AssertionError("the teacher was copied")


def test_before_the_first_average_the_trained_students_are_validated(
    plain: Path, averaged: dict[str, Path]
) -> None:
    run = averaged["callbacks=swa"]
    assert rows(run)[:2] == rows(plain)[:2]
    assert rows(run)[2] != rows(plain)[2]


def test_the_first_average_restarts_the_choice_of_the_best_epoch(tmp_path: Path) -> None:
    class Started(SWA):
        num_averaged = 0
        students = nn.ModuleDict({"a": net()})

    averaging, callback = Started(), BestStudents(tmp_path)
    method = SimpleNamespace(students=nn.ModuleDict({"a": net()}), chosen_by="accuracy")
    for epoch, (count, accuracy) in enumerate([(0, 0.9), (1, 0.5), (2, 0.6), (3, 0.6)]):
        Started.num_averaged, state = count, callback.state_dict()
        callback = BestStudents(tmp_path)
        callback.load_state_dict(state)  # as if the run were resumed after every epoch
        values = {"val/a/accuracy": torch.tensor(accuracy), "val/a/nll": torch.tensor(1.0)}
        callback.on_validation_end(
            SimpleNamespace(
                current_epoch=epoch, is_global_zero=True, callback_metrics=values,
                callbacks=[averaging],
            ),
            method,
        )  # fmt: skip
    assert callback.chosen["a"]["epoch"] == 2
    assert_equal(best(tmp_path, "a"), dict(Started.students["a"].state_dict()))


@pytest.mark.parametrize("words", [SWA_ON, EMA_ON], ids=["swa", "ema"])
def test_without_a_val_part_the_last_average_is_saved(words: list[str], tmp_path: Path) -> None:
    run = distill(*SUPERVISED, *words, "data.val_fraction=0", f"outputs={tmp_path}").directory
    saved = last(run)
    assert_equal(best(run), of_student(saved["state_dict"]))
    assert differ(best(run), of_student(saved["current_model_state"]))
    student = numbers_of(run)["nets"]["student"]
    assert student["test"] == student["last"]


def test_the_last_column_is_of_the_average_at_the_end(averaged: dict[str, Path]) -> None:
    data = build_data(compose(*SUPERVISED))
    for run in averaged.values():
        student = load_student(run, "student")
        student.load_state_dict(of_student(last(run)["state_dict"]))
        logits, labels = evaluation.predict({"student": student}, data.loader("test"))
        metrics = evaluation.classification_metrics(logits["student"], labels)
        # equal up to rounding, because the loaded net has another memory layout
    assert metrics == pytest.approx(numbers_of(run)["nets"]["student"]["last"], rel=1e-5)


def test_a_run_that_ends_before_its_first_average_says_so(tmp_path: Path) -> None:
    words = [*SWA_ON, "callbacks.swa.start=0.9", "trainer.max_epochs=10"]
    stops = ["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
             "+callbacks.stop.monitor=val/accuracy", "+callbacks.stop.patience=1",
             "+callbacks.stop.stopping_threshold=0.0", "+callbacks.stop.mode=max"]  # fmt: skip
    run = distill(*SUPERVISED, *words, *stops, f"outputs={tmp_path}").directory
    averaging = json.loads((run / "metrics.json").read_text())["averaging"]
    assert averaging == "not averaged, for the run ended before 90% of its epochs"
    assert_saved_metrics_are_reproduced(run, SUPERVISED)


def test_the_table_says_how_the_weights_were_averaged(tmp_path: Path) -> None:
    run = distill(*SUPERVISED, *SWA_ON, "baselines=labels_only", f"outputs={tmp_path}").directory
    table = (run / "table.md").read_text()
    assert "students: their mean over the ends of the last 2 epochs (SWA)." in table
    assert "Those that were trained without a teacher are not averaged." in table


# Resuming


class Stop(BaseException):
    pass


def stop_after(epochs: int, patch: pytest.MonkeyPatch) -> None:
    step = Supervised.training_step

    def interrupted(self: Supervised, batch: object, batch_idx: int) -> Tensor:
        if self.current_epoch == epochs and batch_idx == 1:
            raise Stop
        return step(self, batch, batch_idx)

    patch.setattr(Supervised, "training_step", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize("words", [SWA_ON, EMA_ON], ids=["swa", "ema"])
@pytest.mark.parametrize("val", [0.3, 0])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    words: list[str], val: float, tmp_path: Path
) -> None:
    words = [*SUPERVISED, *words, f"data.val_fraction={val}"]
    uninterrupted = distill(*words, f"run_dir={tmp_path}/uninterrupted").directory
    for epochs in (1, 3):
        run = tmp_path / str(epochs)
        with pytest.MonkeyPatch.context() as patch:
            stop_after(epochs, patch)
            with pytest.raises(Stop):
                distill(*words, f"run_dir={run}")
        distill(f"resume={run}")
        assert rows(run) == rows(uninterrupted)
        assert_equal(best(run), best(uninterrupted))
        for part in ("state_dict", "current_model_state"):
            assert_equal(last(run)[part], last(uninterrupted)[part])
        assert numbers_of(run) == numbers_of(uninterrupted)


@pytest.mark.parametrize("words", [SWA_ON, EMA_ON], ids=["swa", "ema"])
def test_a_finished_run_that_is_tested_again_has_the_same_numbers(
    words: list[str], tmp_path: Path
) -> None:
    run = distill(*SUPERVISED, *words, f"outputs={tmp_path}").directory
    before = numbers_of(run)
    distill(f"resume={run}")
    assert numbers_of(run) == before


def test_more_epochs_can_be_added_with_ema_but_not_with_swa(tmp_path: Path) -> None:
    for name, words in (("ema", EMA_ON), ("swa", SWA_ON)):
        run = tmp_path / name
        distill(*SUPERVISED, *words, "trainer.max_epochs=2", f"run_dir={run}")
        if name == "swa":
            with pytest.raises(UserError, match=r"start is a share of trainer.max_epochs=2"):
                distill(f"resume={run}", "trainer.max_epochs=4")
            assert len(rows(distill(f"resume={run}").directory)) == 2
            continue
        uninterrupted = distill(*SUPERVISED, *words, f"run_dir={tmp_path}/uninterrupted").directory
        distill(f"resume={run}", "trainer.max_epochs=4")
        assert numbers_of(run) == numbers_of(uninterrupted)


# User errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["callbacks=swa", "callbacks.swa.start=1"], r"callbacks.swa.start must be in \[0, 1\)"),
        (["callbacks=ema", "callbacks.ema.decay=1"], r"callbacks.ema.decay must be in \[0, 1\)"),
        (["callbacks=swa", "scheduler=swa", "baselines=labels_only"],
         "baselines=labels_only does not support scheduler.end="),
        (["callbacks=[swa,ema]"], "callbacks.swa and callbacks.ema both average: choose one"),
        (
            ["+callbacks.x._target_=lightning.pytorch.callbacks.EMAWeightAveraging"],
            "callbacks.x validates other weights than the run saves: .*callbacks=ema instead of",
        ),
        (
            ["+callbacks.x._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
             "+callbacks.x.swa_lrs=0.1"],
            "instead of StochasticWeightAveraging",
        ),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        distill(*SUPERVISED, *words, f"outputs={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_swa_begins_at_the_end_of_its_schedule() -> None:
    assert compose("callbacks=swa", "scheduler=swa").callbacks.swa.start == 0.75
    later = compose("callbacks=swa", "scheduler=swa", "scheduler.end=0.9")
    assert later.callbacks.swa.start == 0.9
    assert compose("callbacks=swa").callbacks.swa.start == 0.75


def test_the_description_has_the_decay_reached_by_the_warm_up() -> None:
    ema = EMA(decay=0.999)
    ema._average_model = SimpleNamespace(n_averaged=torch.tensor(15))
    assert ema.describe().endswith("decay 0.625 at last, on the way to 0.999")  # 15 / 24
    ema._average_model.n_averaged += 20_000
    assert ema.describe().endswith("average, decay 0.999")


def test_averaging_is_built_on_lightnings_callback() -> None:
    assert issubclass(AveragedStudents, WeightAveraging)


# Two processes


@pytest.mark.slow
@pytest.mark.parametrize("words", [SWA_ON, EMA_ON], ids=["swa", "ema"])
def test_two_ranks_save_one_average(words: list[str], tmp_path: Path) -> None:
    run_on_two_ranks(tmp_path, *SUPERVISED, *words, "hardware=ddp", "hardware.accelerator=cpu",
                     "hardware.devices=2", f"run_dir={tmp_path}/run")  # fmt: skip
    run = tmp_path / "run"
    # val is evaluated on both ranks, so their averages had the same statistics
    assert_saved_metrics_are_reproduced(run, SUPERVISED)
