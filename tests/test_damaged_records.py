"""Whatever happens to a file that was kept, a command ends in one sentence or in the same numbers:
never in a traceback, and never silently in other numbers.
"""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from damage import DAMAGE
from helpers import compose
from omegaconf import OmegaConf

import kd_lightning
from kd_lightning import distill, reports
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import SUMS, write_kept
from kd_lightning.callbacks.save_epoch import SaveEpoch
from kd_lightning.evaluation.data_choice import load_data
from kd_lightning.exports.source import copy_student, record_of
from kd_lightning.records.jobs import JobSpec, create_job
from kd_lightning.reports.page.records import RunRecord
from kd_lightning.running.build import build_data
from kd_lightning.running.run import train_quietly
from kd_lightning.sweeps.engine import FixedJobs, read_settings
from kd_lightning.teachers import sources

WORDS = (
    *("method=kd", "data=synthetic", "data.num_train=64", "data.num_test=32", "data.batch_size=32"),
    *("trainer.max_epochs=3", "teacher.trainer.max_epochs=1", "teacher.check=warn"),
    *("hardware=cpu", "callbacks=quiet", "logger=none"),
    *(f"model@method.{net}=mlp" for net in ("teacher", "students.student")),
    *(f"method.{net}.widths=[8]" for net in ("teacher", "students.student")),
)
X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a finished run: ``run``, with two checkpoints, and its ``teachers``."""
    outputs = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveEpoch, "pause", 0.0)
        distill(*WORDS, f"outputs={outputs}", f"run_dir={outputs / 'run'}")
    return outputs


@pytest.fixture
def run(outputs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(outputs / "run", tmp_path / "run")


def one_sentence(error: UserError) -> str:
    text = str(error)
    assert text
    assert len(text.splitlines()) == 1
    return text


# What reads a finished run


def predict(run: Path) -> object:
    return kd_lightning.load(run)(X).tolist()


def report(run: Path) -> object:
    return [dict(result.values) for result in reports.build([run]).source.results]


def export(run: Path) -> object:
    folder = run.parent / f"export of {run.name}"
    copy_student(run, None, folder)
    info = kd_lightning.load(folder).info
    return record_of(run, info), {**info, "created": None}


def evaluate(run: Path) -> object:
    return load_data([], run).data.fingerprint


def page(run: Path) -> object:
    """What a page reads beside the numbers of its table. A part without its file is left out."""
    read = RunRecord(reports.build([run]).source.results[0], run)
    return {
        **{name: getattr(read, name) for name in ("environment", "epochs", "table", "caption")},
        **{name: getattr(read, name) for name in ("calibration", "num_test")},
        "predictions": {k: v.tolist() for k, v in (read.predictions or {}).items()},
        "examples": {k: v.tolist() for k, v in (read.examples or {}).items()},
    }


COMMANDS = {"predict": predict, "report": report, "export": export, "evaluate": evaluate}
# File -> the commands that need it.
READ = {
    "config.yaml": {"predict", "report", "export", "evaluate"},
    "metrics.json": {"predict", "report", "export"},
    "students/student/student.safetensors": {"predict", "export"},
    "environment.json": set(),
}
SHOWN = {  # file -> the parts of a page
    "epochs.csv": {"epochs"},
    "calibration.json": {"calibration"},
    "table.csv": {"table"},
    "table.md": {"caption"},
    "test_predictions.npz": {"predictions"},
    "test_examples.npz": {"examples"},
    "environment.json": {"environment"},
}
TO_RESUME = {"last.ckpt", "previous.ckpt", "best-student.ckpt"}
FOR_PEOPLE = {"students/student/student.json"}


@pytest.fixture(scope="module")
def expected(outputs: Path) -> dict[str, object]:
    return {name: command(outputs / "run") for name, command in {**COMMANDS, "page": page}.items()}


def test_every_file_of_a_run_is_tried(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files - {"calibration.png", ".lock"} == {*READ, *SHOWN, *TO_RESUME, *FOR_PEOPLE, SUMS}


def said_by(commands: Iterable[str], run: Path, expected: dict[str, object]) -> dict[str, str]:
    """The commands that refuse -> their sentence. All others give the same as before."""
    said = {}
    for name in commands:
        try:
            found = COMMANDS[name](run)
        except UserError as error:
            said[name] = one_sentence(error)
        else:
            assert found == expected[name]
    return said


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_named_by_those_who_need_it(
    name: str, damage: str, run: Path, expected: dict[str, object]
) -> None:
    DAMAGE[damage](run / name)
    if (name, damage) == ("metrics.json", "missing"):  # such a run is not finished
        assert "resume it with" in said_by(["predict", "export"], run, expected)["predict"]
        return
    if (name, damage) == ("environment.json", "missing"):  # so it may be of no finished run
        assert said_by(["report", "evaluate"], run, expected) == {}
        return
    said = said_by(COMMANDS, run, expected)
    if damage == "missing":
        assert said if name == "config.yaml" else not said  # students are in the checkpoints too
        return
    assert said.keys() == READ[name]
    assert all(name in sentence for sentence in said.values())


@pytest.mark.parametrize("name", [*sorted(TO_RESUME), *sorted(FOR_PEOPLE), "epochs.csv"])
def test_a_file_that_is_not_needed_changes_nothing(
    name: str, run: Path, expected: dict[str, object]
) -> None:
    DAMAGE["one flipped bit"](run / name)
    assert said_by(COMMANDS, run, expected) == {}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checksums_leave_a_sentence_or_the_numbers(
    damage: str, run: Path, expected: dict[str, object]
) -> None:
    DAMAGE[damage](run / SUMS)
    said_by(COMMANDS, run, expected)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", SHOWN)
def test_a_page_leaves_out_what_is_damaged(
    name: str, damage: str, run: Path, expected: dict[str, object]
) -> None:
    DAMAGE[damage](run / name)
    found = page(run)
    for part, value in expected["page"].items():
        is_same = found[part] == value or (part == "num_test" and found[part] is None)
        assert is_same or (part in SHOWN[name] and not found[part])


def test_a_run_of_an_earlier_version_is_read_without_checksums(
    run: Path, expected: dict[str, object]
) -> None:
    (run / SUMS).unlink()
    assert said_by(COMMANDS, run, expected) == {}
    assert page(run) == expected["page"]


# Resuming


def outcome(run: Path) -> tuple[list, dict, dict]:
    with (run / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((run / "metrics.json").read_text())
    for net in metrics["nets"].values():
        del net["throughput"]
    return rows, torch.load(run / "last.ckpt", weights_only=True)["state_dict"], metrics


def assert_same_outcome(run: Path, other: Path) -> None:
    (rows, weights, metrics), (rows_b, weights_b, metrics_b) = outcome(run), outcome(other)
    assert rows == rows_b
    assert metrics == metrics_b
    assert all(torch.equal(weights[name], weights_b[name]) for name in weights)


@pytest.mark.parametrize("damage", ["one flipped bit", "missing"])
def test_a_run_resumes_from_the_checkpoint_before_and_ends_with_the_same_numbers(
    damage: str, run: Path, outputs: Path, capsys: pytest.CaptureFixture
) -> None:
    DAMAGE[damage](run / "last.ckpt")
    (run / "metrics.json").unlink()
    distill(f"resume={run}")
    state = "is missing" if damage == "missing" else "is damaged (set aside as last.ckpt.damaged)"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"last.ckpt {state}: resumed from previous.ckpt" in printed
    assert_same_outcome(run, outputs / "run")


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        distill(*words)
    return one_sentence(caught.value)


@pytest.mark.parametrize("version", ["this", "an earlier one"])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("config.yaml", damage) for damage in DAMAGE if damage != "missing"),
        ("environment.json", "empty"),
        ("best-student.ckpt", "one flipped bit"),
        ("best-student.ckpt", "missing"),
    ],
)
def test_a_damaged_run_is_not_resumed(name: str, damage: str, version: str, run: Path) -> None:
    if version != "this":
        (run / SUMS).unlink()
        if (name, damage) == ("config.yaml", "one flipped bit"):
            return  # nothing tells it from another setting
    DAMAGE[damage](run / name)
    assert f"{run / name} " in refusal(f"resume={run}")


def test_two_damaged_checkpoints_are_refused(run: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        DAMAGE["half"](run / name)
    assert "remove last.ckpt and previous.ckpt, and the run begins again" in refusal(
        f"resume={run}"
    )


def test_a_run_without_a_checkpoint_begins_again_and_says_so(
    run: Path, outputs: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (run / name).unlink()
    distill(f"resume={run}")
    printed = " ".join(capsys.readouterr().out.split())
    assert "has no checkpoint: the run begins with its first epoch" in printed
    assert_same_outcome(run, outputs / "run")


# The teacher of a run, and a run as a teacher


def teacher_of(outputs: Path, source: str | Path = "train") -> tuple[str, list[str]]:
    """The hash of the weights of the teacher that a new run finds, and what is said."""
    said: list[str] = []
    cfg = compose(*WORDS, f"outputs={outputs}", f"teacher.source={source}")
    teacher = sources.get_teacher(cfg, build_data(cfg), train=train_quietly, say=said.append)
    return teacher.sha256, said


@pytest.fixture(scope="module")
def kept(outputs: Path) -> str:
    return teacher_of(outputs)[0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("best-student.ckpt", "one flipped bit"),
        ("metrics.json", "empty"),
    ],
)
def test_a_damaged_teacher_is_set_aside_and_trained_again(
    name: str, damage: str, outputs: Path, kept: str, tmp_path: Path
) -> None:
    shutil.copytree(outputs / "teachers", tmp_path / "teachers")
    (teacher,) = tmp_path.glob("teachers/*/")
    DAMAGE[damage](teacher / name)
    found, said = teacher_of(tmp_path)
    assert found == kept
    aside = f"{teacher}.damaged"
    assert f"{teacher / name} is" in said[0]
    assert said[0].endswith(f"so it is set aside as {aside}")
    assert said[1] == f"teacher-mlp: trained now, kept in {teacher}"
    assert (Path(aside) / "last.ckpt").exists()
    assert teacher_of(tmp_path)[1] == [f"teacher-mlp: reused from {teacher}"]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name", ["config.yaml", "environment.json", "metrics.json", "best-student.ckpt"]
)
def test_a_damaged_run_is_no_teacher(name: str, damage: str, run: Path, outputs: Path) -> None:
    DAMAGE[damage](run / name)
    with pytest.raises(UserError) as caught:
        teacher_of(outputs, run)
    sentence = one_sentence(caught.value)
    assert name in sentence or (damage == "missing" and str(run) in sentence)


# A sweep


@pytest.fixture(scope="module")
def good_sweep(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs with the files of the run, as a sweep writes them, and its report."""
    sweep = tmp_path_factory.mktemp("sweeps") / "sweep"
    settings = {"name": "sweep", "jobs": 2, "title": "seeds", "command": [], "overrides": [],
                "pairs": [], "columns": None, "search": None, "launcher": {}}  # fmt: skip
    for number in range(2):
        job = shutil.copytree(outputs / "run", sweep / "jobs" / f"{number:04d}")
        create_job(job, JobSpec(number, "kd", {"seed": number}, [f"seed={number}"], "sweep"))
    write_kept(sweep, {"sweep.yaml": OmegaConf.to_yaml(OmegaConf.create(settings))})
    reports.write(reports.build([sweep]), sweep)
    return sweep


