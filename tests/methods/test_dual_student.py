"""The laws of uncertainty-aware dual-student distillation (arXiv 2511.18826)."""

import pytest
import torch
from helpers import net, sgd
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.methods.dual_student import DualStudent
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.uncertainty.confidence import mutual_information_confidence, uniform_confidence


def students(*keys: str) -> dict:
    built = {}
    for seed, key in enumerate(keys):
        torch.manual_seed(seed)
        built[key] = net(features=4 + 2 * seed)
    return built


def make(*keys: str, **options: object) -> DualStudent:
    torch.manual_seed(99)
    teacher = options.pop("teacher", None) or net()
    return DualStudent(
        students=students(*(keys or ("a", "b"))),
        teacher=teacher,
        num_classes=3,
        optimizer=sgd(),
        **options,
    )


def batch(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 12, generator=generator)
    return x, torch.randint(3, (size,), generator=generator)


def gradients(method: DualStudent, loss: Tensor) -> dict[str, list[Tensor | None]]:
    method.zero_grad()
    loss.backward(retain_graph=True)
    return {k: [p.grad for p in s.parameters()] for k, s in method.students.items()}


def test_uniform_and_no_peer_is_plain_kd_to_the_bit() -> None:
    dual = make(confidence=uniform_confidence, peer_weight=0.0)
    torch.manual_seed(99)
    teacher = net()
    for key in ("a", "b"):
        alone = KnowledgeDistillation(
            students={key: students("a", "b")[key]}, teacher=teacher, num_classes=3, optimizer=sgd()
        )
        optimizers = [m.make_optimizer(m.parameters()) for m in (alone, dual)]
        # three steps each, on the same batches
        fresh = make(confidence=uniform_confidence, peer_weight=0.0)
        optimizers = [m.make_optimizer(list(m.students.parameters())) for m in (alone, fresh)]
        for step in range(3):
            for method, optimizer in zip((alone, fresh), optimizers, strict=True):
                optimizer.zero_grad()
                method.training_step(batch(step), step).backward()
                optimizer.step()
        for p, q in zip(
            alone.students[key].parameters(), fresh.students[key].parameters(), strict=True
        ):
            assert torch.equal(p, q)


def test_uniform_teacher_teaches_nothing() -> None:
    method = make()
    with torch.no_grad():
        method.teacher.head.weight.zero_()
        method.teacher.head.bias.zero_()
    weight = method.sample_weight(method.teacher_output(batch()[0]).logits, batch()[1])
    assert weight.abs().max() < 1e-6


def test_certain_teacher_is_plain_kd() -> None:
    logits = torch.zeros(5, 3)
    logits[:, 1] = 1e4
    assert torch.equal(make().sample_weight(logits, torch.zeros(5).long()), torch.ones(5))


def test_no_gradient_between_students_nor_into_the_teacher() -> None:
    method = make(hard_weight=0.0, soft_weight=0.0, peer_weight=1.0, peer_ramp=0.0)
    x, y = batch()
    outputs = method(x)
    got = gradients(method, method.peer_loss("b", outputs, y).mean())
    assert all(g is None or not g.any() for g in got["a"])
    assert any(g is not None and g.any() for g in got["b"])
    assert all(p.grad is None for p in method.teacher.parameters())


def test_peer_target_of_three_is_the_mean_of_the_others() -> None:
    method = make("a", "b", "c", peer_temperature=2.0)
    x, y = batch()
    outputs = method(x)
    target = (outputs["b"].logits.div(2).softmax(-1) + outputs["c"].logits.div(2).softmax(-1)) / 2
    own = outputs["a"].logits.div(2).log_softmax(-1)
    expected = 4 * (target * (target.log() - own)).sum(-1)
    torch.testing.assert_close(method.peer_loss("a", outputs, y), expected)


