"""Complete runs on real data: the results of one command."""

import json
from pathlib import Path

import pytest
import torch
from helpers import DISTILLERS, METHODS, TINY, compose

from kd_lightning import distill
from kd_lightning.running.run import Result
from kd_lightning.running.way_back import how_to_resume
from kd_lightning.teachers.sources import load_student

SHORT = {"digits": 8, "ucr": 20}
# without features, views or nets of their own: what a sample is makes no difference to them
OF_OUTPUTS_ALONE = [
    *("supervised", "kd", "mutual_learning", "r_drop", "mean_teacher"),
    *("adversarial_training", "adversarial_distillation"),
]


def short(method: str, data: str, tmp_path: Path, store: Path) -> list[str]:
    # the student of SSD is the teacher at first, and each of its steps has many passes
    epochs = SHORT[data] // (2 if method == "stochastic_self_distillation" else 1)
    words = [f"method={method}", f"data={data}", f"trainer.max_epochs={epochs}",
             f"outputs={tmp_path}", "callbacks=quiet", "logger=none"]  # fmt: skip
    if method in DISTILLERS:
        words += [f"teacher.trainer.max_epochs={SHORT[data]}", f"teacher.store={store}"]
    if data == "ucr":
        words += ["data.name=ItalyPowerDemand"]
        words += ["model@method.teacher=fcn"] if method in DISTILLERS else []
    if method == "feature_distillation":
        words += ["method.feature_weight=1"]  # the usual 100 needs more epochs
    if method == "teacher_evolution":
        words += ["method.detach_target=true"]  # with the target of the paper it is less sure
    if method == "mean_teacher":
        words += ["method.consistency_weight=10"]  # with the paper's 100 it is less sure
    if method in ("adversarial_distillation", "adversarial_training"):
        words += ["method.steps=2"]  # of the attack; each costs as much as a training step
    if method == "stochastic_self_distillation":
        words += ["method.num_passes=5", "method.guidance.percentile=50"]
    return words


@pytest.mark.parametrize(
    ("method", "data"),
    [(m, data) for m in METHODS for data in SHORT if data == "digits" or m not in OF_OUTPUTS_ALONE],
)
def test_every_method_learns_from_real_data(
    method: str, data: str, tmp_path: Path, store: Path
) -> None:
    result = distill(*short(method, data, tmp_path, store))
    students = [n for name, n in result.metrics["nets"].items() if "last" in n]
    assert students
    for net in students:
        assert net["test"]["accuracy"] > 0.8  # chance is 0.1 and 0.5
        assert net["test"]["nll"] < 1
        assert net["parameters"] > 0
    if method in DISTILLERS:
        assert result.metrics["nets"]["teacher"]["test"]["accuracy"] > 0.9
        assert all(0.8 < net["agreement"] <= 1 for net in students)


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Result:
    """The usual run, on digits."""
    return distill(*short("dual_student", "digits", tmp_path_factory.mktemp("dual"), store))


def test_the_default_is_dual_student_on_digits() -> None:
    cfg = compose()
    assert cfg.method._target_.endswith("DualStudent")
    assert cfg.data._target_.endswith("Digits")


def test_the_objective_is_measured_on_val_and_never_on_test(dual: Result) -> None:
    nets = dual.metrics["nets"]
    val = [nets[key]["val"]["accuracy"] for key in ("a", "b")]
    assert dual.objective == pytest.approx(sum(val) / 2)
    assert dual.objective * 2 * 143 == pytest.approx(round(dual.objective * 2 * 143))


