"""What a GPU makes of a step, beside what it could make at most. Has not been run on a GPU.

    python -m benchmarks.gpu                      all tables
    python -m benchmarks.gpu --write              also into benchmarks/results/gpu.md
    python -m benchmarks.gpu --rehearse           a few tiny steps on a CPU: whether it runs at all

In one process: first the ceilings, a product of large matrices and a copy. Then images a second of
the dual step of ImageNet-100 and of its parts, of timm's task and of two jobs of torchdistill, each
as the share of what the ceilings let through (``benchmarks/roof.py``) and with the most memory it
held. Then epochs of small data, with CUDA graphs and without. CUDA events, steps to warm up, random
uint8 images that lie on the device, another batch at every step.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, cycle

import torch
import torch._dynamo.utils
from hydra.errors import ConfigCompositionException

from benchmarks import roof
from benchmarks.cached import epoch_of
from benchmarks.growth import peak
from benchmarks.paired import Step
from benchmarks.peers import check_timm, check_torchdistill, step_of_timm, two_jobs
from benchmarks.roof import Ceilings, Work, work_of
from benchmarks.steps import Made, made
from benchmarks.written import Report
from kd_lightning.running.build import quieten

NO_TIME = "there is no time for it in a rehearsal"
TRUSTED = 0.05  # how far off a control may be
AS_THEY_ARE = ("hardware.precision=32", "hardware.channels_last=false")
COMPILED = ("hardware.compile=true",)
GRAPHS = (*COMPILED, "hardware.cuda_graphs=true")


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        device: that is measured.
        hardware: the overrides of a run on it.
        side: of an image.
        batch: images.
        nets: teacher, students a and b.
        matrix, copy: of the ceilings, in rows and in bytes.
        warm, steps: steps that are not timed, and that are.
        small: name -> overrides, of small data.
        compiles: whether there is time to.
    """

    device: torch.device
    hardware: tuple[str, ...]
    side: int
    batch: int
    nets: tuple[str, str, str]
    matrix: int
    copy: int
    warm: int
    steps: int
    small: dict[str, tuple[str, ...]]
    compiles: bool


def of_fashion(images: int) -> tuple[str, ...]:
    """Data and nets of the sizes of Fashion-MNIST."""
    return ("data=synthetic", "data.channels=1", "data.size=28", f"data.num_train={images}",
            "data.val_fraction=0", "data.batch_size=128",
            "augmentation@data.augmentation=shift", "model@method.teacher=fashion_mnist/teacher",
            "model@method.students.a=fashion_mnist/a",
            "model@method.students.b=fashion_mnist/b")  # fmt: skip


def of_ucr(series: int) -> tuple[str, ...]:
    """Data and nets of the sizes of a UCR problem, OSULeaf."""
    return ("data=synthetic", "data.kind=series", "data.channels=1", "data.size=427",
            "data.num_classes=6", f"data.num_train={series}", "data.val_fraction=0",
            "data.batch_size=16", "model@method.teacher=ucr/teacher",
            "model@method.students.a=ucr/a", "model@method.students.b=ucr/b")  # fmt: skip


WHOLE = Scale(
    device=torch.device("cuda"), hardware=("hardware=gpu",), side=224, batch=256,
    nets=("resnet50", "resnet18", "mobilenetv2"), matrix=8192, copy=2**31, warm=20, steps=50,
    small={"Fashion-MNIST's size, 60,000 images": of_fashion(60_000),
           "a UCR problem's size, 200 series": of_ucr(200)}, compiles=True,
)  # fmt: skip
REHEARSAL = Scale(
    device=torch.device("cpu"), hardware=("hardware=cpu", "hardware.precision=bf16-mixed"),
    side=32, batch=4, nets=("resnet20", "resnet8", "mobilenetv2_half"), matrix=256, copy=2**20,
    warm=1, steps=2,
    small={"Fashion-MNIST's nets": of_fashion(256), "a UCR problem's nets": of_ucr(32)},
    compiles=False,
)  # fmt: skip


def seconds_a_step(step: Step, scale: Scale) -> float:
    """Mean of the timed steps, by the device's own clock."""
    for _ in range(scale.warm):
        step()
    if scale.device.type != "cuda":
        begun = time.perf_counter()
        for _ in range(scale.steps):
            step()
        return (time.perf_counter() - begun) / scale.steps
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    for _ in range(scale.steps):
        step()
    ended.record()
    ended.synchronize()
    return begun.elapsed_time(ended) / 1e3 / scale.steps


