"""``hardware.deterministic``: what it sets, what it refuses, and that all methods can train so."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import METHODS, compose, of_method
from methods.test_contract import built, gradients
from omegaconf import OmegaConf
from torch import nn

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.precision import allow_tf32
from kd_lightning.models.classifier import Classifier
from kd_lightning.records.resumed_config import load_resumed_config
from kd_lightning.running.determinism import (
    FIXED_WORKSPACES,
    WORKSPACE,
    describe_arithmetic,
    use_determinism,
)
from kd_lightning.running.trainer import bare_trainer, trainer_settings

ON = "hardware.deterministic=true"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of this process are its own again after each test."""
    monkeypatch.setenv(WORKSPACE, "")
    monkeypatch.delenv(WORKSPACE)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def test_a_deterministic_run_is_recorded_and_the_next_one_is_free_again(tiny: list[str]) -> None:
    run = distill("method=supervised", *of_method("supervised", tiny), ON, "trainer.max_epochs=1")
    record = json.loads((run.directory / "environment.json").read_text())
    assert record["arithmetic"] == {"deterministic": True, "tf32": False}
    bare_trainer(compose("data=synthetic", "hardware=cpu"), logger=False)
    assert not describe_arithmetic()["deterministic"]


def test_a_resumed_deterministic_run_does_not_ask_a_gpu_for_its_precision(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = distill("method=supervised", *of_method("supervised", tiny), ON, "trainer.max_epochs=1")
    asked = []

    def usual(accelerator: str, deterministic: bool = False) -> int:
        asked.append((accelerator, deterministic))
        return 32

    monkeypatch.setattr("kd_lightning.base.precision.usual_precision", usual)
    again = distill(f"resume={run.directory}", "trainer.max_epochs=2")
    assert again.metrics["epochs"] == 2
    assert asked
    assert all(deterministic for _, deterministic in asked)


@pytest.mark.parametrize(("deterministic", "tf32"), [(False, True), (True, False)])
def test_a_gpu_rounds_to_tf32_unless_it_is_deterministic(
    deterministic: bool, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # by another test, on a GPU
    allow_tf32(not tf32)
    use_determinism(compose(f"hardware.deterministic={deterministic}"), on_gpu=True)
    assert describe_arithmetic()["tf32"] == tf32
    assert torch.backends.cuda.matmul.allow_tf32 == tf32
    assert (WORKSPACE in os.environ) == deterministic


def test_cudnn_measures_algorithms_on_a_gpu_unless_a_run_says_otherwise() -> None:
    def benchmark(*words: str, on_gpu: bool = True) -> bool | None:
        return trainer_settings(compose(*words), on_gpu).get("benchmark")

    assert benchmark() is True
    assert benchmark("+trainer.benchmark=false") is False
    assert benchmark(ON) is None
    assert benchmark(on_gpu=False) is None


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_cpu_never_rounds_to_tf32(deterministic: bool) -> None:
    allow_tf32(True)
    use_determinism(compose(f"hardware.deterministic={deterministic}"), on_gpu=False)
    assert not describe_arithmetic()["tf32"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_cudnn_measures_no_algorithms_in_a_deterministic_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    bare_trainer(compose("data=synthetic", "hardware=cpu", ON), logger=False)
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    "word", ["hardware.compile=true", "hardware.compile_teacher=true", "+trainer.benchmark=true"]
)
def test_what_is_chosen_by_timing_is_refused(word: str) -> None:
    key = word.strip("+").split("=")[0]
    with pytest.raises(UserError, match=f"^hardware.deterministic=true does not support {key}=tru"):
        bare_trainer(compose("data=synthetic", "hardware=cpu", ON, word), logger=False)


def test_lightnings_own_key_is_not_taken(tiny: list[str]) -> None:
    with pytest.raises(UserError, match=r"trainer\.deterministic"):
        distill("method=supervised", *of_method("supervised", tiny), "+trainer.deterministic=true")


@pytest.mark.parametrize("words", [[], ["hardware.deterministic=false"]])
def test_an_older_run_that_used_lightnings_key_resumes(words: list[str], tmp_path: Path) -> None:
    older = compose("method=supervised", "data=synthetic", "+trainer.deterministic=warn")
    older = OmegaConf.create(OmegaConf.to_container(older, resolve=True))
    del older.hardware.deterministic
    OmegaConf.save(older, tmp_path / "config.yaml")
    resumed = load_resumed_config(tmp_path, compose("data=synthetic", *words), words)
    assert resumed.hardware.deterministic == (not words)
    assert "deterministic" not in resumed.trainer


@pytest.mark.parametrize("workspace", FIXED_WORKSPACES)
def test_a_workspace_that_gives_equal_bits_stays(
    workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, workspace)
    use_determinism(compose(ON), on_gpu=True)
    assert os.environ[WORKSPACE] == workspace


def test_another_workspace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(UserError, match=f"{WORKSPACE} must be one of :4096:8, :16:8, got :0:0"):
        use_determinism(compose(ON), on_gpu=True)


def test_a_process_that_has_used_its_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(UserError, match="must be set before this process uses a GPU"):
        use_determinism(compose(ON), on_gpu=True)
    use_determinism(compose(ON), on_gpu=False)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_deterministic_algorithms(method: str) -> None:
    learner, data, _ = built(method)
    torch.use_deterministic_algorithms(True)
    gradients(learner.train(), next(iter(data.loader("train"))))


class Scattering(nn.Module):
    """A trunk whose result depends on the order in which threads write."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        places = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return x.clone().put_(places, x[:, 0])


def scattering(num_classes: int, num_inputs: int, **_: object) -> Classifier:
    return Classifier(trunk=Scattering(), head=nn.Linear(num_inputs, num_classes), dropout=0.0)


def test_a_net_without_a_deterministic_version_is_a_sentence(
    tiny: list[str], tmp_path: Path
) -> None:
    net = [f"method.students.student._target_={__name__}.scattering"]
    outputs = tmp_path / "empty"
    with pytest.raises(UserError, match=r"no deterministic version of put_ on this device: use an"):
        distill("method=supervised", *of_method("supervised", tiny), *net, ON, f"outputs={outputs}")
    assert not outputs.exists()
