"""The ordinary run that trains a teacher."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream_seed
from kd_lightning.teachers.net_names import describe

# Settings of data that may differ while the teacher trains.
TEACHERS_OWN = ("augmentation", "mixing")
NO_PATHS = ("train", "pretrained", "untrained")  # values of ``teacher.source``


def sources_of(cfg: DictConfig) -> list[str]:
    """All that ``cfg.teacher.source`` names."""
    source = cfg.teacher.source
    return list(source) if OmegaConf.is_list(source) else [source]


def trains_teacher(cfg: DictConfig) -> bool:
    """Whether a run trains its teacher, or one of several."""
    return "train" in sources_of(cfg)


def teacher_run(cfg: DictConfig) -> DictConfig:
    """The ordinary run that trains the teacher of ``cfg`` by ``cfg.teacher.method``.

    Raises:
        UserError: that method needs a teacher itself, or the teacher would see other data.
    """
    if "teacher" in cfg.teacher.method:
        name = cfg.teacher.method._target_.split(".")[-2]
        raise UserError(
            f"teacher.method must be a method without a teacher, got {name}: choose another with "
            "method@teacher.method=…"
        )
    run = resolved(cfg)
    teacher, net = run.teacher, run.method.teacher
    # its own streams, or a student of the same net and seed would have the same initial weights
    run.seed = run.data.seed = stream_seed("teacher", teacher.seed) % 2**31
    run.data.batch_size = teacher.batch_size
    own = own_data(teacher.data, run.data)
    run.data.update(own)
    if "val_fraction" in own:  # fewer samples have another mean; the net keeps that of its run
        run.task.update(mean=None, std=None)
    run.optimizer, run.scheduler = teacher.optimizer, teacher.scheduler
    run.trainer = {"log_every_n_steps": run.trainer.log_every_n_steps, **teacher.trainer}
    run.title = f"teacher {describe(net)}"
    students, run.method = run.method.students, teacher.method
    name_branch_net(run.method, students)
    run.method.update(students={"student": net}, seed=run.seed)
    return one_device(run)


def own_data(changes: DictConfig | None, data: DictConfig) -> dict[str, Any]:
    """The settings of data that differ while the teacher trains. A teacher may have a val part of
    its own, a share of train, if its run has none.

    Args:
        data: the settings of its run.

    Raises:
        UserError: with one of them the teacher would see other samples than its run.
    """
    changes = dict(changes or {})
    for key in changes:
        if key == "val_fraction" and data.get(key) == 0:
            continue
        if key == "val_fraction":
            raise UserError(
                f"teacher.data.val_fraction needs data.val_fraction=0, got {data.get(key)}: a "
                "teacher with another val part would be trained on samples of this run's val"
            )
        if key not in TEACHERS_OWN:
            raise UserError(
                f"teacher.data takes {' and '.join(TEACHERS_OWN)}, got {key}: in all else the "
                f"teacher's data are those of its run (teacher.data.{key})"
            )
    return changes


def name_branch_net(method: DictConfig, students: DictConfig) -> None:
    """Gives a method whose branches have the architecture of another net, and that names none, that
    of the first student.
    """
    if "branch_net" in method and method.branch_net is None:
        method.branch_net = next(iter(students.values()))


def branch_factory(config: DictConfig) -> Callable[[], nn.Module]:
    """Makes the net that ``config`` names, with random weights, each time that it is called."""
    config = config.copy()
    if "weights" in config:
        config.weights = "none"
    return partial(instantiate, config, _convert_="object")


def resolved(cfg: DictConfig) -> DictConfig:
    """A copy of ``cfg`` without references: in a run made from it, the values of ``${seed}`` or
    ``${optimizer.lr}`` stay those of ``cfg``.
    """
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


def first_of(devices: Any) -> Any:
    """``hardware.devices`` for one device: the first of a list, or any one."""
    return devices[:1] if OmegaConf.is_list(devices) else 1


def one_device(run: DictConfig) -> DictConfig:
    """The run on one device, without callbacks that could stop or change it."""
    run.hardware.update(devices=first_of(run.hardware.devices), num_nodes=1)
    run.callbacks = {key: node for key, node in run.callbacks.items() if key == "progress"}
    # its nets are tested in this run too
    run.evaluation.update(temperature_scaling=False, plots=False, soups=False, adversarial=None)
    run.teacher.update(cache=None, cache_top_k=None)  # it is not distilled
    if run.data.get("unlabeled") is not None:
        run.data.update(unlabeled=None, unlabeled_ratio=1.0, unlabeled_options=None)
    run.update(logger={}, run_dir=None, resume=None, baselines=None)
    return run
