"""Trains students, tests them once and writes the record; with ``-m``, a sweep of such runs.

python -m kd_lightning.run method=dual_student data=imagenet100
python -m kd_lightning.run -m seed=0,1,2 method=kd,dual_student
python -m kd_lightning.run --plan method=dual_student data=imagenet100
"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kd_lightning import __version__
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF, check_one_run, report_errors
from kd_lightning.config.options import CommandParser
from kd_lightning.records.resumed_config import of_requeued_run, with_data_of_run

# Options of Hydra that only show something
SHOW = {"-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info"}
OPTIONS = {  # all of Hydra's
    *SHOW, "--resolve", "-p", "--package", "-r", "--run", "-m", "--multirun", "-sc",
    "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun",
}  # fmt: skip
_added: list[str] = []  # words that the command line got, and nobody typed
PLAN = "--plan"  # of a run or a sweep: only say what it will cost


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _hydra_main(cfg: DictConfig) -> None:
    with report_errors():  # here, because Hydra would print a line of its own first
        # imported here: these packages take seconds, and --help needs none of them
        from kd_lightning.running.run import run

        sys.argv[1:] = [word for word in sys.argv[1:] if word not in _added]
        run(cfg, [word for word in HydraConfig.get().overrides.task if word not in _added])


def options_parser() -> CommandParser:
    """A parser of the one option of Hydra that sweeps take, too."""
    parser = CommandParser(
        prog="python -m kd_lightning.run",
        takes_keys=True,
        others=[*OPTIONS, PLAN],
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-cd", "--config-dir")
    return parser


def sweep_requested(words: list[str]) -> tuple[list[str], str | None] | None:
    """The words of a sweep's command line and its ``--config-dir``; None for a single run and where
    Hydra only shows something.
    """
    parser = options_parser()
    parser.add_argument("-m", "--multirun", action="store_true")
    given, rest = parser.parse_known_args(words)
    if not given.multirun or SHOW & set(rest):
        return None
    options = [word for word in rest if word.startswith("-")]
    if options:
        raise UserError(f"{options[0]} does not go with -m, which takes --config-dir and key=value")
    return rest, given.config_dir


def options_first(words: list[str]) -> list[str]:
    """The same words with ``--config-dir`` in front. Lightning starts the other processes of a run
    with words of its own at the end, and Hydra takes no override after an option.
    """
    given, rest = options_parser().parse_known_args(words)
    return rest if given.config_dir is None else ["--config-dir", given.config_dir, *rest]


def show_plan(words: list[str]) -> None:
    """Prints what a run or a sweep will cost."""
    from kd_lightning.config.console import console
    from kd_lightning.sweeps import cost_plan  # here: its packages take seconds

    requested = sweep_requested(words)
    if requested is not None:
        cost_plan.show_plan(*requested, console, is_sweep=True)
        return
    given, rest = options_parser().parse_known_args(words)
    if shown := [word for word in rest if word.startswith("-")]:
        raise UserError(f"{PLAN} does not go with {shown[0]}: leave one of them out")
    cost_plan.show_plan(rest, given.config_dir, console, is_sweep=False)


def main() -> None:
    """The command line: a person's mistake is one sentence and exit code 2."""
    with report_errors():
        if "--version" in sys.argv:
            print(f"kd_lightning {__version__}")
            return
        if PLAN in sys.argv[1:]:
            show_plan([word for word in sys.argv[1:] if word != PLAN])
            return
        if (requested := sweep_requested(sys.argv[1:])) is None:
            check_one_run(sys.argv[1:])
            typed = options_first(of_requeued_run(sys.argv[1:]))
            sys.argv[1:] = with_data_of_run(typed)
            _added.extend(word for word in sys.argv[1:] if word not in typed)
            _hydra_main()
            return
        from kd_lightning import sweep  # here: a job of a sweep need not import it

        _, is_over = sweep.start(*requested)
        if not is_over:
            sys.exit(1)


if __name__ == "__main__":
    main()