def most_memory(step: Step, scale: Scale) -> float:
    """GB that are held at once, nets and data included; on a CPU a step's own."""
    if scale.device.type != "cuda":
        return peak(step) / 1e9
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def ceilings(scale: Scale) -> Ceilings:
    """What the device does at most: bf16 products, and bytes read and written by a copy."""
    a = torch.randn(scale.matrix, scale.matrix, device=scale.device, dtype=torch.bfloat16)
    source = torch.zeros(scale.copy, dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    product = seconds_a_step(lambda: a @ a, scale)
    copying = seconds_a_step(lambda: target.copy_(source), scale)
    return Ceilings(flops=2 * scale.matrix**3 / product, bandwidth=2 * scale.copy / copying)


def images(scale: Scale) -> tuple[str, ...]:
    """The overrides of ImageNet-100's shapes."""
    return ("data=synthetic", f"data.size={scale.side}", "data.num_classes=100",
            "data.num_train=256", "data.num_test=100", "data.val_fraction=0",
            f"data.batch_size={scale.batch}")  # fmt: skip


def dual_step(scale: Scale) -> tuple[str, ...]:
    """The overrides of the large table's first row, wherever it runs."""
    teacher, a, b = scale.nets
    return ("method=dual_student", *images(scale), f"model@method.teacher={teacher}",
            f"model@method.students.a={a}", f"model@method.students.b={b}")  # fmt: skip


def rotating(case: Made, step: Step, scale: Scale) -> Step:
    """A step on the next of eight random batches, copied to where the step looks for its own."""
    x, y = case.batch[:2]
    luck = torch.Generator(device=scale.device).manual_seed(0)
    shape = (8, *x.shape)
    pool = torch.randint(256, shape, generator=luck, dtype=torch.uint8, device=scale.device)
    labels = torch.randint(100, (8, len(y)), generator=luck, device=scale.device)
    places = cycle(range(8))

    def next_step() -> None:
        place = next(places)
        x.copy_(pool[place])
        y.copy_(labels[place])
        step()

    return next_step


@dataclass(frozen=True)
class Bench:
    """One row.

    Attributes:
        title: what is measured.
        parts: of the floor that is its roof.
        make: -> the case whose batch is used, and a step.
    """

    title: str
    parts: str
    make: Callable[[], tuple[Made, Step]]


def benches(scale: Scale) -> Iterator[Bench | str]:
    """The rows of the large table; a string is one that is left out, and why."""
    teacher, a, b = scale.nets
    dual = (*dual_step(scale), *scale.hardware)
    kd = ("method=kd", *images(scale), f"model@method.teacher={teacher}",
          f"model@method.students.student={a}", *scale.hardware)  # fmt: skip

    def ours(*words: str) -> Callable[[], tuple[Made, Step]]:
        def make() -> tuple[Made, Step]:
            case = made(*words)
            return case, case.step()

        return make

    def theirs(check: Callable, step_of: Callable, *words: str) -> Callable:
        def make() -> tuple[Made, Step]:
            check(words)
            case = made(*words)
            return case, step_of(case)

        return make

    def with_answers() -> tuple[Made, Step]:
        case = made(*dual).with_answers()
        return case, case.step()

    def asked() -> tuple[Made, Step]:
        case = made(*dual)
        return case, case.ask()

    yield Bench("dual step", "tab", ours(*dual))
    for name, words in (("compile", COMPILED), ("compile and CUDA graphs", GRAPHS)):
        if scale.compiles:
            yield Bench(f"dual step, {name}", "tab", ours(*dual, *words))
        else:
            yield f"dual step, {name}: {NO_TIME}"
    yield Bench("dual step, the teacher's answers at hand", "ab", with_answers)
    yield Bench("teacher alone", "t", asked)
    for part, net in (("a", a), ("b", b)):
        words = ("method=supervised", *images(scale), f"model@method.students.student={net}")
        yield Bench(f"{net} from labels alone", part, ours(*words, *scale.hardware))
    if find_spec("torchdistill") is None:
        yield "torchdistill is not installed (`pip install kd_lightning[bench]`)"
    else:
        jobs = (check_torchdistill, two_jobs)
        as_they_are = theirs(*jobs, *dual, *AS_THEY_ARE)
        yield Bench("two jobs of torchdistill, as they are", "tatb", as_they_are)
        yield Bench("two jobs of torchdistill, tuned", "tatb", theirs(*jobs, *dual))
    yield Bench(f"KD to {a}", "ta", ours(*kd))
    task = (check_timm, step_of_timm)
    yield Bench("timm's task, as it is", "ta", theirs(*task, *kd, *AS_THEY_ARE))
    yield Bench("timm's task, tuned", "ta", theirs(*task, *kd))


def floors(scale: Scale) -> dict[str, Work]:
    """Part ("t", "a", "b") -> its work for one image."""
    x = torch.zeros(1, 3, scale.side, scale.side, dtype=torch.uint8)
    case = made(*dual_step(scale), "hardware=cpu")
    found = {"t": work_of(case.teacher.net, x, trains=False)}
    return found | {key: work_of(net, x, trains=True) for key, net in case.method.students.items()}


def large(scale: Scale, at: Ceilings, works: dict[str, Work]) -> Iterator[str]:
    """The lines of the large table, each as soon as it is known."""
    yield "| step | images/s | ms a step | share of the roof | GB at most |"
    yield "|---|---:|---:|---:|---:|"
    remarks, first = [], None
    for bench in benches(scale):
        if isinstance(bench, str):
            remarks.append(f"- left out: {bench}")
            continue
        try:
            rate, memory = measured(bench, scale)
        except Exception as error:  # the other rows are worth having all the same
            remarks.append(f"- left out: {bench.title}: {reason(error)}")
            continue
        first = first or (bench, rate)
        if skipped := graphs_skipped():
            remarks.append(f"- {bench.title}: {skipped} graphs were compiled without CUDA graphs")
        roofed = roof.share(rate, [works[part] for part in bench.parts], at)
        cells = (
            f"{rate:,.0f}",
            f"{scale.batch / rate * 1e3:.1f}",
            f"{roofed:.0%}",
            f"{memory:.2f}",
        )
        yield f"| {bench.title} | {' | '.join(cells)} |"
    if first is None:
        yield from ["", *remarks]
        return
    bench, rate = first
    again = measured(bench, scale)[0] / rate
    yield ""
    yield f"- control, the first row again: {again:.2f} of its rate"
    yield from remarks
    if abs(again - 1) > TRUSTED:
        yield f"\n**Too noisy**: the control is off by more than {TRUSTED:.0%}."


def graphs_skipped() -> int:
    """Graphs that torch was asked to record as CUDA graphs, and did not, since ``forget``."""
    return torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]


