"""A run that notes when it does what: python -m benchmarks.watched <file> <words of a run>

The file gets the notes as JSON; with ``first-step`` for it the process ends after that, without a
word. Nothing but the standard library is imported before the first look at the clock.
"""

import json
import os
import sys
import time

NOTES = {"python": time.time()}  # name -> seconds since 1970
STAGES = {
    "check_configuration": "the configuration is checked",
    "build_data": "data",
    "rehearse": "rehearsal",
    "get_teacher": "teacher, trained or found",
    "build_method": "students and method built",
    "train_baseline": "labels-only students",
    "claim": "directory",
    "build_trainer": "Trainer built",
    "use_cache": "cache",
    "describe_environment": "environment noted",
    "fit": "fit",
    "test_run": "test",
    "log_results": "trackers",
}  # functions that kd_lightning.run calls by these names


def watch(module: object, stages: dict[str, float]) -> None:
    """Lets each stage of a module add its seconds to ``stages``. A run within a run is part of the
    stage that needs it.
    """
    depth = [0]

    def timed(name: str, function: object) -> object:
        def call(*args: object, **named: object) -> object:
            depth[0] += 1
            begun = time.time()
            try:
                return function(*args, **named)
            finally:
                depth[0] -= 1
                if depth[0] == 0:
                    stages[name] = stages.get(name, 0.0) + time.time() - begun

        return call

    for name in STAGES:
        if hasattr(module, name):
            setattr(module, name, timed(name, getattr(module, name)))


def main() -> None:
    """The command line."""
    file, *words = sys.argv[1:]
    from kd_lightning import run

    NOTES["imported"] = time.time()
    from lightning.pytorch import LightningModule

    stages: dict[str, float] = {}
    watch(run, stages)
    whole_run, step = run.run, LightningModule.optimizer_step

    def first_step(*args: object, **named: object) -> None:
        step(*args, **named)
        NOTES.setdefault("first step", time.time())
        if file == "first-step":
            os._exit(0)

    def noted(*args: object, **named: object) -> object:
        NOTES.setdefault("run", time.time())
        return whole_run(*args, **named)

    LightningModule.optimizer_step = first_step
    run.run = noted
    sys.argv[1:] = words
    run.main()
    NOTES["over"] = time.time()
    with open(file, "w") as opened:
        json.dump({"notes": NOTES, "stages": stages}, opened)


if __name__ == "__main__":
    main()
