"""What every method promises, over every file in conf/method: a new method inherits these laws.

So do the methods of ``throwaway/``, which use all that the contract has.
"""

import atexit
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import pytest
import torch
from forked_runs import run_on_two_ranks
from helpers import (
    METHODS,
    OF_MAPS,
    THROWAWAY,
    THROWAWAY_CONF,
    class_of,
    compose,
    of_method,
    with_teacher,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from logged_names import documented, generalised, names_in_csv
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kd_lightning
from kd_lightning import distill
from kd_lightning.methods.base import Learner
from kd_lightning.methods.distiller import Distiller
from kd_lightning.running.build import build_data, build_method, number_samples
from kd_lightning.running.stages import complete_stages
from kd_lightning.teachers.sources import Teacher, build_net

ALL = [*METHODS, *THROWAWAY]
WITH_TEACHER = with_teacher(ALL)
FROZEN = [  # of whom the teacher never changes
    method for method in WITH_TEACHER if issubclass(class_of(method), Distiller)
]
FROM_ITS_TEACHER = ("stochastic_self_distillation",)  # whatever the seed
MANUAL = [m for m in ALL if class_of(m).separate_optimizers]
OF_RUNS = {"everything": ["model@method.teacher=resnet8"],
           "alternating": ["teacher.source=untrained"]}  # fmt: skip
FEW_PASSES = {
    "stochastic_self_distillation": ["method.num_passes=3"],
    "adversarial_distillation": ["method.steps=2"],
    "adversarial_training": ["method.steps=2"],
}


STORE = tempfile.TemporaryDirectory()  # of stages: each is done once for all tests of a process
atexit.register(STORE.cleanup)


def built(method: str, *more: str) -> tuple[Learner, object, DictConfig]:
    """A method with an untrained teacher that has batch norm, and its data."""
    cfg = compose(
        f"method={method}",
        "data=synthetic",
        "data.num_train=64",
        "data.num_test=16",
        "data.batch_size=16",
        *(["model@method.teacher=resnet8"] if method in WITH_TEACHER else []),
        f"outputs={STORE.name}",
        *OF_MAPS.get(method, []),
        *FEW_PASSES.get(method, []),
        *more,
    )
    data = build_data(cfg)
    teacher = None
    if "teacher" in cfg.method:
        net = build_net(cfg.method.teacher, 1, "teacher")
        with torch.no_grad():
            net.head.weight.mul_(20)  # untrained nets are sure of nothing
        teacher = Teacher(net, "a test", "resnet8")
    learner = build_method(cfg, teacher)
    number_samples(data, learner)
    complete_stages(cfg, data, learner, apart=pytest.fail, say=lambda sentence: None)
    return learner, data, cfg


def gradients(learner: Learner, batch: Sequence[Tensor]) -> None:
    """A training step, outside a run, with its backward pass."""
    loss = learner.training_step(batch, 0)
    if loss is not None:  # with several optimizers the step has done that itself
        loss.backward()


def trainer(tmp_path: Path | str, **options: object) -> Trainer:
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
    }
    return Trainer(**(settings | options))


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@dataclass(frozen=True)
class Fitted:
    """A method after two epochs, with the states of its parts before them."""

    learner: Learner
    trainer: Trainer
    teacher: dict[str, Tensor]
    students: dict[str, dict[str, Tensor]]
    own: dict[str, dict[str, Tensor]]
    frozen: list[dict[str, Tensor]]


@cache
def fitted(method: str) -> Fitted:
    """The run that the laws about a finished one share. They only look at it."""
    learner, data, _ = built(method)
    run = trainer(STORE.name)
    before = Fitted(
        learner,
        run,
        teacher=state_of(learner.teacher) if method in FROZEN else {},
        students={key: state_of(net) for key, net in learner.students.items()},
        own={name: state_of(module) for name, module in learner.own_modules().items()},
        frozen=[state_of(module) for module in learner._frozen],
    )
    run.fit(learner, datamodule=data)
    return before


@pytest.mark.parametrize("method", FROZEN)
def test_teacher_never_changes(method: str) -> None:
    learner, before = fitted(method).learner, fitted(method).teacher
    assert isinstance(learner, Distiller)
    assert any("running_mean" in name for name in before), "the law needs batch norm to bite"
    assert_equal(before, state_of(learner.teacher))
    assert not any(module.training for module in learner.teacher.modules())
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    assert all(parameter.grad is None for parameter in learner.teacher.parameters())


