"""A step as one compiled function: the same numbers, one graph, compiled once."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import METHODS, net, sgd
from methods.test_contract import OPTIONS, built, state_of, trainer
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.exc import InductorError

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.recorded_step import RecordedStep
from kd_lightning.methods.step import CompiledStep, Losses, step_of
from kd_lightning.models.classifier import Classifier

# An attack needs gradients inside of a step.
NOT_COMPILED = ("adversarial_distillation", "adversarial_training")
COMPILED = [*(m for m in METHODS if m not in NOT_COMPILED), "everything"]
RANDOM = {"stochastic_self_distillation", "r_drop"}  # their masks are drawn by the compiler
RANDOM |= {"mean_teacher"}  # and those of its average
RANDOM |= {"uncertainty_mixup"}  # as are its partners
# AdamW makes whole steps of gradients so small that rounding is a part of them
MORE_WORDS = {key: ["optimizer=sgd"] for key in ("teacher_evolution", "knowledge_review")}
MORE_WORDS |= {"diffusion_distillation": ["method.num_steps=2"]}  # each is unrolled
MORE_WORDS |= {"student_oriented": ["method.search_share=1"]}  # its end compiles once more
RANDOM |= {"diffusion_distillation"}  # so is its noise
RANDOM |= {"student_oriented"}
MORE = {
    "dual_student": [["method.peer_ramp=0.7", "method.confidence_threshold=0.4"]],
    "mutual_learning": [["method.peer_ramp=0.5"]],
    "stochastic_self_distillation": [
        ["method.teacher.block_dropout=0.1"], ["method.feature_weight=0"],
    ],
}  # fmt: skip
RELAX = "method.estimator=relax"  # needs gradients inside of a step
CASES = [
    (m, w) for m in COMPILED for w in ([], *OPTIONS.get(m, []), *MORE.get(m, [])) if RELAX not in w
]


def one_graph(step: Callable) -> Callable:
    """A step as the compiler follows it, its operations computed one by one, as without it."""
    return torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")


def followed(step: Callable) -> Callable:
    """As ``one_graph``, with the backward pass of the plain step: half the time of a test."""
    return torch.compile(step, fullgraph=True, dynamic=False, backend="eager")


@pytest.fixture(autouse=True)
def _compiled_once() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


@pytest.mark.parametrize(("method", "words"), CASES)
def test_a_step_is_one_graph_that_is_compiled_once(
    method: str, words: list[str], tmp_path: object
) -> None:
    ends, losses = [], []
    drawn = ("dropout", "crd_memory")  # the compiler draws the masks, and the negatives
    is_random = method in RANDOM or any(part in word for word in words for part in drawn)
    for compiler in (None, followed if words else one_graph):  # options: the forward pass alone
        learner, data, _ = built(method, *words, *MORE_WORDS.get(method, []))
        learner.compile_step = compiler
        run = trainer(tmp_path, max_epochs=1 if words or (is_random and not compiler) else 2)
        run.fit(learner, datamodule=data)  # epochs of four batches, validated after each
        ends.append(state_of(learner.students))
        losses.append({n: v for n, v in run.callback_metrics.items() if n.startswith("train/")})
    assert losses[0].keys() == losses[1].keys()
    if is_random:
        return
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-5, atol=1e-6)
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-5)


def with_dropout(seed: int = 0, compiler: Callable | None = one_graph) -> KnowledgeDistillation:
    torch.manual_seed(0)
    method = KnowledgeDistillation(
        students={"student": net(dropout=0.5)}, teacher=net(hidden=5), num_classes=3,
        optimizer=sgd(), seed=seed,
    )  # fmt: skip
    method.compile_step = compiler
    return method.train()


def batch(size: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 12, generator=generator), torch.arange(size) % 3


def test_masks_of_a_compiled_step_follow_from_the_seed_alone() -> None:
    found = []
    for seed, noise in ((0, 3), (0, 7), (1, 3)):
        method = with_dropout(seed)
        torch.rand(noise)
        found.append(method.training_step(batch(), 0))
        torch._dynamo.reset()
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_masks_of_a_compiled_step_differ_from_batch_to_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = with_dropout()
    found = []
    for number in range(3):
        monkeypatch.setattr(Learner, "_batches_started", number)
        found.append(method.training_step(batch(), 0).item())
    assert len(set(found)) == 3


def test_whole_batches_are_compiled_and_smaller_ones_computed_as_they_are(traced: None) -> None:
    method = with_dropout(compiler=CompiledStep)
    method.students["student"].dropout.p = 0.0
    plain = copy.copy(method)
    plain.compile_step = None
    compiled = []

    def counting(step: Callable) -> CompiledStep:
        found = CompiledStep(step)
        fast = found.fast
        found.fast = lambda x, *rest: compiled.append(len(x)) or fast(x, *rest)
        return found

    method.compile_step = counting
    with torch._dynamo.config.patch(error_on_recompile=False):
        for size in (5, 8, 5, 8, 3):  # the first lacks some
            expected = plain.training_step(batch(size), 0)
            torch.testing.assert_close(method.training_step(batch(size), 0), expected)
    assert compiled == [5, 8, 8]


class Looking(nn.Module):
    """A trunk that no compiler follows: what it does hangs on what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


