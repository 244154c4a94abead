"""What a whole training of a system of ``sweep=zoo`` costs, by the tables of ``zoo_cost``.

The unit is an epoch of plain KD with a teacher that is there already. A cost is a time or a number
of FLOPs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import RESULTS

COSTS = RESULTS / "zoo_cost.md"
KD, LABELS = "kd", "labels only"
STUDY_EPOCHS = 15  # of the runs whose stages the table of costs shows
TIME, FLOPS = "time", "FLOPs"
# of the tables' cells after the first: those of a step, and those of the work before training
OF_STEP, OF_WORK = {FLOPS: 3, TIME: 6}, {FLOPS: 4, TIME: 5}


@dataclass(frozen=True)
class Cost:
    """What a system costs, in epochs of plain KD.

    Attributes:
        epoch: one epoch of the student, with its share of a stage, whose length is a share of the
            training.
        teacher: the whole training of its teacher; 0 if it has none.
        usual_teacher: the whole training of the usual teacher.
    """

    epoch: float
    teacher: float
    usual_teacher: float

    @property
    def extra(self) -> float:
        """What its teacher costs more than the usual one, which is there already."""
        return max(0.0, self.teacher - self.usual_teacher)

    def of_training(self, epochs: float, *, with_teacher: bool) -> float:
        """The cost of so many epochs, with the whole training of the teacher or what is extra."""
        return epochs * self.epoch + (self.teacher if with_teacher else self.extra)


def costs(unit: str, path: Path = COSTS) -> dict[str, Cost]:
    """Variant -> its cost.

    Args:
        unit: ``TIME`` or ``FLOPS``.
        path: the tables of costs.
    """
    steps, works = _cells(path, 9, "teacher rows"), _cells(path, 8, "work")
    _, usual_epochs, *_ = usual = works.pop("all with teacher rows")
    usual_teacher = int(usual_epochs) * float(usual[OF_WORK[unit]])
    found = {}
    for name, step in steps.items():
        epoch, teacher = float(step[OF_STEP[unit]]), usual_teacher if float(step[0]) else 0.0
        if name in works:
            kind, length, *_ = work = works[name]
            ratio = float(work[OF_WORK[unit]])
            if kind.startswith("teacher"):
                teacher = usual_teacher * ratio
            else:
                epoch += int(length.split()[0]) / STUDY_EPOCHS * ratio
        found[name] = Cost(epoch, teacher, usual_teacher)
    return found


def _cells(path: Path, num_cells: int, head: str) -> dict[str, list[str]]:
    """Variant -> its other cells, of the rows with so many cells; ``head`` begins their heading."""
    rows = (re.findall(r"\| ([^|]+?) (?=\|)", line) for line in path.read_text().splitlines())
    found = (row for row in rows if len(row) == num_cells)
    return {name: others for name, *others in found if others[0] != head}