def forget() -> None:
    """Nothing of the row before is held, or counted, in the next."""
    gc.collect()
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """Why a row could not be measured, in a line."""
    said = str(error).strip().splitlines() or [""]
    if isinstance(error, ConfigCompositionException):
        return f"unknown to this version ({said[0]})"
    return f"{type(error).__name__}: {said[0]}"


def measured(bench: Bench, scale: Scale) -> tuple[float, float]:
    """Images a second, and GB."""
    forget()
    case, step = bench.make()
    step = rotating(case, step, scale)
    seconds = seconds_a_step(step, scale)
    return scale.batch / seconds, most_memory(step, scale)


def small(scale: Scale) -> Iterator[str]:
    """The lines of the table of small data, each as soon as it is known."""
    yield "| an epoch of dual_student | plain, s | compile and CUDA graphs, s | ratio |"
    yield "|---|---:|---:|---:|"
    remarks = []
    for name, words in scale.small.items():
        words = ("method=dual_student", *words, *scale.hardware)
        plain = seconds_of_epoch(words)
        try:
            assert scale.compiles, NO_TIME
            graphs = seconds_of_epoch((*words, *GRAPHS))
        except Exception as error:  # as above
            remarks.append(f"- left out: CUDA graphs, {name}: {reason(error)}")
            yield f"| {name} | {plain:.3f} | | |"
        else:
            yield f"| {name} | {plain:.3f} | {graphs:.3f} | {graphs / plain:.2f} |"
            if skipped := graphs_skipped():
                remarks.append(f"- {name}: {skipped} graphs were compiled without CUDA graphs")
    yield ""
    yield from remarks


def seconds_of_epoch(words: Sequence[str]) -> float:
    """The shortest of five, after two that set things up."""
    forget()
    epoch, times = epoch_of(made(*words)), []
    for number in count():
        begun = time.perf_counter()
        epoch()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
        if number == 6:
            return min(times[2:])


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rehearse", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    given = parser.parse_args(words)
    if not given.rehearse and not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a GPU, and there is none: --rehearse runs on a CPU")
    if given.rehearse and given.write:
        raise SystemExit("a rehearsal measures nothing worth keeping: leave out --write")
    quieten()
    scale = REHEARSAL if given.rehearse else WHOLE
    report = Report("gpu", "What a GPU makes of a step", words, gpu=not given.rehearse)
    at, works = ceilings(scale), floors(scale)
    report.say(
        f"\nCeilings: {at.flops / 1e12:.3g} TFLOP/s in bf16 products of {scale.matrix:,} rows, "
        f"{at.bandwidth / 1e12:.3g} TB/s in a copy.\n"
    )
    names = dict(zip("tab", ("teacher, forward", "a, train", "b, train"), strict=True))
    report.say("Shares are of the roof in bf16, those of float32 rows too.\n")
    report.say(f"## The roof at {scale.side} px, for one image, in bf16\n")
    for line in roof.lines({names[part]: work for part, work in works.items()}, at):
        report.say(line)
    report.say(f"\n## A step, batches of {scale.batch}: {', '.join(scale.nets)}\n")
    for line in large(scale, at, works):
        report.say(line)
    if given.write:  # here too: what comes next takes long
        report.write()
    report.say("\n## Epochs of small data\n")
    for line in small(scale):
        report.say(line)
    if given.write:
        report.write()


if __name__ == "__main__":
    main()
