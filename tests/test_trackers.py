"""Weights & Biases, with its real client and without a network."""

from pathlib import Path

import pytest
import wandb
from helpers import TINY

from kd_lightning.run import distill
from kd_lightning.trackers import has_key, wandb_logger


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)


def test_without_a_key_it_is_offline_and_says_how_to_upload(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    logger = wandb_logger(save_dir=tmp_path / "a run", project="p")
    assert logger._wandb_init["mode"] == "offline"
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("wandb: no key found, so this run is written offline")
    assert f"'wandb sync {tmp_path}/a run/wandb/offline-run-*'" in sentence


@pytest.mark.parametrize(
    ("environment", "mode", "stated"),
    [
        ({"WANDB_API_KEY": "0" * 40}, None, None),
        ({"WANDB_MODE": "disabled"}, None, None),  # wandb reads it itself
        ({}, "online", "online"),
        ({}, "disabled", "disabled"),
        ({"WANDB_API_KEY": "0" * 40}, "offline", "offline"),
    ],
)
def test_a_key_or_a_stated_mode_is_obeyed_in_silence(
    environment, mode, stated, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logger = wandb_logger(save_dir=tmp_path, project="p", mode=mode)
    assert logger._wandb_init.get("mode") == stated
    assert capsys.readouterr().err == ""


def test_a_key_is_found_where_login_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 123\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()  # that of another server
    (tmp_path / "netrc").write_text("machine\n")
    assert not has_key()


def test_a_run_is_named_after_its_directory_and_knows_its_configuration(tmp_path: Path) -> None:
    logger = wandb_logger(
        save_dir=tmp_path / "2026_kd", project="p", mode="offline", tags=["x"], config={"seed": 3}
    )
    init = logger._wandb_init
    assert (init["name"], init["project"], init["tags"]) == ("2026_kd", "p", ["x"])
    assert init["config"] == {"seed": 3}
    named = wandb_logger(save_dir=tmp_path, project="p", name="mine", mode="offline")
    assert named._wandb_init["name"] == "mine"


@pytest.mark.slow
def test_every_run_of_a_process_is_a_wandb_run_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = [o for o in TINY if not o.startswith(("teacher.", "logger"))]
    written = []
    for seed in (0, 1):
        run = distill("method=supervised", *base, "logger=wandb", f"seed={seed}",
                      f"outputs={tmp_path}")  # fmt: skip
        assert wandb.run is None
        (log,) = run.directory.glob("wandb/offline-run-*/run-*.wandb")
        written.append(log.read_bytes())
    assert capsys.readouterr().err.count("wandb: no key found") == 2
    for content in written:
        assert b"train/student/hard" in content
        assert b"val/student/accuracy" in content
        assert b"kd_lightning.methods.supervised.Supervised" in content  # of the configuration
