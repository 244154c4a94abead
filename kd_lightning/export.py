"""Writes a student as a file for other programs, checks it, and describes it.

    python -m kd_lightning.export outputs/<run> --format onnx --out flowers

The folder gets the student file, one file or two for each format, export.json,
and README.md, a model card. Each exported file is run and compared with PyTorch
on test samples of the run. If one differs, nothing is written. An existing
folder is replaced if it holds an export and nothing else.

formats: onnx (ONNX Runtime), int8 (ONNX, quantized), openvino, torchscript,
torch_export
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.config.command_line import as_user_errors, report_errors
from kd_lightning.config.console import console, say
from kd_lightning.config.options import command_parser
from kd_lightning.exports.formats import check_formats

if TYPE_CHECKING:
    from torch import nn

    from kd_lightning.data.classification import ClassificationData


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("export", __doc__)
    parser.add_argument("source", type=Path, help="a run directory, or a student file or folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--format", action="append", help="one of the above, several times for several; onnx"
    )
    parser.add_argument(
        "--preprocessing",
        default="inside",
        help="inside (default): raw samples -> probabilities; outside: normalized -> logits",
    )
    parser.add_argument("--student", help="of a run with several; default: the best on val")
    parser.add_argument(
        "--samples", type=Path, help="a folder of images or .npz to check with; default: the run's"
    )
    parser.add_argument(
        "--calibration", type=Path, help="the same for int8; default: the run's val part"
    )
    parser.add_argument("--limit", type=int, default=1000, help="most samples to check with (1000)")
    parser.add_argument("--batch", type=int, default=64, help="of the measured throughput (64)")
    parser.add_argument(
        "--allow", nargs="+", default=[], help="packages whose nets the file may build; trust them"
    )
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """The command line. A user error is printed as one sentence, with exit code 2."""
    with report_errors():
        arguments = build_parser().parse_args(words)
        formats = check_formats(arguments.format or ["onnx"])
        export(arguments, formats)


def export(arguments: argparse.Namespace, formats: list[str]) -> None:
    from kd_lightning.base.tables import print_tables
    from kd_lightning.exports.source import run_of
    from kd_lightning.exports.write_export import Request, write_export
    from kd_lightning.running.build import quieten

    quieten()
    request = Request(
        source=arguments.source,
        out=arguments.out.expanduser().resolve(),
        formats=formats,
        student=arguments.student,
        preprocessing=arguments.preprocessing,
        samples=arguments.samples,
        calibration=arguments.calibration,
        limit=arguments.limit,
        batch=arguments.batch,
        allow=arguments.allow,
    )
    request.check()  # before the data are read
    run = run_of(arguments.source)
    data, teacher = (None, None) if run is None else data_and_teacher_of(run, arguments.allow)
    table = write_export(request, run, data, teacher)
    print_tables([table], console, split_heads=False)
    say(f"Written: {arguments.out}")


def data_and_teacher_of(
    run: Path, allow: Sequence[str]
) -> "tuple[ClassificationData | None, nn.Module | None]":
    """The data of a run, and its teacher's net to be timed; None if the data are not here, which is
    said, and None if the run has no teacher.

    Args:
        allow: packages whose functions the configuration of the run may name.
    """
    from kd_lightning.base.allowed import check_record
    from kd_lightning.base.errors import UserError
    from kd_lightning.base.threads import use_threads
    from kd_lightning.exports.source import teacher_to_time
    from kd_lightning.records.resumed_config import add_earlier_values
    from kd_lightning.records.run_directory import read_config
    from kd_lightning.running.build import build_data

    cfg = read_config(run, "data", "task")
    check_record(cfg, run / "config.yaml", allow)
    add_earlier_values(cfg)
    use_threads(cfg.threads)
    not_needed = {"download": False, "unlabeled": None, "unlabeled_options": None}
    cfg.data.update({key: value for key, value in not_needed.items() if key in cfg.data})
    try:
        with as_user_errors([]):
            data = build_data(cfg)
    except UserError as error:
        say(f"The data of the run cannot be read: {error}")
        return None, None
    return data, teacher_to_time(cfg)


if __name__ == "__main__":
    main()
