"""The speed of training steps on a GPU, compared with the highest possible speed.

    python -m benchmarks.gpu                      all tables
    python -m benchmarks.gpu --write              also into benchmarks/results/gpu.md, row by row
    python -m benchmarks.gpu --only dual "size"   the rows whose titles contain one of these
    python -m benchmarks.gpu --rehearse           a few tiny steps on a CPU, to see that it works

All in one process:

1. The ceilings of the device: a product of large matrices, and a copy.
2. Images per second of the step of dual_student on ImageNet-100 and of its parts, of timm's task
   and of two torchdistill jobs. Each is also arguments as a share of the roofline
   (``benchmarks/roofline.py``), with its peak memory.
3. Epochs of small data: plain, with recorded steps (CUDA graphs), and with steps that are compiled
   and recorded.

Times are measured with CUDA events after warm-up steps. The images are random uint8 images that are
already on the device; each step gets another batch.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count, cycle

import torch
from hydra.errors import ConfigCompositionException

from benchmarks import roofline
from benchmarks.cached_epochs import epoch_of
from benchmarks.growth import peak
from benchmarks.other_libraries import check_timm, check_torchdistill, step_of_timm, two_jobs
from benchmarks.paired_timing import Step
from benchmarks.report import Report
from benchmarks.roofline import Ceilings, Work, work_of
from benchmarks.steps import Case, build_case
from kd_lightning.running.build import quieten

NO_TIME = "there is no time for it in a rehearsal"
CONTROL_TOLERANCE = 0.05  # largest relative difference between the control and the first row
UNTUNED = ("hardware.precision=32", "hardware.channels_last=false")
COMPILED_TEACHER = ("hardware.compile_teacher=true",)
COMPILED = ("hardware.compile=true",)
RECORDED = ("hardware.cuda_graphs=true",)


@dataclass(frozen=True)
class Scale:
    """The sizes of everything that is measured.

    Attributes:
        device: that is measured.
        hardware: the overrides of a run on the device.
        side: pixels of the side of an image.
        batch: images per step.
        nets: names of the teacher and of the students a and b.
        matrix: rows of the matrices of the arithmetic ceiling.
        copy: bytes of the copy of the memory ceiling.
        warmup: number of steps before the timed ones.
        steps: number of timed steps.
        small: name -> overrides of a run on small data.
        compiles: whether compiled steps are measured too.
    """

    device: torch.device
    hardware: tuple[str, ...]
    side: int
    batch: int
    nets: tuple[str, str, str]
    matrix: int
    copy: int
    warmup: int
    steps: int
    small: dict[str, tuple[str, ...]]
    compiles: bool


def fashion_like(images: int) -> tuple[str, ...]:
    """The overrides of synthetic data and nets of the sizes of Fashion-MNIST."""
    return ("data=synthetic", "data.channels=1", "data.size=28", f"data.num_train={images}",
            "data.val_fraction=0", "data.batch_size=128",
            "augmentation@data.augmentation=shift", "model@method.teacher=fashion_mnist/teacher",
            "model@method.students.a=fashion_mnist/a",
            "model@method.students.b=fashion_mnist/b")  # fmt: skip


def ucr_like(series: int) -> tuple[str, ...]:
    """The overrides of synthetic series and nets of the sizes of a UCR problem (OSULeaf)."""
    return ("data=synthetic", "data.kind=series", "data.channels=1", "data.size=427",
            "data.num_classes=6", f"data.num_train={series}", "data.val_fraction=0",
            "data.batch_size=16", "model@method.teacher=ucr/teacher",
            "model@method.students.a=ucr/a", "model@method.students.b=ucr/b")  # fmt: skip


FULL = Scale(
    device=torch.device("cuda"), hardware=("hardware=gpu",), side=224, batch=256,
    nets=("resnet50", "resnet18", "mobilenetv2"), matrix=8192, copy=2**31, warmup=20, steps=50,
    small={"Fashion-MNIST's size, 60,000 images": fashion_like(60_000),
           "a UCR problem's size, 200 series": ucr_like(200)}, compiles=True,
)  # fmt: skip
REHEARSAL = Scale(
    device=torch.device("cpu"), hardware=("hardware=cpu", "hardware.precision=bf16-mixed"),
    side=32, batch=4, nets=("resnet20", "resnet8", "mobilenetv2_half"), matrix=256, copy=2**20,
    warmup=1, steps=2,
    small={"Fashion-MNIST's nets": (*fashion_like(32), "data.batch_size=8"),
           "a UCR problem's nets": (*ucr_like(8), "data.batch_size=4")},
    compiles=False,
)  # fmt: skip


def seconds_per_step(step: Step, scale: Scale) -> float:
    """Mean over the timed steps, measured by CUDA events on a GPU."""
    for _ in range(scale.warmup):
        step()
    if scale.device.type != "cuda":
        start = time.perf_counter()
        for _ in range(scale.steps):
            step()
        return (time.perf_counter() - start) / scale.steps
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(scale.steps):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / scale.steps


def peak_memory(step: Step, scale: Scale, *, recorded: bool) -> float:
    """The most GB held at once, including nets and data; on a CPU only those of the step.

    Args:
        recorded: whether the step is replayed. Then the allocator, which is asked for nothing,
            says what it has reserved.
    """
    if scale.device.type != "cuda":
        return peak(step) / 1e9
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    most = torch.cuda.max_memory_reserved if recorded else torch.cuda.max_memory_allocated
    return most() / 1e9


def ceilings(scale: Scale) -> Ceilings:
    """The highest rates of the device: bf16 products, and bytes read and written by a copy."""
    a = torch.randn(scale.matrix, scale.matrix, device=scale.device, dtype=torch.bfloat16)
    source = torch.zeros(scale.copy, dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    product = seconds_per_step(lambda: a @ a, scale)
    copying = seconds_per_step(lambda: target.copy_(source), scale)
    return Ceilings(flops=2 * scale.matrix**3 / product, bandwidth=2 * scale.copy / copying)


def images(scale: Scale) -> tuple[str, ...]:
    """The overrides of synthetic images with the shapes of ImageNet-100."""
    return ("data=synthetic", f"data.size={scale.side}", "data.num_classes=100",
            "data.num_train=256", "data.num_test=100", "data.val_fraction=0",
            f"data.batch_size={scale.batch}")  # fmt: skip


def dual_step(scale: Scale) -> tuple[str, ...]:
    """The overrides of the step of dual_student, without the hardware."""
    teacher, a, b = scale.nets
    return ("method=dual_student", *images(scale), f"model@method.teacher={teacher}",
            f"model@method.students.a={a}", f"model@method.students.b={b}")  # fmt: skip


def with_changing_batches(case: Case, step: Step, scale: Scale) -> Step:
    """The step, with the next of eight random batches copied into the case's batch before it."""
    x, y = case.batch[:2]
    generator = torch.Generator(device=scale.device).manual_seed(0)
    shape = (8, *x.shape)
    pool = torch.randint(256, shape, generator=generator, dtype=torch.uint8, device=scale.device)
    labels = torch.randint(100, (8, len(y)), generator=generator, device=scale.device)
    indices = cycle(range(8))

    def next_step() -> None:
        index = next(indices)
        x.copy_(pool[index])
        y.copy_(labels[index])
        step()

    return next_step