@pytest.mark.parametrize(("blocks", "passes_of_the_trunk"), [(0.0, 1), (0.1, 30)])
def test_dropout_before_the_classifier_alone_makes_any_number_of_passes_one(
    blocks: float, passes_of_the_trunk: int
) -> None:
    rates = ("method.teacher.dropout=0.5", f"method.teacher.block_dropout={blocks}")
    learner, data, _ = built("stochastic_self_distillation", *rates, "method.num_passes=30")
    batch = next(iter(data.loader("train")))
    learner.train().training_step(batch, 0)
    rows = []
    learner._fast_teacher.trunk.register_forward_hook(lambda module, x, y: rows.append(len(x[0])))
    learner.training_step(batch, 0)
    assert sum(rows) == passes_of_the_trunk * len(batch[0])


# functions that wait for what the device has computed
WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default,
         torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default,
         torch.ops.aten.is_nonzero.default)  # fmt: skip
OPTIONS = {
    "dual_student": [
        ["method.labels_where_unsure=true", "soft_loss@method.soft_loss=reverse_kl"],
        ["method.normalize_confidence=true", "method.confidence_gate=hard"],
        ["confidence@method.confidence=correct", "method.peer_confidence=true"],
        ["confidence@method.confidence=mutual_information", "method.confidence_passes=3",
         "method.teacher.dropout=0.2"],
    ],
    "stochastic_self_distillation": [
        ["guidance@method.guidance=nearest"], ["guidance@method.guidance=mean"],
        ["method.guidance.top_k=1", "method.guidance.percentile=null"], ["method.stochastic=false"],
        ["method.detach_weights=false", "similarity@method.guidance.similarity=cosine"],
    ],
    "kd": [["soft_loss@method.soft_loss=dkd"], ["soft_loss@method.soft_loss=dist"],
           ["soft_loss@method.soft_loss=mlkd", "method.temperature_range=20"],
           ["method.standardize_logits=true", "method.soft_ramp=0.5"]],
    "feature_distillation": [["feature_loss@method.feature_loss=relational"],
                             ["feature_loss@method.feature_loss=mutual_information"],
                             ["feature_loss@method.feature_loss=vid"],
                             ["feature_loss@method.feature_loss=crd"],
                             ["feature_loss@method.feature_loss=crd_memory"]],
    "uncertainty_mixup": [["method.score=random", "method.mix=false"], ["method.scoring=train"]],
    "semantic_distillation": [["method.semantic_loss=kl", "model@method.students.student=resnet8"]],
    "alternating": [["method.attack_mode=train"], ["method.attack_mode=batch"]],
    "adversarial_distillation": [["method.teacher_input=clean", "method.attack_mode=batch"],
                                 ["method.attack_target=mixture", "method.attack_mode=train"]],
    "diffusion_distillation": [["method.target=self"],
                               ["method.feature=map", "model@method.students.student=resnet8"]],
    "student_oriented": [["method.policy=random", "method.areas=none"], ["method.policy=none"],
                         ["method.estimator=relax"]],
}  # fmt: skip
ROWS = {"kd": [["method.soft_weight=0"]],
        "uncertainty_mixup": [["method.soft_weight=0", "method.hard_weight=1"]],
        "adversarial_distillation": [["method.soft_weight=0"]],
        "diffusion_distillation": [["method.soft_weight=0", "method.feature_weight=0"]],
        "stochastic_self_distillation": [["method.feature_weight=0"],
                                         ["method.teacher.block_dropout=0.1"]]}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (method, words)
        for method in FROZEN
        for words in ([], *OPTIONS.get(method, []), *ROWS.get(method, []))
    ],
)
def test_the_teacher_computes_as_many_rows_as_declared(method: str, words: list[str]) -> None:
    learner, data, _ = built(method, *words)
    batch = next(iter(data.loader("train")))
    learner.train().training_step(batch, 0)  # the first makes the fast copy, and compares it
    rows = []
    for net in filter(None, (learner.teacher, learner._fast_teacher)):
        net.trunk.register_forward_hook(lambda module, x, y: rows.append(len(x[0])))
    learner.training_step(batch, 0)
    assert sum(rows) == learner.teacher_rows * len(batch[0])


