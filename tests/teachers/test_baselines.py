import pytest
from helpers import compose
from omegaconf import DictConfig

from kd_lightning.base.errors import UserError
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.baselines import BASELINES, baseline_run, baselines_of, kept_name


def composed(*overrides: str) -> DictConfig:
    cfg = compose("data=synthetic", *overrides)
    build_data(cfg)
    return cfg


def test_a_baseline_has_the_attack_of_the_method_and_is_refused_without_one() -> None:
    cfg = composed("method=adversarial_distillation", "method.epsilon=0.2", "method.steps=3")
    method = baseline_run(cfg, "adversarial_training").method
    assert (method.epsilon, method.steps, method.choose_by) == (0.2, 3, "robust_accuracy")
    assert method.students == cfg.method.students
    assert not {"teacher", "soft_weight", "teacher_input"} & set(method)
    with pytest.raises(UserError, match="method=kd has none: set method=adversarial_distillation"):
        baseline_run(composed("method=kd"), "adversarial_training")


def test_a_baseline_has_the_learning_rates_of_its_students_alone() -> None:
    cfg = composed(
        "method=student_oriented",
        "model@method.teacher=resnet8",
        "model@method.students.student=resnet8",
        "method.learning_rates={student: 0.01, policy_student: 0.001}",
    )
    method = build_method(baseline_run(cfg), None)
    assert method.learning_rates == {"student": 0.01}
    method.parameter_groups()


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("null", []),
        ("labels_only", ["labels_only"]),
        ("[labels_only,adversarial_training,labels_only]", ["labels_only", "adversarial_training"]),
    ],
)
def test_each_baseline_is_trained_once(word: str, names: list[str]) -> None:
    assert baselines_of(compose(f"baselines={word}")) == names
    assert set(names) <= set(BASELINES)


def test_a_baseline_of_another_precision_is_another_one() -> None:
    names = [
        kept_name(compose(f"hardware.precision={precision}"), "labels_only")
        for precision in ("32", "bf16-mixed")
    ]
    assert names == ["labels-only", "labels-only-bf16-mixed"]
