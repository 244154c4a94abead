"""What only a GPU can show. Skipped, with the reason, where there is none."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import METHODS, OF_MAPS, of_method
from lightning.pytorch import LightningModule

from benchmarks.steps import build_case
from kd_lightning import distill
from kd_lightning.base.precision import no_tf32
from kd_lightning.callbacks.averaging import AveragedStudents
from kd_lightning.data.loading.loaders import ResidentLoader
from kd_lightning.models.cifar import resnet
from kd_lightning.models.inference import TOLERANCE, checked_fast_copy, relative_rms_error

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


@pytest.fixture
def no_waiting() -> Iterator[Callable[[], None]]:
    """From its call on, whatever waits for the GPU is an error."""

    def start() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch does not see every wait
            torch.cuda.set_sync_debug_mode("error")

    yield start
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("averaging", ["swa", "ema"])
def test_averages_stay_on_the_gpu_and_do_not_wait_for_it(
    averaging: str, tiny: list[str], no_waiting: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    add = AveragedStudents._add

    def watched(self: AveragedStudents, method: LightningModule) -> None:
        averages = self._average_model.module
        seen.update(one.device.type for one in (*averages.parameters(), *averages.buffers()))
        seen.add(f"counter on {self._average_model.n_averaged.device.type}")
        no_waiting()
        add(self, method)
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(AveragedStudents, "_add", watched)
    words = [*of_method("supervised", tiny), f"callbacks={averaging}", "trainer.max_epochs=4",
             "model@method.students.student=resnet8"]  # fmt: skip
    more = ["callbacks.swa.start=0"] if averaging == "swa" else []
    distill("method=supervised", *words, *more, "hardware=gpu")
    assert seen == {"cuda", "counter on cpu"}


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_never_waits_for_the_gpu(
    method: str, precision: str, no_waiting: Callable[[], None]
) -> None:
    case = build_case(f"method={method}", "data=synthetic", "hardware=gpu",
                f"hardware.precision={precision}", *OF_MAPS.get(method, []))  # fmt: skip
    step = case.step()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    no_waiting()
    for _ in range(3):
        step()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["32", "16", "bf16", "best"])
def test_the_teachers_twin_answers_as_it_does_on_a_gpu(precision: str, compiled: bool) -> None:
    torch.manual_seed(0)
    net = resnet(depth=20, widths=[16, 16, 32, 64], num_classes=10, in_chans=3).cuda()
    x = torch.rand(16, 3, 32, 32, device="cuda")
    for _ in range(20):  # folding weights with statistics of real features rounds them otherwise
        net(x)
    net.eval()
    twin = checked_fast_copy(net, x, precision=precision, compiled=compiled)
    assert twin is not net
    with torch.no_grad(), no_tf32():
        off = relative_rms_error(twin(x).logits, net(x).logits)
    assert off < TOLERANCE[twin.trunk.dtype]


def test_data_that_fit_lie_on_the_gpu_and_are_those_of_the_cpu() -> None:
    case = build_case("method=supervised", "data=synthetic", "data.size=32", "hardware=gpu",
                "augmentation@data.augmentation=cutout")  # fmt: skip
    held = case.data.loader("train", device=torch.device("cuda"))
    assert isinstance(held, ResidentLoader)
    for (x, y), (held_x, held_y) in zip(case.data.loader("train"), held, strict=True):
        assert held_x.is_cuda
        assert torch.equal(x, held_x.cpu())
        assert torch.equal(y, held_y.cpu())


def test_a_run_with_a_cache_on_a_gpu(tiny: list[str]) -> None:
    words = [*tiny, "data.size=32", "augmentation@data.augmentation=crop_flip", "teacher.cache=2"]
    result = distill("method=dual_student", *words, "hardware=gpu")
    assert 0 <= result.metrics["nets"]["a"]["test"]["accuracy"] <= 1


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_fast_steps_learn_what_plain_ones_learn_on_a_gpu(
    graphs: bool, compiled: bool, precision: str
) -> None:
    words = ("method=dual_student", "data=synthetic", "data.size=32", "hardware=gpu",
             f"hardware.precision={precision}", "model@method.teacher=resnet8",
             "model@method.students.a=resnet8")  # fmt: skip
    plain = build_case(*words).step()
    fast = build_case(
        *words, f"hardware.compile={compiled}", f"hardware.cuda_graphs={graphs}"
    ).step()
    tolerance = 1e-3 if precision == "32" else 3e-2
    for _ in range(8):  # the first three are not recorded
        torch.testing.assert_close(fast(), plain(), rtol=tolerance, atol=tolerance)


NOT_COMPILED = ("adversarial_distillation", "adversarial_training")  # gradients inside of a step


@pytest.mark.timeout(900)  # up to four graphs are compiled
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in NOT_COMPILED])
def test_a_run_of_compiled_steps_on_a_gpu(method: str, graphs: bool, tiny: list[str]) -> None:
    words = [*of_method(method, tiny), "hardware=gpu", "hardware.compile=true"]
    result = distill(f"method={method}", *words, f"hardware.cuda_graphs={graphs}")
    for net in result.metrics["nets"].values():
        assert 0 <= net["test"]["accuracy"] <= 1
