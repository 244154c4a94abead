import math
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import sgd
from methods.test_contract import built, state_of, trainer
from torch import Tensor, nn

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.losses.attacks import as_floats
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.adversarial_training import AdversarialTraining
from kd_lightning.methods.base import Learner
from kd_lightning.methods.supervised import Supervised
from kd_lightning.models.classifier import Classifier

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 3}


def with_norm() -> Classifier:
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh())
    return Classifier(trunk=trunk, head=nn.Linear(8, 3), dropout=0.3)


def make(kind: type[Learner] = AdversarialTraining, *, student=None, **options) -> Learner:
    torch.manual_seed(0)
    students = {"student": student or with_norm()}
    return kind(students=students, num_classes=3, optimizer=sgd(), **options).train()


def batch(size: int = 8, *, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, channels, 2, 2, generator=generator), torch.arange(size) % 3


def gradients(learner: Learner, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    loss = learner.training_step((x, y), 0)
    return loss, torch.autograd.grad(loss, list(learner.students.parameters()))


def assert_same_step(a: Learner, b: Learner) -> None:
    (loss, slopes), (other, others) = gradients(a, *batch()), gradients(b, *batch())
    assert torch.equal(loss, other)
    assert all(torch.equal(*pair) for pair in zip(slopes, others, strict=True))


def test_without_an_attack_it_is_supervised_bit_for_bit() -> None:
    assert_same_step(make(epsilon=0), make(Supervised))


def test_the_attack_on_val_changes_nothing_in_training() -> None:
    assert_same_step(make(**ATTACK), make(**ATTACK, val_epsilon=0.5))


def test_an_attack_raises_the_loss_and_draws_nothing_from_the_students_masks() -> None:
    losses = [
        make(**ATTACK | {"epsilon": e}).training_step(batch(), 0).item() for e in (0, 0.05, 0.1)
    ]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]
    # an attack that moves nothing leaves the dropout masks of the step as they are
    still = make(**ATTACK | {"epsilon": 1e-12})
    torch.testing.assert_close(
        still.training_step(batch(), 0), make(epsilon=0).training_step(batch(), 0)
    )


@pytest.mark.parametrize(("mode", "moves"), [("eval", False), ("batch", False), ("train", True)])
def test_batch_norm_of_the_student_is_moved_by_an_attack_in_train_mode_alone(
    mode: str, moves: bool
) -> None:
    method = make(**ATTACK, attack_mode=mode)
    before = state_of(method.students)
    x, y = batch()
    method.attacked("student", x, lambda z: label_cross_entropy(z, y), mode=method.attack_mode)
    same = [torch.equal(v, before[name]) for name, v in state_of(method.students).items()]
    assert all(same) != moves
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(module.training for module in method.students.modules())


def test_an_attack_follows_from_seed_student_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch()

    def attack(seed: int = 0, step: int = 0, start: bool = True) -> Tensor:
        monkeypatch.setattr(Learner, "_batches_started", step)
        method = make(epsilon=0.1, step_size=0.01, steps=2, seed=seed, random_start=start)
        torch.rand(step + 7)  # nothing may depend on the state of the global generator
        return method.attacked("student", x, lambda z: label_cross_entropy(z, y))

    assert torch.equal(attack(), attack())
    assert not torch.equal(attack(), attack(seed=1))
    assert not torch.equal(attack(), attack(step=1))
    assert torch.equal(attack(start=False), attack(start=False, seed=1, step=1))


def test_the_dropout_inside_of_an_attack_follows_from_the_seed_too() -> None:
    x, y = batch()

    def attack(drawn: int) -> Tensor:
        method = make(epsilon=0.1, step_size=0.01, steps=2, random_start=False)
        method.students["student"].dropout.p = 0.5
        torch.rand(drawn)  # nothing may depend on the state of the global generator
        objective = partial(label_cross_entropy, labels=y)
        return method.attacked("student", x, objective, mode="train")

    assert torch.equal(attack(3), attack(8))


