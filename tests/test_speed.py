"""Every table of benchmarks.speed can be made, and its comparisons are of the same thing."""

import re
import sys
from itertools import islice

import pytest
import torch

from benchmarks import parts, peers, rows, speed, tiny
from benchmarks.cached import cached
from benchmarks.paired import Ratio
from benchmarks.steps import SMALL, made

CPU = ["hardware=cpu"]
SAME = Ratio(1.0, 1.0, 1.0, 1.0)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are taken once and not timed."""

    def once(a: rows.Step, b: rows.Step, pairs: int) -> Ratio:
        a(), b()
        return SAME

    monkeypatch.setattr(rows, "compare", once)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "dual", "ssd", "timm"])
def test_a_table_can_be_made(name: str, untimed: None) -> None:
    first = islice(speed.TABLES[name](CPU), 2)  # the others differ in precision or number
    lines = list(rows.table(first, lambda: None, pairs=1))
    assert len([line for line in lines if line.startswith("|") and " / " in line]) == 3


@pytest.mark.slow
def test_a_compiled_step_is_beside_itself(untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = ("teacher", "students.a", "students.b")
    monkeypatch.setattr(parts, "TWO", [f"model@method.{net}=mlp" for net in nets])
    said, row = islice(parts.compiled(CPU), 2)
    assert re.fullmatch(r"Compiling it took \d+ s, 32\.", said)
    assert row.measure(1) == SAME


@pytest.mark.slow
def test_a_cached_epoch_reads_files_and_turns_its_views(
    untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.cached.SETS", {"small": SETS_SMALL})
    assert [row.measure(1) for row in cached(CPU)] == [SAME]


SETS_SMALL = (*SMALL, "data.num_train=64", "data.num_classes=10", "data.batch_size=16",
              "data.val_fraction=0", "augmentation@data.augmentation=crop_flip")  # fmt: skip


@pytest.mark.slow
def test_a_tiny_step_is_timed_in_pauses_of_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "STEPS", 3)
    bout = tiny.Bout(CPU, tiny.written_out)
    assert 0.5 < bout.measure(1).median < 20
    through, bare = bout.calls
    assert bare < through < 10 * bare


def test_the_pauses_are_a_b_b_a_and_all_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "STEPS", 2)
    loader = torch.utils.data.DataLoader(range(6), batch_size=2)
    loader.batch_sampler.sampler.set_epoch = lambda epoch: None
    order = []
    pausing = tiny.Pausing(loader, lambda: order.append("bare"), pairs=2)
    for _ in zip(range(len(pausing)), pausing, strict=False):  # who knows the end asks no further
        order.append("asked")
    a, b = ["asked"] * 2, ["bare"] * 2
    assert order == [*a, *b, *a, *b, *[*a, *b, *b, *a] * 2, "asked"]
    assert order.count("bare") == tiny.steps_of(2)
    assert len(pausing.blocks) == 2


def test_calls_are_counted_and_the_benchmarks_own_are_not() -> None:
    def other(depth: int) -> int:
        return other(depth - 1) if depth else 0

    counter = tiny.Counter()
    with counter:
        other(4)
        tiny.steps_of(1)
    assert counter.seen - 5 in (0, 1)  # and, by version of Python, the way out
    assert sys.getprofile() is None


def test_the_script_written_out_has_the_loss_of_the_method() -> None:
    tiny.check_same_loss(tiny.sure(made(*tiny.WORDS, *CPU)))


def test_a_missing_peer_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    (line,) = peers.torchdistill(CPU)
    assert line.startswith("Left out: torchdistill is not installed")


@pytest.mark.slow
def test_a_job_of_torchdistill_has_our_loss_and_an_eval_teacher(
    untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchdistill")
    small = (*SMALL, "data.batch_size=4", "data.num_classes=10")
    monkeypatch.setattr(peers, "SMALL", small)
    (row,) = islice(peers.torchdistill(CPU), 1)  # compares the losses first
    assert row.measure(1) == SAME
    case = made("method=dual_student", *small, *peers.TWO, *CPU)
    before = {name: value.clone() for name, value in case.teacher.net.state_dict().items()}
    peers.two_jobs(case)()
    after = case.teacher.net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_table_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        speed.main(["steps"])
    assert "no table 'steps': expected some of teacher, dual" in capsys.readouterr().err
