"""A run directory, a sweep or a file that somebody else made: none of it decides what is called."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import TINY

import kd_lightning
from kd_lightning import distill, evaluate, export, predict, report, sweep, work
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import SUMS, write_kept
from kd_lightning.config.user_messages import user_message
from kd_lightning.records.jobs import Job, JobSpec, create_job

QUICK = [word for word in TINY if not word.startswith("teacher.")]
QUICK += ["method=supervised", "trainer.max_epochs=1", "threads=1"]
EVIL = {"_target_": "evil.run", "file": "x"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a person."""
    place = tmp_path_factory.mktemp("made")
    return distill(*QUICK, f"outputs={place}", f"run_dir={place / 'run'}").directory


@pytest.fixture
def run(made: Path, tmp_path: Path, evil: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def edit(run: Path, key: str, value: object) -> None:
    """Changes a key in a run's ``config.yaml``, and its checksum, as somebody else can."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    *sections, last = key.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[last] = value
    write_kept(run, {"config.yaml": yaml.safe_dump(config)})


def without_files(run: Path) -> Path:
    """The run as a version that wrote no student files left it."""
    shutil.rmtree(run / "students")
    return run


def exported(run: Path) -> None:
    export.export(export.build_parser().parse_args([str(run), "--out", str(run / "new")]), ["onnx"])


def evaluated(run: Path) -> None:
    evaluate.evaluate(evaluate.build_parser().parse_args([str(run)]))


def predicted(run: Path) -> None:
    predict.predict(predict.build_parser().parse_args([str(without_files(run)), str(run)]))


def as_teacher(run: Path) -> None:
    distill(*TINY, "method=kd", f"teacher.source={run}", f"outputs={run}")


STUDENT = "method.students.student"
DOORS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "resume": ("optimizer", lambda run: distill(f"resume={run}")),
    "resume, of its teacher": ("teacher.method", lambda run: distill(f"resume={run}")),
    "resume, nested": ("data.augmentation", lambda run: distill(f"resume={run}")),
    "teacher.source": (STUDENT, as_teacher),
    "evaluate": ("data", evaluated),
    "export": ("data", exported),
    "load": (STUDENT, lambda run: kd_lightning.load(without_files(run))),
    "predict": (STUDENT, predicted),
    "export, of an older version": (STUDENT, lambda run: exported(without_files(run))),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_run_names_only_constructors_of_its_kinds(door: str, run: Path, evil: Path) -> None:
    key, use = DOORS[door]
    edit(run, key, EVIL)
    with pytest.raises(UserError, match=rf"{key}\S*_target_ in .* asks to call evil.run") as info:
        use(run)
    assert user_message(info.value).count("\n") == 0
    assert not evil.exists()


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("predict", "load")])
def test_a_run_reads_no_variable_of_its_reader(door: str, run: Path) -> None:
    key, use = DOORS[door]
    edit(run, key, {"x": "${oc.env:HOME}"})
    with pytest.raises(UserError, match=r"must hold values alone, got .*oc.env:HOME"):
        use(run)


def test_a_report_reads_a_run_and_calls_nothing(run: Path, evil: Path, tmp_path: Path) -> None:
    edit(run, "optimizer", EVIL)
    edit(run, "title", "of somebody")
    report.main([str(run), "--html", str(tmp_path / "page.html")])
    assert "of somebody" in (tmp_path / "page.html").read_text()
    assert not evil.exists()


def test_what_a_run_allows_itself_is_not_allowed(run: Path, evil: Path) -> None:
    edit(run, "optimizer", EVIL)
    edit(run, "allow", ["evil"])
    with pytest.raises(UserError, match=r"asks to call evil.run"):
        distill(f"resume={run}")
    assert not evil.exists()


def test_words_that_are_typed_now_call_no_function_of_python(tmp_path: Path) -> None:
    for word in ("optimizer._target_=builtins.open", "+callbacks.x._target_=os.getcwd"):
        with pytest.raises(UserError, match=r"_target_ must name a constructor of a package, got"):
            distill(*TINY, f"outputs={tmp_path}", word)
    assert not list(tmp_path.iterdir())


# Sweeps


def received_sweep(folder: Path, **settings: object) -> Path:
    """A sweep's directory as somebody may send it."""
    local = {"_target_": "kd_lightning.launchers.local.Local", "workers": 1, "warm": True}
    content = {"name": "s", "jobs": 0, "config_dir": None, "folder": str(folder), "overrides": [],
               "search": None, "launcher": local}  # fmt: skip
    (folder / "jobs").mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content | settings))
    return folder


