"""A run that records when its stages begin and end:

    python -m benchmarks.timed_run <file> <overrides of a run>

The times are written to the file as JSON. If <file> is ``first-step``, the process ends after the
first training step and writes nothing. Only modules of the standard library are imported before the
clock is read for the first time.
"""

import json
import os
import sys
import time

MOMENTS = {"python": time.time()}  # name -> seconds since 1970
STAGES = {
    "check_configuration": "the configuration is checked",
    "build_data": "data",
    "check_run": "checks before the run",
    "get_teacher": "teacher, trained or loaded",
    "build_method": "students and method built",
    "check_on_val": "teacher checked on val",
    "complete_stages": "earlier stages of the method",
    "train_baselines": "labels-only students",
    "make_run_directory": "run directory",
    "build_trainer": "Trainer built",
    "use_cache": "cache",
    "describe_environment": "environment recorded",
    "fit": "fit",
    "test_run": "test",
    "log_results": "trackers",
}  # function that kd_lightning.run calls -> its name in the table


def time_stages(module: object, stages: dict[str, float]) -> None:
    """Makes each stage of a module add its seconds to ``stages``. A stage that runs inside another
    stage counts only as part of the outer one.
    """
    depth = [0]

    def timed(name: str, function: object) -> object:
        def call(*args: object, **named: object) -> object:
            depth[0] += 1
            start = time.time()
            try:
                return function(*args, **named)
            finally:
                depth[0] -= 1
                if depth[0] == 0:
                    stages[name] = stages.get(name, 0.0) + time.time() - start

        return call

    for name in STAGES:
        if hasattr(module, name):
            setattr(module, name, timed(name, getattr(module, name)))


def record() -> None:
    """The command line."""
    file, *words = sys.argv[1:]
    from kd_lightning.run import main
    from kd_lightning.running import run

    MOMENTS["imported"] = time.time()
    from lightning.pytorch import LightningModule

    stages: dict[str, float] = {}
    time_stages(run, stages)
    original_run, optimizer_step = run.run, LightningModule.optimizer_step

    def timed_step(*args: object, **named: object) -> None:
        optimizer_step(*args, **named)
        MOMENTS.setdefault("first step", time.time())
        if file == "first-step":
            os._exit(0)

    def timed_run(*args: object, **named: object) -> object:
        MOMENTS.setdefault("run", time.time())
        return original_run(*args, **named)

    LightningModule.optimizer_step = timed_step
    run.run = timed_run
    sys.argv[1:] = words
    main()
    MOMENTS["over"] = time.time()
    with open(file, "w") as opened:
        json.dump({"moments": MOMENTS, "stages": stages}, opened)


if __name__ == "__main__":
    record()
