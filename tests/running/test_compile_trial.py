"""``hardware.compile=auto|trial``: what is chosen, and that a trial changes no number of a run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import compose, of_method
from lightning.pytorch import Callback, Trainer
from methods.test_contract import assert_equal, built, state_of, trainer
from methods.test_step import Looking
from torch import Tensor, nn

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.step import Step
from kd_lightning.models.classifier import Classifier
from kd_lightning.running.build import quieten
from kd_lightning.running.compile_trial import (
    Choice,
    CompileTrial,
    choose,
    compile_trial,
    unchanged,
)

NETS = ("model@method.students.a=resnet8", "method.students.a.dropout=0.2")
CHOICES = [
    # steps, seconds plain, compiled, compiling, spent -> compiles, sentence
    ((50_000, 0.087, 0.045, 48.0, True), True,
     "Steps are compiled: that took 48 s and pays after 1,143 steps, and 50,000 are left (45 ms "
     "instead of 87 ms a step)"),
    ((1_000, 0.087, 0.045, 48.0, True), True,  # its time is spent, and the faster step is kept
     "Steps are compiled: that took 48 s and pays after 1,143 steps, and 1,000 are left (45 ms "
     "instead of 87 ms a step)"),
    ((50_000, 0.0091, 0.0095, 12.0, True), False,
     "Steps are not compiled: that took 12 s, and a compiled step takes 9.5 ms, a plain one "
     "9.1 ms"),
    ((50_000, 0.1, 0.098, 12.0, True), False,  # 2 % may be noise
     "Steps are not compiled: that took 12 s, and a compiled step takes 98 ms, a plain one "
     "100 ms"),
    ((3_001, 0.1, 0.08, 60.0, False), True,
     "Compiled steps are tried: that takes about 60 s and pays after 3,000 steps, and 3,001 are "
     "left"),
    ((3_000, 0.1, 0.08, 60.0, False), False,
     "Steps are not compiled: that takes about 60 s and pays after 3,000 steps, and 3,000 are "
     "left"),
]  # fmt: skip


@pytest.mark.parametrize(("numbers", "compiles", "sentence"), CHOICES)
def test_the_choice_follows_from_times_alone(numbers: tuple, compiles: bool, sentence: str) -> None:
    *times, spent = numbers
    assert choose(*times, spent=spent) == Choice(compiles, sentence)


def always(compiles: bool) -> Callable[..., Choice]:
    return lambda *times, spent=False: Choice(compiles, f"{compiles}, {len(times)} numbers")


def followed(step: Callable[..., Step]) -> Callable[..., Step]:
    """As the compiler follows it, with its operations computed one by one."""
    torch.compiler.reset()
    return torch.compile(step, fullgraph=True, dynamic=False, backend="eager")


class Watch(Callback):
    """The loss of each batch."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def on_train_batch_end(self, run: Trainer, learner: Learner, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].clone())


class Run:
    """An epoch of three batches: its losses, its end, and what it says of a trial."""

    def __init__(self, folder: Path, words: tuple[str, ...] = NETS, **trial: Any) -> None:
        self.said: list[str] = []
        quieten()  # a fixture of the module is made before that of each test
        watch = Watch()
        self.learner, data, _ = built("dual_student", *words)
        trials = [CompileTrial(self.said.append, **trial)] if trial else []
        run = trainer(folder, max_epochs=1, callbacks=[*trials, watch])
        run.fit(self.learner, datamodule=data)
        self.losses = watch.losses
        self.students = state_of(self.learner.students)
        self.optimizer = run.optimizers[0].state_dict()["state"]


def assert_same(one: Run, other: Run) -> None:
    assert len(one.losses) == 3
    assert torch.equal(torch.stack(one.losses), torch.stack(other.losses))
    assert_equal(one.students, other.students)
    for key, state in one.optimizer.items():
        assert_equal(state, other.optimizer[key])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("plain"))


def test_a_run_that_stays_plain_has_the_bits_of_one_without_a_trial(
    plain: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path, compiler=followed, decide=always(False))
    assert run.said == ["False, 4 numbers"]
    assert run.learner.compile_step is None
    assert_same(run, plain)


def test_a_short_run_compiles_nothing(plain: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, only_long_runs=True, compiler=pytest.fail)
    (sentence,) = run.said
    assert sentence.startswith("Steps are not compiled: that takes about 60 s and pays after ")
    assert sentence.endswith(" steps, and 3 are left")
    assert_same(run, plain)


def test_the_faster_step_is_kept_and_learns_the_same(tmp_path: Path) -> None:
    words = ("model@method.students.a=resnet8",)  # without dropout, whose masks a compiler draws
    plain = Run(tmp_path, words)
    run = Run(tmp_path, words, only_long_runs=True, compiler=followed, decide=always(True))
    assert run.said == ["True, 4 numbers", "True, 4 numbers"]
    assert run.learner.compile_step is followed
    torch.testing.assert_close(run.losses, plain.losses, rtol=1e-4, atol=1e-5)


