"""Where teachers come from: streams of their own, and never from what saw val or test."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import THROWAWAY_CONF, compose, net
from omegaconf import OmegaConf

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.config.schema import check_configuration
from kd_lightning.running.build import build_data
from kd_lightning.running.preflight import check_run
from kd_lightning.teachers.baselines import baseline_run
from kd_lightning.teachers.net_names import describe
from kd_lightning.teachers.other_runs import run_and_student
from kd_lightning.teachers.own_run import teacher_run
from kd_lightning.teachers.sources import (
    Teacher,
    build_net,
    get_teacher,
    load_student,
    notes_on_training,
)
from kd_lightning.teachers.store import shape_hash, shape_of

QUICK = ["trainer.max_epochs=1", "callbacks=quiet", "logger=none"]


def composed(*overrides: str):
    cfg = compose("data=synthetic", *overrides)
    build_data(cfg)
    return cfg


def test_initial_weights_follow_from_seed_and_key_alone() -> None:
    config = composed().method.students.a
    first = build_net(config, 0, "a").head.weight
    torch.rand(5)
    assert torch.equal(first, build_net(config, 0, "a").head.weight)
    assert not torch.equal(first, build_net(config, 1, "a").head.weight)
    assert not torch.equal(first, build_net(config, 0, "b").head.weight)


def test_teacher_has_streams_of_its_own_whatever_the_runs_seed() -> None:
    runs = [teacher_run(composed(f"seed={seed}")) for seed in (0, 1)]
    assert runs[0].seed == runs[1].seed
    assert runs[0].seed == runs[0].data.seed == runs[0].method.seed
    assert runs[0].seed not in (0, 1)
    assert teacher_run(composed("teacher.seed=1")).seed != runs[0].seed


def test_nothing_that_could_stop_or_change_it_is_in_a_kept_run() -> None:
    cfg = composed("callbacks=early_stopping", "method.learning_rates={a: 0.5}")
    for run in (teacher_run(cfg), baseline_run(cfg)):
        assert list(run.callbacks) == ["progress"]
        assert run.logger == {}
    assert baseline_run(cfg).method.learning_rates == {"a": 0.5}
    assert baseline_run(cfg).trainer == cfg.trainer


def test_a_kept_run_is_tested_by_the_run_that_asks_and_shaped_by_none_of_it() -> None:
    asked = ("temperature_scaling=true", "plots=true", "adversarial=0.1")
    plain, asking = composed(), composed(*(f"evaluation.{word}" for word in asked))
    for kept in (teacher_run, baseline_run):
        assert kept(asking).evaluation == compose().evaluation  # nothing further is measured
        assert shape_hash(shape_of(kept(asking)), "") == shape_hash(shape_of(kept(plain)), "")
    assert asking.evaluation.plots


def test_a_cache_of_teacher_outputs_is_for_the_run_alone() -> None:
    cfg = composed("method=kd", "teacher.cache=2", "teacher.cache_top_k=5")
    for run in (teacher_run(cfg), baseline_run(cfg)):
        assert (run.teacher.cache, run.teacher.cache_top_k) == (None, None)


def test_baseline_of_a_twin_has_the_teachers_net() -> None:
    cfg = composed("method=stochastic_self_distillation")
    assert baseline_run(cfg).method.students.student == cfg.method.teacher


def test_fingerprint_follows_the_weights() -> None:
    teacher = Teacher(net(), "", "")
    before = teacher.sha256
    assert before == Teacher(teacher.net, "elsewhere", "x").sha256
    with torch.no_grad():
        teacher.net.head.bias[0] += 1e-6
    assert teacher.sha256 != before


def test_names_say_what_shapes_a_net() -> None:
    cfg = composed()
    assert describe(cfg.method.students.a) == "mlp([32])"
    timm = compose("model@method.teacher=timm", "method.teacher.name=resnet50.a1_in1k")
    assert describe(timm.method.teacher) == "resnet50"


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (["method=adversarial_distillation"], True),
        (["method=adversarial_distillation", "method@teacher.method=adversarial_training"], False),
        (["method=kd"], False),
    ],
)
def test_a_teacher_of_the_wrong_method_is_named(words: list[str], noted: bool) -> None:
    note = (
        "Warning: method=adversarial_distillation needs a teacher that was trained by "
        "adversarial_training, and this one was trained by supervised "
        "(method@teacher.method=adversarial_training)"
    )
    assert notes_on_training(composed(*words)) == (note,) * noted


def test_a_run_says_the_note_on_its_teachers_method(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["method=adversarial_distillation", "data=synthetic", "data.num_train=64", *QUICK]
    words += ["teacher.trainer.max_epochs=1", "teacher.check=off", f"outputs={tmp_path}"]
    distill(*words)
    said = " ".join(capsys.readouterr().out.split())
    assert "and this one was trained by supervised" in said


def test_a_teacher_of_another_split_is_refused_unless_told(tmp_path: Path) -> None:
    first = distill("method=supervised", "data=digits", f"outputs={tmp_path}", *QUICK)
    words = ["method=kd", "data=digits", "data.split_seed=7", f"outputs={tmp_path}", *QUICK,
             f"teacher.source={first.directory}"]  # fmt: skip
    with pytest.raises(UserError, match="may have seen this run's val or test"):
        distill(*words)
    told = distill(*words, "teacher.other_data=true")
    title = told.metrics["nets"]["teacher"]["title"]
    config = OmegaConf.load(first.directory / "config.yaml").method.students.student
    assert title == f"teacher · {describe(config)}"  # the run's net, not model@method.teacher


def test_a_run_directory_serves_as_a_stochastic_teacher(tmp_path: Path) -> None:
    first = distill("method=supervised", "data=digits", f"outputs={tmp_path}", *QUICK)
    result = distill("method=stochastic_self_distillation", "data=digits", "method.num_passes=3",
                     "model@method.teacher=digits/a", f"teacher.source={first.directory}",
                     f"outputs={tmp_path}", *QUICK)  # fmt: skip
    assert result.metrics["nets"]["teacher"]["test"] == first.metrics["nets"]["student"]["test"]


def test_resume_refuses_another_teacher(tmp_path: Path, tiny: list[str]) -> None:
    first = distill("method=kd", *tiny, f"run_dir={tmp_path}/run", "trainer.max_epochs=1")
    record = first.directory / "environment.json"
    content = json.loads(record.read_text())
    content["teacher"]["fingerprint"] = "0" * 16
    write_kept(record.parent, {record.name: json.dumps(content)})
    with pytest.raises(UserError, match="the teacher changed after"):
        distill(f"resume={first.directory}", "trainer.max_epochs=2")


def test_load_student_gives_the_chosen_weights(tiny: list[str]) -> None:
    result = distill("method=kd", *tiny)
    saved = torch.load(result.directory / "best-student.ckpt", weights_only=True)
    loaded = load_student(result.directory, "student").state_dict()
    assert all(torch.equal(saved["state_dict"][name], loaded[name]) for name in loaded)


def test_the_teacher_has_the_split_of_its_run_when_that_follows_the_seed() -> None:
    cfg = composed("method=kd", "data.split_seed=${seed}", "seed=5")
    run = teacher_run(cfg)
    assert run.data.split_seed == 5
    assert run.seed != 5
    assert run.data.seed == run.seed


def test_what_refers_to_the_run_is_the_runs_in_its_teachers_run_too() -> None:
    cfg = composed(
        "method=kd", "trainer.max_epochs=3", "teacher.trainer.max_epochs=7", "optimizer.lr=0.25",
        "teacher.optimizer.lr=${optimizer.lr}",
        "teacher.optimizer.weight_decay=${trainer.max_epochs}",
        "method.teacher.dropout=${method.students.student.dropout}", "seed=5",
    )  # fmt: skip
    cfg.method.students.student.dropout = 0.3
    run = teacher_run(cfg)
    assert run.optimizer.lr == 0.25
    assert run.optimizer.weight_decay == 3
    assert run.trainer.max_epochs == 7
    assert run.method.students.student.dropout == 0.3


def test_what_refers_to_the_method_is_still_there_in_its_baselines_run() -> None:
    cfg = composed(
        "method=kd", "method.temperature=2.5", "optimizer.lr=${method.temperature}",
        "callbacks=swa", "callbacks.swa.start=0.6", "scheduler.warmup=${callbacks.swa.start}",
    )  # fmt: skip
    run = baseline_run(cfg)
    assert run.optimizer.lr == 2.5
    assert run.scheduler.warmup == 0.6


# How a teacher is trained


def test_a_teacher_is_trained_by_its_own_method_with_its_own_seed() -> None:
    run = teacher_run(composed("method@teacher.method=branched", "seed=7"))
    assert run.method._target_.endswith("Branched")
    assert list(run.method.students) == ["student"]
    assert run.method.students.student == composed().method.teacher
    assert run.method.seed == run.seed == teacher_run(composed()).seed  # not that of the students


def test_options_of_a_teachers_method_make_another_teacher() -> None:
    hashes = {
        shape_hash(shape_of(teacher_run(composed(*words))), "")
        for words in (
            [],
            ["teacher.method.label_smoothing=0.1"],
            ["method@teacher.method=branched"],
        )
    }
    assert len(hashes) == 3
    of_students = teacher_run(composed("method.temperature=2", "seed=3"))
    assert shape_hash(shape_of(of_students), "") in hashes


@pytest.mark.parametrize("method", ["kd", "dual_student"])
def test_a_teachers_method_has_no_teacher_itself(method: str) -> None:
    with pytest.raises(
        UserError, match=f"a method without a teacher, got {method}: .*teacher.method"
    ):
        teacher_run(composed(f"method@teacher.method={method}"))


def test_a_teachers_method_is_chosen_as_a_method_is() -> None:
    with pytest.raises(UserError, match=r"got branched \(method@teacher.method=…\)"):
        check_configuration(compose("data=synthetic", "teacher.method=branched"))


def test_a_run_distils_from_a_teacher_of_another_method(tiny: list[str], tmp_path: Path) -> None:
    words = ["method=kd", "method@teacher.method=branched", "model@method.teacher=resnet8", *tiny,
             f"teacher.store={tmp_path}/own", "trainer.max_epochs=1"]  # fmt: skip
    result = distill(*words, config_dir=THROWAWAY_CONF)
    assert result.metrics["nets"]["teacher"]["test"]["accuracy"] >= 0
    (kept,) = (tmp_path / "own").glob("*/best-student.ckpt")
    names = torch.load(kept, weights_only=True)["state_dict"]
    cfg = compose("method=kd", "data=synthetic", "model@method.teacher=resnet8")
    assert not [name for name in names if "branch" in name]
    assert len(names) > 10
    last = torch.load(kept.with_name("last.ckpt"), weights_only=True)["state_dict"]
    assert [name for name in last if name.startswith("branches.student.")]
    assert cfg.method.teacher is not None


def test_a_teachers_method_that_does_not_fit_is_refused_before_it_trains(
    tiny: list[str], tmp_path: Path
) -> None:
    words = ["method=kd", "method@teacher.method=mutual_learning", *tiny, f"outputs={tmp_path}/new"]
    with pytest.raises(UserError, match="mutual_learning needs two students or more"):
        distill(*words)
    assert not (tmp_path / "new").exists()


MIXED = ("mixing@data.mixing=mixup", "data.mixing.alpha=1.0")


def test_a_teacher_is_trained_without_what_only_its_students_see() -> None:
    cfg = composed("method=kd", *MIXED, "teacher.data={mixing: null}")
    plain, mixed = composed("method=kd"), composed("method=kd", *MIXED)
    assert teacher_run(cfg).data.mixing is None
    assert teacher_run(mixed).data.mixing == cfg.data.mixing
    of = [shape_hash(shape_of(teacher_run(one)), "") for one in (cfg, plain, mixed)]
    assert of[0] == of[1] != of[2]
    check_configuration(cfg)


def test_students_that_learn_from_labels_only_see_the_same_mixing() -> None:
    cfg = composed("method=kd", *MIXED, "teacher.data={mixing: null}", "baselines=labels_only")
    assert baseline_run(cfg).data == cfg.data


def test_a_teacher_never_sees_other_samples_than_its_run() -> None:
    with pytest.raises(UserError, match=r"takes augmentation and mixing, got split_seed: in all"):
        teacher_run(composed("method=kd", "teacher.data={split_seed: 1}"))
    with pytest.raises(UserError, match=r"val_fraction needs data.val_fraction=0, got 0.1: a "):
        teacher_run(composed("method=kd", "teacher.data={val_fraction: 0.2}"))


def test_a_teacher_may_be_chosen_on_a_part_of_train_where_its_run_has_no_val(
    tmp_path: Path,
) -> None:
    words = ["method=kd", "data=synthetic", *QUICK, f"outputs={tmp_path}", "data.val_fraction=0"]
    whole = distill(*words).metrics["nets"]["teacher"]
    words += ["teacher.data={val_fraction: 0.25}"]
    found = [distill(*words, f"seed={seed}") for seed in (0, 1)]
    kept = list((tmp_path / "teachers").glob("teacher-*/metrics.json"))
    assert len(kept) == 2  # the first run's, and one for both of the others
    records = [json.loads(path.read_text()) for path in kept]
    assert sorted(bool(record["nets"]["student"]["val"]) for record in records) == [False, True]
    teachers = [run.metrics["nets"]["teacher"] for run in found]
    assert teachers[0]["test"] == teachers[1]["test"] != whole["test"]
    assert not any(net.get("val") for run in found for net in run.metrics["nets"].values())


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "cutout"])
def test_the_teacher_of_a_calibrated_student_is_trained_as_usual(mixing: str) -> None:
    cfg = compose(f"experiment=calibrated_student_{mixing}_cifar100")
    usual = compose("experiment=kd_cifar100")
    assert cfg.baselines == "labels_only"
    seen = [(one.data.augmentation, one.data.mixing) for one in (cfg, usual)]
    assert seen[0] != seen[1]
    assert seen[1] == tuple(
        cfg.teacher.data.get(key, cfg.data[key]) for key in ("augmentation", "mixing")
    )
    assert cfg.teacher.trainer == usual.teacher.trainer


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs whose students can be teachers."""
    outputs = tmp_path_factory.mktemp("runs")
    words = ("method=supervised", "data=synthetic", *QUICK, f"outputs={outputs}")
    return [distill(*words, f"seed={seed}").directory for seed in (0, 1)]


