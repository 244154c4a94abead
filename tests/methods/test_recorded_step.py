"""Recorded steps, with a recording on the CPU: it does the recorded work again. What only a CUDA
graph can show is in ``test_gpu.py``.
"""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import net, sgd
from methods.test_contract import assert_equal, built, state_of, trainer
from torch import Tensor, nn

from kd_lightning.methods.base import Learner
from kd_lightning.methods.mutual_learning import MutualLearning
from kd_lightning.methods.recorded_step import WARM_UP, RecordedStep
from kd_lightning.methods.step import Losses, step_of


class Again:
    """The work of a recording, done again by ``replay`` into the gradients of the first time.

    As with a CUDA graph, recording changes nothing but the gradients.
    """

    def __init__(self, work: Callable[[], None], module: nn.Module) -> None:
        self.work = work
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        state = copy.deepcopy(module.state_dict())
        with torch.random.fork_rng():
            work()
        module.load_state_dict(state)
        self.gradients = [p.grad for p in self.parameters]

    def replay(self) -> None:
        held = [p.grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        self.work()
        for parameter, gradient, mine in zip(self.parameters, held, self.gradients, strict=True):
            if mine is not None:
                mine.copy_(parameter.grad)
            parameter.grad = gradient


def recording(learner: nn.Module, made: list[Again]) -> Callable[..., RecordedStep]:
    """Makes recorded steps of ``learner``; their recordings are added to ``made``."""

    def record(work: Callable[[], None]) -> Again:
        made.append(Again(work, learner))
        return made[-1]

    return partial(RecordedStep, record=record)


@pytest.mark.parametrize(
    ("method", "words", "recordings"),
    [("dual_student", [], 1), ("mutual_learning", [], 1), ("feature_distillation", [], 1),
     ("self_supervision", [], 1),
     ("student_oriented", ["method.search_share=0.5"], 2)],  # it searches, and then does not
)  # fmt: skip
def test_a_run_of_recorded_steps_is_the_run_of_plain_ones(
    method: str, words: list[str], recordings: int, tmp_path: Path
) -> None:
    ends, made = [], []
    for fast in (False, True):
        learner, data, _ = built(method, *words)
        if fast:
            learner.record_step = recording(learner, made)
        trainer(tmp_path, max_epochs=5).fit(learner, datamodule=data)  # 15 steps
        ends.append(state_of(learner.students))
    assert_equal(*ends)
    assert len(made) == recordings


def two_students() -> MutualLearning:
    torch.manual_seed(0)
    return MutualLearning(
        students={"a": net(), "b": net(hidden=5)}, num_classes=3, optimizer=sgd()
    ).train()


def batch(size: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 12, generator=generator), torch.arange(size) % 3]


def gradients(learner: Learner, size: int, seed: int) -> list[Tensor]:
    """Of one training step, in the order in which Lightning calls its parts."""
    loss = learner.training_step(batch(size, seed), 0)
    learner.optimizer_zero_grad(0, 0, learner.made)
    learner.backward(loss)
    return [parameter.grad.clone() for parameter in learner.parameters()]


def test_batches_of_another_size_are_computed_as_they_are() -> None:
    plain, fast, made = two_students(), two_students(), []
    fast.record_step = recording(fast, made)
    for learner in (plain, fast):
        learner.made = torch.optim.SGD(learner.parameters(), lr=0.1)
    replayed = []
    for number, size in enumerate([8] * (WARM_UP + 2) + [5, 8, 5, 8, 8]):
        both = [gradients(learner, size, number) for learner in (plain, fast)]
        for expected, found in zip(*both, strict=True):
            torch.testing.assert_close(found, expected)
        replayed.append(fast.has_gradients)
    assert replayed == [False] * WARM_UP + [True, True, False, True, False, True, True]
    assert len(made) == 1


def test_a_net_that_moves_is_recorded_again() -> None:
    learner, made = two_students(), []
    learner.record_step = recording(learner, made)
    learner.made = torch.optim.SGD(learner.parameters(), lr=0.1)
    for number in range(WARM_UP + 1):
        gradients(learner, 8, number)
    assert learner.has_gradients
    learner.double().float()
    assert not learner.has_gradients
    for number in range(WARM_UP + 1):
        gradients(learner, 8, number)
    assert len(made) == 2


def test_gradients_are_those_of_the_scaled_loss() -> None:
    weight = nn.Parameter(torch.tensor(3.0))
    module = nn.ParameterList([weight])

    def step(x: Tensor, y: Tensor, cached: None, progress: Tensor) -> object:
        return step_of(Losses({"a/hard": weight * x.sum()}))

    recorded = RecordedStep(
        step, [weight], scale=lambda loss: 128 * loss, record=lambda work: Again(work, module)
    )
    for number in range(WARM_UP + 2):
        result = recorded(torch.tensor([float(number)]), torch.zeros(1), None, torch.zeros(()))
    assert recorded.has_gradients
    assert weight.grad == 128 * number
    assert result.loss == 3 * number


def test_cached_outputs_are_inputs_of_a_recording() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    module = nn.ParameterList([weight])

    def step(x: Tensor, y: Tensor, cached: dict, progress: Tensor) -> object:
        return step_of(Losses({"a/soft": weight * cached["logits"].sum() * progress}))

    recorded = RecordedStep(step, [weight], record=lambda work: Again(work, module))
    for number in range(WARM_UP + 3):
        cached = {"logits": torch.full((2,), float(number))}
        result = recorded(torch.zeros(1), torch.zeros(1), cached, torch.tensor(number / 10))
        assert result.loss.item() == pytest.approx(2 * 2 * number * number / 10)