def test_a_net_that_no_compiler_follows_is_a_sentence() -> None:
    method = with_dropout(compiler=CompiledStep)
    method.students["student"] = Classifier(trunk=Looking(), head=nn.Linear(12, 3), dropout=0.0)
    with pytest.raises(UserError, match=r"^this step cannot be compiled .*hardware.compile=false"):
        method.training_step(batch(), 0)


def failing_backward(graph: torch.fx.GraphModule, inputs: list) -> Callable:
    def refuse(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        # what torch's usual compiler makes of any error
        raise InductorError(NotImplementedError("no kernel for this gradient"), None)

    return aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=refuse)(graph, inputs)


def test_a_backward_pass_that_no_compiler_follows_is_the_same_sentence() -> None:
    method = with_dropout(compiler=CompiledStep)
    method.students["student"].dropout.p = 0.0
    with pytest.MonkeyPatch.context() as patch:
        always = torch.compile
        patch.setattr(
            torch, "compile", lambda step, **how: always(step, backend=failing_backward, **how)
        )
        with pytest.raises(UserError, match=r"^this step cannot be .*no kernel for this"):
            method.backward(method.training_step(batch(), 0))


def test_what_is_recorded_has_no_graph_and_what_is_minimised_has_one() -> None:
    weight = torch.ones((), requires_grad=True, dtype=torch.float64)
    step = step_of(Losses({"a/hard": weight * 2, "a/soft": weight * 3}, {"nearness": weight * 5}))
    assert step.names == ("a/hard", "a/soft", "nearness")
    assert step.values.tolist() == [2.0, 3.0, 5.0]
    assert step.values.dtype == torch.float32
    assert not step.values.requires_grad
    step.loss.backward()
    assert weight.grad == 5


REFUSED = {
    "method=kd hardware=cpu hardware.cuda_graphs=true": "needs a GPU",
    "method=kd hardware=auto hardware.cuda_graphs=true": "no CUDA device",
    "method=kd hardware=gpu hardware.cuda_graphs=true trainer.accumulate_grad_batches=2": "adds up",
    "method=kd hardware=gpu hardware.cuda_graphs=true hardware.devices=2": "is for one GPU",
    "method=adversarial_training hardware=gpu hardware.cuda_graphs=true": "inside of a step",
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.items())
def test_what_cannot_be_recorded_is_refused_with_the_key(
    words: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    method, *more = words.split()
    with pytest.raises(UserError, match=sentence):
        built(method.removeprefix("method="), *more)


@pytest.mark.parametrize("asked", [True, False])
def test_a_run_compiles_where_it_is_asked_to(asked: bool) -> None:
    learner, _, _ = built("kd", f"hardware.compile={asked}")
    assert (learner.compile_step is not None) == asked
    assert learner.record_step is None


def test_a_run_on_a_gpu_records_where_it_is_asked_to() -> None:
    learner, _, _ = built("kd", "hardware=gpu", "hardware.cuda_graphs=true")
    assert learner.record_step is RecordedStep
    assert learner.compile_step is None


@pytest.mark.slow
def test_a_whole_run_of_compiled_steps(tiny: list[str]) -> None:
    result = distill("method=dual_student", *tiny, "hardware.compile=true")
    plain = distill("method=dual_student", *tiny)
    for key in ("a", "b"):
        compiled, eager = (one.metrics["nets"][key]["last"]["nll"] for one in (result, plain))
        assert compiled == pytest.approx(eager, rel=1e-3)
