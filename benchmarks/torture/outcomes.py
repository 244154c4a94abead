"""What becomes of a command line: "clean", "sentence", "traceback", "crash" or "hang"."""

import json
import os
import re
import resource
import selectors
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.threads import use_threads
from kd_lightning.config.command_line import as_user_errors, check_one_run, compose
from kd_lightning.config.schema import check_configuration
from kd_lightning.running.build import build_data, quieten
from kd_lightning.running.preflight import check_run
from kd_lightning.teachers.unused_keys import check_overrides
from kd_lightning.trackers.safe_logger import check_loggers

MEMORY = 6 * 2**30  # bytes that a run may ask for: an absurd size must not fill the machine
SECONDS = {False: 120, True: 400}  # until a run counts as hanging: built; trained


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        kind: "clean", "sentence", "traceback", "crash" or "hang".
        said: the sentence, or the error and the line that raised it.
    """

    kind: str
    said: str = ""


def outcome_of(words: Sequence[str], *, train: bool = False) -> Outcome:
    """Composes, checks and builds a run in this process, and trains it if that is asked for."""
    try:
        distill(*words) if train else build(words)
    except UserError as error:
        said = str(error)
        return Outcome("sentence" if is_one_sentence(said) else "traceback", said)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:200]
        where = f"{Path(frame.filename).name}:{frame.name}"
        return Outcome("traceback", f"{type(error).__name__} in {where}: {text}")
    return Outcome("clean")


def build(words: Sequence[str]) -> None:
    """What ``distill`` does before it trains anything."""
    with as_user_errors(words):
        check_one_run(words)
        cfg = compose(words)
        quieten()
        check_configuration(cfg)
        check_overrides(cfg, list(words))
        check_loggers(cfg.logger)
        use_threads(cfg.threads)
        check_run(cfg, build_data(cfg))


def is_one_sentence(text: str) -> bool:
    is_single = len(text.splitlines()) == 1 and not re.search(r"[.!?] +[A-Z]", text)
    return is_single and "Traceback" not in text and "object at 0x" not in text


class Worker:
    """A process that runs one command line after the other, and is started again if it ends."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.process: subprocess.Popen | None = None

    def outcome(self, words: Sequence[str], train: bool) -> Outcome:
        process = self._running()
        request = json.dumps({"words": list(words), "train": train})
        process.stdin.write(f"{request}\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            answered = selector.select(SECONDS[train])
        if not answered:
            self.end()
            return Outcome("hang", f"no end after {SECONDS[train]} s")
        line = process.stdout.readline()
        if line:
            return Outcome(*json.loads(line))
        code = process.wait()
        self.end()
        return Outcome("crash", f"the process ended with code {code}")

    def _running(self) -> subprocess.Popen:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.torture.outcomes"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, cwd=self.folder.name, start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            self.process.stdout.readline()  # it has imported everything
        return self.process

    def end(self) -> None:
        if self.process is not None:
            with suppress(BrokenPipeError), self.process:  # closes its pipes, and waits
                self.process.kill()
            self.process = None

    def close(self) -> None:
        self.end()
        self.folder.cleanup()


def serve() -> None:
    """Answers each line of stdin with an outcome."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a run prints is no answer
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    print(file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as outputs:
            words = [f"outputs={outputs}", *request["words"]]
            outcome = outcome_of(words, train=request["train"])
        print(json.dumps(outcome), file=answers, flush=True)


if __name__ == "__main__":
    serve()
