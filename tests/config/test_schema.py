"""Keys and values are checked against signatures. test_bad_input.py tests it in whole runs."""

from typing import Any, TypedDict, Unpack

import pytest
from helpers import TINY, compose
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Counts, ShareBelowOne
from kd_lightning.config.command_line import CONF
from kd_lightning.config.schema import PLAIN, arguments_of, check_configuration
from kd_lightning.config.values import matches
from kd_lightning.data.digits import Digits
from kd_lightning.methods.dual_student import DualStudent
from kd_lightning.models.perceptron import mlp


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return compose(*TINY)


@pytest.fixture
def cfg(composed: DictConfig) -> DictConfig:
    return composed.copy()


def test_a_class_of_this_package_takes_the_arguments_of_its_bases() -> None:
    arguments = arguments_of(DualStudent)
    assert not arguments.others
    assert {"peer_ramp", "teacher", "students", "learning_rates"} <= arguments.known.keys()
    assert "self" not in arguments.known
    assert {name for name, argument in arguments.known.items() if argument.required} == {
        *("students", "teacher", "num_classes", "optimizer")
    }
    assert arguments_of(Digits).known["batch_size"].required


def test_a_function_takes_its_typed_keywords() -> None:
    arguments = arguments_of(mlp)
    assert not arguments.others
    assert arguments.known["widths"].type == Counts
    assert arguments.known["dropout"].type == ShareBelowOne
    assert arguments.known["num_classes"].required
    assert not arguments.known["dropout"].required


def test_the_further_keywords_of_another_class_are_not_known() -> None:
    class Base:
        def __init__(self, a: int) -> None: ...

    class Theirs(Base):
        def __init__(self, b: int, **more: Any) -> None: ...

    arguments = arguments_of(Theirs)
    assert arguments.others
    assert set(arguments.known) == {"b"}


def test_annotations_that_cannot_be_read_match_any_value() -> None:
    def theirs(a: "Unknown", b: int = 1) -> None: ...  # noqa: F821

    arguments = arguments_of(theirs)
    assert set(arguments.known) == {"a", "b"}
    assert matches("anything", arguments.known["a"].type)


def test_optional_keys_of_typed_keywords_are_not_required() -> None:
    class Options(TypedDict, total=False):
        size: int

    def function(**options: Unpack[Options]) -> None: ...

    assert arguments_of(function).known["size"] == (int, False)


def test_a_class_without_a_constructor_takes_nothing() -> None:
    class Bare:
        pass

    assert arguments_of(Bare) == ({}, False)


def test_a_good_configuration_passes_with_the_facts_of_its_data_and_without(
    cfg: DictConfig,
) -> None:
    check_configuration(cfg)
    cfg.task.update(num_classes=10, channels=3, size=16, num_inputs=768, mean=[0.0] * 3)
    check_configuration(cfg)


def test_every_key_without_a_target_has_a_type() -> None:
    config = OmegaConf.load(CONF / "config.yaml")
    keys = {key for key in config if not OmegaConf.is_dict(config[key])} - {"defaults"}
    for section in ("evaluation", "dropout", "teacher"):
        keys |= {f"{section}.{key}" for key in config[section] if key != "trainer"}
    hardware = OmegaConf.load(CONF / "hardware" / "auto.yaml")
    keys |= {f"hardware.{key}" for key in hardware}
    assert set(PLAIN) == keys


@pytest.mark.parametrize("section", ["", "evaluation", "dropout", "teacher", "hardware"])
def test_an_unknown_key_is_refused(section: str, cfg: DictConfig) -> None:
    key = f"{section}.r".lstrip(".")
    OmegaConf.update(cfg, f"{section}._r".lstrip("."), 0, force_add=True)
    check_configuration(cfg)  # a user's own key, to refer to
    OmegaConf.update(cfg, key, 0, force_add=True)
    with pytest.raises(UserError, match=f"^unknown key '{key}': "):
        check_configuration(cfg)


def test_the_value_of_another_key_is_checked_there(cfg: DictConfig) -> None:
    cfg.seed = "x"  # method.seed and data.seed are ${seed}
    with pytest.raises(UserError, match=r"^seed must be a whole number >= 0, got x$"):
        check_configuration(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hardware", None, "hardware must be keys and values, got null"),
        ("method.students.a", "mlp", "method.students.a must be keys and values, got mlp"),
        ("teacher.trainer.max_epochs", "x", "teacher.trainer.max_epochs must be a whole number"),
        ("teacher.trainer.devices", 2, "unknown key 'teacher.trainer.devices'"),
        ("trainer.precision", "16", "unknown key 'trainer.precision'"),
        ("optimizer._target_", "torch.optim.SGDD", "optimizer._target_ must be a class or a"),
        ("data.augmentation", {"_target_": "torchvision.transforms.v2.RandomCrop", "sise": 3},
         "unknown key 'data.augmentation.sise': did you mean data.augmentation.size"),
        ("callbacks.x", {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": 3},
         "callbacks.x.monitor must be text, got 3"),
        ("data.noise", "???", "data.noise must be given"),
    ],
)  # fmt: skip
def test_every_part_is_checked(key: str, value: Any, message: str, cfg: DictConfig) -> None:
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    with pytest.raises(UserError) as caught:
        check_configuration(cfg)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["title", "hardware.devices", "teacher.source"])
def test_a_removed_key_is_reported(key: str, cfg: DictConfig) -> None:
    section, _, name = key.rpartition(".")
    OmegaConf.set_struct(cfg, False)
    del (OmegaConf.select(cfg, section) if section else cfg)[name]
    with pytest.raises(UserError, match=f"{key} must be given, got nothing"):
        check_configuration(cfg)