def numbers_of(sweep: Path) -> object:
    return read_settings(sweep), report(sweep)


def numbers_of_report(folder: Path) -> object:
    return report(folder)


OF_SWEEP = {
    "sweep.yaml",
    "jobs/0001/job.json",
    "jobs/0001/metrics.json",
    "jobs/0001/config.yaml",
    "jobs/0001/environment.json",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", sorted(OF_SWEEP))
def test_a_damaged_sweep(name: str, damage: str, good_sweep: Path, tmp_path: Path) -> None:
    sweep = shutil.copytree(good_sweep, tmp_path / "sweep")
    DAMAGE[damage](sweep / name)
    said, found = None, None
    try:
        settings, found = numbers_of(sweep)
    except UserError as error:
        said = one_sentence(error)
    if said is not None:
        assert name.rpartition("/")[2] in said
        return
    assert damage == "missing" or name.endswith("environment.json")  # which only notes need
    expected_settings, numbers = numbers_of(good_sweep)
    assert settings == expected_settings
    assert all(values in (numbers[0], {}) for values in found)  # a job that is not done has none
    if name == "jobs/0001/job.json":
        with pytest.raises(UserError, match="has 1 of its 2 jobs"):
            FixedJobs(sweep, 2)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["records.jsonl", "sweep.yaml"])
def test_a_damaged_report(name: str, damage: str, good_sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    reports.write(reports.build([good_sweep]), folder)
    assert report(folder) == report(good_sweep)
    DAMAGE[damage](folder / name)
    with pytest.raises(UserError) as caught:
        report(folder)
    assert name in one_sentence(caught.value)
