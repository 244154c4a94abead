"""The laws of deep mutual learning (arXiv 1706.00384)."""

import pytest
import torch
from helpers import net, sgd
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.losses.soft_targets import mean_log_probs, soft_log_probs, soft_target_kl_to
from kd_lightning.methods.dual_student import DualStudent
from kd_lightning.methods.mutual_learning import MutualLearning
from kd_lightning.methods.supervised import Supervised


def students(*keys: str) -> dict:
    built = {}
    for seed, key in enumerate(keys):
        torch.manual_seed(seed)
        built[key] = net(features=4 + 2 * seed)
    return built


def make(*keys: str, **options: object) -> MutualLearning:
    nets = students(*(keys or ("a", "b")))
    return MutualLearning(students=nets, num_classes=3, optimizer=sgd(), **options)


def batch(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 12, generator=generator)
    return x, torch.randint(3, (size,), generator=generator)


def trained(method: MutualLearning, steps: int = 3) -> list[Tensor]:
    optimizer = method.make_optimizer(list(method.students.parameters()))
    for step in range(steps):
        optimizer.zero_grad()
        method.training_step(batch(step), step).backward()
        optimizer.step()
    return list(method.students.parameters())


def kl(target: Tensor, own: Tensor, temperature: float) -> Tensor:
    q = (target / temperature).softmax(-1)
    return temperature**2 * (q * (q.log() - (own / temperature).log_softmax(-1))).sum(-1)


def test_loss_is_the_papers_sum() -> None:
    method = make(hard_weight=0.7, peer_weight=0.4, peer_temperature=2.0)
    x, y = batch()
    a, b = (student(x).logits for student in method.students.values())
    expected = 0.7 * (F.cross_entropy(a, y) + F.cross_entropy(b, y))
    expected = expected + 0.4 * (kl(b, a, 2.0) + kl(a, b, 2.0)).mean()
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_by_default_it_is_the_papers_cross_entropy_plus_divergence() -> None:
    method = make()
    x, y = batch()
    a, b = (student(x).logits for student in method.students.values())
    expected = F.cross_entropy(a, y) + F.cross_entropy(b, y) + (kl(b, a, 1) + kl(a, b, 1)).mean()
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_of_three_students_each_has_the_mean_of_two_divergences() -> None:
    method = make("a", "b", "c", peer_temperature=2.0)
    outputs = method(batch()[0])
    a, b, c = (output.logits for output in outputs.values())
    torch.testing.assert_close(method.peer_loss("b", outputs), (kl(a, b, 2.0) + kl(c, b, 2.0)) / 2)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_two_students_train_as_dual_students_without_a_teacher_to_the_bit(
    temperature: float,
) -> None:
    mutual = make(peer_weight=0.5, peer_temperature=temperature)
    dual = DualStudent(
        students=students("a", "b"),
        teacher=net(),
        num_classes=3,
        optimizer=sgd(),
        soft_weight=0.0,
        peer_weight=0.5,
        peer_temperature=temperature,
        peer_ramp=0.0,
    )
    before = [p.clone() for p in mutual.students.parameters()]
    for p, q, was in zip(trained(mutual), trained(dual), before, strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, was)


def test_to_the_mean_of_the_peers_is_another_distance_with_the_same_gradient() -> None:
    method = make("a", "b", "c", peer_temperature=2.0)
    outputs = method(batch()[0])
    own, *peers = (output.logits for output in outputs.values())
    target = mean_log_probs(peers, 2.0)
    ours, other = method.peer_loss("a", outputs), soft_target_kl_to(own, target, 2.0)
    spread = 4 * torch.stack(
        [F.kl_div(target, soft_log_probs(p, 2.0), reduction="none", log_target=True) for p in peers]
    ).sum(-1).mean(0)
    assert spread.mean() > 1e-3
    torch.testing.assert_close(ours, other + spread)
    gradients = [
        torch.autograd.grad(loss.sum(), own, retain_graph=True)[0] for loss in (ours, other)
    ]
    torch.testing.assert_close(*gradients)


def test_without_peers_it_is_supervised_training_to_the_bit() -> None:
    alone = Supervised(students=students("a", "b"), num_classes=3, optimizer=sgd())
    for p, q in zip(trained(make(peer_weight=0.0)), trained(alone), strict=True):
        assert torch.equal(p, q)


def test_equal_students_have_nothing_to_tell_each_other() -> None:
    twins = {"a": net(), "b": net()}
    twins["b"].load_state_dict(twins["a"].state_dict())
    method = MutualLearning(students=twins, num_classes=3, optimizer=sgd(), hard_weight=0.0)
    assert method.training_step(batch(), 0) == 0


def test_no_gradient_goes_to_a_peer() -> None:
    method = make("a", "b", "c")
    method.peer_loss("b", method(batch()[0])).mean().backward()
    for key, student in method.students.items():
        got = any(p.grad is not None and p.grad.any() for p in student.parameters())
        assert got == (key == "b")


OPTIONS = {"hard_weight": 0.1, "peer_weight": 3.0, "peer_temperature": 4.0}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    plain, changed = (make(**o).training_step(batch(), 0) for o in ({}, {name: OPTIONS[name]}))
    assert not torch.allclose(plain, changed, rtol=1e-4)


def test_peer_term_rises_over_its_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(hard_weight=0.0, peer_ramp=0.2)
    whole = make(hard_weight=0.0).training_step(batch(), 0)
    for progress, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)):
        monkeypatch.setattr(MutualLearning, "progress", progress)
        torch.testing.assert_close(method.training_step(batch(), 0), share * whole)


def test_finite_at_extreme_logits() -> None:
    method = make("a", "b", "c")
    with torch.no_grad():
        for student in method.students.values():
            student.head.weight.mul_(1e5)
    loss = method.training_step(batch(), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.students.parameters())


def test_mixed_labels_are_accepted() -> None:
    x, y = batch()
    mixed = F.one_hot(y, 3).float()
    torch.testing.assert_close(make().training_step((x, mixed), 0), make().training_step((x, y), 0))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"peer_temperature": 0.0}, "method.peer_temperature"),
        ({"hard_weight": -1.0}, "method.hard_weight"),
        ({"peer_weight": float("inf")}, "method.peer_weight"),
        ({"peer_ramp": 2.0}, "method.peer_ramp"),
    ],
)
def test_bad_values_name_their_key(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        make(**options)


def test_one_student_is_refused() -> None:
    with pytest.raises(UserError, match="two students or more, got 1"):
        make("a")
