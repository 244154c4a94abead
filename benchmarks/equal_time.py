"""How many epochs each system of ``sweep=zoo`` can train in the time that plain KD needs for 30.

    python -m benchmarks.equal_time        from benchmarks/results/zoo_cost.md

A system pays for its steps, for its stage, and for what the training of its teacher costs more than
that of the usual teacher. The usual teacher is there already, so its training costs nothing. It
does cost something in the row ``labels only, the teacher's time too``: all the time for a teacher
goes into a student that has none.

``conf/sweep/zoo_equal_time.yaml`` has these numbers.
"""

from pathlib import Path

from benchmarks.training_costs import COSTS, KD, LABELS, TIME, costs

KD_EPOCHS = 30
WITH_TEACHERS_TIME = "labels only, the teacher's time too"


def epochs(path: Path = COSTS) -> dict[str, int]:
    """Variant -> epochs that take as long as ``KD_EPOCHS`` of KD, rounded."""
    known = costs(TIME, path)
    found = {name: round((KD_EPOCHS - cost.extra) / cost.epoch) for name, cost in known.items()}
    with_teacher = known[KD].of_training(KD_EPOCHS, with_teacher=True)
    return found | {WITH_TEACHERS_TIME: round(with_teacher / known[LABELS].epoch)}


def main() -> None:
    for name, count in epochs().items():
        print(f"{count:4}  {name}")


if __name__ == "__main__":
    main()
