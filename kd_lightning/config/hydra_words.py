"""Hydra's own keys and options: those without an effect on a run are refused in one sentence."""

import re
from collections.abc import Sequence

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import is_first_rank

# A run makes and names its own directory, and starts no other; a sweep has keys of its own.
INSTEAD = {
    "hydra.run": "name the directory of the run with run_dir=…, or that of all runs with outputs=…",
    "hydra.sweeper": "change how the jobs of a sweep vary with sweep.…=… (and -m)",
    "hydra.sweep": "name the directory of a sweep with sweep.dir=… (and -m)",
    "hydra.job.name": "name the run with title=…",
    "hydra.job.chdir": "a run stays in the folder where it is started; paths may be absolute",
    "hydra.job.": "set the variables of the environment in your shell",
    "hydra.output_subdir": "the configuration is config.yaml in the run's directory",
    "hydra/launcher": "choose where the jobs of a sweep run with launcher=… (and -m)",
    "hydra.launcher": "change where the jobs of a sweep run with launcher.…=… (and -m)",
    "hydra/sweeper": "choose how the jobs of a sweep vary with sweep=… (and -m)",
    "hydra.mode": "add -m for a sweep",
}
OTHERWISE = (
    "leave it out; what a run prints and keeps is in its directory and its logger (logger=…)"
)
HONOURED = ("hydra.searchpath",)
OPTIONS = {
    "--config-name": "your YAML is in --config-dir, chosen by name, such as experiment=name",
    "--config-path": "name the folder with your own YAML by --config-dir",
    "--experimental-rerun": "a run is resumed with resume=…",
}
SHORT = {"-cn": "--config-name", "-cp": "--config-path"}
WITH_CFG = ("--resolve", "--package", "-p")


def check_hydra_words(words: Sequence[str]) -> None:
    """Raises ``UserError`` for a word of Hydra that would have no effect on a run, or not the one
    that it has elsewhere.

    Args:
        words: of a command line, or overrides.
    """
    if not is_first_rank():  # Lightning starts the other processes with such words
        return
    for word in words:
        if word.startswith("-"):
            check_option(word, words)
        elif key := re.match(r"[+~]*(hydra[./@][^=]*)", word):
            check_key(key[1])


def check_key(key: str) -> None:
    if key not in HONOURED:
        advice = next((INSTEAD[name] for name in INSTEAD if key.startswith(name)), OTHERWISE)
        raise UserError(f"{key} has no effect on a run: {advice}")


def check_option(word: str, words: Sequence[str]) -> None:
    typed = word.partition("=")[0]
    found = next((SHORT[short] for short in SHORT if typed.startswith(short)), None)
    if found is None and len(typed) > len("--c"):
        found = next((name for name in OPTIONS if name.startswith(typed)), None)
    if found is not None:
        raise UserError(f"a run does not take {found}: {OPTIONS[found]}")
    shows = any(re.match(r"--cfg|-c\b", other) for other in words)
    if typed in WITH_CFG and not shows:
        raise UserError(f"{typed} has no effect without --cfg job, which shows the configuration")
