"""Checks the files of a run before another run needs them."""

from pathlib import Path

from kd_lightning.base.kept_files import read_json
from kd_lightning.records.generations import good_checkpoint, has_checkpoint
from kd_lightning.records.run_directory import TO_RESUME, read_config, read_metrics


def check_run(directory: Path) -> None:
    """Reads what a later run needs of a kept run, or, if that is unfinished, to resume it.

    Raises:
        Damaged: a file is missing, or not as it was written.
    """
    from kd_lightning.base.tensor_files import read_checkpoint  # here: torch takes seconds

    is_finished = (directory / "metrics.json").exists()
    if not is_finished and not has_checkpoint(directory):
        return  # it is begun anew
    students = read_config(directory, *(() if is_finished else TO_RESUME)).method.students
    if (directory / "environment.json").exists():
        read_json(directory / "environment.json")
    if is_finished:
        read_metrics(directory)
    else:
        good_checkpoint(directory)
    for path in [directory / f"best-{key}.ckpt" for key in students]:
        if is_finished or path.exists():
            read_checkpoint(path, mmap=True)
