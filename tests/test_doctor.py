"""python -m kd_lightning.doctor: what is installed, what is missing, how long a step takes."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from kd_lightning import doctor
from kd_lightning.config.command_line import CONF
from kd_lightning.running import installation


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    doctor.main(words)
    return capsys.readouterr().out


def test_it_shows_versions_extras_and_the_machine(capsys, tmp_path: Path) -> None:
    text = shown(capsys, "--no-steps", "--outputs", str(tmp_path / "later"))
    for word in ("torch", "hydra-core", "[ucr]", "[jpeg]", "CPU", "free for", "GPU"):
        assert word in text
    assert "missing" not in text.partition("Extras")[0]
    assert not (tmp_path / "later").exists()


@pytest.mark.slow
def test_it_times_a_step_of_every_method(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "STEPS", 2)
    text = shown(capsys)
    for path in (CONF / "method").glob("[!_]*.yaml"):
        assert re.search(rf"^  {path.stem} +\d+\.\d ms a step \(64 images of 8 px\)$", text, re.M)


@pytest.mark.parametrize(
    ("requirement", "state", "advice"),
    [
        ("pytest>=7", r"\d", ""),
        ("pytest<2", r"\d.*, expected <2", 'pip install "kd_lightning[x]"'),
        ("no-such-package", "missing", 'pip install "kd_lightning[x]"'),
    ],
)
def test_a_package_that_does_not_fit_comes_with_the_command(requirement, state, advice) -> None:
    found = installation.package(Requirement(requirement), "kd_lightning[x]")
    assert re.match(state, found.state)
    assert found.advice == advice


def test_what_every_run_needs_and_is_missing_ends_with_exit_code_1(capsys, monkeypatch) -> None:
    monkeypatch.setattr(installation, "requirements", lambda: [Requirement("no-such-package>=1")])
    with pytest.raises(SystemExit) as stopped:
        doctor.main(["--no-steps"])
    assert stopped.value.code == 1
    assert '-> pip install "kd_lightning"' in capsys.readouterr().out


def test_a_missing_extra_is_only_named(capsys, monkeypatch) -> None:
    missing = Requirement("no-such-package>=1; extra == 'odd'")
    monkeypatch.setattr(installation, "requirements", lambda: [missing])
    text = shown(capsys, "--no-steps")
    assert re.search(r"\[odd\] +no-such-package missing\n +-> pip install .*\[odd\]", text)


def test_compiled_steps_on_a_cpu_need_a_compiler(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    states = {finding.name: finding for finding in installation.machine(tmp_path)}
    assert states["hardware.compile"].state == "no C++ compiler"


def test_an_installation_that_is_older_than_its_source_is_said(monkeypatch) -> None:
    monkeypatch.setattr(installation, "requirements", lambda: [Requirement("a; extra == 'ucr'")])
    found = {finding.name: finding for finding in installation.packages()}["installation"]
    assert "older than its source" in found.state
    assert "export" in found.state
    assert "ucr" not in found.state
    assert found.advice == "pip install -e ."


def test_each_gpu_is_advised_by_what_it_can_do(monkeypatch) -> None:
    capabilities = {0: (9, 0), 1: (7, 5)}

    def properties(index: int) -> SimpleNamespace:
        major, minor = capabilities[index]
        return SimpleNamespace(name="GPU", total_memory=10**9, major=major, minor=minor)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capabilities[device.index]
    )
    first, second = (str(finding) for finding in installation.gpus())
    assert "hardware.precision=bf16-mixed" in first
    assert "hardware.precision=16-mixed" in second
