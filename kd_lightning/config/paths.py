"""Checks the names and the paths of a configuration, before something is read or written there."""

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import check_name

PATHS = (
    *("outputs", "run_dir", "resume", "data.unlabeled"),
    *("teacher.source", "teacher.store", "teacher.cache_store"),
)


def check_paths(cfg: DictConfig) -> None:
    """Raises ``UserError`` for an empty path, and for a name that leads to another folder."""
    for key in PATHS:
        value = OmegaConf.select(cfg, key)
        values = value if OmegaConf.is_list(value) else [value]
        if any(isinstance(one, str) and not one.strip() for one in values):
            raise UserError(f"{key} must be a path, got an empty one ({key}=…)")
    for name in cfg.method.students:
        check_name(str(name), "the key of a student in method.students")
    name = cfg.data.get("name")
    if isinstance(name, str):  # it is a part of the run directory's name
        check_name(name, "data.name")
