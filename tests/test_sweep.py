"""What a sweep refuses before it writes anything. tests/sweeps/test_engine.py runs real sweeps."""

import shlex
from pathlib import Path

import pytest
from rich.console import Console

from kd_lightning import distill
from kd_lightning.base.allowed import ANYTHING
from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import jobs_of
from kd_lightning.run import sweep_requested
from kd_lightning.sweep import sweep
from kd_lightning.sweeps import create, engine, sweep_file


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.temprature=1,2"], "did you mean method.temperature"),
        (["launcher.workers=0", "seed=0,1"], "launcher.workers must be >= 1 or null, got 0"),
        (["launcher.wrokers=1"], "did you mean launcher.workers"),
        (["launcher=slrum"], "unknown launcher 'slrum': did you mean slurm"),
        (["sweep=seed"], "unknown sweep 'seed': did you mean seeds"),
        (["sweep.workers=2"], "unknown key 'sweep.workers'"),
        (["hydra/launcher=joblib"], "has no effect on a sweep: choose sweep=…, launcher=…"),
        (["sweep=search", "sampler@sweep.search.sampler=tpr"], "unknown sampler 'tpr'"),
        (["sweep=search", "sweep.search.trials=x"], "sweep.search.trials must be a whole number"),
        (["sweep=search", "sampler@sweep.search.sampler=grid"], "a grid needs choices or a step"),
        (["run_dir=x", "seed=0,1"], "run_dir=… is for one run"),
        (["sweep=search", "seed=0,1"], "seed varies, and a search chooses its jobs itself"),
        (
            ["sweep=dual_variants", "method.peer_weight=1"],
            "would replace a setting of the variant 'labels",
        ),
        (["sweep.columns=[test/a/acc]", "seed=0,1"], "unknown column 'test/a/acc'"),
        (
            ["sweep.pairs=[[kd,x]]", "method.temperature=1,2", "seed=0,1"],
            r"unknown row in a pair 'kd': expected one of method.temperature=1, "
            r"method.temperature=2 \(",
        ),
    ],
)
def test_a_user_error_is_one_sentence(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        sweep(*words, f"outputs={tmp_path}/o")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_under_torchrun_a_sweep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="start it without torchrun or srun"):
        sweep("seed=0,1")


def test_a_sweep_is_resumed_with_what_all_its_jobs_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_nets.py").write_text("class Late: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    known = "lightning.pytorch.callbacks.EarlyStopping"
    words = ["method=supervised", f"+callbacks.x._target_={known},own_nets.Late"]
    words += [f"sweep.dir={tmp_path}/my sweep"]
    directory = create.create_sweep(words, None, Console(quiet=True))
    assert len(jobs_of(directory)) == 2
    settings = engine.read_settings(directory)
    assert settings["needs"] == ["own_nets"]
    command = engine.resume_command(directory, settings, (ANYTHING,))
    assert shlex.split(command)[-3:] == [str(directory), "--resume", "allow=[own_nets]"]
    for allow in (["own_nets"], ["own_nets.Late"], [ANYTHING]):
        sweep_file.check_needs(directory, allow)
    with pytest.raises(UserError, match=r"call functions of own_nets, .* \(allow=\[other,own_nets"):
        sweep_file.check_needs(directory, ["other"])


def test_the_directory_of_another_sweep_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s" / "jobs" / "0000").mkdir(parents=True)
    (tmp_path / "s" / "jobs" / "0000" / "progress.json").write_text("{}")
    with pytest.raises(UserError, match="holds jobs of a sweep: choose another"):
        sweep("seed=0,1", f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}")
    (tmp_path / "s" / "sweep.yaml").write_text("")
    with pytest.raises(UserError, match=r"holds a sweep already: resume it by .* --resume"):
        sweep("seed=0,1", f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}")


def test_a_sweep_that_was_killed_while_it_was_created_is_created_again(tmp_path: Path) -> None:
    words = (f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}")
    directory = create.create_sweep(["seed=0,1,2", *words], None, Console(quiet=True))
    (directory / "sweep.yaml").unlink()  # killed just before the end
    assert create.create_sweep(["seed=5,6", *words], None, Console(quiet=True)) == directory
    assert [job.spec.axes for job in jobs_of(directory)] == [{"seed": 5}, {"seed": 6}]
    (directory / "jobs" / "0000" / "job.json").unlink()
    with pytest.raises(UserError, match="has 1 of its 2 jobs"):
        engine.FixedJobs(directory, engine.read_settings(directory)["jobs"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=0"], None),
        (["-m", "seed=0,1"], (["seed=0,1"], None)),
        (["seed=0,1", "--multirun", "--config-dir", "own"], (["seed=0,1"], "own")),
        (["-m", "-cd=own"], ([], "own")),
        (["-m", "--help"], None),
        (["-m", "--cfg", "job"], None),
    ],
)
def test_which_command_lines_are_sweeps(words: list[str], expected) -> None:
    assert sweep_requested(words) == expected


def test_other_options_of_hydra_are_refused_for_a_sweep() -> None:
    with pytest.raises(UserError, match="--config-name=x does not go with -m"):
        sweep_requested(["-m", "--config-name=x"])


@pytest.mark.parametrize("word", ["launcher=slurm", "sweep=seeds", "sweep.dir=x"])
def test_a_single_run_takes_no_words_of_a_sweep(word: str) -> None:
    with pytest.raises(UserError, match=f"{word} is for a sweep: add -m"):
        distill(word)
