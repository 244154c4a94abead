"""Every table of benchmarks.speed can be made, and both sides of a comparison compute the same."""

import re
import sys
from itertools import islice

import pytest
import torch
from helpers import compose

from benchmarks import other_libraries, ratio_table, speed, step_parts, trainer_overhead
from benchmarks.cached_epochs import cached_epochs
from benchmarks.paired_timing import Ratio
from benchmarks.steps import LARGE, SMALL, build_case
from kd_lightning.config.schema import check_configuration

CPU = ["hardware=cpu"]
ONE = Ratio(1.0, 1.0, 1.0, 1.0)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step runs once and is not timed."""

    def once(a: ratio_table.Step, b: ratio_table.Step, pairs: int) -> Ratio:
        a(), b()
        return ONE

    monkeypatch.setattr(ratio_table, "compare", once)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "dual", "ssd", "timm"])
def test_a_table_can_be_made(name: str, untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_parts, "SMALL", (*SMALL, "data.batch_size=4"))
    monkeypatch.setattr(other_libraries, "LARGE", (*LARGE, "data.size=32"))
    nets = ("model@method.teacher=resnet20", "model@method.students.student=resnet8")
    monkeypatch.setattr(other_libraries, "NETS", (*nets, "data.batch_size=4"))
    first = islice(speed.TABLES[name](CPU), 2)  # the other rows differ only in precision or number
    lines = list(ratio_table.table(first, lambda: None, pairs=1))
    assert len([line for line in lines if line.startswith("|") and " / " in line]) == 3


def test_timms_task_is_compared_with_nets_that_exist() -> None:
    check_configuration(compose("method=kd", *LARGE, *other_libraries.NETS))


@pytest.mark.slow
def test_a_compiled_step_is_compared_with_the_uncompiled_one(
    untimed: None, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = ("teacher", "students.a", "students.b")
    monkeypatch.setattr(step_parts, "TWO_STUDENTS", [f"model@method.{net}=mlp" for net in nets])
    remark, row = islice(step_parts.compiled(CPU), 2)
    assert re.fullmatch(r"Compiling it took \d+ s, 32\.", remark)
    assert row.measure(1) == ONE


@pytest.mark.slow
def test_a_cached_epoch_reads_its_files(untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.cached_epochs.DATA", {"small": SMALL_DATA})
    assert [row.measure(1) for row in cached_epochs(CPU)] == [ONE]


SMALL_DATA = (*SMALL, "data.num_train=64", "data.num_classes=10", "data.batch_size=16",
              "data.val_fraction=0", "augmentation@data.augmentation=crop_flip")  # fmt: skip


@pytest.mark.slow
def test_the_overhead_is_measured_during_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_overhead, "STEPS", 3)
    fit = trainer_overhead.AlternatingFit(CPU, trainer_overhead.torch_loss)
    assert 0.5 < fit.measure(1).median < 20
    in_trainer, bare = fit.calls
    assert bare < in_trainer < 10 * bare


def test_blocks_alternate_as_a_b_b_a_and_all_steps_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer_overhead, "STEPS", 2)
    loader = torch.utils.data.DataLoader(range(6), batch_size=2)
    loader.batch_sampler.sampler.set_epoch = lambda epoch: None
    order = []
    alternating = trainer_overhead.AlternatingLoader(loader, lambda: order.append("bare"), pairs=2)
    for _ in zip(range(len(alternating)), alternating, strict=False):  # stops at the length
        order.append("trainer")
    a, b = ["trainer"] * 2, ["bare"] * 2
    assert order == [*a, *b, *a, *b, *[*a, *b, *b, *a] * 2, "trainer"]
    assert order.count("bare") == trainer_overhead.num_steps(2)
    assert len(alternating.blocks) == 2


def test_calls_are_counted_except_those_of_the_benchmark_itself() -> None:
    def other(depth: int) -> int:
        return other(depth - 1) if depth else 0

    counter = trainer_overhead.CallCounter()
    with counter:
        other(4)
        trainer_overhead.num_steps(1)
    assert counter.calls - 5 in (0, 1)  # some versions of Python also count __exit__
    assert sys.getprofile() is None


def test_the_loss_in_torch_functions_equals_the_loss_of_the_method() -> None:
    case = build_case(*trainer_overhead.WORDS, *CPU)
    trainer_overhead.check_same_loss(trainer_overhead.with_confident_teacher(case))


def test_one_pass_after_the_other_has_the_precision_of_ssd() -> None:
    case = build_case("method=stochastic_self_distillation", *step_parts.SERIES, "hardware=cpu",
                      "hardware.precision=bf16-mixed", "method.num_passes=2")  # fmt: skip
    seen = set()
    student = case.method.students["student"]
    student.register_forward_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    step_parts.sequential_passes(case)()
    assert seen == {True}


def test_a_missing_library_is_reported_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_libraries, "find_spec", lambda name: None)
    (line,) = other_libraries.torchdistill(CPU)
    assert line.startswith("Left out: torchdistill is not installed")


@pytest.mark.slow
def test_a_job_of_torchdistill_has_our_loss_and_a_teacher_in_eval_mode(
    untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchdistill")
    small = (*SMALL, "data.batch_size=4", "data.num_classes=10")
    monkeypatch.setattr(other_libraries, "SMALL", small)
    (row,) = islice(other_libraries.torchdistill(CPU), 1)  # also compares the losses
    assert row.measure(1) == ONE
    case = build_case("method=dual_student", *small, *other_libraries.TWO_STUDENTS, *CPU)
    before = {name: value.clone() for name, value in case.teacher.net.state_dict().items()}
    other_libraries.two_jobs(case)()
    after = case.teacher.net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_unknown_table_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        speed.main(["steps"])
    assert "no table 'steps': expected some of teacher, dual" in capsys.readouterr().err
