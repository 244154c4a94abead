"""How many epochs each system of ``sweep=zoo`` can train in the time that plain KD needs for 30.

    python -m benchmarks.equal_time        from benchmarks/results/zoo_cost.md

A system pays for its steps, for its stage, and for what the training of its teacher costs more than
that of the usual teacher. The usual teacher is there already, so its training costs nothing. It
does cost something in the row ``labels only, the teacher's time too``: all the time for a teacher
goes into a student that has none.

``conf/sweep/zoo_equal_time.yaml`` has these numbers.
"""

import re
from pathlib import Path

from benchmarks.report import RESULTS

COSTS = RESULTS / "zoo_cost.md"
KD_EPOCHS = 30
LABELS, WITH_TEACHERS_TIME = "labels only", "labels only, the teacher's time too"
STUDY_EPOCHS = 15  # of the runs whose stages the table of costs shows


def cells(path: Path, num_cells: int) -> dict[str, list[str]]:
    """Variant -> its other cells, of all rows of ``path`` with so many cells."""
    rows = (re.findall(r"\| ([^|]+?) (?=\|)", line) for line in path.read_text().splitlines())
    return {name: others for name, *others in (row for row in rows if len(row) == num_cells)}


def epochs(path: Path = COSTS) -> dict[str, int]:
    """Variant -> epochs that take as long as ``KD_EPOCHS`` of KD, rounded."""
    step = {name: float(row[6]) for name, row in cells(path, 9).items() if row[0] != "teacher rows"}
    work = {name: row for name, row in cells(path, 8).items() if row[0] != "work"}
    _, teacher_epochs, _, _, _, ratio, _ = work.pop("all with teacher rows")
    teacher_time = int(teacher_epochs) * float(ratio)
    budget = dict.fromkeys(step, float(KD_EPOCHS))
    per_epoch = dict(step)
    for name, (kind, length, _, _, _, ratio, _) in work.items():
        if kind.startswith("teacher"):
            budget[name] -= teacher_time * (float(ratio) - 1)
        else:
            per_epoch[name] += int(length.split()[0]) / STUDY_EPOCHS * float(ratio)
    budget[WITH_TEACHERS_TIME] = KD_EPOCHS + teacher_time
    per_epoch[WITH_TEACHERS_TIME] = step[LABELS]
    return {name: round(time / per_epoch[name]) for name, time in budget.items()}


def main() -> None:
    for name, count in epochs().items():
        print(f"{count:4}  {name}")


if __name__ == "__main__":
    main()
