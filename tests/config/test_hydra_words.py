"""What happens to each of Hydra's own words on the command line of a run."""

from contextlib import suppress
from pathlib import Path

import pytest
from helpers import TINY

from kd_lightning import distill, run
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import check_one_run

REFUSED = {
    "hydra.run.dir=x": "hydra.run.dir has no effect on a run: .* run_dir=…",
    "++hydra.run.dir=x": "hydra.run.dir has no effect on a run: .* run_dir=…",
    "hydra.sweep.dir=x": "hydra.sweep.dir has no effect .* sweep.dir=…",
    "hydra.sweep.subdir=x": "sweep.dir=…",
    "hydra.job.name=x": "hydra.job.name has no effect .* title=…",
    "hydra.job.chdir=true": "hydra.job.chdir has no effect .* the folder where it is started",
    "hydra.job.env_set.A=1": "hydra.job.env_set.A has no effect .* in your shell",
    "hydra.output_subdir=x": "hydra.output_subdir has no effect .* config.yaml in the run's",
    "hydra/job_logging=default": "hydra/job_logging has no effect on a run: leave it out",
    "hydra/hydra_logging=default": "hydra/hydra_logging has no effect on a run: leave it out",
    "hydra.job_logging.root.level=DEBUG": "has no effect on a run: leave it out",
    "hydra.verbose=true": "has no effect on a run: leave it out",
    "hydra/launcher=joblib": r"hydra/launcher has no effect .* launcher=… \(and -m\)",
    "hydra.launcher.n_jobs=2": "launcher.…=…",
    "hydra/sweeper=optuna": r"hydra/sweeper has no effect .* sweep=… \(and -m\)",
    "hydra.sweeper.n_trials=2": "sweep.…=…",
    "hydra.mode=MULTIRUN": "hydra.mode has no effect on a run: add -m for a sweep",
    "~hydra.run": "hydra.run has no effect",
    "--config-name=mine": "a run does not take --config-name: .* --config-dir",
    "--config-n": "a run does not take --config-name",
    "-cn": "a run does not take --config-name",
    "-cnmine": "a run does not take --config-name",
    "--config-path=mine": "a run does not take --config-path: .* --config-dir",
    "-cp": "a run does not take --config-path",
    "--experimental-rerun=x.pickle": "a run does not take --experimental-rerun: .* resume=…",
    "--exp": "a run does not take --experimental-rerun",
    "--resolve": "--resolve has no effect without --cfg job",
    "--package=data": "--package has no effect without --cfg job",
    "-p": "-p has no effect without --cfg job",
}
TAKEN = (
    ["--cfg", "job"], ["--cfg=job", "--resolve"], ["-c", "job", "--package=data"], ["--info"],
    ["--hydra-help"], ["--help"], ["--version"], ["--run"], ["--config-dir", "mine"],
    ["--config-dir=mine"], ["-cd", "mine"], ["hydra.searchpath=[file:///mine]"],
    ["--shell-completion"], ["title=hydra.run.dir"],
)  # fmt: skip


@pytest.mark.parametrize("word", REFUSED)
def test_a_word_without_its_effect_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=REFUSED[word]):
        check_one_run(["seed=1", word])


@pytest.mark.parametrize("words", TAKEN, ids=" ".join)
def test_a_word_with_its_effect_is_taken(words: list[str]) -> None:
    check_one_run(["seed=1", *words])


def test_the_other_processes_of_a_run_are_started_with_such_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_one_run(
        ["hydra.run.dir=.", "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    )


@pytest.mark.parametrize("word", ["hydra.run.dir=x", "--config-name=x", "--experimental-rerun=x"])
def test_a_refused_word_leaves_no_folder(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run", word, *TINY])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith("Error: ")
    assert not list(tmp_path.iterdir())


def test_python_refuses_the_same_words() -> None:
    with pytest.raises(UserError, match=r"hydra.run.dir has no effect on a run"):
        distill("hydra.run.dir=x", *TINY)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--cfg", "job", "--package", "data", *TINY], "num_train: 96"),
        (["--cfg", "job", "--resolve", "seed=3"], "seed: 3"),
        (["--hydra-help"], "See https://hydra.cc"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_what_only_shows_something_shows_it(
    words: list[str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run", *words])
    with suppress(SystemExit):
        run.main()
    out, error = capsys.readouterr()
    assert shown in out
    assert "Error" not in error
    assert not list(tmp_path.iterdir())
