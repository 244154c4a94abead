"""The runs and sweeps that are killed: how each is started and resumed, and what it must end with.

A case is small: some epochs of made-up data, a second or two on a quiet core.
"""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.torture.forked import start_ranks, start_run
from kd_lightning.records.jobs import JobSpec, create_job, jobs_of

TINY = (
    "data=synthetic", "data.num_train=96", "data.num_test=32", "data.batch_size=16",
    "trainer.max_epochs=5", "teacher.trainer.max_epochs=3", "teacher.check=warn", "hardware=cpu",
    "callbacks=quiet", "logger=none", "threads=1",
)  # fmt: skip
SMALL_TEACHER = ("method.teacher.widths=[64]",)
DUAL = ("method=dual_student", *SMALL_TEACHER)
CACHED = ("teacher.cache=2", "augmentation@data.augmentation=crop_flip", "data.size=32")
VARYING = ("throughput", "origin")  # numbers and paths that differ between any two runs
RUN = "run"  # the folder of the run, the sweep or the job in a case's folder
LONGEST = 240.0  # seconds for one process; what takes longer hangs


@dataclass(frozen=True)
class Case:
    """A run, a sweep or a job of a sweep.

    Attributes:
        name: in the tables.
        words: of its command line.
        share: of 200 kills.
        trains: the teacher is trained in it; else it is trained before, once.
        kind: "run", "sweep", "job" or "ranks" (a run in two processes).
    """

    name: str
    words: tuple[str, ...]
    share: int
    trains: bool = False
    kind: str = "run"

    def folder(self, root: Path, which: str) -> Path:
        """A folder for one trial. Hydra takes no comma or space in a value."""
        return root / re.sub(r"\W+", "-", f"{self.name} {which}")

    def directory(self, folder: Path) -> Path:
        return folder / "jobs" / "0000" if self.kind == "job" else folder / RUN

    def command(self, folder: Path, store: Path) -> tuple[str, list[str]]:
        """The program and its words: the first command, or the one that resumes.

        Args:
            folder: of the case.
            store: of the teachers that are trained before.
        """
        directory = self.directory(folder)
        if self.kind == "sweep" and (directory / "sweep.yaml").exists():
            return "kd_lightning.sweep", [str(directory), "--resume"]
        if self.kind != "job" and (directory / "config.yaml").exists():
            return "kd_lightning.run", [f"resume={directory}"]
        kept = folder / "teachers" if self.trains else store
        words = [*TINY, *self.words, f"outputs={folder / 'outputs'}", f"teacher.store={kept}"]
        if self.kind == "sweep":
            return "kd_lightning.run", ["-m", *words, f"sweep.dir={directory}"]
        if self.kind == "job":
            if not (directory / "job.json").exists():
                create_job(directory, JobSpec(0, "a job", {"seed": 0}, words))
            return "kd_lightning.work", [str(directory)]
        return "kd_lightning.run", [*words, f"run_dir={directory}"]

    def start(
        self,
        folder: Path,
        store: Path,
        before: Callable[[], None] | None = None,
        **variables: object,
    ) -> list[ForkServerProcess]:
        """Starts or resumes the case.

        Args:
            before: called in the new process.
            variables: of its environment.
        """
        program, words = self.command(folder, store)
        if self.kind == "ranks":
            return start_ranks(folder, *words, program=program)
        return [start_run(log_of(folder), *words, program=program, before=before, **variables)]

    def outcome(self, folder: Path) -> dict[str, Any]:
        """What must not depend on interruptions: name -> content."""
        directory = self.directory(folder)
        if self.kind != "sweep":
            return outcome_of_run(directory)
        runs = {job.directory.name: outcome_of_run(job.directory) for job in jobs_of(directory)}
        found = {f"{job}/{name}": value for job, run in runs.items() for name, value in run.items()}
        return found | {"table": (directory / "table.md").is_file()}


CASES = {
    case.name: case
    for case in (
        Case("kd", ("method=kd", *SMALL_TEACHER), 30),
        Case("dual_student", (*DUAL, "mixing@data.mixing=mixup"), 35),
        Case("teacher trained, labels only", (*DUAL, "baselines=labels_only"), 35, trains=True),
        Case("teacher cache", (*DUAL, *CACHED), 20, trains=True),
        Case("EMA", (*DUAL, "callbacks=ema"), 15),
        Case("SWA", (*DUAL, "callbacks=swa"), 15),
        Case("SSD", ("method=stochastic_self_distillation",), 12),
        Case("two processes (DDP)", (*DUAL, "hardware=ddp", "hardware.accelerator=cpu",
             "hardware.devices=2"), 15, kind="ranks"),
        Case("compile", (*DUAL, "hardware.compile=true"), 3),
        Case("sweep of 4 jobs", (*DUAL, "method.temperature=1,8", "seed=0,1"), 20, trains=True,
             kind="sweep"),
    )
}  # fmt: skip


def log_of(folder: Path) -> Path:
    """The log of a case: beside its folder, which may be removed or have no room."""
    return folder.with_name(f"{folder.name}.log")


def printed(folder: Path) -> str:
    """All that the processes of a case have printed."""
    logs = [log_of(folder), *sorted(folder.glob("rank*.log"))]
    return "".join(path.read_text(errors="replace") for path in logs if path.exists())


def outcome_of_run(directory: Path) -> dict[str, Any]:
    """Numbers, rows and weights of a finished run: name -> content."""
    found: dict[str, Any] = {
        "metrics.json": without_varying(json.loads((directory / "metrics.json").read_text()))
    }
    for path in sorted(directory.glob("*.csv")):
        if path.name != "table.csv":  # it has the throughput
            with path.open() as file:
                found[path.name] = list(csv.reader(file))
    found["last.ckpt"] = hashed(
        torch.load(directory / "last.ckpt", weights_only=True)["state_dict"]
    )
    for path in sorted(directory.glob("students/*/student.safetensors")):
        found[str(path.relative_to(directory))] = hashed(load_file(path))
    return found


def hashed(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in state.items()}


def without_varying(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: without_varying(v) for k, v in value.items() if k not in VARYING}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The names of all content that is not equal."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def half_written(folder: Path) -> list[str]:
    """Temporary files that are left, but for a job's progress: a job that was killed when it had
    all its results is not run again.
    """
    left = [path for path in folder.rglob("*.tmp") if path.name != "progress.json.tmp"]
    return sorted(str(path.relative_to(folder)) for path in left)
