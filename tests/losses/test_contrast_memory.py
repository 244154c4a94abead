"""CRD with a memory: its objective, its negatives, its slots, and one memory for two processes."""

import math
from pathlib import Path

import pytest
import torch
from forked_runs import run_on_two_ranks
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.contrast_memory import UNKNOWN, ContrastWithMemory

CLASSES = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1, 2, 0])  # of ten training samples
INDEX = torch.tensor([4, 1, 7])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(y: Tensor = CLASSES, **options: object) -> ContrastWithMemory:
    torch.manual_seed(0)
    settings = {"num_negatives": 6, "embedding_size": 4, "temperature": 0.5}
    loss = ContrastWithMemory(student_shape=(3,), teacher_shape=(5,), **(settings | options))
    loss.allocate(y)
    return loss


STUDENT, TEACHER = normal(3, 3), normal(3, 5, seed=1)


def embeddings(loss: ContrastWithMemory) -> tuple[Tensor, Tensor]:
    return (
        F.normalize(loss.embed_student(STUDENT), dim=1),
        F.normalize(loss.embed_teacher(TEACHER), dim=1),
    )


def test_it_is_the_released_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = build()
    negatives = torch.tensor([[1, 2, 3, 6, 7, 9], [0, 0, 2, 4, 5, 8], [0, 1, 3, 4, 5, 6]])
    monkeypatch.setattr(loss, "negatives", lambda index: negatives)
    memory, (student, teacher) = loss.memory.clone(), embeddings(loss)
    compared = torch.cat([INDEX.unsqueeze(1), negatives], dim=1)
    expected = torch.zeros(3)
    for anchor, slots in ((student, memory[1]), (teacher, memory[0])):
        scores = torch.stack([slots[row] @ one for row, one in zip(compared, anchor, strict=True)])
        u = (scores / 0.5).exp()
        u = u / (u.mean() * 10)  # the constant Z of the first batch
        h = u / (u + 6 / 10)
        expected -= h[:, 0].log() + (1 - h[:, 1:]).log().sum(1)
    torch.testing.assert_close(loss(STUDENT, TEACHER, INDEX), expected)


def test_z_is_that_of_the_first_batch() -> None:
    loss = build()
    assert loss.log_z.tolist() == [UNKNOWN, UNKNOWN]
    loss(STUDENT, TEACHER, INDEX)
    first = loss.log_z.clone()
    assert first.isfinite().all()
    loss(3 * STUDENT + 1, -TEACHER, INDEX)
    assert torch.equal(loss.log_z, first)


def test_a_slot_moves_towards_its_own_nets_embedding_and_no_other_slot_moves() -> None:
    loss = build(momentum=0.3)
    before = loss.memory.clone()
    loss(STUDENT, TEACHER, INDEX)
    for net, made in enumerate(embeddings(loss)):
        expected = F.normalize(0.3 * before[net, INDEX] + 0.7 * made, dim=1)
        torch.testing.assert_close(loss.memory[net, INDEX], expected)
    others = [i for i in range(10) if i not in INDEX]
    assert torch.equal(loss.memory[:, others], before[:, others])


def test_outside_of_training_nothing_is_remembered() -> None:
    loss = build().eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(STUDENT, TEACHER, INDEX)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_negatives_are_all_samples_of_other_classes_and_equally_likely() -> None:
    drawn = build(num_negatives=6000).negatives(torch.arange(10))
    for sample, row in enumerate(drawn):
        counts = row.bincount(minlength=10)
        is_other = CLASSES[sample] != CLASSES
        assert counts[~is_other].sum() == 0
        share = 1 / is_other.sum().item()
        deviation = math.sqrt(6000 * share * (1 - share))
        assert ((counts[is_other] - 6000 * share).abs() < 4 * deviation).all()


def test_slots_begin_with_a_length_of_about_one_and_follow_from_the_generator() -> None:
    y = torch.arange(500) % 3
    loss = build(y, embedding_size=64)
    assert loss.memory.square().sum(2).mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(loss.memory, build(y, embedding_size=64).memory)
    assert not torch.equal(loss.memory[0], loss.memory[1])


def test_the_gradient_goes_to_the_student_and_both_embeddings_and_not_to_the_teacher() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    loss = build()
    loss(student, teacher, INDEX).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert not loss.memory.requires_grad
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_the_update_does_not_change_the_gradient() -> None:
    training, still = build(), build().eval()
    for loss in (training, still):
        torch.manual_seed(1)
        loss(STUDENT, TEACHER, INDEX).sum().backward()
    for a, b in zip(training.parameters(), still.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"embedding_size": 8}, {"num_negatives": 9}],
)
def test_every_option_changes_the_loss(options: dict) -> None:
    losses = [build(**more).eval()(STUDENT, TEACHER, INDEX) for more in ({}, options)]
    assert not torch.allclose(*losses)


def test_zero_and_extreme_features_are_finite_in_half_precision() -> None:
    student = torch.stack([torch.zeros(3), torch.full((3,), 1e4), torch.ones(3)]).requires_grad_()
    loss = build(temperature=0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, TEACHER, INDEX)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.dtype == loss.memory.dtype == torch.float32
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert loss.memory.isfinite().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_negatives": 0}, "num_negatives must be >= 1, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
    ],
)
def test_bad_values_are_told(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(**options)


HALF = """
import os, sys, torch
sys.path.insert(0, sys.argv[1])
from losses.test_contrast_memory import two_steps
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", f"file://{sys.argv[2]}/store", None, 2, rank)
torch.save(two_steps(slice(rank, None, 2)), f"{sys.argv[2]}/rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


def two_steps(rows: slice) -> dict[str, Tensor]:
    """The memory and Z after two batches of four samples, of which this process has some rows."""
    loss = build()
    loss.negatives = lambda index: (index.unsqueeze(1) + torch.arange(1, 7)) % 10
    for seed, index in enumerate(torch.tensor([[0, 3, 5, 8], [1, 3, 4, 9]])):
        student, teacher = normal(4, 3, seed=seed), normal(4, 5, seed=9 + seed)
        loss(student[rows], teacher[rows], index[rows])
    return loss.state_dict()


@pytest.mark.slow
def test_two_processes_have_the_memory_of_one(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(HALF)
    run_on_two_ranks(
        tmp_path, str(Path(__file__).parents[1]), str(tmp_path), program=str(tmp_path / "half.py")
    )
    one = two_steps(slice(None))
    halves = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in ("memory", "log_z"):
        assert torch.equal(halves[0][name], halves[1][name])
        torch.testing.assert_close(halves[0][name], one[name])
