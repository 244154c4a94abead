"""What only a GPU can show. Skipped, with the reason, where there is none."""

import pytest
import torch
from helpers import METHODS, of_method

from kd_lightning.callbacks.averaging import AveragedStudents
from kd_lightning.run import distill

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_on_a_gpu(method: str, precision: str, tiny: list[str]) -> None:
    words = of_method(method, tiny)
    result = distill(f"method={method}", *words, "hardware=gpu", f"hardware.precision={precision}")
    assert "NVIDIA" in result.metrics["device"]
    for net in result.metrics["nets"].values():
        assert 0 <= net["test"]["accuracy"] <= 1
        assert net["throughput"] > 0


def test_a_gpu_run_resumes(tiny: list[str]) -> None:
    first = distill("method=dual_student", *tiny, "hardware=gpu", "trainer.max_epochs=1")
    again = distill(f"resume={first.directory}", "trainer.max_epochs=3")
    assert again.metrics["epochs"] == 3


@pytest.mark.parametrize("averaging", ["swa", "ema"])
def test_averages_stay_on_the_gpu_and_their_counter_does_not(
    averaging: str, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    blend = AveragedStudents._blend

    def watched(self: AveragedStudents, averages: list, news: list, count: torch.Tensor) -> None:
        seen.update(one.device.type for one in (*averages, *news))
        seen.add(f"counter on {self._average_model.n_averaged.device.type}")
        blend(self, averages, news, count)

    monkeypatch.setattr(AveragedStudents, "_blend", watched)
    words = [*of_method("supervised", tiny), f"callbacks={averaging}", "trainer.max_epochs=4",
             "model@method.students.student=resnet8"]  # fmt: skip
    more = ["callbacks.swa.start=0"] if averaging == "swa" else []
    distill("method=supervised", *words, *more, "hardware=gpu")
    assert seen == {"cuda", "counter on cpu"}
