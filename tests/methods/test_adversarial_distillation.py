import json

import pytest
import torch
from helpers import net, sgd
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.adversarial_distillation import AdversarialDistillation
from kd_lightning.methods.adversarial_training import AdversarialTraining
from kd_lightning.methods.base import Learner
from kd_lightning.methods.kd import KnowledgeDistillation

ATTACK = {"epsilon": 0.3, "step_size": 0.1, "steps": 4}


def make(kind: type[Learner] = AdversarialDistillation, **options) -> Learner:
    torch.manual_seed(0)
    students = {"student": net(dropout=0.3)}
    if kind is not AdversarialTraining:
        options.setdefault("teacher", sharp(net(hidden=9)))
    return kind(students=students, num_classes=3, optimizer=sgd(), **options).train()


def sharp(teacher: nn.Module) -> nn.Module:
    with torch.no_grad():
        teacher.head.weight.mul_(10)  # an untrained net is sure of nothing
    return teacher


def batch(size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 3, 2, 2, generator=generator), torch.arange(size) % 3


def step(learner: Learner) -> tuple[Tensor, list[Tensor]]:
    loss = learner.training_step(batch(), 0)
    return loss, list(torch.autograd.grad(loss, list(learner.students.parameters())))


def assert_same_step(a: Learner, b: Learner) -> None:
    (loss, slopes), (other, others) = step(a), step(b)
    assert torch.equal(loss, other)
    assert all(torch.equal(*pair) for pair in zip(slopes, others, strict=True))


@pytest.mark.parametrize("teacher_input", ["adversarial", "clean"])
def test_without_an_attack_it_is_kd_without_a_temperature_bit_for_bit(teacher_input: str) -> None:
    weights = {"hard_weight": 0.3, "soft_weight": 0.7}
    kd = make(KnowledgeDistillation, temperature=1.0, **weights)
    assert_same_step(make(epsilon=0, teacher_input=teacher_input, **weights), kd)


@pytest.mark.parametrize("target", ["labels", "mixture"])
def test_with_labels_alone_it_is_adversarial_training_and_never_asks_the_teacher(
    target: str,
) -> None:
    method = make(**ATTACK, hard_weight=1.0, soft_weight=0.0, attack_target=target)
    method.teacher.register_forward_hook(lambda *_: pytest.fail("the teacher was asked"))
    assert_same_step(method, make(AdversarialTraining, **ATTACK))
    assert method.teacher_rows == 0


def test_the_loss_is_cross_entropy_with_the_mixture_up_to_the_teachers_entropy() -> None:
    method = make(**ATTACK, hard_weight=0.25, soft_weight=0.75, random_start=False)
    method.students["student"].dropout.p = 0.0
    x, y = batch()
    loss = method.training_step((x, y), 0)
    attacked = method.attacked("student", x, method.objective(y, None))
    teacher = method.teacher(attacked).logits.softmax(1)
    mixture = 0.25 * F.one_hot(y, 3) + 0.75 * teacher
    logits = method.students["student"](attacked).logits
    entropy = -(teacher * teacher.log()).sum(1).mean()
    torch.testing.assert_close(loss, F.cross_entropy(logits, mixture) - 0.75 * entropy)


def test_a_teacher_that_is_the_student_teaches_nothing_on_the_same_sample() -> None:
    student = net()
    method = AdversarialDistillation(
        students={"student": student}, teacher=net(), num_classes=3, optimizer=sgd(),
        hard_weight=0.0, soft_weight=1.0, **ATTACK,
    )  # fmt: skip
    method.teacher.load_state_dict(student.state_dict())
    loss, slopes = step(method.train())
    torch.testing.assert_close(loss, torch.zeros(()), atol=1e-6, rtol=0)
    assert all(slope.abs().max() < 1e-6 for slope in slopes)
    method.teacher_input = "clean"
    assert step(method)[0] > 1e-4


