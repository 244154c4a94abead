"""What is installed and what this machine can do, as rows for ``python -m kd_lightning.doctor``."""

import os
import platform
import shutil
import statistics
import time
import tomllib
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback
from packaging.requirements import Requirement

import kd_lightning
from kd_lightning import __version__
from kd_lightning.base.files import format_bytes
from kd_lightning.base.precision import best_dtype
from kd_lightning.config.command_line import CONF, compose
from kd_lightning.running.build import build_data, build_method
from kd_lightning.running.trainer import bare_trainer
from kd_lightning.teachers.sources import Teacher, build_net

STEPS = 12  # of each method; the first one also sets things up and is not counted


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name: what was looked at.
        state: what was found.
        advice: what to do about it; "": nothing.
        is_needed: whether a run fails without it.
    """

    name: str
    state: str
    advice: str = ""
    is_needed: bool = False


def requirements() -> list[Requirement]:
    """The requirements of this package; none if it runs from a folder and is not installed."""
    try:
        return [Requirement(text) for text in requires("kd_lightning") or ()]
    except PackageNotFoundError:
        return []


def extras_of_the_source() -> set[str]:
    """The extras in the ``pyproject.toml`` beside this package; none if there is no such file."""
    path = Path(kd_lightning.__file__).parents[1] / "pyproject.toml"
    if not path.is_file():
        return set()
    project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") != "kd_lightning":
        return set()
    return set(project["optional-dependencies"])


def extra_of(requirement: Requirement) -> str | None:
    """The extra that a requirement belongs to; None for one of the package itself."""
    _, found, extra = str(requirement.marker).rpartition("extra == ")
    return extra.strip("\"'") if found else None


def packages() -> Iterator[Finding]:
    """Python, this package and what it always needs."""
    yield Finding("python", platform.python_version())
    yield Finding("kd_lightning", __version__)
    listed = requirements()
    if missing := extras_of_the_source() - {extra_of(one) for one in listed}:
        state = f"older than its source, which also has {', '.join(sorted(missing))}"
        yield Finding("installation", state, "pip install -e .")
    if not listed:
        yield Finding(
            "requirements", "unknown: kd_lightning is not installed", "pip install -e .", True
        )
    for requirement in listed:
        if requirement.marker is None:
            yield package(requirement, "kd_lightning", is_needed=True)


def extras() -> Iterator[Finding]:
    """The extras, and which of their packages are missing."""
    of_extra: dict[str, list[Finding]] = {}
    for requirement in requirements():
        extra = extra_of(requirement) if requirement.marker is not None else None
        # an extra such as "all" names others of this package
        if extra not in (None, "all") and requirement.name != "kd_lightning":
            found = package(requirement, f"kd_lightning[{extra}]")
            of_extra.setdefault(extra, []).append(found)
    for extra, found in of_extra.items():
        state = ", ".join(f"{one.name} {one.state}" for one in found)
        yield Finding(f"[{extra}]", state, next((one.advice for one in found if one.advice), ""))


def package(requirement: Requirement, owner: str, *, is_needed: bool = False) -> Finding:
    """Whether a package is installed, in a version that fits.

    Args:
        owner: what pip is told to install where it does not fit.
    """
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(requirement.name, "missing", f'pip install "{owner}"', is_needed)
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, found)
    state = f"{found}, expected {requirement.specifier}"
    return Finding(requirement.name, state, f'pip install "{owner}"', is_needed)


def machine(outputs: Path) -> Iterator[Finding]:
    """Processor, memory, disk, devices and precisions.

    Args:
        outputs: the folder that runs are written to, or will be.
    """
    yield Finding("system", platform.platform())
    yield Finding("CPU", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    folder = outputs.resolve()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    yield Finding("disk", f"{format_bytes(disk.free)} free for {outputs}")
    yield from gpus()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fastest = str(best_dtype(device)).removeprefix("torch.")
    yield Finding("hardware.teacher_precision", f"best is {fastest} here")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if device.type == "cpu" and compiler is None:
        advice = "install g++, or leave hardware.compile=false"
        yield Finding("hardware.compile", "no C++ compiler", advice)
    else:
        yield Finding("hardware.compile", "possible")


def gpus() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use: runs use the CPU (hardware=auto)")
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        precision = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(
            best_dtype(torch.device("cuda", index)), 32
        )
        yield Finding(
            f"GPU {index}",
            f"{gpu.name}, {format_bytes(gpu.total_memory)}, compute {gpu.major}.{gpu.minor}, "
            f"CUDA {torch.version.cuda}, use hardware.precision={precision}",
        )


def methods() -> list[str]:
    return sorted(path.stem for path in (CONF / "method").glob("[!_]*.yaml"))


class StepTimes(Callback):
    """Measures the training steps of a fit, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *arguments: object) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *arguments: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def step_time(method_name: str) -> Finding:
    """Trains a method with an untrained teacher for a few steps on digits."""
    cfg = compose(
        [f"method={method_name}", "data=digits", "trainer.max_epochs=1", "callbacks=quiet",
         f"trainer.max_steps={STEPS}", "+trainer.limit_val_batches=0"]
    )  # fmt: skip
    data = build_data(cfg)
    teacher = None
    if "teacher" in cfg.method:
        net = build_net(cfg.method.teacher, cfg.teacher.seed, "teacher")
        teacher = Teacher(net, "untrained", "")
    method, times = build_method(cfg, teacher), StepTimes()
    trainer = bare_trainer(cfg, logger=False, enable_checkpointing=False, callbacks=[times])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an untrained teacher is what methods warn about
        trainer.fit(method, datamodule=data)
    milliseconds = 1000 * statistics.median(times.seconds[1:])
    state = f"{milliseconds:.1f} ms a step ({cfg.data.batch_size} images of {cfg.task.size} px)"
    return Finding(method_name, state)
