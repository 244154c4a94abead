"""benchmarks.gpu, as far as it can be tested without a GPU: its arithmetic, and that it runs."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu, roofline
from benchmarks.other_libraries import step_of_timm
from benchmarks.report import RESULTS, Report
from benchmarks.roofline import Ceilings, Work, work_of
from benchmarks.steps import build_case
from kd_lightning.models.cifar import resnet

H200 = Ceilings(flops=790e12, bandwidth=4.3e12)


def test_the_work_of_a_layer_is_its_arithmetic_and_its_memory_traffic() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.zeros(1, 2, 5, 5, requires_grad=True)
    read, written = 2 * 25, 4 * 25
    forward = Work(2 * 9 * 2 * written, read + written)
    assert work_of(net, x, trains=False) == forward
    trained = work_of(net, x, trains=True)
    assert trained.flops == 3 * forward.flops
    assert trained.elements == 3 * forward.elements + 7 * written
    assert net.training


def test_a_layer_that_reads_the_images_has_no_gradient_of_them() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
    work = work_of(net, torch.zeros(1, 8), trains=True)
    assert work == Work(2 * (2 * 24 + 3 * 6), 2 * 11 + 3 * 5)  # and no traffic of a batch norm


@pytest.mark.parametrize("trains", [True, False])
def test_the_arithmetic_is_what_torch_counts(trains: bool) -> None:
    net = resnet(depth=8, widths=[4, 4, 8, 8], num_classes=10, in_chans=3)
    x = torch.rand(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counted, torch.set_grad_enabled(trains):
        logits = net(x).logits
        if trains:
            logits.sum().backward()
    assert work_of(net, x, trains=trains).flops == counted.get_total_flops()


def test_the_least_time_is_the_longer_of_arithmetic_and_traffic() -> None:
    at = Ceilings(flops=100, bandwidth=10)
    assert Work(200, 1).seconds(at) == 2
    assert Work(200, 40).seconds(at) == 8
    assert not Work(200, 1).is_memory_bound(at)
    assert Work(200, 40).is_memory_bound(at)


def test_a_step_at_the_roofline_has_a_share_of_1() -> None:
    at, works = Ceilings(flops=100, bandwidth=10), [Work(200, 1), Work(0, 5)]
    assert roofline.share(1 / 3, works, at) == pytest.approx(1)
    *_, last = roofline.lines(dict(zip("ab", works, strict=True)), at)
    assert last == "| all, one after the other | | | 3000000.0 | |"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "trains", "microseconds", "bound"),
    [
        ("resnet50", False, 10.4, "arithmetic"),
        ("resnet18", True, 15.7, "memory"),
        ("mobilenetv2", True, 43.6, "memory"),
    ],
)
def test_the_least_times_of_known_nets(
    net: str, trains: bool, microseconds: float, bound: str
) -> None:
    words = ("method=supervised", "data=synthetic", "data.size=224", "data.num_train=20",
             "data.num_test=10", "data.batch_size=1", "data.val_fraction=0", "hardware=cpu",
             f"model@method.students.student={net}")  # fmt: skip
    case = build_case(*words)
    work = work_of(case.method.students["student"], case.batch[0], trains=trains)
    assert work.seconds(H200) * 1e6 == pytest.approx(microseconds, rel=0.1)
    assert work.is_memory_bound(H200) == (bound == "memory")


@pytest.mark.slow
def test_the_shares_of_the_committed_page_follow_from_its_rates() -> None:
    page = (RESULTS / "gpu.md").read_text()
    flops, bandwidth = re.search(r"Ceilings: (\S+) TFLOP/s .*, (\S+) TB/s", page).groups()
    at = Ceilings(float(flops) * 1e12, float(bandwidth) * 1e12)
    works = gpu.works_of(gpu.FULL)
    parts = {
        row.title: row.parts for row in gpu.benchmarks_of(gpu.FULL) if not isinstance(row, str)
    }
    checked = 0
    for title, rate, share in re.findall(
        r"^\| (.+?) \| ([\d,]+) \| \S+ \| (\d+) % \|$", page, re.M
    ):
        if title in parts:  # those of a library that is not installed are left out
            needed = [works[part] for part in parts[title]]
            rate = float(rate.replace(",", ""))
            assert f"{roofline.share(rate, needed, at):.0%}" == f"{share}%", title
            checked += 1
    assert checked >= 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_message_is_one_sentence() -> None:
    with pytest.raises(SystemExit, match="needs a GPU, and there is none: --rehearse runs"):
        gpu.main([])


def test_a_rehearsal_cannot_be_written() -> None:
    with pytest.raises(SystemExit, match="leave out --write"):
        gpu.main(["--rehearse", "--write"])


def test_some_rows_do_not_replace_the_written_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit):
        gpu.main(["--only", "dual", "--write"])
    assert "--write needs all rows: leave out --only" in capsys.readouterr().err


def test_a_control_that_fails_leaves_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(row: gpu.Benchmark, scale: gpu.Scale) -> tuple[float, float]:
        if row.title in measured:
            raise RuntimeError("out of memory")
        measured.append(row.title)
        return 1000.0, 1.0

    monkeypatch.setattr(gpu, "measure", measure)
    works = dict.fromkeys("tab", Work(1, 1))
    lines = list(gpu.step_table(gpu.REHEARSAL, H200, works, ["dual step"]))
    assert lines[2].startswith("| dual step | 1,000 |")
    assert lines[-1] == "\n**No control**: dual step: RuntimeError: out of memory"


def test_a_precision_that_steps_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="steps have no 16-mixed"):
        build_case(
            "method=supervised", "data=digits", "hardware=cpu", "hardware.precision=16-mixed"
        )


def test_options_unknown_to_this_version_are_reported_on_one_line() -> None:
    with pytest.raises(Exception, match="hardware") as raised:
        build_case("method=supervised", "hardware=cpu", "hardware.no_such_key=true")
    assert gpu.reason(raised.value).startswith("unknown to this version (Could not override")
    assert gpu.reason(ValueError("no\nway")) == "ValueError: no"


@pytest.mark.slow
def test_a_rehearsal_runs_to_the_end_on_a_cpu(capsys: pytest.CaptureFixture) -> None:
    gpu.main(["--rehearse"])
    text = capsys.readouterr().out
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    rows = [len(table.splitlines()) - 2 for table in tables]
    assert rows[0] == 4
    assert rows[1] >= 8
    assert rows[2] == 2
    left_out = re.findall(r"- left out: (.*)", text)
    assert all(gpu.NO_TIME in line or "torchdistill is not" in line for line in left_out)


def test_rows_are_chosen_by_words_of_their_titles() -> None:
    assert gpu.is_asked("dual step, compiled", [])
    assert gpu.is_asked("Fashion-MNIST's size", ["dual", "size"])
    assert not gpu.is_asked("teacher alone", ["dual", "size"])


def test_a_report_that_is_cut_off_leaves_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path)
    report = Report("gpu", "A title", [], keep=True)
    report.add("| dual step | 1 |")
    assert (tmp_path / "gpu.md").read_text().endswith("\n| dual step | 1 |\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # where timm's task is cut in two graphs
def test_compiled_steps_of_other_libraries_have_the_same_loss(traced: None) -> None:
    words = ("method=kd", *gpu.images(gpu.REHEARSAL), "hardware=cpu",
             "model@method.teacher=resnet8", "model@method.students.student=resnet8")  # fmt: skip
    plain, compiled = (
        step_of_timm(build_case(*words)),
        step_of_timm(build_case(*words), compiled=True),
    )
    torch.testing.assert_close(compiled(), plain(), rtol=1e-3, atol=1e-3)
