"""benchmarks.zoo_cost: exact counts of some variants, on data that are in every installation."""

from functools import cache

import pytest
from omegaconf import OmegaConf

from benchmarks import zoo_cost
from benchmarks.paired_timing import Ratio
from benchmarks.step_counts import Counts, counts_of, flops_of
from benchmarks.steps import Case
from kd_lightning.config.command_line import CONF
from kd_lightning.sweeps.plan import Variation

WORDS = (
    "sweep=zoo data=digits data.batch_size=16 trainer.max_epochs=15 teacher.trainer.max_epochs=20 "
    "hardware=cpu hardware.precision=bf16-mixed logger=none callbacks=quiet seed=0"
)
ONE = Ratio(1.0, 1.0, 1.0, 1.0)


@cache
def jobs() -> dict[str, Variation]:
    return zoo_cost.variants(WORDS)


@pytest.fixture(scope="module")
def baseline() -> zoo_cost.Baseline:
    return zoo_cost.Baseline(jobs()["kd"])


@cache
def counted(name: str) -> Counts:
    case = zoo_cost.case_of(jobs()[name])
    return counts_of(case, case.step())


def test_all_variants_of_the_preset_are_there() -> None:
    preset = OmegaConf.load(CONF / "sweep" / "zoo.yaml")
    assert list(zoo_cost.variants(zoo_cost.WORDS)) == list(jobs()) == list(preset.variants)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("kd", (1, 1, 1)),
        ("labels only", (0, 1, 1)),
        ("SSKD", (4, 4, 4)),
        ("SSKD, rotations as augmentation", (0, 4, 4)),
        ("UNIX", (0.75, 1.75, 0.75)),  # the whole batch is scored without a gradient
        ("UNIX, random samples", (0.75, 0.75, 0.75)),
        ("TESKD", (0, 1, 1)),
    ],
)
def test_rows_per_image(name: str, rows: tuple[float, ...]) -> None:
    counts = counted(name)
    assert (counts.teacher_rows, counts.student_rows, counts.backward_rows) == rows


def test_a_step_of_kd_has_the_flops_of_its_student_and_of_the_teachers_pass(
    baseline: zoo_cost.Baseline,
) -> None:
    labels_only = counted("labels only")
    teacher = flops_of(baseline.case.teacher_step())
    assert teacher > 0
    assert baseline.counts.flops == labels_only.flops + teacher
    assert baseline.counts.saved > 0
    assert labels_only.saved < baseline.counts.saved  # without the soft term
    four_views = counted("SSKD, rotations as augmentation")
    assert four_views.flops == 4 * labels_only.flops


def test_equal_steps_have_equal_counts(baseline: zoo_cost.Baseline) -> None:
    assert counted("kd") == counted("SFTN") == baseline.counts


def test_a_step_is_one_of_the_end_of_a_run() -> None:
    method = zoo_cost.case_of(jobs()["SoKD"]).method
    assert (method.progress, method.is_searching) == (1.0, False)


def work_of(name: str, baseline: zoo_cost.Baseline) -> tuple[Case, zoo_cost.Work]:
    """A case and the only work before its training."""
    case = zoo_cost.case_of(jobs()[name])
    (work,) = zoo_cost.work_before(case, baseline)
    return case, work


def test_a_stage_is_counted_and_then_counts_as_done(baseline: zoo_cost.Baseline) -> None:
    case, work = work_of("SSKD", baseline)
    projection = case.method.fitted_projection
    assert work.cells()[:3] == ["stage projection", "4 (27% of the run)", "a step of kd"]
    assert work.other is baseline.step
    assert work.parameters == sum(p.numel() for p in projection.parameters())
    assert not any(p.requires_grad for p in projection.parameters())
    assert all(p.requires_grad for p in case.method.projections.parameters())