def with_teachers(method: str, sources: list[Path], tmp_path: Path):
    names = ",".join(map(str, sources))
    return distill(
        f"method={method}", "data=synthetic", *QUICK, f"teacher.source=[{names}]",
        "teacher.check=warn", f"outputs={tmp_path}",
    )  # fmt: skip


def test_several_teachers_answer_with_their_mean_probabilities(
    runs: list[Path], tmp_path: Path
) -> None:
    result = with_teachers("kd", runs, tmp_path)
    record = json.loads((result.directory / "environment.json").read_text())["teacher"]
    assert record["origin"] == f"the mean of student of {runs[0]} and student of {runs[1]}"
    assert record["val"]["samples"] > 0
    assert len(record["fingerprint"]) == 16
    teacher = result.metrics["nets"]["teacher"]
    assert teacher["title"].startswith("teacher · 2 x ")
    members = [load_student(run, "student") for run in runs]
    assert teacher["parameters"] == sum(p.numel() for net in members for p in net.parameters())
    data = build_data(compose("data=synthetic"))
    right = total = 0
    for x, y in data.loader("test"):
        mean = sum(net.eval()(x).logits.softmax(1) for net in members)
        right, total = right + (mean.argmax(1) == y).sum().item(), total + len(y)
    assert teacher["test"]["accuracy"] == pytest.approx(right / total)


