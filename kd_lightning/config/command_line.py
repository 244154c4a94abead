"""What the command lines share: composing a configuration, and errors as one sentence."""

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import (
    HydraException,
)
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.conf_folder import CONF
from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.config.hydra_words import check_hydra_words
from kd_lightning.config.sweep_keys import SWEEP_GROUPS, is_sweep_key
from kd_lightning.config.user_messages import user_message

HELP_WIDTH = 80  # characters of a line of --help


def check_one_run(words: Sequence[str]) -> None:
    """Raises ``UserError`` for a word that only sweeps take, or that only other programs do."""
    for word in filter(is_sweep_key, words):
        raise UserError(f"{word} is for a sweep: add -m (python -m kd_lightning.run -m …)")
    for word in filter(has_odd_choice, words):
        raise UserError(f"a choice must be a name, got {word}")
    check_hydra_words(words)


def has_odd_choice(word: str) -> bool:
    """Whether a word chooses a list in which something is no name: Hydra fails at that."""
    group = re.match(r"\+{0,2}([\w/]+)(@[\w.]+)?=\[", word)
    if group is None or not (CONF / group[1]).is_dir():
        return False
    with suppress(HydraException):  # it is said when the configuration is composed
        chosen = OverridesParser.create().parse_override(word).value()
        return not all(isinstance(one, str) for one in chosen)
    return False


def choices(*, of_sweeps: bool = False) -> str:
    """The choices of each group for ``--help``, in lines of at most 80 characters.

    Args:
        of_sweeps: the groups of a sweep; else those of a run.
    """
    lines = []
    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        names = sorted(path.stem for path in group.glob("[!_]*.yaml"))  # _* only serve others
        # the data set chooses the recipe
        if group.name != "recipe" and (group.name in SWEEP_GROUPS) == of_sweeps:
            lines += textwrap.wrap(
                f"{group.name}: {', '.join(names)}",
                width=HELP_WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
            )
    return "\n".join(lines)


def usual_precision(accelerator: str, deterministic: bool = False) -> str | int:
    """``kd_lightning.base.precision``, imported when it is needed: torch takes seconds."""
    from kd_lightning.base import precision

    return precision.usual_precision(accelerator, deterministic)


OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("usual_precision", usual_precision, replace=True)
OmegaConf.register_new_resolver("sweep_choices", lambda: choices(of_sweeps=True), replace=True)


def compose(
    overrides: Sequence[str], config_dir: str | Path | None = None, name: str = "config"
) -> DictConfig:
    """The configuration that these overrides give on a command line.

    Args:
        config_dir: a folder with the user's own YAML files, searched in addition to the package's.
        name: the name of the main YAML file.
    """
    search = []
    if config_dir is not None:
        folder = QuotedString(f"file://{Path(config_dir).resolve()}", Quote.single)
        search = [f"hydra.searchpath=[{folder.with_quotes()}]"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(name, [*overrides, *search])


@contextmanager
def report_errors() -> Iterator[None]:
    """Inside, a user's mistake ends the program with one sentence and exit code 2, and an interrupt
    with the command that resumes. A bug in this package keeps its traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints the error and exits
    try:
        yield
    except Interrupted as interrupted:
        print(f"\nInterrupted: {interrupted.advice}", file=sys.stderr)
        sys.exit(128 + interrupted.signum)
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = user_message(error, sys.argv[1:])
        if os.environ.get("KD_LIGHTNING_TRACEBACK") or not sentence:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def as_user_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Inside, a user's mistake raises ``UserError``, whatever exception a library has for it.

    Args:
        overrides: the overrides from the user.
    """
    try:
        yield
    except Exception as error:
        sentence = user_message(error, overrides)
        if not sentence:
            raise
        raise UserError(sentence) from error
