"""Whether a job of a sweep has the data of those jobs that are done.

A sweep may take days, and be resumed after its files were replaced. Its report would refuse such
results, but only at the end.
"""

import hashlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import read_json
from kd_lightning.records.jobs import Job, State, jobs_of
from kd_lightning.reports.contents import hashes_of


def check_like_finished_jobs(job: Job, cfg: DictConfig, fingerprint: str) -> None:
    """Raises ``UserError`` if a finished job of the sweep had other samples by the same settings.

    Args:
        job: that is run now.
        cfg: its configuration.
        fingerprint: of its data.
    """
    own = hash_of_settings(cfg)
    for other in jobs_of(job.directory.parents[1]):
        if other == job or other.state() is not State.DONE:
            continue
        data = data_of(other)
        was = data.get("fingerprint")
        if data.get("settings_sha256") == own and was != fingerprint:
            raise UserError(
                f"the data have changed since job {other.number} of this sweep was trained, which "
                f"has the same settings of them (fingerprint {was}, now {fingerprint}): put the "
                "earlier files back (data.root=…), or start a new sweep"
            )


def data_of(job: Job) -> dict[str, Any]:
    """What the record of a job says of its data; {} if it cannot be read."""
    try:
        return read_json(job.directory / "environment.json").get("data") or {}
    except (OSError, AttributeError, Damaged):
        return {}


def hash_of_settings(cfg: DictConfig) -> str:
    """A hash of what the samples follow from, beside the content of their files."""
    config = OmegaConf.to_container(cfg, resolve=True)
    root = config["data"].get("root")
    texts = (hashes_of(config, {})["data_settings"], str(root and Path(root)))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