def test_loss_is_the_papers_sum() -> None:
    method = make(
        temperature=3.0, peer_temperature=2.0, hard_weight=0.7, soft_weight=1.3, peer_weight=0.4,
        peer_ramp=0.0, confidence_temperature=1.5,
    )  # fmt: skip
    x, y = batch()
    z_t = method.teacher(x).logits
    z = {k: net(x).logits for k, net in method.students.items()}
    p = (z_t / 1.5).softmax(-1)
    w = 1 + (p * p.log()).sum(-1) / torch.tensor(3.0).log()

    def kl(target: Tensor, own: Tensor, t: float) -> Tensor:
        q = (target / t).softmax(-1)
        return t * t * (q * (q.log() - (own / t).log_softmax(-1))).sum(-1)

    expected = sum(
        0.7 * torch.nn.functional.cross_entropy(z[i], y)
        + 1.3 * (w * kl(z_t, z[i], 3.0)).mean()
        + 0.4 * kl(z[j], z[i], 2.0).mean()
        for i, j in (("a", "b"), ("b", "a"))
    )
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


OPTIONS = {
    "confidence": uniform_confidence,
    "confidence_temperature": 4.0,
    "confidence_threshold": 0.05,
    "normalize_confidence": True,
    "temperature": 1.0,
    "peer_temperature": 1.0,
    "hard_weight": 0.1,
    "soft_weight": 3.0,
    "peer_weight": 2.0,
    "peer_confidence": True,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    plain, changed = (make(**o).training_step(batch(), 0) for o in ({}, {name: OPTIONS[name]}))
    assert not torch.allclose(plain, changed)


def test_hard_gate_makes_kept_weights_one() -> None:
    logits = torch.tensor([[9.0, 0, 0], [0.1, 0, 0]])
    soft = make(confidence_threshold=0.5).sample_weight(logits, torch.zeros(2).long())
    hard = make(confidence_threshold=0.5, confidence_gate="hard").sample_weight(logits, None)
    assert 0.5 < soft[0] < 1
    assert soft[1] == 0
    assert hard.tolist() == [1, 0]


def test_peer_term_rises_over_its_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(peer_ramp=0.2)
    shares = []
    for progress in (0.0, 0.1, 0.2, 1.0):
        monkeypatch.setattr(DualStudent, "progress", progress)
        shares.append(method.ramp())
    assert shares == [0.0, 0.5, 1.0, 1.0]


def test_finite_at_extreme_logits() -> None:
    method = make()
    with torch.no_grad():
        for head in (method.teacher.head, *(s.head for s in method.students.values())):
            head.weight.mul_(1e5)
    loss = method.training_step(batch(), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.students.parameters())


def test_mixed_labels_are_accepted() -> None:
    x, y = batch()
    mixed = torch.nn.functional.one_hot(y, 3).float()
    torch.testing.assert_close(make().training_step((x, mixed), 0), make().training_step((x, y), 0))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"temperature": 0.0}, "method.temperature"),
        ({"peer_temperature": -1.0}, "method.peer_temperature"),
        ({"hard_weight": -1.0}, "method.hard_weight"),
        ({"confidence_threshold": 1.5}, "method.confidence_threshold"),
        ({"peer_ramp": 2.0}, "method.peer_ramp"),
        ({"confidence_gate": "sotf"}, "method.confidence_gate"),
        ({"learning_rates": {"z": 0.1}}, "method.learning_rates"),
    ],
)
def test_bad_values_name_their_key(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        make(**options)


def test_mutual_information_uses_the_teachers_dropout_passes() -> None:
    teacher = net(dropout=0.5)
    method = make(teacher=teacher, confidence=mutual_information_confidence, confidence_passes=50)
    x, y = batch()
    samples = method.teacher_samples(x)
    assert samples.shape == (50, 16, 3)
    weight = method.sample_weight(method.teacher_output(x).logits, y, samples)
    assert ((weight > 0) & (weight < 1)).all()
    with pytest.raises(UserError, match=r"method\.confidence_passes"):
        make(confidence=mutual_information_confidence)
    with pytest.raises(UserError, match=r"method\.teacher\.dropout"):
        make(confidence=mutual_information_confidence, confidence_passes=5)


def test_one_student_is_refused() -> None:
    with pytest.raises(UserError, match="two students or more"):
        make("a")
