"""Names of classes, and a person's own YAML."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.torture.file_kind import Kind, Numbers, slow_text
from kd_lightning.config.command_line import as_user_errors, compose
from kd_lightning.data.imagenet100 import read_class_list
from kd_lightning.teachers.class_order import read_order


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text)


def slow_lines(file: Path) -> Numbers:
    text = slow_text(file)
    if text.lstrip().startswith("["):
        return {"names": json.loads(text)}
    return {"names": [line.strip() for line in io.StringIO(text, None) if line.strip()]}


def slow_wnids(file: Path) -> Numbers:
    return {"names": sorted(slow_text(file).split())}


YAML = (
    "defaults: [digits, _self_]\nsplit_seed: 3\nval_fraction: 0.25\ntrain_per_class: 9 # of train\n"
)


def write_yaml(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / "mine.yaml").write_text(YAML)


def read_yaml(root: Path, file: Path) -> Numbers:
    with as_user_errors(("data=mine",)):
        cfg = compose(["data=mine"], root, "evaluate")
    return {name: cfg.data.get(name) for name in ("split_seed", "val_fraction", "train_per_class")}


def slow_yaml(file: Path) -> Numbers:
    given = {"split_seed": 0, "val_fraction": 0.1, "train_per_class": None} | yaml.safe_load(
        file.read_bytes()
    )
    return {name: given[name] for name in ("split_seed", "val_fraction", "train_per_class")}


def read_names(root: Path, file: Path) -> Numbers:
    return {"names": read_order(str(file))}


KINDS = {
    "txt, class order": Kind(
        "text", write_text("names.txt", "cat\ndog\nfox\n"), ["names.txt"], read_names, slow_lines
    ),
    "json, class order": Kind(
        "json",
        write_text("names.json", '["cat", "dog", "fox"]'),
        ["names.json"],
        read_names,
        slow_lines,
    ),
    "txt, class list": Kind(
        "text",
        write_text("some.txt", "n01440764\nn01443537\n"),
        ["some.txt"],
        lambda root, file: {"names": read_class_list(file)},
        slow_wnids,
    ),
    "yaml, own data": Kind("text", write_yaml, ["data/mine.yaml"], read_yaml, slow_yaml),
}
