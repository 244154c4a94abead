"""The precision of a run that names none, and TF32."""

import pytest
import torch
from helpers import compose

from kd_lightning.base.precision import allow_tf32, no_tf32, usual_precision

# compute capability -> precision
GPUS = {(9, 0): "bf16-mixed", (8, 0): "bf16-mixed", (7, 5): "16-mixed", (6, 1): 32}


@pytest.fixture(params=GPUS)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | int:
    """A machine with a GPU, and the precision that suits it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: request.param)
    return GPUS[request.param]


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
def test_on_a_gpu_it_is_the_lowest_that_is_fast(accelerator: str, gpu: str | int) -> None:
    assert usual_precision(accelerator) == gpu


def test_on_a_cpu_it_is_32(gpu: str | int) -> None:
    assert usual_precision("cpu") == 32


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cpu"])
def test_without_a_gpu_it_is_32(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usual_precision(accelerator) == 32


@pytest.mark.parametrize("hardware", ["auto", "gpu", "ddp", "multi_node"])
def test_a_configuration_has_it_unless_it_names_another(hardware: str, gpu: str | int) -> None:
    cfg = compose("method=kd", f"hardware={hardware}")
    assert cfg.hardware.precision == gpu
    cfg = compose("method=kd", f"hardware={hardware}", "hardware.precision=32")
    assert cfg.hardware.precision == 32
    cfg = compose("method=kd", f"hardware={hardware}", "hardware.accelerator=cpu")
    assert cfg.hardware.precision == 32


def test_a_deterministic_configuration_has_32_unless_it_names_another(gpu: str | int) -> None:
    words = ("method=kd", "hardware=gpu", "hardware.deterministic=true")
    assert compose(*words).hardware.precision == 32
    assert compose(*words, "hardware.precision=bf16-mixed").hardware.precision == "bf16-mixed"


@pytest.mark.parametrize("allowed", [False, True])
def test_without_tf32_is_a_while_after_which_all_is_as_before(allowed: bool) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        allow_tf32(allowed)
        with no_tf32():
            assert not any(flag.allow_tf32 for flag in flags)
        assert all(flag.allow_tf32 == allowed for flag in flags)
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
