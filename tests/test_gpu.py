"""What only a GPU can show. Skipped, with the reason, where there is none."""

import pytest
import torch
from helpers import METHODS

from kd_lightning.run import distill

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_on_a_gpu(method: str, precision: str, tiny: list[str]) -> None:
    words = [o for o in tiny if not (method == "supervised" and o.startswith("teacher."))]
    result = distill(f"method={method}", *words, "hardware=gpu", f"hardware.precision={precision}")
    assert "NVIDIA" in result.metrics["device"]
    for net in result.metrics["nets"].values():
        assert 0 <= net["test"]["accuracy"] <= 1
        assert net["throughput"] > 0


def test_a_gpu_run_resumes(tiny: list[str]) -> None:
    first = distill("method=dual_student", *tiny, "hardware=gpu", "trainer.max_epochs=1")
    again = distill(f"resume={first.directory}", "trainer.max_epochs=3")
    assert again.metrics["epochs"] == 3
