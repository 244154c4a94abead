"""Predicts the classes of images or series, and writes them as a table.

    python -m kd_lightning.predict outputs/<run> photos/ --out predictions.csv
    python -m kd_lightning.predict student.safetensors new.npz --out new.parquet

A sample that cannot be read has an empty class and an error in its row. If none
can be read, the exit code is 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import report_errors
from kd_lightning.config.options import command_parser

MAX_WORKERS = 8


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("predict", __doc__)
    add = parser.add_argument
    add("student_path", metavar="student", help="a run directory, or a student file or its folder")
    add("inputs", nargs="+", help="image files, folders of images, .npz (x), .csv or .tsv files")
    add("--out", help=".csv, .json, .jsonl or .parquet; without it CSV is printed")
    add("--student", help="of a run with several students, one by name; else the best on val")
    add("--top-k", type=int, default=5, help="number of classes in a row (5)")
    add("--embeddings", action="store_true", help="also write the input of the last layer")
    add("--batch-size", type=int, default=64, help="number of samples in a pass (64)")
    add("--workers", type=int, help="number of processes that decode images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (auto)")
    add("--strict", action="store_true", help="exit code 1 if a sample cannot be read")
    add("--allow", nargs="+", default=[], help="packages whose nets the file may build; trust them")
    return parser


def predict(arguments: argparse.Namespace) -> int:
    """The prediction that the arguments ask for; returns the number of unreadable samples.

    Raises:
        UserError: an argument is wrong, or no sample could be read; then the rows say why.
    """
    # here, because they take seconds to import, and --help should not
    import kd_lightning
    from kd_lightning.predictions.outputs import check_output
    from kd_lightning.predictions.predict import predict_files

    check_output(arguments.out, arguments.embeddings)
    student = kd_lightning.load(
        arguments.student_path, student=arguments.student, allow=arguments.allow
    )
    workers = arguments.workers
    counts = predict_files(
        student,
        arguments.inputs,
        arguments.out,
        top_k=arguments.top_k,
        embeddings=arguments.embeddings,
        batch_size=arguments.batch_size,
        workers=min(MAX_WORKERS, os.cpu_count() or 1) if workers is None else workers,
        device=arguments.device,
    )
    where = "" if arguments.out in (None, "-") else f": {arguments.out}"
    if not counts.predicted:
        none = "could be read (column error)" if counts.failed else "is in the files"
        raise UserError(f"nothing was predicted, for no sample {none}{where}")
    bad = f", {counts.failed:,} could not be read (column error)" if counts.failed else ""
    print(f"{counts.predicted:,} samples predicted{bad}{where}", file=sys.stderr)
    return counts.failed


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command. A user error is printed as one sentence, with exit code 2."""
    arguments = build_parser().parse_args(words)
    with report_errors():
        try:
            failed = predict(arguments)
        except BrokenPipeError:  # the reader of the rows, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
    if failed and arguments.strict:
        sys.exit(1)


if __name__ == "__main__":
    main()