class Waits(TorchDispatchMode):
    """Notes which functions wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in WAITS:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("method", "words", "precision"),
    [
        (method, words, precision)
        for method in ALL
        for words in ([], *OPTIONS.get(method, []))
        for precision in (["bf16-mixed"] if words else ["32", "bf16-mixed"])
    ],
)
def test_a_training_step_never_waits_for_the_device(
    method: str, words: list[str], precision: str
) -> None:
    learner, data, _ = built(method, *words, f"hardware.precision={precision}")
    batch = next(iter(data.loader("train")))
    low = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "32")
    learner.train()
    with low:
        gradients(learner, batch)  # the first step may look at things
        with Waits() as waits:
            gradients(learner, batch)
    assert waits.seen == []


# Python calls of ours in a step, at most: what the framework itself costs, whatever the nets
CALLS = {"supervised": 14, "kd": 30, "feature_distillation": 34, "mutual_learning": 40,
         "dual_student": 80, "stochastic_self_distillation": 48}  # fmt: skip


@pytest.mark.parametrize("method", ALL)
def test_a_step_makes_few_calls(method: str) -> None:
    learner, data, _ = built(method)
    batch = next(iter(data.loader("train")))
    learner.train().training_step(batch, 0)
    package, seen, hydras = str(Path(kd_lightning.__file__).parent), [], []

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            seen.append(frame.f_code.co_qualname)
        if event == "call" and f"{os.sep}hydra{os.sep}" in frame.f_code.co_filename:
            hydras.append(frame.f_code.co_qualname)

    sys.setprofile(count)
    try:
        learner.training_step(batch, 0)
    finally:
        sys.setprofile(None)
    nets = ("forward", "Prepare.")  # what they are
    ours = [name for name in seen if not any(part in name for part in nets)]
    assert 5 < len(ours) <= CALLS.get(method, 100), len(ours)
    assert hydras == []  # a step needs nothing of what built it


@pytest.mark.parametrize("method", ALL)
def test_a_checkpoint_is_its_students_and_their_optimizer(method: str, tmp_path: Path) -> None:
    # large enough that what else stands in it does not count; SSD's student is its teacher's twin
    first = next(iter(compose(f"method={method}").method.students))
    is_self = method == "stochastic_self_distillation"
    wide = f"method.students.{first}.widths=[600,600]"
    large = ["model@method.teacher=resnet8x4" if is_self else wide]
    large += ["method.student_layer=trunk.3"] if method == "everything" else []
    large = ["method.students.student.widths=[64,64,128,256]"] if method in OF_MAPS else large
    learner, data, _ = built(method, *large)
    run = trainer(tmp_path, max_epochs=1, max_steps=1, limit_val_batches=0)
    run.fit(learner, datamodule=data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    states = [one for optimizer in run.optimizers for one in optimizer.state.values()]
    state = [v for one in states for v in one.values() if torch.is_tensor(v)]
    tensors = [*learner.state_dict().values(), *state]
    least = sum(tensor.nbytes for tensor in tensors)
    assert least <= (tmp_path / "last.ckpt").stat().st_size <= 1.05 * least


@pytest.mark.parametrize("method", ALL)
def test_students_learn_and_only_they_are_optimized(method: str) -> None:
    learner, run, before = fitted(method).learner, fitted(method).trainer, fitted(method).students
    for key, net in learner.students.items():
        changed = [n for n, p in net.named_parameters() if not torch.equal(p, before[key][n])]
        assert len(changed) == len(list(net.parameters()))
    groups = [group for optimizer in run.optimizers for group in optimizer.param_groups]
    optimized = [p for group in groups for p in group["params"]]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == {p for p in learner.parameters() if p.requires_grad}
    assert {group["name"] for group in groups} == {*learner.students, *learner.own_modules()}


@pytest.mark.parametrize("method", ALL)
def test_modules_of_its_own_learn_and_frozen_ones_do_not(method: str) -> None:
    learner, before = fitted(method).learner, fitted(method)
    for name, module in learner.own_modules().items():
        for key, parameter in module.named_parameters():
            assert not torch.equal(parameter, before.own[name][key]), (name, key)
    learner.train()
    for module, was in zip(learner._frozen, before.frozen, strict=True):
        assert_equal(state_of(module), was)
        assert not any(part.training for part in module.modules())


@pytest.mark.parametrize("method", ALL)
def test_no_teacher_in_the_checkpoint(method: str, tmp_path: Path) -> None:
    learner = fitted(method).learner
    fitted(method).trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"]
    held = {name for name, child in learner.named_children() if child.state_dict()}
    assert {name.split(".")[0] for name in saved["state_dict"]} == held
    assert method not in FROZEN or "teacher" not in held
    assert (held != {"students"}) == bool(learner.own_modules() or learner._frozen)


class StopAfter(Callback):
    """Ends a run after its first epoch, as a signal does."""

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize("method", ALL)
def test_a_run_that_was_stopped_ends_with_the_same_bits(method: str, tmp_path: Path) -> None:
    learner, data, _ = built(method)
    run = trainer(tmp_path, callbacks=[StopAfter()])
    torch.rand(7)  # nothing may depend on the state of the global generator
    run.fit(learner, datamodule=data)
    assert run.current_epoch == 1
    run.save_checkpoint(tmp_path / "last.ckpt")
    again, data, _ = built(method)
    trainer(tmp_path).fit(
        again, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert_equal(state_of(again), state_of(fitted(method).learner))


@pytest.mark.parametrize("method", ALL)
def test_common_names_are_logged(method: str) -> None:
    logged = set(fitted(method).trainer.callback_metrics)
    for key in fitted(method).learner.students:
        assert {f"val/{key}/{name}" for name in ("accuracy", "nll", "ece")} <= logged
        assert f"train/{key}/hard" in logged
    assert "val/accuracy" in logged
    assert not any(name.split("/")[1:2] == ["teacher"] for name in logged)


@pytest.mark.parametrize("method", [m for m in ALL if m not in FROM_ITS_TEACHER])
def test_another_seed_starts_from_other_nets(method: str) -> None:
    other, _, _ = built(method, "seed=1")
    for key, first in fitted(method).students.items():
        started = state_of(other.students[key])
        assert any(not torch.equal(started[n], v) for n, v in first.items())


@pytest.mark.parametrize("method", ALL)
def test_trains_in_bf16_with_losses_in_float32(method: str, tmp_path: Path) -> None:
    learner, data, _ = built(method)
    seen = []
    add = learner.running_means.add
    learner.running_means.add = lambda names, row, step: seen.append(row) or add(names, row, step)
    if not learner.separate_optimizers:
        step = learner.training_step
        learner.training_step = lambda *a: seen.append(step(*a)) or seen[-1]
    trainer(tmp_path, max_epochs=1, precision="bf16-mixed").fit(learner, datamodule=data)
    assert seen
    assert all(loss.dtype == torch.float32 and loss.isfinite().all() for loss in seen)


def check_record(method: str, directory: Path) -> None:
    """What every run leaves."""
    names = {path.name for path in directory.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.json", "epochs.csv", "last.ckpt"} <= names
    assert {"table.md", "table.csv"} <= names
    metrics = json.loads((directory / "metrics.json").read_text())
    assert ("teacher" in metrics["nets"]) == (method in WITH_TEACHER)
    assert 0 <= metrics["objective"] <= 1
    students = OmegaConf.load(directory / "config.yaml").method.students
    assert {name for name in names if name.startswith("best-")} == {
        f"best-{key}.ckpt" for key in students
    }
    for key, net in students.items():  # a student is its net and nothing else
        saved = torch.load(directory / f"best-{key}.ckpt", weights_only=True)
        assert saved["state_dict"].keys() == build_net(net, 0, key).state_dict().keys()
    if method in METHODS:  # the tables of the pages have exactly the names that are logged
        logged = generalised(names_in_csv(directory), list(students))
        assert logged == documented(method, val=True)


def words_of_run(method: str, tiny: list[str]) -> list[str]:
    words = [*of_method(method, tiny), *FEW_PASSES.get(method, []), *OF_RUNS.get(method, [])]
    return [f"method={method}", *words, "logger=csv", "trainer.log_every_n_steps=2"]


# tests/test_run.py has such a run of each method of ours, on real data
@pytest.mark.parametrize("method", THROWAWAY)
def test_a_whole_run_ends_with_a_record(method: str, tiny: list[str]) -> None:
    result = distill(*words_of_run(method, tiny), config_dir=THROWAWAY_CONF)
    check_record(method, result.directory)


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_trains_on_two_processes(method: str, tiny: list[str], tmp_path: Path) -> None:
    words = words_of_run(method, tiny)
    words += ["hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2"]
    words.remove("hardware=cpu")
    if method in THROWAWAY:
        words = ["--config-dir", str(THROWAWAY_CONF), *words]
    run_on_two_ranks(tmp_path / "logs", *words)
    (record,) = tmp_path.glob("*/metrics.json")
    has_stage = class_of(method).stage is not Learner.stage
    assert len(list(tmp_path.glob("stages/*/result.safetensors"))) == has_stage
    check_record(method, record.parent)