def test_the_weights_of_the_best_epoch_are_chosen(tmp_path: Path, store: Path) -> None:
    result = distill(*short("dual_student", "digits", tmp_path, store), "optimizer.lr=0.03")
    lines = (result.directory / "epochs.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    for key in ("a", "b"):
        best = max(
            rows, key=lambda r: (float(r[f"val/{key}/accuracy"]), -float(r[f"val/{key}/nll"]))
        )
        net = result.metrics["nets"][key]
        assert net["epoch"] == int(best["epoch"])
        assert net["val"]["accuracy"] == pytest.approx(float(best[f"val/{key}/accuracy"]))


def test_a_second_run_reuses_teacher_and_baselines_and_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["experiment=demo", f"outputs={tmp_path}", "trainer.max_epochs=2",
             "teacher.trainer.max_epochs=2", "callbacks=quiet"]  # fmt: skip
    first = distill(*words)
    assert "trained now" in capsys.readouterr().out
    again = distill(*words)
    printed = capsys.readouterr().out
    assert printed.count("reused from") == 2
    assert "trained now" not in printed
    for name in ("teacher", "a", "b", "ensemble", "a, labels only", "b, labels only"):
        assert first.metrics["nets"][name]["test"] == again.metrics["nets"][name]["test"]


def test_all_seeds_share_one_teacher_and_one_split(tmp_path: Path) -> None:
    runs = [distill("method=kd", *TINY, f"seed={seed}", f"outputs={tmp_path}") for seed in (0, 1)]
    assert len(list((tmp_path / "teachers").glob("teacher-*/metrics.json"))) == 1
    records = [json.loads((run.directory / "environment.json").read_text()) for run in runs]
    assert records[0]["data"] == records[1]["data"]
    students = [load_student(run.directory, "student").head.weight for run in runs]
    assert not torch.equal(*students)


def test_another_teacher_seed_trains_another_teacher(tmp_path: Path) -> None:
    for seed in (0, 1):
        distill("method=kd", *TINY, f"teacher.seed={seed}", f"outputs={tmp_path}")
    assert len(list((tmp_path / "teachers").glob("teacher-*/metrics.json"))) == 2


def test_the_teacher_may_come_from_a_run_a_checkpoint_or_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    quick = [f"outputs={tmp_path}", "trainer.max_epochs=2", "callbacks=quiet", "logger=none"]
    teacher = distill("method=supervised", "data=digits", "model@method.students.student=resnet8",
                      *quick)  # fmt: skip
    weights = load_student(teacher.directory, "student").state_dict()
    save_file(weights, tmp_path / "teacher.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "teacher.ckpt")
    sources = (teacher.directory, tmp_path / "teacher.safetensors", tmp_path / "teacher.ckpt")
    accuracies = [
        distill("method=kd", "data=digits", "model@method.teacher=resnet8",
                f"teacher.source={source}", *quick).metrics["nets"]["teacher"]["test"]["accuracy"]
        for source in sources
    ]  # fmt: skip
    assert accuracies == [teacher.metrics["nets"]["student"]["test"]["accuracy"]] * 3


def test_bf16_gives_about_the_same_accuracy(tmp_path: Path, store: Path, dual: Result) -> None:
    words = short("dual_student", "digits", tmp_path, store)
    half = distill(*words, "hardware.precision=bf16-mixed")
    for key in ("a", "b"):
        accuracies = [r.metrics["nets"][key]["test"]["accuracy"] for r in (dual, half)]
        assert accuracies[0] == pytest.approx(accuracies[1], abs=0.08)


def test_without_a_val_part_the_last_epoch_is_tested(tmp_path: Path, store: Path) -> None:
    result = distill(*short("supervised", "ucr", tmp_path, store), "data.val_fraction=0")
    net = result.metrics["nets"]["student"]
    assert result.objective is None
    assert net["test"] == net["last"]
    assert (
        "nothing chosen on val: accuracy is that of the last epoch"
        in (result.directory / "table.md").read_text()
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").exists(),
    reason="Debian's dataset-fashion-mnist is not installed",
)
def test_real_fashion_mnist(tmp_path: Path) -> None:
    result = distill("method=kd", "data=fashion_mnist", "model@method.teacher=mlp",
                     "model@method.students.student=mlp", "method.students.student.widths=[32]",
                     "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", f"outputs={tmp_path}",
                     "callbacks=quiet")  # fmt: skip
    assert result.metrics["nets"]["student"]["test"]["accuracy"] > 0.75
    assert "54000 / 6000 / 10000" in result.metrics["protocol"]


def test_only_the_first_process_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    said = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        said.append(how_to_resume(compose("method=kd", "data=digits"), tmp_path))
    assert f"resume={tmp_path}" in said[0]
    assert "first process" in said[1]