def refuse(step: Callable[..., Step]) -> Callable[..., Step]:
    raise RuntimeError("no C++ compiler\nhere")


def wrong(step: Callable[..., Step]) -> Callable[..., Step]:
    def compute(*batch: Any) -> Step:
        found = step(*batch)
        return found._replace(loss=found.loss * 2)

    return compute


@pytest.mark.parametrize(
    ("compiler", "sentence"),
    [(refuse, "Steps are not compiled: no C++ compiler here"), (wrong, "the loss would be ")],
)
def test_a_compiler_that_fails_or_errs_leaves_a_plain_run_and_a_sentence(
    compiler: Callable, sentence: str, plain: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path, compiler=compiler, decide=always(True))
    (said,) = run.said
    assert sentence in said
    assert run.learner.compile_step is None
    assert_same(run, plain)


def looking(num_classes: int, num_inputs: int, **_: Any) -> Classifier:
    trunk = nn.Sequential(nn.Flatten(), Looking())
    return Classifier(trunk=trunk, head=nn.Linear(num_inputs, num_classes), dropout=0.0)


def test_a_net_that_no_compiler_follows_trains_all_the_same(tmp_path: Path) -> None:
    run = Run(tmp_path, (f"method.students.a._target_={__name__}.looking",), decide=always(True))
    (said,) = run.said
    assert said.startswith("Steps are not compiled: this step cannot be compiled as one function")
    assert len(run.losses) == 3


def test_statistics_and_generators_are_as_before() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    learner = nn.ModuleDict({"net": net})
    learner.device = torch.device("cpu")
    before, generator = state_of(net), torch.get_rng_state()
    with unchanged(learner):
        net(torch.randn(8, 3))
        assert net[0].num_batches_tracked == 1
        assert not torch.equal(torch.get_rng_state(), generator)
    assert_equal(state_of(net), before)
    assert torch.equal(torch.get_rng_state(), generator)


def trials(method: str, *words: str, device: str = "cuda", ranks: int = 1) -> list[Callback]:
    learner, _, cfg = built(method, *words)
    strategy = SimpleNamespace(root_device=torch.device(device))
    return compile_trial(cfg, learner, SimpleNamespace(strategy=strategy, world_size=ranks), print)


def test_auto_is_a_trial_on_one_gpu_in_long_runs() -> None:
    (trial,) = trials("kd", "hardware.compile=auto")
    assert trial.only_long_runs
    (trial,) = trials("kd", "hardware.compile=trial", device="cpu")
    assert not trial.only_long_runs
    for value in ("true", "false"):
        assert trials("kd", f"hardware.compile={value}") == []


@pytest.mark.parametrize(
    ("method", "words", "where"),
    [
        ("kd", (), {"device": "cpu"}),
        ("kd", (), {"ranks": 2}),
        ("kd", ("hardware.deterministic=true",), {}),
        ("adversarial_training", (), {}),  # needs gradients inside of a step
    ],
)
def test_auto_means_no_elsewhere(method: str, words: tuple[str, ...], where: dict) -> None:
    assert trials(method, "hardware.compile=auto", *words, **where) == []


REFUSED = {
    ("kd", "hardware.cuda_graphs=true"): "compares steps that are not recorded",
    ("kd", "hardware.devices=2"): "is for one device",
    ("adversarial_training", "hardware=cpu"): "does not support hardware.compile=trial: ",
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.items())
def test_a_trial_that_cannot_be_made_is_refused(words: tuple[str, str], sentence: str) -> None:
    method, word = words
    with pytest.raises(UserError, match=sentence):
        built(method, word, "hardware.compile=trial")


def test_the_default_on_a_gpu_is_auto_and_of_the_others_no() -> None:
    found = {name: compose("method=kd", f"hardware={name}").hardware.compile
             for name in ("auto", "gpu", "cpu", "ddp", "multi_node")}  # fmt: skip
    assert found == {"auto": "auto", "gpu": "auto", "cpu": False, "ddp": False, "multi_node": False}


@pytest.mark.slow
def test_a_run_says_what_its_trial_chose(
    tiny: list[str], traced: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = of_method("supervised", tiny)
    plain, run = (
        distill("method=supervised", *words, f"hardware.compile={value}")
        for value in ("auto", "trial")
    )
    out = capsys.readouterr().out
    (sentence,) = [line for line in out.splitlines() if "compiled: that took" in line]
    assert run.metrics["compiled"] == sentence.startswith("Steps are compiled: ")
    assert not plain.metrics["compiled"]
    ends = [one.metrics["nets"]["student"]["last"]["nll"] for one in (run, plain)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-3 if run.metrics["compiled"] else 0)
