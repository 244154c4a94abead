"""Which jobs of a sweep need the same trained teacher, so that they need not wait for each other.

This is known before the data are read, so it is only a hint for the order of the jobs: the store of
teachers decides what is trained (``teachers/store.py``).
"""

import hashlib
import json
from collections.abc import Collection

from omegaconf import DictConfig, OmegaConf

# Keys that do not change how a teacher is trained
DATA_OF_STUDENTS = ("seed", "batch_size")
NOT_OF_TRAINING = ("cache", "cache_store", "cache_top_k", "check", "expect_accuracy", "store")


def teacher_of(cfg: DictConfig, seed: int, of_data: Collection[str]) -> str:
    """8 hex digits that jobs have in common if they need the same trained teacher; "" for a job
    that trains none.

    Args:
        cfg: of a job that differs in its seed and its values of data at most.
        seed: of this job.
        of_data: its overrides of data.
    """
    source = cfg.teacher.source
    sources = list(source) if OmegaConf.is_list(source) else [source]
    if "teacher" not in cfg.method or "train" not in sources:
        return ""
    own = cfg.copy()
    own.seed = seed
    net, teacher, data, students = (
        OmegaConf.to_container(node, resolve=True)
        for node in (own.method.teacher, own.teacher, own.data, own.method.students)
    )
    data |= teacher.pop("data") or {}
    for settings, others in ((data, DATA_OF_STUDENTS), (teacher, NOT_OF_TRAINING)):
        for key in others:
            settings.pop(key, None)
    method = {k: v for k, v in teacher.pop("method").items() if k not in ("seed", "students")}
    branches = students if "branch_net" in method else None
    text = json.dumps([net, teacher, method, data, branches, sorted(of_data)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
