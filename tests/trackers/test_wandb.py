"""Weights & Biases, with its real client and without a network: its files are read back."""

import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from forked_runs import command_line, run_on_two_ranks
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from written_runs import read_all_wandb, read_wandb

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF, compose
from kd_lightning.config.schema import check_configuration
from kd_lightning.records import jobs
from kd_lightning.running import run
from kd_lightning.trackers.run_info import RunInfo, load_value
from kd_lightning.trackers.wandb import has_key, wandb_logger


def test_without_a_key_it_is_offline_and_says_how_to_upload(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a run").mkdir()
    logger = wandb_logger(save_dir=tmp_path / "a run", project="p")
    assert logger._wandb_init["mode"] == "offline"
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("wandb: no key found, so this run is written offline")
    assert f"'wandb sync {tmp_path}/a run/wandb/offline-run-*'" in sentence


@pytest.mark.parametrize(
    ("environment", "mode", "expected"),
    [
        ({"WANDB_API_KEY": "0" * 40}, None, None),
        ({"WANDB_MODE": "disabled"}, None, None),  # wandb reads it itself
        ({}, "online", "online"),
        ({}, "disabled", "disabled"),
        ({"WANDB_API_KEY": "0" * 40}, "offline", "offline"),
    ],
)
def test_a_key_or_an_explicit_mode_is_used_without_a_message(
    environment, mode, expected, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logger = wandb_logger(save_dir=tmp_path, project="p", mode=mode)
    assert logger._wandb_init.get("mode") == expected
    assert capsys.readouterr().err == ""


def test_the_key_of_wandb_login_is_found(home: Path, monkeypatch) -> None:
    netrc = home / "netrc"
    assert not has_key()
    login = "import wandb; wandb.login(key='0' * 40, verify=False)"
    subprocess.run([sys.executable, "-c", login], check=True)
    assert "password 000" in netrc.read_text()
    assert has_key()
    netrc.write_text("machine api.wandb.ai\n  login user\n  password 123\n")  # of an older wandb
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()  # the key is for another server
    monkeypatch.setenv("WANDB_BASE_URL", "http://wb:8080")
    netrc.write_text("machine wb:8080\n  login user\n  password 123\n")
    assert has_key()
    netrc.write_text("machine\n")
    assert not has_key()


def test_explicit_settings_win_over_the_run_info(tmp_path: Path) -> None:
    run_info = RunInfo("seed=1", "a sweep", "kd", ("digits",))
    explicit = {"name": "mine", "group": "ours", "job_type": "test", "tags": ["x", "digits"]}
    for settings, expected in (
        ({}, ["seed=1", "a sweep", "kd", ["digits"]]),
        (explicit, ["mine", "ours", "test", ["x", "digits"]]),
    ):
        directory = tmp_path / str(len(settings))
        directory.mkdir()
        logger = wandb_logger(
            save_dir=directory, project="p", mode="offline", run_info=run_info, **settings
        )
        init = logger._wandb_init
        assert [init[key] for key in ("name", "group", "job_type", "tags")] == expected
        assert init["settings"] == {"finish_timeout": 600.0}


def test_the_id_is_stored_and_the_id_of_an_agent_wins(tmp_path: Path, monkeypatch) -> None:
    first = wandb_logger(save_dir=tmp_path, project="p", mode="offline")
    again = wandb_logger(save_dir=tmp_path, project="p", mode="offline", run_info=RunInfo("resume"))
    assert again.version == first.version
    assert again._wandb_init["name"] == tmp_path.name
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-agent")
    assert wandb_logger(save_dir=tmp_path, project="p", mode="offline").version == "of-the-agent"
    assert load_value(tmp_path, "wandb") == "of-the-agent"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"project": "a/b"}, r"^logger.wandb: Invalid project name 'a/b'"),
        ({"project": "p", "tags": ["x" * 65]}, r"^logger.wandb: Tag .* is 65 characters[^\n\[]*$"),
    ],
)
def test_settings_that_wandb_refuses_are_one_sentence(settings, message, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        wandb_logger(save_dir=tmp_path, mode="offline", **settings)


# Whole runs


@pytest.mark.slow
def test_every_run_of_a_process_is_its_own_wandb_run_and_is_logged_completely(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ids = set()
    for seed in (0, 1):
        result = distill(*small, "logger=wandb", "logger.wandb.tags=[mine]", f"seed={seed}",
                         f"outputs={tmp_path}")  # fmt: skip
        assert wandb.run is None
        written = read_wandb(result.directory)
        about = written.about
        ids.add(about.run_id)
        overrides = [o for o in small if not o.startswith(("logger", "callbacks"))]
        assert about.display_name == " ".join([*overrides, f"seed={seed}"])
        assert (about.run_group, about.job_type) == ("", "supervised")
        assert list(about.tags) == ["mine", "synthetic"]
        assert about.project == "kd_lightning"
        saved = OmegaConf.to_container(OmegaConf.load(result.directory / "config.yaml"))
        assert {k: v for k, v in written.config.items() if not k.startswith("_wandb")} == saved
        tested = result.metrics["nets"]["student"]["test"]["accuracy"]
        assert written.summary["test/student/accuracy"] == tested
        assert written.history[-1]["test/student/accuracy"] == tested
        steps = {row["trainer/global_step"] for row in written.history}
        assert steps == {2, 4, 6, 8, 9, 10}
        files = ["calibration.json", "config.yaml", "metrics.json", "table.csv", "table.md"]
        assert written.artifacts == {f"results-{about.run_id}": files}
        assert written.exit_code == 0
    assert len(ids) == 2
    assert capsys.readouterr().err.count("wandb: no key found") == 2


@pytest.mark.slow
def test_plots_are_stored_with_the_table(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/heatmap.png").write_bytes(b"a picture")
    result = distill(*small, "logger=wandb", f"run_dir={tmp_path}/run")
    ((files),) = read_wandb(result.directory).artifacts.values()
    assert "heatmap.png" in files


@pytest.mark.slow
def test_a_job_is_grouped_by_its_sweep_and_named_by_what_varies(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"optimizer.lr": 0.01, "seed": 1}
    overrides = [*small, "logger=wandb", "optimizer.lr=0.01", "seed=1"]
    job = jobs.create_job(
        tmp_path / "jobs/0000", jobs.JobSpec(0, "optimizer.lr=0.01", axes, overrides, "a sweep")
    )
    monkeypatch.setenv(jobs.JOB_VARIABLE, str(job.directory))
    distill(*overrides, f"run_dir={job.directory}")
    about = read_wandb(job.directory).about
    assert about.display_name == "optimizer.lr=0.01 seed=1"
    assert about.run_group == "a sweep"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("a bug"), 1), (KeyboardInterrupt(), 130)]
)
def test_a_run_that_fails_after_the_fit_has_an_exit_code(
    error: BaseException, code: int, small: list[str], tmp_path: Path, monkeypatch
) -> None:
    def test_run(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "test_run", test_run)
    with pytest.raises(type(error)):
        distill(*small, "logger=wandb", f"run_dir={tmp_path}/run")
    written = read_wandb(tmp_path / "run")
    assert written.exit_code == code
    assert "val/student/accuracy" in written.names
    assert wandb.run is None


