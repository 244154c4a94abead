"""The commands by name: ``kd-lightning run method=kd data=digits``.

Each command is a module of this package, so ``python -m kd_lightning.run`` is the same. No large
package is imported here: this is also what answers ``--help`` and ``--version``.
"""

import os
import runpy
import sys

from kd_lightning import __version__
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import report_errors

COMMANDS = {
    "run": "train students, test them once, write the record; with -m a sweep",
    "sweep": "show or resume a sweep",
    "report": "tables and a web page from runs and sweeps",
    "predict": "classes and probabilities of your own samples",
    "evaluate": "test students on other data: corrupted, unknown or attacked",
    "export": "a student as ONNX, TorchScript, OpenVINO or int8, with a model card",
    "list": "all methods, models, data sets and other choices",
    "prepare": "decode or pack images once",
    "doctor": "versions, devices, what is missing, and how long a step takes",
}

USAGE = """\
kd-lightning <command> [...]

{commands}

kd-lightning <command> --help explains a command, which is also
python -m kd_lightning.<command>.
kd-lightning --version prints {version}"""


def usage() -> str:
    lines = [f"  {name:<9} {description}" for name, description in COMMANDS.items()]
    return USAGE.format(commands="\n".join(lines), version=__version__)


def main() -> None:
    """Runs the command that the first word names. Without a word, explains the commands."""
    with report_errors():
        name = sys.argv[1] if len(sys.argv) > 1 else "--help"
        if name in ("-h", "--help"):
            print(usage())
            return
        if name == "--version":
            print(f"kd_lightning {__version__}")
            return
        if name not in COMMANDS:
            raise UserError(f"unknown command '{name}': expected one of {', '.join(COMMANDS)}")
    del sys.argv[1]
    if os.getcwd() not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # as python -m does, for a person's own networks
    # as with python -m: the processes that the command starts begin with the same module
    runpy.run_module(f"kd_lightning.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
