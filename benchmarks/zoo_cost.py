"""What the systems of the preset ``zoo`` cost, relative to plain KD.

    python -m benchmarks.zoo_cost                 all variants of conf/sweep/zoo.yaml
    python -m benchmarks.zoo_cost SSKD UNIX       some of them
    python -m benchmarks.zoo_cost --counts        what can be counted, without the times
    python -m benchmarks.zoo_cost --write         also into benchmarks/results/zoo_cost.md

The nets, the batch and the precision are those of the study ``zoo`` (``benchmarks/studies.py``), on
one thread. The nets are untrained, which changes no cost. Two tables: a training step, and what is
done once before training (stages, and the training of the teacher).

A step is one of the end of a run, where SoKD no longer searches for its policy. It begins with a
batch, so loading, augmentation and mixing are not in it.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.paired_timing import Ratio, Step, compare
from benchmarks.ratio_table import TOO_NOISY
from benchmarks.report import Report
from benchmarks.step_counts import Counts, counts_of, flops_of, learning_parameters
from benchmarks.steps import Case, case_from, step_of
from benchmarks.studies import STUDIES
from kd_lightning.methods.stage import Stage
from kd_lightning.running.build import quieten
from kd_lightning.running.stages import end_stage
from kd_lightning.sweeps import plan
from kd_lightning.sweeps.preset import settings_of
from kd_lightning.teachers.own_run import teacher_run

KD = "kd"
WORDS = STUDIES["zoo"].parts["seed_0"]
STEP_HEADS = ("variant", "teacher rows", "student rows", "backward rows", "FLOPs",
              "saved for backward", "extra parameters")  # fmt: skip
WORK_HEADS = ("variant", "work", "epochs", "relative to", "parameters", "FLOPs")
TIME_HEADS = ("time", "95 % interval")
OF_KD, OF_TEACHER = "a step of kd", "a step of the usual teacher"
ABOUT_STEPS = """
Rows: images that pass the teacher, images that pass the student, and images for which a gradient
passes the student, for each image of the batch. Relative to kd: FLOPs of matrix products and
convolutions, forward and backward; the bytes that a step saves for its backward pass, without
weights; and time. The row kd is the control: the same step, built twice. Extra parameters learn
with the student and are not kept.
"""
ABOUT_WORK = """
What is done once before training. Parameters: those that learn in it and are not of a net. FLOPs
and time: of one step, relative to the step that is named.
"""


@dataclass(frozen=True)
class Work:
    """Work that is done once before the training of a variant.

    Attributes:
        title: what it is.
        epochs: how many, in words.
        relative_to: what ``other`` is.
        parameters: that learn in it and are not of the teacher's or the student's net.
        flops: of ``step`` over those of ``other``.
        step, other: whose times are compared.
    """

    title: str
    epochs: str
    relative_to: str
    parameters: int
    flops: float
    step: Step
    other: Step

    def cells(self) -> list[str]:
        numbers = f"{self.parameters:,}", f"{self.flops:.2f}"
        return [self.title, self.epochs, self.relative_to, *numbers]


@dataclass
class Timer:
    """Times steps, in pairs.

    Args:
        pairs: of blocks for each ratio; None: nothing is timed.

    Attributes:
        ratios: measured so far. The first one is the control.
    """

    pairs: int | None
    ratios: list[Ratio] = field(default_factory=list)

    def heads(self) -> Sequence[str]:
        return () if self.pairs is None else TIME_HEADS

    def cells(self, a: Step, b: Step) -> list[str]:
        """The cells that say how much longer ``a`` takes than ``b``."""
        if self.pairs is None:
            return []
        ratio = compare(a, b, self.pairs)
        self.ratios.append(ratio)
        return [f"{ratio.median:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}"]

    def is_noisy(self) -> bool:
        return bool(self.ratios) and not self.ratios[0].contains_one


class Baseline:
    """Plain KD, and the usual training of a teacher.

    Attributes:
        case: of KD.
        step: of KD.
        counts: of this step.
        teacher_step: of the training of a teacher.
        teacher_flops: of this step.
    """

    def __init__(self, job: plan.Variation) -> None:
        self.case = case_of(job)
        self.step = self.case.step()
        self.counts = counts_of(self.case, self.step)
        self.teacher_step = case_from(teacher_run(self.case.cfg)).step()
        self.teacher_flops = flops_of(self.teacher_step)

    def about(self) -> str:
        """The sizes of what is measured."""
        nets = (self.case.method.students["student"], self.case.teacher.net)
        student, teacher = (sum(p.numel() for p in net.parameters()) for net in nets)
        samples, *shape = self.case.batch[0].shape
        size, precision = " x ".join(map(str, shape)), self.case.cfg.hardware.precision
        return (
            f"Batches of {samples} images of {size}, {precision}. The student has {student:,} "
            f"parameters, the teacher {teacher:,}."
        )

    def teacher_work(self) -> Work:
        """The training of the teacher that the variants share."""
        flops = self.teacher_flops / self.counts.flops
        epochs = str(self.case.cfg.teacher.trainer.max_epochs)
        return Work("teacher", epochs, OF_KD, 0, flops, self.teacher_step, self.step)


def variants(words: str) -> dict[str, plan.Variation]:
    """The variants of a sweep over one seed: name -> job."""
    of_sweep, of_jobs = plan.split(shlex.split(words))
    settings, _, _ = settings_of(of_sweep, None)
    return {job.variant: job for job in plan.expand(settings, of_jobs)}


def case_of(job: plan.Variation) -> Case:
    """The case of a job."""
    case = case_from(plan.compose_job(job.overrides, None, job.shared))
    case.method.on_train_epoch_start()  # outside a run its progress is 1: a search is over
    return case


def work_before(case: Case, baseline: Baseline) -> Iterator[Work]:
    """What is done for a variant before its training, beside the usual training of a teacher.

    After it the modules of its stages are frozen, as they are when a stage is done.
    """
    if case.teacher is not None and case.cfg.teacher.method != baseline.case.cfg.teacher.method:
        yield work_of_teacher(case, baseline)
    for stage in case.method.stages():
        yield work_of_stage(stage, case, baseline)
        end_stage(case.method, stage)


def work_of_teacher(case: Case, baseline: Baseline) -> Work:
    """The training of a teacher by a method of its own."""
    training = case_from(teacher_run(case.cfg))
    step = training.step()
    return Work(
        "teacher, with branches",
        str(case.cfg.teacher.trainer.max_epochs),
        OF_TEACHER,
        learning_parameters(training.method.own_modules().values()),
        flops_of(step) / baseline.teacher_flops,
        step,
        baseline.teacher_step,
    )


def work_of_stage(stage: Stage, case: Case, baseline: Baseline) -> Work:
    step = step_of_stage(stage, case)
    share = stage.max_epochs / case.cfg.trainer.max_epochs
    return Work(
        f"stage {stage.name}",
        f"{stage.max_epochs} ({share:.0%} of the run)",
        OF_KD,
        learning_parameters([stage]),
        flops_of(step) / baseline.counts.flops,
        step,
        baseline.step,
    )


def step_of_stage(stage: Stage, case: Case) -> Step:
    """A training step of a stage on the batch of ``case``: always the first of an epoch, because a
    stage may look at less in later ones.
    """
    stage.log = lambda *value, **options: None  # there is no Trainer to log to

    def step() -> object:
        stage.on_train_epoch_start()
        with case.precision():
            return stage.training_step(case.batch, 0)

    return step_of(stage.parameters(), step) if stage.automatic_optimization else step


def cells_of(case: Case, counts: Counts, kd: Counts) -> list[str]:
    """The counts of a step, relative to those of KD where the heads say so."""
    rows = (counts.teacher_rows, counts.student_rows, counts.backward_rows)
    ratios = (counts.flops / kd.flops, counts.saved / kd.saved)
    extra = learning_parameters(case.method.own_modules().values())
    return [*(f"{row:g}" for row in rows), *(f"{ratio:.2f}" for ratio in ratios), f"{extra:,}"]


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(names: Sequence[str], num_texts: int) -> str:
    """The head of a table; its first columns are texts and the others numbers."""
    marks = ["---"] * num_texts + ["---:"] * (len(names) - num_texts)
    return f"{line(*names)}\n|{'|'.join(marks)}|"


def add_tables(report: Report, jobs: dict[str, plan.Variation], timer: Timer) -> None:
    """Adds both tables to a report, a line when it has been measured.

    Args:
        jobs: name -> job; the first is kd.
    """
    baseline = Baseline(jobs[KD])
    report.add(f"{baseline.about()}\n\n## A training step\n{ABOUT_STEPS}")
    report.add(head([*STEP_HEADS, *timer.heads()], 1))
    works = []
    for name, job in jobs.items():
        case = case_of(job)
        for work in work_before(case, baseline):
            works.append(line(name, *work.cells(), *timer.cells(work.step, work.other)))
        step = case.step()
        cells = cells_of(case, counts_of(case, step), baseline.counts)
        report.add(line(name, *cells, *timer.cells(step, baseline.step)))
    report.add(f"\n## Before training\n{ABOUT_WORK}")
    report.add(head([*WORK_HEADS, *timer.heads()], 4))
    shared = baseline.teacher_work()
    times = timer.cells(shared.step, shared.other)
    for row in (line("all with teacher rows", *shared.cells(), *times), *works):
        report.add(row)
    if timer.is_noisy():
        report.add(f"\n{TOO_NOISY}")


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("variants", nargs="*", help="names in the preset; default: all")
    parser.add_argument("--counts", action="store_true", help="nothing is timed")
    parser.add_argument("--pairs", type=int, default=31, help="of blocks per time")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    jobs = variants(WORDS)
    if unknown := [name for name in arguments.variants if name not in jobs]:
        parser.error(f"no variant '{unknown[0]}': expected some of {'; '.join(jobs)}")
    if arguments.variants and arguments.write:
        parser.error("--write needs all variants: name none")
    if arguments.counts and arguments.write:
        parser.error("--write needs the times too: leave out --counts")
    chosen = [KD, *(name for name in arguments.variants or jobs if name != KD)]
    quieten()
    torch.set_num_threads(1)
    report = Report("zoo_cost", "What the systems of the preset zoo cost", words)
    timer = Timer(None if arguments.counts else arguments.pairs)
    if not arguments.counts:
        report.add(f"Times are medians of {arguments.pairs} pairs.")
    add_tables(report, {name: jobs[name] for name in chosen}, timer)
    if arguments.write:
        report.write()


if __name__ == "__main__":
    main()
