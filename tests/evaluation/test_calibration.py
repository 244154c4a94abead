"""Calibration curves and temperatures: from tensors, then from whole runs."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import TINY, compose

from kd_lightning.base.errors import UserError
from kd_lightning.evaluation import calibration
from kd_lightning.evaluation.final_test import doubts_about_val
from kd_lightning.evaluation.metrics import classification_metrics, predict
from kd_lightning.evaluation.table import caption
from kd_lightning.losses.soft_targets import mean_log_probs
from kd_lightning.running.build import build_data
from kd_lightning.running.run import Result, distill
from kd_lightning.teachers.sources import load_student
from kd_lightning.uncertainty.temperature import fit_temperature

OPTIONS = ("evaluation.temperature_scaling=true", "evaluation.plots=true")
OF_CLASSES = {"accuracy", "balanced_accuracy", "macro_f1"}  # no temperature changes these


def random_predictions(num_samples=250, num_classes=5):
    numbers = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(num_samples, num_classes, generator=numbers)
    labels = logits.softmax(dim=1).multinomial(1, generator=numbers).squeeze(1)
    return logits, labels


def test_every_histogram_and_every_binning_counts_each_sample_once():
    logits, labels = random_predictions()
    curves = calibration.calibration_curves(logits, labels)
    right = (logits.argmax(dim=1) == labels).sum().item()
    for name in ("confidence", "entropy"):
        assert sum(curves[name]["right"]) == right
        assert sum(curves[name]["wrong"]) == 250 - right
    for name in ("reliability", "adaptive"):
        assert sum(curves[name]["count"]) == 250
        shares = zip(curves[name]["count"], curves[name]["accuracy"], strict=True)
        assert sum(n * share for n, share in shares if n) == pytest.approx(right, abs=1e-3)
    assert max(curves["adaptive"]["count"]) - min(curves["adaptive"]["count"]) == 1


def test_a_risk_coverage_curve_has_at_most_100_points():
    logits, labels = random_predictions()
    curve = calibration.calibration_curves(logits, labels)["risk_coverage"]
    at = [math.ceil(2.5 * i) / 250 for i in range(1, 101)]
    assert curve["coverage"] == pytest.approx(at)
    assert curve["risk"][-1] == pytest.approx((logits.argmax(dim=1) != labels).float().mean())
    few = calibration.calibration_curves(logits[:4], labels[:4])["risk_coverage"]
    assert few["coverage"] == [0.25, 0.5, 0.75, 1]


def test_curves_with_empty_bins_are_valid_json():
    curves = calibration.calibration_curves(torch.tensor([[9.0, 0.0]]), torch.tensor([0]))
    assert json.loads(json.dumps(curves, allow_nan=False)) == curves
    assert curves["reliability"]["accuracy"] == [None] * 14 + [1]


def test_scaled_metrics_are_computed_from_the_divided_logits():
    logits, labels = random_predictions()
    plain = classification_metrics(logits, labels)
    assert calibration.scaled_metrics(logits, labels, 1.0) == {
        "temperature": 1.0,
        **{name: value for name, value in plain.items() if name not in OF_CLASSES},
    }
    scaled = calibration.scaled_metrics(3 * logits, labels, 3.0)
    assert scaled.pop("temperature") == 3
    assert scaled == pytest.approx({name: plain[name] for name in scaled}, abs=1e-6)


def test_scaled_curves_are_computed_from_the_divided_logits():
    logits, labels = random_predictions()
    report = calibration.calibration_report({"a": logits, "b": logits}, labels, {"b": 3.0})
    plain = calibration.calibration_curves(logits, labels)
    assert report["a"] == {"test": plain}
    scaled = calibration.calibration_curves(logits / 3, labels)
    assert report["b"] == {"test": plain, "temperature": 3.0, "scaled": scaled}
    assert scaled["reliability"] != plain["reliability"]


def test_a_fitted_temperature_calibrates_overconfident_predictions():
    logits, labels = random_predictions(2000)
    overconfident = 5 * logits
    temperature = fit_temperature(overconfident[::2], labels[::2])
    before = classification_metrics(overconfident[1::2], labels[1::2])
    after = calibration.scaled_metrics(overconfident[1::2], labels[1::2], temperature)
    assert after["nll"] < before["nll"] / 2
    assert after["ece"] < before["ece"] / 3
    assert after["adaptive_ece"] < before["adaptive_ece"] / 3


@pytest.fixture(scope="module")
def scaled_run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    outputs = tmp_path_factory.mktemp("scaled")
    return distill(*TINY, f"outputs={outputs}", "baselines=labels_only", *OPTIONS)


@pytest.fixture(scope="module")
def curves(scaled_run: Result) -> dict:
    return json.loads((scaled_run.directory / "calibration.json").read_text())


def test_every_net_of_a_run_has_metrics_with_and_without_its_temperature(
    scaled_run: Result, curves: dict
) -> None:
    nets = scaled_run.metrics["nets"]
    assert list(nets) == ["teacher", "a", "b", "ensemble", "a, labels only", "b, labels only"]
    assert list(curves) == list(nets)
    for name, net in nets.items():
        assert set(net["test"]) - set(net["scaled"]) == OF_CLASSES
        assert set(net["scaled"]) - set(net["test"]) == {"temperature"}
        assert curves[name]["temperature"] == net["scaled"]["temperature"]
        for part in ("test", "scaled"):
            assert sum(curves[name][part]["reliability"]["count"]) == 32
            error = 1 - net["test"]["accuracy"]
            assert curves[name][part]["risk_coverage"]["risk"][-1] == pytest.approx(error, abs=1e-6)
        assert net["scaled"]["nll"] != net["test"]["nll"]


def test_temperatures_are_fitted_to_the_chosen_weights_on_val(scaled_run: Result) -> None:
    data = build_data(compose(*TINY))
    nets = {key: load_student(scaled_run.directory, key) for key in ("a", "b")}
    parts = {part: predict(nets, data.loader(part)) for part in ("val", "test")}
    for logits, _ in parts.values():
        logits["ensemble"] = mean_log_probs([logits["a"], logits["b"]], temperature=1.0)
    for name in ("a", "b", "ensemble"):
        fitted = {part: fit_temperature(z[name], labels) for part, (z, labels) in parts.items()}
        scaled = scaled_run.metrics["nets"][name]["scaled"]
        assert scaled["temperature"] == pytest.approx(fitted["val"], rel=1e-4)
        assert scaled["temperature"] != pytest.approx(fitted["test"], rel=1e-2)
        logits, labels = parts["test"]
        expected = calibration.scaled_metrics(logits[name], labels, fitted["val"])
        assert scaled == pytest.approx(expected, rel=1e-3)


def test_the_table_has_the_temperatures_and_a_plot_is_drawn(scaled_run: Result) -> None:
    assert "| ECE | T | ECE scaled |" in (scaled_run.directory / "table.md").read_text()
    assert (scaled_run.directory / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_the_plot_has_a_line_per_net_and_a_dashed_line_if_it_is_scaled(curves: dict) -> None:
    from kd_lightning.evaluation.calibration_plot import draw

    left, right = draw(curves).axes
    styles = [line.get_linestyle() for line in right.lines]
    assert (styles.count("-"), styles.count("--")) == (6, 6)
    assert len(left.lines) == 12 + 1  # the last is the diagonal
    of_teacher = curves["teacher"]["test"]["risk_coverage"]["risk"]
    assert list(right.lines[0].get_ydata()) == of_teacher
    plain = {name: {"test": net["test"]} for name, net in curves.items()}
    assert len(draw(plain).axes[1].lines) == 6


def test_runs_started_by_a_run_are_neither_scaled_nor_drawn(scaled_run: Result) -> None:
    outputs = scaled_run.directory.parent
    kept = [*outputs.glob("teachers/*/metrics.json"), *outputs.glob("baselines/*/metrics.json")]
    assert len(kept) == 2
    for path in kept:
        assert "scaled" not in path.read_text()
        assert (path.parent / "calibration.json").exists()
        assert not (path.parent / "calibration.png").exists()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_can_be_tested_again_with_other_options(tmp_path: Path, store: Path) -> None:
    words = [*TINY, "method=kd", f"outputs={tmp_path}", f"teacher.store={store}"]
    first = distill(*words)
    assert not any("scaled" in net for net in first.metrics["nets"].values())
    assert not (first.directory / "calibration.png").exists()
    before = json.loads((first.directory / "calibration.json").read_text())
    assert [list(net) for net in before.values()] == [["test"], ["test"]]
    weights = (first.directory / "best-student.ckpt").read_bytes()

    again = distill(f"resume={first.directory}", *OPTIONS)
    assert (first.directory / "best-student.ckpt").read_bytes() == weights
    assert (first.directory / "calibration.png").exists()
    after = json.loads((first.directory / "calibration.json").read_text())
    for name, net in again.metrics["nets"].items():
        assert net["scaled"]["temperature"] > 0
        assert net["test"] == first.metrics["nets"][name]["test"]
        assert after[name]["test"] == before[name]["test"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd_lightning.running.run.test_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            distill(f"resume={first.directory}", "evaluation.temperature_scaling=false")
    assert not (first.directory / "metrics.json").exists()  # it would be of other options

    last = distill(f"resume={first.directory}", *OPTIONS, "evaluation.plots=false")
    assert "scaled" in last.metrics["nets"]["student"]
    assert not (first.directory / "calibration.png").exists()


def test_temperature_scaling_without_a_val_part_is_refused_before_training(tiny: list[str]) -> None:
    outputs = Path(next(word for word in tiny if word.startswith("outputs=")).split("=")[1])
    words = ["method=kd", *tiny, "data.val_fraction=0", f"teacher.store={outputs}/teachers"]
    with pytest.raises(UserError, match=r"no val part: set data\.val_fraction > 0"):
        distill(*words, "evaluation.temperature_scaling=true")
    assert list(outputs.iterdir()) == []
    result = distill(*words, "evaluation.plots=true")
    assert (result.directory / "calibration.png").exists()


@pytest.mark.parametrize("key", ["temperature_scaling", "plots"])
def test_values_other_than_true_or_false_are_refused(key: str, tiny: list[str]) -> None:
    with pytest.raises(UserError, match=f"evaluation.{key} must be true or false, got val"):
        distill(*tiny, f"evaluation.{key}=val")


def test_the_caption_warns_of_a_temperature_fitted_to_wrong_labels(tiny: list[str]) -> None:
    options = ["method=supervised", "evaluation.temperature_scaling=true"]
    own = [word for word in tiny if not word.startswith("teacher.")]
    metrics = distill(*options, *own, "data.label_noise=0.3", "data.noisy_val=true").metrics
    assert "T is fitted to val's labels, of which as many are wrong" in caption(metrics)
    assert "doubts" not in distill(*options, *own, "data.label_noise=0.3").metrics


def test_a_temperature_fitted_to_images_that_pretrained_weights_have_seen_is_doubted() -> None:
    cfg = compose("method=kd", "data=imagenet100")
    data = SimpleNamespace(val_has_wrong_labels=False, imagenet_rows=[0, 1])
    (doubt,) = doubts_about_val(cfg, data)
    assert doubt.startswith("T of teacher is fitted to images of ImageNet's training part")
    cfg.teacher.source = "train"
    assert doubts_about_val(cfg, data) == []
