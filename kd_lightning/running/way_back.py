"""How a run that has ended before its time is finished: the command, and what says it."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from kd_lightning.base.allowed import needed_words
from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import launcher_rank
from kd_lightning.data.loading.batches import BadImage
from kd_lightning.records.jobs import current_job


def how_to_resume(cfg: DictConfig, directory: Path) -> str:
    """The command that resumes a run, with the packages that its configuration needs allowed."""
    if launcher_rank():  # this rank does not know the directory
        return "the first process says how to resume"
    return f"resume with: {resuming_command(cfg, directory)}"


def resuming_command(cfg: DictConfig, directory: Path) -> str:
    words = [f"resume={directory}"]
    if needed := needed_words(cfg):
        words.append(f"allow=[{','.join(needed)}]")
    return f"python -m kd_lightning.run {shlex.join(words)}"


@contextmanager
def saying_how_to_skip(cfg: DictConfig, directory: Path) -> Iterator[None]:
    """Inside, an image that cannot be read ends the run with the command that resumes without it: a
    run may have been trained for days when its test meets such an image.
    """
    try:
        yield
    except BadImage as error:
        # with a teacher cache no image may be left out
        if launcher_rank() or current_job() is not None or cfg.teacher.cache:
            raise
        message = str(error).strip().removesuffix(error.ADVICE)
        command = resuming_command(cfg, directory)
        raise UserError(
            f"{message}: repair it and start again, or go on without it: {command} "
            "data.on_bad_image=skip"
        ) from None