@dataclass(frozen=True)
class Benchmark:
    """One row of the table of steps.

    Attributes:
        title: of the row.
        parts: whose least times add up to the row's least time: "t", "a", "b" (see ``works_of``).
        make: returns a case and a step that uses the case's batch.
    """

    title: str
    parts: str
    make: Callable[[], tuple[Case, Step]]


def benchmarks_of(scale: Scale) -> Iterator[Benchmark | str]:
    """The rows of the table of steps. A string names a row that is left out, and why."""
    teacher, a, b = scale.nets
    dual = (*dual_step(scale), *scale.hardware)
    kd = ("method=kd", *images(scale), f"model@method.teacher={teacher}",
          f"model@method.students.student={a}", *scale.hardware)  # fmt: skip

    def ours(*words: str) -> Callable[[], tuple[Case, Step]]:
        def make() -> tuple[Case, Step]:
            case = build_case(*words)
            return case, case.step()

        return make

    def theirs(check: Callable, step_of: Callable, *words: str) -> Callable:
        def make() -> tuple[Case, Step]:
            check(words)
            case = build_case(*words)
            return case, step_of(case)

        return make

    def with_cached_teacher() -> tuple[Case, Step]:
        case = build_case(*dual).with_cached_teacher()
        return case, case.step()

    def teacher_alone(*words: str) -> Callable[[], tuple[Case, Step]]:
        def make() -> tuple[Case, Step]:
            case = build_case(*dual, *words)
            return case, case.teacher_step()

        return make

    def fast(title: str, parts: str, make: Callable[[], tuple[Case, Step]]) -> Benchmark | str:
        return Benchmark(title, parts, make) if scale.compiles else f"{title}: {NO_TIME}"

    yield Benchmark("dual step", "tab", ours(*dual))
    yield fast("dual step, compiled", "tab", ours(*dual, *COMPILED))
    yield fast("dual step, compiled and recorded", "tab", ours(*dual, *COMPILED, *RECORDED))
    yield fast("dual step, its teacher compiled", "tab", ours(*dual, *COMPILED_TEACHER))
    yield Benchmark("dual step, the teacher's outputs cached", "ab", with_cached_teacher)
    yield Benchmark("teacher alone", "t", teacher_alone())
    yield fast("teacher alone, compiled", "t", teacher_alone(*COMPILED_TEACHER))
    for part, net in (("a", a), ("b", b)):
        words = ("method=supervised", *images(scale), f"model@method.students.student={net}")
        words = (*words, *scale.hardware)
        yield Benchmark(f"{net} from labels only", part, ours(*words))
        yield fast(f"{net} from labels only, compiled", part, ours(*words, *COMPILED))
    if find_spec("torchdistill") is None:
        yield "torchdistill is not installed (`pip install kd_lightning[bench]`)"
    else:
        jobs = (check_torchdistill, two_jobs)
        untuned = theirs(*jobs, *dual, *UNTUNED)
        yield Benchmark("two jobs of torchdistill, as they are", "tatb", untuned)
        yield Benchmark("two jobs of torchdistill, tuned", "tatb", theirs(*jobs, *dual))
        compiled = theirs(check_torchdistill, partial(two_jobs, compiled=True), *dual)
        yield fast("two jobs of torchdistill, tuned and compiled", "tatb", compiled)
    yield Benchmark(f"KD to {a}", "ta", ours(*kd))
    yield fast(f"KD to {a}, compiled", "ta", ours(*kd, *COMPILED))
    task = (check_timm, step_of_timm)
    yield Benchmark("timm's task, as it is", "ta", theirs(*task, *kd, *UNTUNED))
    yield Benchmark("timm's task, tuned", "ta", theirs(*task, *kd))
    compiled = theirs(check_timm, partial(step_of_timm, compiled=True), *kd)
    yield fast("timm's task, tuned and compiled", "ta", compiled)


