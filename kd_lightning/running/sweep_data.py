"""Whether a job of a sweep has the data of those jobs that are done.

A sweep may take days, and be resumed after its files were replaced. Its report would refuse such
results, but only at the end.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import read_json
from kd_lightning.records.jobs import Job, State, jobs_of
from kd_lightning.records.run_directory import read_config
from kd_lightning.reports.contents import hashes_of


def check_like_finished_jobs(job: Job, cfg: DictConfig, fingerprint: str) -> None:
    """Raises ``UserError`` if a finished job of the sweep had other samples by the same settings.

    Args:
        job: that is run now.
        cfg: its configuration.
        fingerprint: of its data.
    """
    others = {
        other: was
        for other in jobs_of(job.directory.parents[1])
        if other != job and other.state() is State.DONE and (was := fingerprint_of(other))
    }
    if fingerprint in others.values():
        return
    own = settings_of(cfg)
    for other, was in others.items():
        if settings_of(read_config(other.directory)) == own:
            raise UserError(
                f"the data have changed since job {other.number} of this sweep was trained, which "
                f"has the same settings of them (fingerprint {was}, now {fingerprint}): put the "
                "earlier files back (data.root=…), or start a new sweep"
            )


def fingerprint_of(job: Job) -> str | None:
    """That of a job's data; None if its record cannot be read."""
    try:
        return read_json(job.directory / "environment.json")["data"]["fingerprint"]
    except (OSError, KeyError, TypeError, Damaged):
        return None


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """What its samples follow from, beside the content of its files."""
    config = OmegaConf.to_container(cfg, resolve=True)
    root = config["data"].get("root")
    return {**hashes_of(config, {}), "root": root and str(Path(root))}
