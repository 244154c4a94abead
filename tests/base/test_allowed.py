"""A file from elsewhere names only what may be called; nothing else is even imported."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from kd_lightning.base.allowed import (
    LIBRARIES,
    NOT_FROM_FILES,
    check_composed,
    check_own,
    check_record,
    needed_words,
    registered,
)
from kd_lightning.base.conf_folder import CONF
from kd_lightning.base.errors import UserError

FILE = Path("run/config.yaml")
SGD = "torch.optim.SGD"
# Attributes of modules whose other names are allowed, functions that write files, and a module that
# leaves a mark when it is imported
FOREIGN = (
    *("torch.load", "torch.hub.load", "torch.optim.lr_scheduler.warnings.warn", "numpy.load"),
    *("kd_lightning.base.files.write_text", "kd_lightning.models.timm_creation.os.system"),
    *("kd_lightning.running.run.in_own_process", "kd_lightning.data.digits.np.load"),
    *("kd_lightning.run.main", "lightning.pytorch.Trainer", "hydra.utils.call", "evil.run"),
    *NOT_FROM_FILES,
)
# Ways to name a function in a configuration
PLACES = {
    "a section": lambda target: {"optimizer": target},
    "an argument": lambda target: {"data": {"_target_": SGD, "augmentation": target}},
    "a list": lambda target: {"data": {"transforms": [[{"_target_": SGD}, target]]}},
    "_args_": lambda target: {"method": {"_target_": SGD, "_args_": [1, target]}},
    "_partial_": lambda target: {"method": {**target, "_partial_": True, "_args_": ["x"]}},
    "_convert_": lambda target: {"method": {**target, "_convert_": "all", "_recursive_": False}},
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_names_only_what_the_yaml_of_the_package_names(name: str, evil: Path) -> None:
    with pytest.raises(
        UserError, match=rf"optimizer._target_ in {FILE} asks to call {name}, which"
    ):
        check_record({"optimizer": {"_target_": name}}, FILE, [])
    assert not evil.exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["evil.run", "builtins.open"])
def test_a_name_is_found_wherever_it_is(place: str, name: str, evil: Path) -> None:
    content = PLACES[place]({"_target_": name})
    for form in (content, OmegaConf.create(content)):
        with pytest.raises(UserError, match=rf"_target_ in {FILE} asks to call {name}, which"):
            check_record(form, FILE, [])
    assert not evil.exists()


@pytest.mark.parametrize(
    "name", ["open", "", None, 3, [SGD], {"_target_": SGD}, f"{SGD}()", f" {SGD}", "torch..SGD"]
)
def test_what_is_no_dotted_name_is_refused(name: Any) -> None:
    with pytest.raises(UserError, match="which builds no part of a run"):
        check_record({"optimizer": {"_target_": name}}, FILE, ["torch"])


@pytest.mark.parametrize("allow", [[], ["builtins"], ["builtins.open", "os"], ["*"]])
@pytest.mark.parametrize("name", ["builtins.open", "os.system", "subprocess.run", "pickle.loads"])
def test_nothing_allows_a_function_of_python(name: str, allow: list[str]) -> None:
    with pytest.raises(UserError, match="which builds no part of a run"):
        check_record({"_target_": name}, FILE, allow)
    with pytest.raises(UserError, match=rf"optimizer._target_ .* got {name}, .* never called"):
        check_own(name, "optimizer._target_")


def test_what_the_yaml_names_may_be_named() -> None:
    texts = [path.read_text() for path in (CONF / "method").glob("[!_]*.yaml")]
    named = {yaml.safe_load(text)["_target_"] for text in texts}
    assert len(named) > 15
    assert named <= registered()
    for name in [*named, SGD, "torch.optim.Adam", "torchvision.transforms.v2.ColorJitter"]:
        check_record({"x": {"_target_": name}}, FILE, [])
    assert needed_words({"x": {"_target_": SGD}}) == []


@pytest.mark.parametrize("module", LIBRARIES)
def test_only_classes_of_libraries_are_known(module: str) -> None:
    for name in vars(__import__(module, fromlist=["x"])):
        if not isinstance(vars(sys.modules[module])[name], type):
            with pytest.raises(UserError, match="asks to call"):
                check_record({"_target_": f"{module}.{name}"}, FILE, [])


@pytest.mark.parametrize("allow", [["evil"], ["evil.run"], ["other", "evil"], ["*"]])
def test_a_person_allows_a_package_a_function_or_anything(allow: list[str], evil: Path) -> None:
    content = {"x": {"_target_": "evil.run"}}
    assert needed_words(content) == ["evil"]
    check_record(content, FILE, allow)


@pytest.mark.parametrize("allow", [["evi"], ["evil.ru"], ["evil.run.x"], ["vil"], [""]])
def test_a_word_allows_nothing_that_only_looks_like_it(allow: list[str], evil: Path) -> None:
    with pytest.raises(UserError, match=r'allow it \(allow=\["evil"\], or --allow evil\)'):
        check_record({"x": {"_target_": "evil.run"}}, FILE, allow)
    assert not evil.exists()


def test_an_allowed_package_gives_only_its_own_functions(evil: Path) -> None:
    with pytest.raises(UserError, match=r"asks to call evil.os, which is defined elsewhere"):
        check_record({"_target_": "evil.os"}, FILE, ["evil"])
    with pytest.raises(UserError, match=r"needs evil.gone, which cannot be imported"):
        check_record({"_target_": "evil.gone"}, FILE, ["evil"])


READING = (
    *("${oc.env:HOME}", "see ${ oc.env:HOME}", "${oc.decode:'x'}", "${oc.create:{a: 1}}"),
    *("${oc.${part}:HOME}", "${hydra:runtime.cwd}", "${now:%Y}", "${oc.select:${oc.env:A},1}"),
)


@pytest.mark.parametrize("text", [*READING, "${seed}", "${.seed}"])
def test_a_record_holds_values_alone(text: str) -> None:
    for content in ({"a": {"b": text}}, {"a": [text]}):
        with pytest.raises(UserError, match=rf"{FILE} must hold values alone, got a"):
            check_record(OmegaConf.create(content), FILE, ["evil"])


@pytest.mark.parametrize("text", READING)
def test_words_in_a_file_read_only_their_own_keys(text: str) -> None:
    cfg = OmegaConf.create({"part": "env", "title": text})
    with pytest.raises(UserError, match=rf"{FILE} must only refer to its own keys, got title="):
        check_composed(cfg, FILE, [])


def test_words_in_a_file_cannot_put_a_call_together() -> None:
    cfg = OmegaConf.create({"sign": "$", "title": "${sign}{oc.env:HOME}"})
    with pytest.raises(UserError, match="must hold values alone, got title="):
        check_composed(cfg, FILE, [])


def test_words_in_a_file_may_refer_to_other_keys() -> None:
    cfg = OmegaConf.create({"seed": 3, "a": {"b": "${seed}", "c": "${oc.select:.d,${a.b}}"}})
    check_composed(cfg, FILE, [])


def test_a_reference_cannot_hide_a_name(evil: Path) -> None:
    cfg = OmegaConf.create({"name": "evil", "x": {"_target_": "${name}.run"}})
    with pytest.raises(UserError, match=r"x._target_ in .* asks to call evil.run"):
        check_composed(cfg, FILE, [])
    assert not evil.exists()