def works_of(scale: Scale) -> dict[str, Work]:
    """Part -> its work for one image. Parts: teacher ("t"), training of student a and of b."""
    x = torch.zeros(1, 3, scale.side, scale.side, dtype=torch.uint8)
    case = build_case(*dual_step(scale), "hardware=cpu")
    works = {"t": work_of(case.teacher.net, x, trains=False)}
    return works | {key: work_of(net, x, trains=True) for key, net in case.method.students.items()}


def is_asked(title: str, only: Sequence[str]) -> bool:
    """Whether a row is measured: all are, or those whose title contains one of ``only``."""
    return not only or any(word.lower() in title.lower() for word in only)


def step_table(
    scale: Scale, at: Ceilings, works: dict[str, Work], only: Sequence[str] = ()
) -> Iterator[str]:
    """The lines of the table of steps. Each line is yielded when it has been measured."""
    yield "| step | images/s | ms per step | share of the roofline | peak GB |"
    yield "|---|---:|---:|---:|---:|"
    remarks, first = [], None
    for row in benchmarks_of(scale):
        if not is_asked(row if isinstance(row, str) else row.title, only):
            continue
        if isinstance(row, str):
            remarks.append(f"- left out: {row}")
            continue
        try:
            rate, memory = measure(row, scale)
        except Exception as error:  # the other rows are still measured
            remarks.append(f"- left out: {row.title}: {reason(error)}")
            continue
        first = first or (row, rate)
        share = roofline.share(rate, [works[part] for part in row.parts], at)
        cells = (
            f"{rate:,.0f}",
            f"{scale.batch / rate * 1e3:.1f}",
            f"{share:.0%}",
            f"{memory:.2f}",
        )
        yield f"| {row.title} | {' | '.join(cells)} |"
    if first is None:
        yield from ["", *remarks]
        return
    row, rate = first
    yield ""
    try:
        again = measure(row, scale)[0] / rate
    except Exception as error:  # the other tables are still measured
        yield from [*remarks, f"\n**No control**: {row.title}: {reason(error)}"]
        return
    yield f"- control, the first row again: {again:.2f} of its rate"
    yield from remarks
    if abs(again - 1) > CONTROL_TOLERANCE:
        yield f"\n**Too noisy**: the control is off by more than {CONTROL_TOLERANCE:.0%}."