def resume_sweep(directory: Path, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sweep", str(directory), "--resume", *words])
        sweep.main()


SLURM = "kd_lightning.launchers.slurm.Slurm"
NOP = {"_target_": "optuna.pruners.NopPruner"}


@pytest.mark.parametrize(
    "settings",
    [
        {"launcher": EVIL},
        {"launcher": {"_target_": SLURM, "timeout_min": 1, "setup": ["touch x"]}},
        {"launcher": {"_target_": "kd_lightning.launchers.ray.Ray", "address": "1.2.3.4:5"}},
        {"search": {"sampler": EVIL, "pruner": NOP}},
        {"search": {"sampler": NOP, "pruner": EVIL}},
    ],
    ids=["launcher", "slurm", "ray", "sampler", "pruner"],
)
def test_a_sweep_names_only_what_computes(
    settings: dict, evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    directory = received_sweep(tmp_path / "sweep", **settings)
    with pytest.raises(SystemExit):
        resume_sweep(directory)
    assert "asks to call" in capsys.readouterr().err
    assert not evil.exists()


def test_the_trials_of_a_search_are_checked_before_they_start(
    evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    search = {"trials": 1, "seed": 0, "space": {"seed": {"choices": [0]}}, "storage": None,
              "sampler": {"_target_": "optuna.samplers.RandomSampler"}, "pruner": NOP}  # fmt: skip
    words = ["+callbacks.x._target_=evil.run"]
    directory = received_sweep(tmp_path / "sweep", search=search, overrides=words)
    with pytest.raises(SystemExit):
        resume_sweep(directory)
    assert "callbacks.x._target_ in " in capsys.readouterr().err
    assert not evil.exists()


def test_a_search_that_is_shown_imports_nothing(evil: Path, tmp_path: Path, capsys) -> None:
    search = {"trials": 7, "seed": 0, "space": {"seed": {"choices": [0]}}, "storage": None,
              "sampler": EVIL, "pruner": NOP}  # fmt: skip
    directory = received_sweep(tmp_path / "sweep", search=search, jobs=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sweep", str(directory)])
        sweep.main()
    assert "0 of 7 done" in capsys.readouterr().out
    assert not evil.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["optimizer._target_=evil.run"], "asks to call evil.run"),
        (["model@method.students.student=hidden"], "asks to call evil.run"),
        (["allow=[evil]", "optimizer._target_=evil.run"], "asks to call evil.run"),
        (["title=${oc.env:HOME}"], "must only refer to its own keys"),
        (["hydra.searchpath=[pkg://evil]"], "must not set Hydra's own options"),
        (["+hydra.job.chdir=true"], "must not set Hydra's own options"),
    ],
)
def test_a_job_names_only_what_computes(
    words: list[str], sentence: str, evil: Path, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "hidden.yaml").write_text("_target_: evil.run\n")
    spec = JobSpec(0, "v", {}, [*QUICK, *words], config_dir=str(tmp_path / "conf"))
    job = create_job(tmp_path / "job", spec)
    with pytest.raises(UserError, match=sentence):
        work.run_job(job)
    assert not evil.exists()
    assert {path.name for path in job.directory.iterdir()} == {"job.json", SUMS}


def test_the_pruner_of_a_job_is_checked(evil: Path, tmp_path: Path) -> None:
    job = create_job(tmp_path / "job", JobSpec(0, "v", {}, QUICK, search={"pruner": EVIL}))
    with pytest.raises(UserError, match=r"pruner._target_ in .*job.json asks to call evil.run"):
        work.run_job(job)


def test_a_job_hands_on_what_is_allowed_now(tmp_path: Path) -> None:
    job = Job(tmp_path, allow=("my_nets", "other"))
    arguments = work.build_parser().parse_args(job.command()[3:])
    assert (arguments.directory, arguments.allow) == (tmp_path.resolve(), ["my_nets", "other"])
    assert Job(tmp_path) == job
    assert "--allow" not in Job(tmp_path).command()