@pytest.mark.parametrize("target", ["labels", "mixture"])
@pytest.mark.parametrize("teacher_input", ["adversarial", "clean"])
def test_the_teacher_sees_what_is_asked_and_nobody_keeps_a_gradient(
    teacher_input: str, target: str
) -> None:
    method = make(**ATTACK, teacher_input=teacher_input, attack_target=target)
    seen: list[Tensor] = []
    method.teacher.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    x, y = batch()
    method.training_step((x, y), 0)
    is_clean = [torch.equal(one, x) for one in seen]
    expected = {"adversarial": [False], "clean": [True]}[teacher_input]
    if target == "mixture" and teacher_input == "adversarial":
        expected = [True, False]
    assert is_clean == expected
    assert len(seen) == method.teacher_rows
    for one in seen:
        assert (one - x).abs().max() <= 0.3 + 1e-6
    parameters = [*method.parameters(), *method.teacher.parameters()]
    assert all(parameter.grad is None for parameter in parameters)


def test_an_attack_on_the_mixture_raises_the_mixtures_loss_more_than_one_on_the_labels() -> None:
    x, y = batch(64)
    found = {}
    for target in ("labels", "mixture"):
        method = make(
            **ATTACK | {"steps": 10}, attack_target=target, hard_weight=0.1, soft_weight=0.9
        )
        method.eval()
        clean = method.teacher(x).logits
        attacked = method.attacked("student", x, method.objective(y, clean))
        logits = method.students["student"](attacked).logits
        soft = soft_target_kl(logits, clean, 1.0)
        found[target] = (0.1 * F.cross_entropy(logits, y) + 0.9 * soft.mean()).item()
    assert found["mixture"] > found["labels"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hard_weight": -1}, r"method.hard_weight must be >= 0, got -1"),
        ({"hard_weight": 0, "soft_weight": 0}, "one of hard_weight, soft_weight must be > 0"),
        ({"teacher_input": "clea"}, r"did you mean clean\? \(method.teacher_input=…\)"),
        ({"attack_target": "label"}, r"did you mean labels\? \(method.attack_target=…\)"),
        ({"epsilon": -1}, r"method.epsilon must be >= 0, got -1"),
    ],
)
def test_bad_values_name_their_key(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_only_answers_to_the_samples_themselves_can_be_cached() -> None:
    assert make().cache_keys() is None
    assert "unless method.teacher_input=clean" in make().unsupported()["cache"]
    assert make(teacher_input="clean").cache_keys() == {"logits": None}
    assert "cache" not in make(teacher_input="clean").unsupported()
    assert make(soft_weight=0, hard_weight=1).cache_keys() == {}


# Whole runs


def test_a_run_with_a_robust_teacher_and_both_baselines_tests_all_under_attack(
    tiny: list[str],
) -> None:
    result = distill(
        "experiment=adversarial_digits", *tiny, "method.steps=2", "evaluation.adversarial_steps=2",
        "evaluation.adversarial_samples=20", "trainer.max_epochs=1", "data.size=8",
        "model@method.students.student=mlp", "+model@method.students.other=mlp",
    )  # fmt: skip
    nets = result.metrics["nets"]
    keys = ("student", "other")
    assert set(nets) == {
        "teacher", "ensemble", *keys,
        *(f"{key}, {how}" for key in keys for how in ("labels only", "adversarial training")),
    }  # fmt: skip
    attacked = {name for name, one in nets.items() if "robust_accuracy" in one["test"]}
    assert attacked == set(nets) - {"ensemble"}
    assert "robust_accuracy" in nets["student, adversarial training"]["val"]
    info = json.loads((result.directory / "students/student/student.json").read_text())["metrics"]
    assert "highest robust_accuracy" in info["weights"]
    assert "under attack" in info["meaning"]["robust_accuracy"]
    table = (result.directory / "table.md").read_text()
    assert "PGD accuracy: share of 20 test images" in table


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluation.adversarial=2"], "evaluation.adversarial must be in (0, 1] or null, got 2"),
        (["evaluation.adversarial=0.1", "data.kind=series", "data.size=32"], "is for images, and "),
        (["teacher.cache=1"], "the teacher answers samples that are new at every step"),
        (["hardware.compile=true"], "an attack needs gradients inside of a step"),
        (["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
          "+callbacks.stop.monitor=val/robust"], "val/robust_accuracy"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_sentence(
    words: list[str], sentence: str, tiny: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        distill("method=adversarial_distillation", *tiny, *words)
    assert sentence in str(error.value)