@pytest.mark.parametrize("method", ["feature_distillation", "stochastic_self_distillation"])
def test_a_method_that_needs_more_than_logits_refuses_several_teachers_at_once(
    method: str, runs: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="needs more of a teacher than its logits"):
        with_teachers(method, runs, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("sources", "got"), [([0, 0], r"\[.*,.*\]"), ([], r"\[\]")])
def test_a_teacher_is_named_once(
    sources: list[int], got: str, runs: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"a list of different ones, got {got}"):
        with_teachers("kd", [runs[i] for i in sources], tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "dual_student method.confidence_temperature=calibrated",
        "kd method.mixed_targets=true mixing@data.mixing=mixup",
    ],
)
def test_what_a_step_needs_besides_logits_does_not_refuse_several_teachers(
    words: str, runs: list[Path]
) -> None:
    names = ",".join(map(str, runs))
    method, *more = words.split()
    cfg = compose(f"method={method}", "data=synthetic", *QUICK, *more, f"teacher.source=[{names}]")
    check_run(cfg, build_data(cfg))


@pytest.mark.parametrize("statistics", ["null", "[0.2,0.3,0.4]"])
def test_a_students_file_is_used_as_its_run_is(statistics: str, tmp_path: Path) -> None:
    """Fixed bug: of a file alone, the net's own size and the lack of a mean were not known."""
    words = ["data=synthetic", "data.num_train=32", "data.num_test=16", "data.batch_size=8",
             "hardware=cpu", "threads=1", f"outputs={tmp_path}", *QUICK]  # fmt: skip
    own = ["input_size=20", "interpolation=bicubic", f"mean={statistics}", f"std={statistics}"]
    student = [f"method.students.student.{word}" for word in own]
    net = "model@method.students.student=resnet8"
    run = distill("method=supervised", net, *student, *words).directory
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(run / "students/student/student.safetensors", tmp_path / "alone/s.pt")
    x = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    answers = []
    for source in (run, run / "students/student", alone):
        cfg = compose(
            "method=kd", "model@method.teacher=resnet8", *words, f"teacher.source={source}"
        )
        teacher = get_teacher(cfg, build_data(cfg), train=pytest.fail, say=str)
        answers.append(teacher.net.eval()(x).logits)
        assert teacher.net.prepare.size == 20
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_folders_that_are_no_runs_are_files_of_weights(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("model.safetensors", "metrics.json", "config.yaml"):
        (tmp_path / "mine" / name).touch()
    assert run_and_student(tmp_path / "mine") is None
    soup = tmp_path / "run" / "students" / "uniform_soup"
    soup.mkdir(parents=True)
    (tmp_path / "run" / "metrics.json").touch()
    (tmp_path / "run" / "config.yaml").write_text("method: {students: {a: {}}}")
    assert run_and_student(soup) is None
    assert run_and_student(soup.with_name("a")) is None  # it does not exist
    soup.with_name("a").mkdir()
    assert run_and_student(soup.with_name("a")) == (tmp_path / "run", "a")
    assert run_and_student(tmp_path / "run") == (tmp_path / "run", None)


def test_a_resumed_run_may_find_its_teacher_elsewhere(tmp_path: Path, tiny: list[str]) -> None:
    first = distill("method=kd", *tiny)
    own = OmegaConf.load(first.directory / "config.yaml")
    moved = tmp_path / "moved"
    shutil.copytree(own.teacher.store, moved)
    more = "trainer.max_epochs=2"
    again = distill(f"resume={first.directory}", f"teacher.store={moved}", more)
    assert again.metrics["epochs"] == 2
    (teacher,) = (
        p for p in moved.glob("teacher-*") if p.name in first.metrics["nets"]["teacher"]["origin"]
    )
    file = teacher / "best-student.ckpt"
    last = distill(f"resume={first.directory}", f"teacher.source={file}", "trainer.max_epochs=3")
    assert last.metrics["epochs"] == 3
