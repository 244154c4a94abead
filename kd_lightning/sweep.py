"""Shows or resumes a sweep of ``python -m kd_lightning.run -m …``.

    python -m kd_lightning.sweep outputs/sweeps/<sweep>
    python -m kd_lightning.sweep outputs/sweeps/<sweep> --resume

The first command shows the progress of its jobs, the second runs failed and
missing jobs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import launcher_rank
from kd_lightning.config.command_line import as_user_errors, report_errors
from kd_lightning.config.console import console
from kd_lightning.config.options import command_parser

# Packages that take seconds to import are imported in the functions: --help needs none of them.


def sweep(*words: str, config_dir: str | Path | None = None) -> Path:
    """Runs a sweep from Python.

    Args:
        words: the words that the command line takes after ``-m``.
        config_dir: a folder with your own YAML.

    Returns:
        The directory of the sweep, with its jobs, ``table.md`` and ``records.jsonl``.

    Raises:
        UserError: the sweep cannot be run; the message says what to change.
    """
    with as_user_errors(words):
        directory, _ = start(words, str(config_dir) if config_dir else None)
    return directory


def start(words: Sequence[str], config_dir: str | None) -> tuple[Path, bool]:
    """Creates a sweep and runs it. Returns its directory, and whether every job is over."""
    if launcher_rank() is not None:
        raise UserError(
            "a sweep starts the processes of its jobs itself: start it without torchrun or srun "
            "(launcher=slurm submits its jobs to SLURM)"
        )
    from kd_lightning.running.build import quieten
    from kd_lightning.sweeps import create, engine

    quieten()
    directory = create.create_sweep(words, config_dir, console)
    launcher = create.build_launcher(engine.launcher_config(directory, []))
    return directory, engine.run_sweep(directory, launcher, console)


def main() -> None:
    """Runs the command."""
    parser = command_parser("sweep", __doc__, takes_keys=True)
    parser.add_argument("directory", type=Path, help="a sweep's directory, with sweep.yaml in it")
    parser.add_argument("--resume", action="store_true", help="run failed and missing jobs")
    parser.add_argument(
        "words", nargs="*", help="with --resume: launcher=…, launcher.workers=…, allow=[my_package]"
    )
    arguments = parser.parse_intermixed_args()
    with report_errors():
        from kd_lightning.running.build import quieten
        from kd_lightning.sweeps import create, engine, sweep_file

        directory = arguments.directory.resolve()
        if not arguments.resume:
            if arguments.words:
                raise UserError(f"'{arguments.words[0]}' needs --resume")
            engine.watch(directory, console)
            return
        quieten()
        allow, words = sweep_file.split_allow(arguments.words)
        config = engine.launcher_config(directory, words)
        is_typed = any(word.startswith("launcher=") for word in words)
        sweep_file.check_files(directory, None if is_typed else config, allow)
        sweep_file.check_needs(directory, allow)
        if not engine.run_sweep(directory, create.build_launcher(config), console, allow):
            sys.exit(1)


if __name__ == "__main__":
    main()