@pytest.mark.slow
def test_a_run_that_diverges_has_an_exit_code(small: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        distill(*small, "logger=wandb", "optimizer.lr=1e12", f"run_dir={tmp_path}/run")
    assert read_wandb(tmp_path / "run").exit_code == 1


@pytest.mark.slow
def test_a_resumed_run_keeps_its_id_and_name(small: list[str], tmp_path: Path) -> None:
    first = distill(*small, "logger=wandb", f"outputs={tmp_path}")
    distill(f"resume={first.directory}", "trainer.max_epochs=3")
    written = read_all_wandb(first.directory)
    assert len(written) == 2
    assert len({run.about.run_id for run in written}) == 1
    assert len({run.about.display_name for run in written}) == 1
    assert max(row["trainer/global_step"] for row in written[1].history) == 15


@pytest.mark.slow
def test_two_processes_are_one_run_in_every_tracker(small: list[str], tmp_path: Path) -> None:
    """Here started as torchrun does it, in tests/test_ddp.py by Lightning."""
    words = [*small, "hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2",
             "logger=[csv,wandb]", f"outputs={tmp_path}/outputs"]  # fmt: skip
    printed = run_on_two_ranks(tmp_path, *words)
    (directory,) = (tmp_path / "outputs").iterdir()
    written = read_wandb(directory)
    assert written.exit_code == 0
    assert "test/student/accuracy" in written.names
    assert len(list(directory.glob("csv/*"))) == 1
    assert printed.count("wandb: no key found") == 1


# Sweeps of W&B itself


def overrides_of_an_agent() -> list[str]:
    """The overrides that an agent passes for the first value of each parameter."""
    parameters = OmegaConf.to_container(OmegaConf.load(CONF / "wandb_sweep.yaml").parameters)
    values = {}
    for key, parameter in parameters.items():
        kinds = ("value", "values", "min")
        (value,) = [parameter[kind] for kind in kinds if kind in parameter]
        values[key] = {"value": value[0] if isinstance(value, list) else value}
    return create_sweep_command_args({"args": values})["args_no_hyphens"]


def test_a_sweep_of_wandb_runs_the_same_command() -> None:
    sweep = OmegaConf.to_container(OmegaConf.load(CONF / "wandb_sweep.yaml"))
    words = ["${env}", "python", "-m", "${program}", "logger=wandb", "${args_no_hyphens}"]
    assert sweep["command"] == words
    assert sweep["program"] == "kd_lightning.run"
    assert sweep["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    cfg = compose(["logger=wandb", *overrides_of_an_agent()])
    check_configuration(cfg)
    assert cfg.method.temperature == sweep["parameters"]["method.temperature"]["min"]
    assert cfg.logger.wandb.project == sweep["project"]
    assert instantiate(cfg.logger.wandb, _partial_=True).func is wandb_logger


@pytest.mark.slow
def test_a_run_of_an_agent_has_its_id_and_sweep(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.check=warn",
             "callbacks=quiet", f"outputs={tmp_path}"]  # fmt: skip
    agent = {"WANDB_RUN_ID": "of-the-agent", "WANDB_SWEEP_ID": "of-the-sweep"}
    words = ["logger=wandb", *overrides_of_an_agent(), *short]
    done = command_line(tmp_path, *words, **agent)
    assert done.returncode == 0, done.stderr[-2000:]
    (directory,) = tmp_path.glob("2*")
    written = read_wandb(directory)
    assert (written.about.run_id, written.about.sweep_id) == ("of-the-agent", "of-the-sweep")
    assert "val/accuracy" in written.names
