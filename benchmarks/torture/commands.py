"""The commands beside ``run`` that write files, as cases: each is killed and then given again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loading import write_photos
from benchmarks.torture.cases import LONGEST, RUN, Case
from benchmarks.torture.forked import start_run, wait_for_all
from benchmarks.torture.write_points import RECORD

INPUTS = "inputs"  # the folder with what the commands read
CLASSES = ("cat", "dog")
SMALL = (
    "method=supervised", "data=image_folder", "data.image_size=16", "data.batch_size=8",
    "data.num_workers=0", "data.val_fraction=0.25", "model@method.students.student=mlp",
    "trainer.max_epochs=1", "hardware=cpu", "callbacks=quiet", "logger=none", "threads=1",
)  # fmt: skip
# with times in them, or what follows from times
VARYING = ("README.md", "export.json", ".lock")


@dataclass(frozen=True)
class Command(Case):
    """A command that makes files, and that is given again after it was killed.

    Attributes:
        program: the module.
    """

    program: str = ""

    def command(self, folder: Path, store: Path) -> tuple[str, list[str]]:
        inputs = store.parent / INPUTS
        made = {"images": inputs / "images", "run": inputs / "run", "out": folder / RUN}
        return self.program, [word.format_map(made) for word in self.words]

    def outcome(self, folder: Path) -> dict[str, Any]:
        """The files that it has made: name -> content, where that is the same every time."""
        made = [path for path in folder.rglob("*") if path.is_file() and path.name != RECORD]
        return {
            str(path.relative_to(folder)): None if path.name in VARYING else path.read_bytes()
            for path in made
        }


def make_inputs(root: Path) -> None:
    """Writes a tree of photographs and trains a student on it; does nothing the second time.

    Raises:
        SystemExit: the student could not be trained.
    """
    inputs = root / INPUTS
    if inputs.exists():
        return
    for seed, part in enumerate(("train", "test")):
        write_photos([inputs / "images" / part / name for name in CLASSES], 8, seed)
    log = inputs / "run.log"
    words = (*SMALL, f"data.root={inputs / 'images'}", f"run_dir={inputs / 'run'}")
    process = start_run(log, *words)
    if not wait_for_all([process], LONGEST) or process.exitcode:
        raise SystemExit(f"the student of the commands was not trained:\n{log.read_text()}")


COMMANDS = {
    case.name: case
    for case in (
        Command("prepare", ("data=image_folder", "data.root={images}", "out={out}",
                "data.image_size=16", "data.num_workers=0"), 0, program="kd_lightning.prepare"),
        Command("export", ("{run}", "--out", "{out}"), 0, program="kd_lightning.export"),
        Command("predict", ("{run}", "{images}/test", "--out", "{out}.csv"), 0,
                program="kd_lightning.predict"),
    )
}  # fmt: skip