def test_a_step_of_a_stage_has_the_flops_of_its_parts(baseline: zoo_cost.Baseline) -> None:
    case, work = work_of("SSKD", baseline)
    samples, width = len(case.batch[0]), case.teacher.net.head.in_features
    views = 4 * samples
    layers = 5 * 2 * views * width**2  # two forward, two for weights, one for the first's output
    table = 3 * 2 * (views - samples) * samples * width  # forward, and for both factors
    teacher = 4 * flops_of(baseline.case.teacher_step())
    assert work.flops * baseline.counts.flops == pytest.approx(teacher + layers + table, rel=1e-9)


def test_a_matching_learns_nothing_and_looks_once(baseline: zoo_cost.Baseline) -> None:
    case, work = work_of("KCD", baseline)
    assert work.cells()[:4] == ["stage channel-matching", "1 (7% of the run)", "a step of kd", "0"]
    (stage,) = case.method.stages()
    for _ in range(2 + stage.match_samples // len(case.batch[0])):  # it has looked at all
        work.step()
    assert flops_of(work.step) == work.flops * baseline.counts.flops


@pytest.mark.parametrize("name", ["SFTN", "SFTN, linear branches"])
def test_a_teacher_with_branches_costs_more_than_the_usual_one(
    name: str, baseline: zoo_cost.Baseline
) -> None:
    _, work = work_of(name, baseline)
    assert work.cells()[:3] == ["teacher, with branches", "20", "a step of the usual teacher"]
    assert work.parameters > 0
    assert work.flops > 1
    assert work.other is baseline.teacher_step
    work.step(), work.other()


@pytest.mark.parametrize("name", ["labels only", "TESKD", "MAG, no codes"])
def test_other_variants_have_no_work_before_training(
    name: str, baseline: zoo_cost.Baseline
) -> None:
    assert not list(zoo_cost.work_before(zoo_cost.case_of(jobs()[name]), baseline))


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's data are replaced, and each step runs once and is not timed."""

    def once(a: zoo_cost.Step, b: zoo_cost.Step, pairs: int) -> Ratio:
        a(), b()
        return Ratio(1.1, 1.0, 1.2, 1.0) if pairs == 31 else Ratio(1.1, 1.05, 1.2, 1.0)

    monkeypatch.setattr(zoo_cost, "WORDS", WORDS)
    monkeypatch.setattr(zoo_cost, "compare", once)


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_both_tables_can_be_made(untimed: None, capsys: pytest.CaptureFixture) -> None:
    zoo_cost.main(["SFTN"])
    text = capsys.readouterr().out
    steps, work = text.split("## Before training")
    times = "1.10 | 1.00 to 1.20 |"
    kd, sftn = (f"| {name} | 1 | 1 | 1 | 1.00 | 1.00 | 0 | {times}" for name in ("kd", "SFTN"))
    assert lines_of(steps)[2:] == [kd, sftn]
    shared, own = lines_of(work)[2:]
    assert shared.startswith("| all with teacher rows | teacher | 20 | a step of kd | 0 | ")
    assert own.startswith("| SFTN | teacher, with branches | 20 | a step of the usual teacher | ")
    assert shared.endswith(times)
    assert own.endswith(times)
    assert "Too noisy" not in text
    for table in (steps, work):
        assert len({line.count("|") for line in lines_of(table)}) == 1


def test_the_first_ratio_is_the_control(untimed: None) -> None:
    for pairs, is_noisy in ((31, False), (2, True)):
        timer = zoo_cost.Timer(pairs)
        assert timer.cells(dict, dict) == ["1.10", f"{1.05 if is_noisy else 1:.2f} to 1.20"]
        assert timer.is_noisy() == is_noisy
        timer.ratios.append(ONE)
        assert timer.is_noisy() == is_noisy


def test_counts_come_without_times(
    untimed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(zoo_cost, "compare", None)
    zoo_cost.main(["--counts", "kd"])
    text = capsys.readouterr().out
    assert "| kd | 1 | 1 | 1 | 1.00 | 1.00 | 0 |" in lines_of(text)
    assert "95 % interval" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["SSDK"], "no variant 'SSDK': expected some of labels only; kd; "),
        (["SSKD", "--write"], "--write needs all variants"),
        (["--counts", "--write"], "--write needs the times too: leave out --counts"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        zoo_cost.main(words)
    assert said in capsys.readouterr().err
