"""What files say about their nets, in the words of several libraries."""

import argparse
import json
from typing import Any

import pytest
import timm
import torch
from omegaconf import OmegaConf

from kd_lightning.models.checkpoint_facts import Facts, facts_of

STATISTICS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda facts: facts,
        lambda facts: {"args": argparse.Namespace(**facts)},
        lambda facts: {"hyper_parameters": facts},
        lambda facts: {"hyper_parameters": {"config": facts}},
        lambda facts: {"config": OmegaConf.create({**facts, "lr": "${nowhere}"})},
        lambda facts: {"pretrained_cfg": facts},
    ],
    ids=["top", "Namespace", "Lightning", "nested", "OmegaConf", "timm"],
)
def test_facts_are_found_where_programs_write_them(wrap: Any) -> None:
    said = {**STATISTICS, "input_size": [3, 96, 96], "interpolation": "bicubic",
            "crop_pct": 0.9, "crop_mode": "border", "class_names": ["x", "y"]}  # fmt: skip
    assert facts_of(wrap(said)) == Facts(
        **STATISTICS, input_size=96, interpolation="bicubic", crop_fraction=0.9,
        resize="letterbox", class_names=["x", "y"],
    )  # fmt: skip


def test_nearest_in_a_file_is_that_of_pil() -> None:
    for name in ("nearest", "NEAREST", "nearest-exact"):
        assert facts_of({"interpolation": name}).interpolation == "nearest-exact"


def test_the_first_that_says_something_counts() -> None:
    facts = facts_of({"img_size": 64}, {"img_size": 32, **STATISTICS})
    assert (facts.input_size, facts.mean) == (64, STATISTICS["mean"])
    mean = Facts(mean=[1.0], std=[2.0])
    assert mean.or_else(Facts(mean=[3.0], std=[4.0], input_size=8)) == Facts(
        mean=[1.0], std=[2.0], input_size=8
    )


@pytest.mark.parametrize(
    "said",
    [
        {"class_names": ["x", "y"]},
        {"classes": ["x", "y"]},
        {"label_names": ["x", "y"]},
        {"class_to_idx": {"y": 1, "x": 0}},
        {"label2id": {"y": 1, "x": 0}},
        {"idx_to_class": {1: "y", 0: "x"}},
        {"id2label": json.loads('{"1": "y", "0": "x"}')},
    ],
    ids=lambda said: next(iter(said)),
)
def test_class_names_have_many_keys(said: dict) -> None:
    assert facts_of(said).class_names == ["x", "y"]


@pytest.mark.parametrize(
    "said",
    [
        {"mean": 0.5, "std": 0.2},
        {"mean": [0.5], "std": [0.2, 0.2]},
        {"mean": [0.5], "std": [0.0]},
        {"mean": ["a"], "std": ["b"]},
        {"mean": [float("nan")], "std": [1.0]},
        {"mean": None, "std": None, "img_size": None, "interpolation": "", "crop_pct": None},
        {"classes": 10, "idx_to_class": {0: "x", 2: "y"}, "class_to_idx": {"x": "first"}},
        {"input_size": True, "interpolation": "random", "crop_pct": 7, "crop_mode": 3},
    ],
)
def test_what_cannot_be_understood_is_not_said(said: dict) -> None:
    assert facts_of(said) == Facts()


def test_statistics_of_bytes_and_in_tensors_are_understood() -> None:
    facts = facts_of({"mean": [51.0, 102.0, 153.0], "std": torch.full((3, 1, 1), 51.0)})
    assert facts.mean == pytest.approx([0.2, 0.4, 0.6])
    assert facts.std == pytest.approx([0.2] * 3)


def test_timms_own_configuration_is_understood() -> None:
    config = timm.get_pretrained_cfg("resnet50.a1_in1k")
    facts = facts_of(vars(config))
    assert facts.mean == list(config.mean)
    assert (facts.input_size, facts.interpolation) == (224, "bicubic")
    assert (facts.resize, facts.crop_fraction) == ("crop", config.crop_pct)


def test_lightnings_number_of_inputs_is_no_image_side() -> None:
    assert facts_of({"hyper_parameters": {"input_size": 784}}).input_size is None
    assert facts_of({"args": {"input_size": 224}}).input_size == 224
    assert facts_of({"hyper_parameters": {"img_size": 224}}).input_size == 224


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ([0, 0, 0], [255, 255, 255], ([0, 0, 0], [1, 1, 1])),
        ([102, 127.5, 153], [1, 1, 1], ([0.4, 0.5, 0.6], [1 / 255] * 3)),
        ([102, 127.5, 153], [51, 51, 51], ([0.4, 0.5, 0.6], [0.2] * 3)),
        ([2, 3, 9.8], [4, 5, 6], ([2, 3, 9.8], [4, 5, 6])),  # of series
    ],
)
def test_statistics_of_bytes_become_those_of_images(mean: list, std: list, expected: tuple) -> None:
    facts = facts_of({"mean": mean, "std": std})
    assert facts.mean == pytest.approx(expected[0])
    assert facts.std == pytest.approx(expected[1])


def test_a_side_is_no_number_of_channels() -> None:
    for size in ([3, 96, 96], [96, 96, 3], [96, 96], 96):
        assert facts_of({"img_size": size}).input_size == 96