def reset() -> None:
    """Frees the memory and clears the compiled code of the row before."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """Why a row could not be measured, on one line."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, ConfigCompositionException):
        return f"unknown to this version ({lines[0]})"
    return f"{type(error).__name__}: {lines[0]}"


def measure(row: Benchmark, scale: Scale) -> tuple[float, float]:
    """Images per second, and peak memory in GB."""
    reset()
    case, step = row.make()
    gc.collect()  # what was made to check the row
    step = with_changing_batches(case, step, scale)
    seconds = seconds_per_step(step, scale)
    recorded = case.method.record_step is not None
    return scale.batch / seconds, peak_memory(step, scale, recorded=recorded)


def small_data_table(scale: Scale, only: Sequence[str] = ()) -> Iterator[str]:
    """The lines of the table of small data. Each line is yielded when it has been measured."""
    yield "| an epoch of dual_student | plain, s | recorded, s | compiled and recorded, s |"
    yield "|---|---:|---:|---:|"
    remarks = []
    for name, words in scale.small.items():
        if not is_asked(name, only):
            continue
        cells = []
        for title, more in (
            ("plain", ()),
            ("recorded", RECORDED),
            ("both", (*COMPILED, *RECORDED)),
        ):
            try:
                assert scale.compiles or not more, NO_TIME
                seconds = seconds_of_epoch(("method=dual_student", *words, *scale.hardware, *more))
            except Exception as error:  # the other cells are still measured
                remarks.append(f"- left out: {name}, {title}: {reason(error)}")
                cells.append("")
            else:
                cells.append(f"{seconds:.3f}")
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    yield from remarks


def seconds_of_epoch(words: Sequence[str]) -> float:
    """The shortest of five epochs, after two epochs of warm-up."""
    reset()
    epoch, times = epoch_of(build_case(*words)), []
    for number in count():
        start = time.perf_counter()
        epoch()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if number == 6:
            return min(times[2:])


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rehearse", action="store_true", help="a few tiny steps, on a CPU")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    parser.add_argument("--only", nargs="+", default=[], help="words of the titles of rows")
    arguments = parser.parse_args(words)
    if not arguments.rehearse and not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a GPU, and there is none: --rehearse runs on a CPU")
    if arguments.only and arguments.write:
        parser.error("--write needs all rows: leave out --only")
    if arguments.rehearse and arguments.write:
        raise SystemExit("a rehearsal measures nothing worth keeping: leave out --write")
    quieten()
    scale = REHEARSAL if arguments.rehearse else FULL
    title, on_gpu = "The speed of training steps on a GPU", not arguments.rehearse
    report = Report("gpu", title, words, gpu=on_gpu, keep=arguments.write)
    at, works = ceilings(scale), works_of(scale)
    report.add(
        f"\nCeilings: {at.flops / 1e12:.3g} TFLOP/s in bf16 products of {scale.matrix:,} rows, "
        f"{at.bandwidth / 1e12:.3g} TB/s in a copy.\n"
    )
    names = {"t": "teacher, forward", "a": "a, training", "b": "b, training"}
    report.add("Shares are of the bf16 roofline, also in the rows of float32 steps.\n")
    report.add(f"## The roofline for one image of {scale.side} px, in bf16\n")
    for line in roofline.lines({names[part]: work for part, work in works.items()}, at):
        report.add(line)
    report.add(f"\n## A step, batches of {scale.batch}: {', '.join(scale.nets)}\n")
    for line in step_table(scale, at, works, arguments.only):
        report.add(line)
    report.add("\n## Epochs of small data\n")
    for line in small_data_table(scale, arguments.only):
        report.add(line)


if __name__ == "__main__":
    main()
