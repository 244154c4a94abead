"""``kd-lightning <command>``: one program for all commands, which answers at once."""

import functools
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import kd_lightning
from kd_lightning import __main__ as program

ROOT = Path(kd_lightning.__file__).parent
HEAVY = {"torch", "lightning", "timm", "torchvision", "sklearn", "matplotlib", "scipy"}


def started(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kd_lightning", *words], capture_output=True, text=True
    )


def test_every_command_is_listed() -> None:
    modules = {path.stem for path in ROOT.glob("[!_]*.py")}
    assert modules - set(program.COMMANDS) == {"work"}  # started by sweeps, not by people
    assert set(program.COMMANDS) <= modules


def test_without_a_word_it_explains_the_commands() -> None:
    done = started()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name}" in done.stdout for name in program.COMMANDS)


def test_the_version_is_that_of_this_package() -> None:
    assert started("--version").stdout == f"kd_lightning {kd_lightning.__version__}\n"


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_has_the_version(name: str) -> None:
    assert started(name, "--version").stdout == f"kd_lightning {kd_lightning.__version__}\n"


def test_an_unknown_command_is_one_sentence() -> None:
    done = started("distil")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: unknown command 'distil': expected one of run, ")
    assert len(done.stderr.splitlines()) == 1


def test_a_command_gets_its_words_and_is_the_main_module(monkeypatch, tmp_path) -> None:
    seen = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(runpy, "run_module", lambda name, **kind: seen.update(name=name, **kind))
    monkeypatch.setattr(sys, "argv", ["kd-lightning", "run", "method=kd", "seed=1"])
    program.main()
    assert seen == {"name": "kd_lightning.run", "run_name": "__main__", "alter_sys": True}
    assert sys.argv[1:] == ["method=kd", "seed=1"]
    assert sys.path[0] == str(tmp_path)  # where a person's own networks are


@functools.cache
def help_of(name: str) -> tuple[str, set[str]]:
    """What ``kd-lightning <name> --help`` prints on 80 columns, and the modules that it imports."""
    code = (
        "import runpy, sys, atexit\n"
        f"sys.argv = ['kd-lightning', {name!r}, '--help']\n"
        "atexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n"
        "runpy.run_module('kd_lightning', run_name='__main__', alter_sys=True)\n"
    )
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    text, _, loaded = done.stdout.rpartition("LOADED")
    assert (done.returncode, done.stderr) == (0, "")
    return text, set(loaded.split())


@pytest.mark.parametrize("name", program.COMMANDS)
def test_help_imports_no_large_package(name: str) -> None:
    """Which is what makes it quick."""
    text, loaded = help_of(name)
    assert not HEAVY & loaded
    assert len(text) > 100


@pytest.mark.parametrize("name", program.COMMANDS)
def test_help_fits_into_80_columns(name: str) -> None:
    text, _ = help_of(name)
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_list_of_the_commands_fits_into_80_columns() -> None:
    assert [line for line in program.usage().splitlines() if len(line) > 80] == []