def test_images_of_bytes_are_attacked_as_floats_from_0_to_1() -> None:
    x, y = batch()
    pixels = (255 * x).round().to(torch.uint8)
    assert torch.equal(as_floats(pixels), pixels.float() / 255)
    loss, other = (make(**ATTACK).training_step((u, y), 0) for u in (pixels, pixels.float() / 255))
    assert torch.equal(loss, other)
    attacked = make(**ATTACK).attacked(
        "student", as_floats(pixels), lambda z: label_cross_entropy(z, y)
    )
    assert (attacked - as_floats(pixels)).abs().max().item() == pytest.approx(0.1, abs=1e-6)
    assert 0 <= attacked.min() <= attacked.max() <= 1


def test_series_have_no_bounds() -> None:
    x, y = batch()
    attacked = make(**ATTACK).attacked(
        "student", x.flatten(2).round(), lambda z: label_cross_entropy(z, y)
    )
    assert attacked.min() < 0
    assert attacked.max() > 1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_robust_accuracy_on_val_is_that_under_attack_and_the_same_each_time(
    precision: str, tmp_path: Path
) -> None:
    words = ("data.noise=0.5", "method.epsilon=0.05", "method.step_size=0.02", "method.steps=3")
    method, data, _ = built("adversarial_training", *words)
    run = trainer(tmp_path, max_epochs=1, precision=precision)
    run.fit(method, datamodule=data)
    logged = dict(run.callback_metrics)
    first, second = (run.validate(method, datamodule=data, verbose=False)[0] for _ in range(2))
    assert first == second  # the random start is not that of training
    assert logged["val/robust_accuracy"] == first["val/student/robust_accuracy"]
    assert logged["val/robust_accuracy"] <= logged["val/accuracy"]
    method.val_epsilon = 0.0
    (clean,) = run.validate(method, datamodule=data, verbose=False)
    assert clean["val/robust_accuracy"] == clean["val/accuracy"] == logged["val/accuracy"]
    method.epsilon, method.val_epsilon = 0.0, 1.0
    (far,) = run.validate(method, datamodule=data, verbose=False)
    assert far["val/robust_accuracy"] < max(0.5, clean["val/accuracy"])
    method.epsilon, method.val_epsilon = 1.0, None
    assert run.validate(method, datamodule=data, verbose=False) == [far]
    assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epsilon": -0.1}, r"method.epsilon must be >= 0, got -0.1"),
        ({"epsilon": math.nan}, "epsilon must be >= 0, got nan"),
        ({"val_epsilon": -1.0}, r"method.val_epsilon must be >= 0 or null, got -1.0"),
        ({"step_size": 0}, r"method.step_size must be > 0, got 0"),
        ({"steps": 0}, r"method.steps must be >= 1, got 0"),
        ({"attack_mode": "evl"}, r"did you mean eval\? \(method.attack_mode=…\)"),
        ({"choose_by": "nll"}, r"expected one of accuracy, robust_accuracy \(method.choose_by=…\)"),
    ],
)
def test_bad_values_name_their_key(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


# Whole runs

DIGITS = ("data=digits", "model@method.students.student=digits/b", "trainer.max_epochs=8",
          "hardware=cpu", "callbacks=quiet", "logger=none")  # fmt: skip


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[float, dict]:
    """Size of the attack in training -> the numbers of the student."""
    outputs = tmp_path_factory.mktemp("runs")
    return {
        epsilon: distill(
            "method=adversarial_training", *DIGITS, f"method.epsilon={epsilon}",
            "method.step_size=0.05", "method.steps=4", "evaluation.adversarial=0.15",
            "evaluation.adversarial_steps=10", "evaluation.adversarial_samples=300",
            f"outputs={outputs}",
        ).metrics
        for epsilon in (0.0, 0.15)
    }  # fmt: skip


def test_it_makes_a_student_robust(nets: dict[float, dict]) -> None:
    plain, robust = (nets[e]["nets"]["student"]["test"] for e in (0.0, 0.15))
    assert plain["accuracy"] > 0.8
    assert robust["robust_accuracy"] > plain["robust_accuracy"] + 0.1
    assert all(one["robust_accuracy"] <= one["accuracy"] + 0.05 for one in (plain, robust))


def test_the_weights_are_those_of_the_highest_robust_accuracy(nets: dict[float, dict]) -> None:
    chosen = nets[0.15]["nets"]["student"]["val"]
    assert set(chosen) == {"accuracy", "nll", "robust_accuracy"}
    assert chosen["robust_accuracy"] <= chosen["accuracy"]
    assert nets[0.15]["attack"] == {"epsilon": 0.15, "steps": 10, "samples": 300}
