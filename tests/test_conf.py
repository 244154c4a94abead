"""Every file in conf/: it composes, its keys are arguments, and what it names can be built."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import DATA, DISTILLERS, METHODS, compose
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config.command_line import CONF
from kd_lightning.config.schema import arguments_of, check_configuration
from kd_lightning.data.loading.batches import Samples, SampleSet
from kd_lightning.models import by_shape
from kd_lightning.running.trainer import bare_trainer

# wandb_sweep.yaml is for wandb itself: trackers/test_wandb.py
FILES = [path for path in sorted(CONF.rglob("*.yaml")) if path.name != "wandb_sweep.yaml"]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
# Arguments that the program passes, so no file in conf/ has them.
PASSED_BY_PROGRAM = {
    *("students", "teacher", "optimizer", "scheduler"),  # a method
    "branch_net",  # as above, where the configuration names none
    *("params", "total_steps", "title", "save_dir"),  # optimizer, scheduler, callbacks, logger
    *("logits", "labels", "samples", "student_features"),  # confidence, similarity
    *("student_shape", "teacher_shape"),  # feature_loss
    *("student_logits", "teacher_logits", "temperature"),  # soft_loss
}
GROUPS = ("optimizer", "scheduler", "hardware", "callbacks", "logger", "confidence", "similarity",
          "guidance", "feature_loss", "soft_loss", "augmentation", "mixing")  # fmt: skip
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def targets(node: Any) -> list[DictConfig]:
    """All nodes in ``node`` with a ``_target_``, at any depth."""
    found = [node] if OmegaConf.is_dict(node) and "_target_" in node else []
    if found and node._target_ == by_shape.TARGET:  # its nets share arguments
        return found + [by_shape.net_for(node, kind) for kind in by_shape.KINDS]
    if OmegaConf.is_dict(node):
        keys = [key for key in node if not OmegaConf.is_missing(node, key)]
    else:
        keys = range(len(node)) if OmegaConf.is_list(node) else []
    children = [node[key] for key in keys if not OmegaConf.is_interpolation(node, key)]
    return found + [target for child in children for target in targets(child)]


@pytest.fixture(scope="module")
def choices() -> DictConfig:
    """All files of ``GROUPS``, composed: each is at choice.<group>.<name>."""
    return compose(
        "data=image_folder",
        *(f"+{group}@choice.{group}.{name}={name}" for group, name in CHOICES),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_starts_with_a_comment(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    header = second if first.startswith("# @package") else first
    assert header.startswith("# ")
    assert len(header) > 5
    assert "@package" not in header


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_key_is_an_argument(path: Path) -> None:
    config = OmegaConf.load(path)
    for node in targets(config):
        arguments = arguments_of(get_object(node._target_))
        keys = {key for key in node if not key.startswith("_")} - {"defaults"}
        assert arguments.others or keys <= arguments.known.keys()


def assert_complete(node: DictConfig) -> None:
    known = arguments_of(get_object(node._target_)).known
    required = {name for name, argument in known.items() if argument.required}
    assert required - PASSED_BY_PROGRAM <= set(node)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_argument_without_a_default_is_there(
    group: str, name: str, choices: DictConfig
) -> None:
    for node in targets(choices.choice[group][name]):
        assert_complete(node)


# Composing takes time, and data and methods meet only in their nets: each method with images and
# with series, each data set with two students and with the net of its teacher
PAIRS = sorted(
    {(method, data) for method in METHODS for data in ("digits", "ucr")}
    | {(method, data) for method in ("dual_student", "r_drop") for data in DATA}
)


@pytest.mark.parametrize(("method", "data"), PAIRS)
def test_methods_and_data_sets_compose(method: str, data: str) -> None:
    cfg = compose(f"method={method}", f"data={data}")
    check_configuration(cfg)
    for group in ("method", "data"):
        for node in targets(cfg[group]):
            assert_complete(node)
    assert cfg.trainer.max_epochs >= 1
    assert cfg.teacher.trainer.max_epochs >= 1
    assert cfg.method.students
    needs_teacher = "teacher" in arguments_of(get_object(cfg.method._target_)).known
    assert ("teacher" in cfg.method) == needs_teacher == (method in DISTILLERS)


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_has_a_recipe_and_nets(data: str) -> None:
    assert (CONF / "recipe" / f"{data}.yaml").exists()
    nets = {path.stem for path in (CONF / "model" / data).glob("*.yaml")}
    assert {"teacher", "a", "b"} <= nets


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_overrides_the_recipe(name: str) -> None:
    cfg = compose(f"experiment={name}")
    check_configuration(cfg)
    experiment = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    experiment.pop("defaults")
    assert OmegaConf.merge(cfg, experiment) == cfg


# Each choice is built and used


def built(choices: DictConfig, group: str, name: str) -> Any:
    return instantiate(choices.choice[group][name], _convert_="object")


def names(group: str) -> list[str]:
    return [name for of, name in CHOICES if of == group]


@pytest.mark.parametrize("name", names("optimizer"))
def test_every_optimizer_descends(name: str, choices: DictConfig) -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = built(choices, "optimizer", name)([{"params": [weight], "name": "a"}])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.item() < 1


@pytest.mark.parametrize("name", names("scheduler"))
def test_every_schedule_runs_to_the_last_step(name: str, choices: DictConfig) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    scheduler = built(choices, "scheduler", name)(optimizer, 20)
    for _ in range(20):
        assert 0 <= optimizer.param_groups[0]["lr"] <= 0.5
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", names("hardware"))
def test_every_hardware_has_the_same_keys(name: str, choices: DictConfig) -> None:
    config = choices.choice.hardware[name]
    assert set(config) == {
        *("accelerator", "devices", "num_nodes", "precision"),
        *("channels_last", "teacher_precision", "compile_teacher"),
        *("compile", "cuda_graphs", "deterministic"),
    }
    if config.accelerator != "gpu":
        cfg = compose("data=synthetic", f"hardware={name}", "hardware.accelerator=cpu")
        trainer = bare_trainer(cfg, logger=False, enable_checkpointing=False)
        assert trainer.world_size == config.devices


@pytest.mark.parametrize("name", names("callbacks"))
def test_every_set_of_callbacks_builds(name: str, choices: DictConfig) -> None:
    for node in choices.choice.callbacks[name].values():
        more = (
            {"title": "a test"} if "title" in arguments_of(get_object(node._target_)).known else {}
        )
        assert instantiate(node, **more)


@pytest.mark.parametrize("name", [n for n in names("logger") if n not in ("wandb", "mlflow")])
def test_every_logger_builds(name: str, choices: DictConfig, tmp_path: Path) -> None:
    for node in choices.choice.logger[name].values():
        if name == "tensorboard":
            pytest.importorskip("tensorboard")
        logger = instantiate(node, save_dir=str(tmp_path))
        logger.log_metrics({"train/a/hard": 1.0}, step=0)
        logger.finalize("success")
        assert list(tmp_path.rglob("*"))


@pytest.mark.parametrize("name", names("confidence"))
def test_every_confidence_is_one_value_per_sample_in_0_1(name: str, choices: DictConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    samples = torch.randn(5, 4, 3, generator=generator)
    weight = built(choices, "confidence", name)(logits, torch.tensor([0, 1, 2, 0]), samples)
    assert weight.shape == (4,)
    assert bool(((weight >= 0) & (weight <= 1)).all())


@pytest.mark.parametrize("name", names("similarity"))
def test_every_similarity_compares_a_student_with_each_pass(name: str, choices: DictConfig) -> None:
    assert built(choices, "similarity", name)(torch.ones(4, 8), torch.ones(5, 4, 8)).shape == (4, 5)


@pytest.mark.parametrize("name", names("guidance"))
def test_every_guidance_gives_each_pass_a_weight(name: str, choices: DictConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 8, generator=generator)
    samples = torch.randn(30, 4, 8, generator=generator)
    weights, attention = built(choices, "guidance", name)(features, samples)
    for rows in (weights, attention):
        assert rows.shape == (4, 30)
        assert bool((rows >= 0).all())
        torch.testing.assert_close(rows.sum(1), torch.ones(4))


@pytest.mark.parametrize("name", names("feature_loss"))
def test_every_feature_loss_compares_maps_of_different_shapes(
    name: str, choices: DictConfig
) -> None:
    make = built(choices, "feature_loss", name)
    student, teacher = torch.rand(4, 6, 8, 8), torch.rand(4, 10, 4, 4)
    loss = make(student_shape=student.shape[1:], teacher_shape=teacher.shape[1:])
    samples = {}
    if loss.needs_indices:
        loss.allocate(torch.arange(8) % 3)
        samples = {"index": torch.arange(4)}
    assert loss(student, teacher, **samples).shape == (4,)
    assert loss.field_weight > 0


@pytest.mark.parametrize("name", names("soft_loss"))
def test_every_soft_loss_is_one_value_per_sample_and_zero_at_equality(
    name: str, choices: DictConfig
) -> None:
    loss = built(choices, "soft_loss", name)
    student, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    for labels in (torch.tensor([0, 1, 2, 0]), torch.full((4, 3), 1 / 3)):
        apart, equal = (loss(student, other, labels, 2.0) for other in (teacher, student))
        assert apart.shape == (4,)
        assert bool((apart > 0).all())
        torch.testing.assert_close(equal, torch.zeros(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", names("augmentation"))
def test_every_augmentation_changes_images_but_not_their_shape(
    name: str, choices: DictConfig
) -> None:
    side = {"shift": 28, "crop_flip": 32, "cutout": 32}.get(name, choices.data.image_size)
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
    files = Samples(list(range(8)), torch.arange(8))
    augment = built(choices, "augmentation", name)
    samples = SampleSet(files, seed=0, transform=augment, decode=lambda _: image)
    augmented = [samples[0, index][0] for index in range(8)]
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in augmented)
    assert any(not torch.equal(one, image) for one in augmented)


@pytest.mark.parametrize("name", names("mixing"))
def test_every_mixing_gives_label_distributions(name: str, choices: DictConfig) -> None:
    mix = built(choices, "mixing", name)(num_classes=3)
    x, y = mix(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    assert x.shape == (4, 3, 8, 8)
    torch.testing.assert_close(y.sum(1), torch.ones(4))


# The command line


def process(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kd_lightning.run", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_help_lists_every_choice() -> None:
    output = process("--help")
    assert "python -m kd_lightning.run method=kd data=fashion_mnist" in output
    for group in ("method", "data", "model", *GROUPS, "experiment"):
        for path in (CONF / group).glob("[!_]*.yaml"):
            assert path.stem in output
    assert "_base" not in output


@pytest.mark.slow
def test_cfg_job_shows_the_composed_configuration() -> None:
    shown = OmegaConf.create(process("--cfg", "job", "method=kd", "data=cifar10", "seed=7"))
    assert shown == compose("method=kd", "data=cifar10", "seed=7")
    assert (shown.seed, shown.method.temperature) == (7, 4.0)
