"""The laws of uncertainty-aware dual-student distillation (arXiv 2511.18826)."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose, net, ridge_net, sgd
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.losses.soft_targets import reverse_kl_soft_loss
from kd_lightning.methods.dual_student import DualStudent
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.models.classifier import Classifier
from kd_lightning.running.build import build_data, build_method
from kd_lightning.running.confidence_temperature import calibrate_confidence
from kd_lightning.running.preflight import check_run
from kd_lightning.running.run import Result, distill
from kd_lightning.teachers.sources import Teacher, load_student
from kd_lightning.uncertainty.confidence import (
    entropy_confidence,
    margin_confidence,
    mutual_information_confidence,
    uniform_confidence,
)


def sure_net(seed: int, **shape: float) -> Classifier:
    """A net whose confidences are spread: untrained ones are sure of nothing."""
    torch.manual_seed(seed)
    made = net(**shape)
    with torch.no_grad():
        made.head.weight.mul_(5)
    return made


def students(*keys: str) -> dict[str, Classifier]:
    return {key: sure_net(seed, features=4 + 2 * seed) for seed, key in enumerate(keys)}


def sure_teacher(**shape: float) -> Classifier:
    return sure_net(99, **shape)


def make(*keys: str, **options: object) -> DualStudent:
    return DualStudent(
        students=students(*(keys or ("a", "b"))),
        teacher=options.pop("teacher", None) or sure_teacher(),
        num_classes=3,
        optimizer=sgd(),
        **options,
    )


def batch(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 12, generator=generator)
    return x, torch.randint(3, (size,), generator=generator)


# The loss, once more: from the paper, with the options that it leaves open


def entropy(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(-1)


# of p (B, C), labels, and p of dropout passes (K, B, C)
FORMULAS: dict[str, Callable[..., Tensor]] = {
    "entropy": lambda p, *_: 1 - entropy(p) / math.log(3),
    "entropy_weight": lambda p, *_: entropy(p) / math.log(3),
    "uniform": lambda p, *_: torch.ones(len(p)),
    "max_probability": lambda p, *_: p.amax(1),
    "margin": lambda p, *_: p.sort(1).values[:, 2] - p.sort(1).values[:, 1],
    "correct": lambda p, y, *_: (p.argmax(1) == y).float(),
    "mutual_information": lambda p, y, k: (
        1 - (entropy(k.mean(0)) - entropy(k).mean(0)) / math.log(3)
    ),
}


def kl(target: Tensor, own: Tensor, t: float) -> Tensor:
    """T^2 KL(target || student), of softened probabilities and of logits."""
    return t * t * (target * (target.log() - (own / t).log_softmax(-1))).sum(-1)


def expected_loss(
    method: DualStudent,
    *,
    confidence: str = "entropy",
    confidence_temperature: float = 1.0,
    confidence_threshold: float = 0.0,
    confidence_gate: str = "soft",
    normalize_confidence: bool = False,
    labels_where_unsure: bool = False,
    soft_loss: Callable[..., Tensor] | None = None,
    temperature: float = 4.0,
    peer_temperature: float = 4.0,
    hard_weight: float = 1.0,
    soft_weight: float = 1.0,
    peer_weight: float = 0.5,
    peer_share: float = 1.0,
    peer_confidence: bool = False,
    samples: Tensor | None = None,
) -> Tensor:
    x, y = batch()
    z_t = method.teacher(x).logits
    z = {key: student(x).logits for key, student in method.students.items()}
    t_w = confidence_temperature
    passes = None if samples is None else (samples / t_w).softmax(-1)
    w = FORMULAS[confidence]((z_t / t_w).softmax(-1), y, passes)
    kept = w >= confidence_threshold
    w = kept.float() if confidence_gate == "hard" else w * kept
    of_labels = 1 - w if labels_where_unsure else torch.ones(len(x))
    w = w / w.mean() if normalize_confidence else w
    total = torch.zeros(())
    for key, own in z.items():
        others = [logits.detach() for other, logits in z.items() if other != key]
        peer = torch.stack([(z / peer_temperature).softmax(-1) for z in others]).mean(0)
        u = torch.ones(len(x))
        if peer_confidence:
            u = FORMULAS[confidence](torch.stack([(z / t_w).softmax(-1) for z in others]).mean(0))
        target = (z_t / temperature).softmax(-1)
        soft = kl(target, own, temperature)
        if soft_loss is not None:  # the other direction
            soft = kl((own / temperature).softmax(-1), z_t, temperature)
        hard = of_labels * F.cross_entropy(own, y, reduction="none")
        total = total + hard_weight * hard.mean() + soft_weight * (w * soft).mean()
        total = total + peer_weight * peer_share * (u * kl(peer, own, peer_temperature)).mean()
    return total


OPTIONS = [
    {"confidence_temperature": 4.0},
    {"confidence_threshold": 0.3},
    {"confidence_gate": "hard"},
    {"confidence_gate": "hard", "confidence_threshold": 0.3},
    {"normalize_confidence": True},
    {"normalize_confidence": True, "confidence_threshold": 0.3},
    {"labels_where_unsure": True},
    {"labels_where_unsure": True, "normalize_confidence": True, "confidence_threshold": 0.3},
    pytest.param({"soft_loss": reverse_kl_soft_loss}, id="soft_loss: reverse_kl"),
    {"temperature": 1.5},
    {"peer_temperature": 1.5},
    {"hard_weight": 0.1},
    {"hard_weight": 0.0},
    {"soft_weight": 3.0},
    {"soft_weight": 0.0},
    {"peer_weight": 2.0},
    {"peer_weight": 0.0},
    {"peer_confidence": True},
    {"peer_confidence": True, "confidence_temperature": 2.0},
]


@pytest.mark.parametrize("keys", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_changes_the_loss_to_what_the_formula_says(
    options: dict, keys: tuple[str, ...]
) -> None:
    method, plain = make(*keys, **options), make(*keys)
    loss = method.training_step(batch(), 0)
    torch.testing.assert_close(loss, expected_loss(method, **options))
    torch.testing.assert_close(plain.training_step(batch(), 0), expected_loss(plain))
    assert (loss - expected_loss(plain)).abs() > 1e-3


@pytest.mark.parametrize("name", FORMULAS)
def test_every_confidence_weighs_by_its_formula(name: str) -> None:
    confidence = instantiate(OmegaConf.load(CONF / "confidence" / f"{name}.yaml"))
    passes = 7 if name == "mutual_information" else 0
    method = make(
        confidence=confidence, confidence_passes=passes, confidence_temperature=1.5,
        teacher=sure_teacher(dropout=0.5),
    )  # fmt: skip
    samples = method.teacher_samples(batch()[0])
    loss = method.training_step(batch(), 0)
    expected = expected_loss(method, confidence=name, confidence_temperature=1.5, samples=samples)
    torch.testing.assert_close(loss, expected)
    if name != "entropy":
        other = expected_loss(method, confidence_temperature=1.5)
        assert (loss - other).abs() > 1e-3


def test_no_confidence_is_left_out() -> None:
    assert FORMULAS.keys() == {path.stem for path in (CONF / "confidence").glob("*.yaml")}


def test_the_teachers_passes_are_as_many_as_asked_for_and_of_a_stream_of_their_own() -> None:
    method = make(teacher=sure_teacher(dropout=0.5), confidence_passes=6,
                  confidence=mutual_information_confidence)  # fmt: skip
    x, _ = batch()
    samples = method.teacher_samples(x)
    assert samples.shape == (6, 16, 3)
    assert not torch.equal(samples[0], samples[1])
    torch.rand(3)
    assert torch.equal(method.teacher_samples(x), samples)
    assert make().teacher_samples(x) is None


def test_peer_term_rises_over_its_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(peer_ramp=0.2)
    for progress, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)):
        monkeypatch.setattr(DualStudent, "progress", progress)
        loss = method.training_step(batch(), 0)
        torch.testing.assert_close(loss, expected_loss(method, peer_share=share))


def test_without_a_ramp_peers_teach_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(peer_ramp=0.0)
    monkeypatch.setattr(DualStudent, "progress", 0.0)
    torch.testing.assert_close(method.training_step(batch(), 0), expected_loss(method))


# Limits


@pytest.mark.parametrize("clip", [None, 0.01])
def test_uniform_and_no_peer_is_plain_kd_to_the_bit(clip: float | None) -> None:
    both = make("a", "b", "c", confidence=uniform_confidence, peer_weight=0.0)
    alone = [
        KnowledgeDistillation(
            students={key: student}, teacher=sure_teacher(), num_classes=3, optimizer=sgd()
        )
        for key, student in students("a", "b", "c").items()
    ]
    for method in (both, *alone):
        optimizer = method.configure_optimizers()
        for step in range(3):
            optimizer.zero_grad()
            method.training_step(batch(step), step).backward()
            method.configure_gradient_clipping(optimizer, clip, "norm")
            optimizer.step()
    ends = [{**method.students} for method in alone]
    for key, student in {key: s for end in ends for key, s in end.items()}.items():
        for p, q in zip(student.parameters(), both.students[key].parameters(), strict=True):
            assert torch.equal(p, q)


def test_uniform_teacher_teaches_nothing() -> None:
    method = make()
    confidence = method.teacher_confidence(torch.full((5, 3), 2.5), torch.zeros(5).long())
    assert confidence.abs().max() < 1e-6


def test_certain_teacher_is_plain_kd() -> None:
    logits = torch.zeros(5, 3)
    logits[:, 1] = 1e4
    assert torch.equal(make().teacher_confidence(logits, torch.zeros(5).long()), torch.ones(5))


def a_confidence_with_a_gradient(logits: Tensor, *_: object) -> Tensor:
    return logits.softmax(-1).amax(1)


def test_no_gradient_between_students_nor_into_the_teacher() -> None:
    method = make("a", "b", "c", peer_confidence=True, confidence=a_confidence_with_a_gradient)
    x, y = batch()
    outputs = method(x)
    method.peer_loss("b", outputs, y).mean().backward()
    for key in ("a", "c"):
        assert all(p.grad is None for p in method.students[key].parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.students["b"].parameters())
    method.training_step((x, y), 0).backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_a_teacher_that_passes_no_threshold_is_finite_when_normalized() -> None:
    method = make(normalize_confidence=True, confidence_threshold=1.0)
    loss = method.training_step(batch(), 0)
    torch.testing.assert_close(loss, expected_loss(method, soft_weight=0.0))


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
    mixed = F.one_hot(y, 3).float()
    torch.testing.assert_close(make().training_step((x, mixed), 0), make().training_step((x, y), 0))


# Mistakes


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"temperature": 0.0}, "method.temperature"),
        ({"peer_temperature": -1.0}, "method.peer_temperature"),
        ({"confidence_temperature": 0.0}, "method.confidence_temperature"),
        ({"confidence_passes": -1, "teacher": net(dropout=0.5)}, "method.confidence_passes"),
        ({"hard_weight": -1.0}, "method.hard_weight"),
        ({"soft_weight": -1.0}, "method.soft_weight"),
        ({"peer_weight": -1.0}, "method.peer_weight"),
        ({"confidence_threshold": 1.5}, "method.confidence_threshold"),
        ({"peer_ramp": 2.0}, "method.peer_ramp"),
        ({"confidence_gate": "sotf"}, "method.confidence_gate"),
        ({"learning_rates": {"z": 0.1}}, "method.learning_rates"),
    ],
)
def test_bad_values_name_their_key(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        make(**options).parameter_groups()


def test_mutual_information_wants_dropout_passes_of_a_teacher_that_has_dropout() -> None:
    with pytest.raises(UserError, match=r"method\.confidence_passes"):
        make(confidence=mutual_information_confidence)
    with pytest.raises(UserError, match=r"method\.teacher\.dropout"):
        make(confidence=mutual_information_confidence, confidence_passes=5)
    with pytest.raises(UserError, match=r"with method.peer_confidence=false"):
        make(confidence=mutual_information_confidence, confidence_passes=5, peer_confidence=True,
             teacher=net(dropout=0.5))  # fmt: skip


@pytest.mark.parametrize("confidence", [entropy_confidence, margin_confidence])
def test_dropout_passes_that_no_confidence_takes_are_refused(confidence: Callable) -> None:
    with pytest.raises(UserError, match=r"method\.confidence_passes=5 has no effect"):
        make(confidence=confidence, confidence_passes=5, teacher=net(dropout=0.5))


def test_one_student_is_refused() -> None:
    with pytest.raises(UserError, match="two students or more"):
        make("a")


# What an epoch leaves


def fit(method: DualStudent, tmp_path: Path, epochs: int = 1, seed: int = 0) -> dict[str, float]:
    """Trains on three batches an epoch; what was logged in the last one."""
    x, y = batch(seed, size=48)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(method, DataLoader(TensorDataset(x, y), 16))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_an_epoch_logs_confidence_before_and_weight_after_the_gate(tmp_path: Path) -> None:
    method = make("a", "b", "c", confidence_threshold=0.3, confidence_temperature=1.5)
    x, y = batch(size=48)
    p = (method.teacher(x).logits / 1.5).softmax(-1)
    w = FORMULAS["entropy"](p)
    logged = fit(method, tmp_path, epochs=2)
    assert 0 < (w >= 0.3).float().mean() < 1
    assert logged["train/confidence/share_kept"] == pytest.approx((w >= 0.3).float().mean().item())
    for name, values in (("confidence", w), ("weight", w * (w >= 0.3))):
        for statistic in ("mean", "min", "max"):
            expected = getattr(values, statistic)().item()
            assert logged[f"train/{name}/{statistic}"] == pytest.approx(expected, abs=1e-6)
    right = {row["low"]: row for row in method.confidence_bins if row["share"]}
    assert sum(row["share"] for row in right.values()) == pytest.approx(1)
    accuracy = sum(row["share"] * row["teacher_accuracy"] for row in right.values())
    assert accuracy == pytest.approx((p.argmax(1) == y).float().mean().item())
    assert [name for name in logged if "agreement" in name] == [
        f"train/agreement/{pair}"
        for pair in ("teacher_a", "teacher_b", "teacher_c", "a_b", "a_c", "b_c")
    ]


def test_what_an_epoch_logs_is_of_that_epoch_alone(tmp_path: Path) -> None:
    method = make()
    first, second = (fit(method, tmp_path, seed=seed) for seed in (0, 1))
    fresh = fit(make(), tmp_path, seed=1)
    for name in ("train/confidence/mean", "train/confidence/min", "train/weight/max"):
        assert second[name] == fresh[name] != first[name]


@pytest.mark.parametrize(
    "options",
    [
        {"confidence_threshold": 1.0},
        {"confidence_temperature": 100.0},
        {"confidence_threshold": 1.0, "normalize_confidence": True},
    ],
    ids=str,
)
def test_a_teacher_that_hardly_counts_is_told_of_once_with_the_remedy(
    options: dict, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="the mean weight") as said:
        fit(make(**options), tmp_path, epochs=3)
    (sentence,) = (text for text in (str(one.message) for one in said) if "mean weight" in text)
    assert "in epoch 0" in sentence
    assert "lower method.confidence_threshold" in sentence
    assert "method.confidence_temperature" in sentence
    normalized = "normalize_confidence" in options
    assert ("set method.normalize_confidence=true" in sentence) != normalized


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"confidence_temperature": 100.0, "normalize_confidence": True},
        {"confidence_threshold": 1.0, "soft_weight": 0.0},
    ],
    ids=str,
)
def test_a_teacher_that_counts_or_is_not_asked_is_not_told_of(
    options: dict, tmp_path: Path
) -> None:
    fit(make(**options), tmp_path)  # a warning would be an error


# From the command line


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Result:
    """Three students, and a teacher whose dropout passes say how sure it is."""
    return distill(
        "method=dual_student", *TINY, f"outputs={tmp_path_factory.mktemp('whole')}",
        f"teacher.store={store}", "+model@method.students.c=synthetic/a",
        "confidence@method.confidence=mutual_information", "method.confidence_passes=5",
        "method.teacher.dropout=0.5", "trainer.gradient_clip_val=1.0",
    )  # fmt: skip


def test_mutual_information_of_the_teachers_dropout_weighs_a_whole_run(whole: Result) -> None:
    epochs = list(csv.DictReader((whole.directory / "epochs.csv").read_text().splitlines()))
    for row in epochs:
        low, high = (float(row[f"train/confidence/{name}"]) for name in ("min", "max"))
        assert 1 - math.log(5) / math.log(10) < low < high < 1  # 5 passes, 10 classes


def test_confidence_csv_has_a_row_for_each_epoch_and_bin(whole: Result) -> None:
    rows = list(csv.DictReader((whole.directory / "confidence.csv").read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "low", "high", "share", "teacher_accuracy", "a_accuracy",
                             "b_accuracy", "c_accuracy"]  # fmt: skip
    assert [row["epoch"] for row in rows] == ["0"] * 20 + ["1"] * 20
    for epoch in (rows[:20], rows[20:]):
        assert sum(float(row["share"]) for row in epoch) == pytest.approx(1)
    for row in rows:
        assert (row["teacher_accuracy"] == "") == (float(row["share"]) == 0)


def test_the_ensemble_is_tested_as_the_mean_of_the_students_probabilities(whole: Result) -> None:
    data = build_data(compose(*TINY, f"outputs={whole.directory}"))
    x, y = data.parts["test"].x, data.parts["test"].y
    nets = [load_student(whole.directory, key).eval() for key in ("a", "b", "c")]
    with torch.no_grad():
        p = torch.stack([net(x).logits.softmax(-1) for net in nets]).mean(0)
    found = whole.metrics["nets"]["ensemble"]["test"]
    assert found["accuracy"] == pytest.approx((p.argmax(1) == y).float().mean().item())
    assert found["nll"] == pytest.approx(F.nll_loss(p.log(), y).item(), rel=1e-4)


def nll(teacher: Classifier, data: ClassificationData, temperature: float) -> float:
    logits, labels = zip(
        *((teacher(x).logits, y) for x, y in batches_of(data, data.parts["val"])), strict=True
    )
    return F.cross_entropy(torch.cat(logits) / temperature, torch.cat(labels)).item()


def test_the_temperature_of_the_confidence_can_be_the_calibrated_one() -> None:
    words = ("method=dual_student", "data=digits", "hardware=cpu")
    cfg = compose(*words, "method.confidence_temperature=calibrated")
    data = build_data(cfg)
    method = build_method(cfg, Teacher(ridge_net(data), "a test", "ridge"))
    said: list[str] = []
    calibrate_confidence(cfg, data, method, said.append)
    best = method.confidence_temperature
    assert cfg.method.confidence_temperature == best != 1
    assert said == [
        f"Confidence: at temperature {best:g}, which calibrates the teacher best on val"
    ]
    with torch.no_grad():
        least, *others = (nll(method.teacher, data, best * share) for share in (1, 0.9, 1.1))
    assert least < min(others)
    calibrate_confidence(cfg, data, method, said.append)  # a number stays
    assert method.confidence_temperature == best
    assert len(said) == 1


def test_without_val_no_temperature_can_be_calibrated() -> None:
    words = (*TINY, "method=dual_student", "method.confidence_temperature=calibrated")
    cfg = compose(*words, "data.val_fraction=0")
    data = build_data(cfg)
    method = build_method(cfg, Teacher(ridge_net(data), "a test", "ridge"))
    with pytest.raises(UserError, match="is chosen on val, and these data have none"):
        calibrate_confidence(cfg, data, method, print)
    with pytest.raises(UserError, match="is chosen on val, and these data have none"):
        check_run(cfg, data)  # before a teacher is trained
    with pytest.raises(UserError, match="a number > 0 or calibrated, got best"):
        make(confidence_temperature="best")


def test_a_run_records_the_calibrated_temperature(tmp_path: Path) -> None:
    words = (*TINY, "method=dual_student", f"outputs={tmp_path}", "trainer.max_epochs=1")
    run = distill(*words, "method.confidence_temperature=calibrated")
    recorded = OmegaConf.load(run.directory / "config.yaml").method.confidence_temperature
    assert isinstance(recorded, float)
