"""What a teacher's input is like is said in one sentence, with where that is known from."""

from pathlib import Path

import pytest
import torch
from helpers import TINY, compose, net
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.data.digits import Digits
from kd_lightning.data.image_folder import ImageFolder
from kd_lightning.models.checkpoint_facts import Facts
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.input_facts import describe_input, differences, given_facts, set_input

STUDENT = "method.students.student"
TASK = OmegaConf.create({"mean": [0.5], "std": [0.25], "shape": [1, 8, 8], "size": 8})


def prepared(**options: object) -> Classifier:
    return Classifier(
        prepare=Prepare(**options), trunk=nn.Flatten(), head=nn.Linear(4, 2), dropout=0.0
    )


def test_the_datas_statistics_are_the_default_of_own_nets_and_given_for_timms() -> None:
    same = {"mean": [0.5], "std": [0.25]}
    assert given_facts(OmegaConf.create(same), TASK).mean is None
    assert given_facts(OmegaConf.create({**same, "data_mean": [0.5]}), TASK).mean == [0.5]
    other = OmegaConf.create({"mean": [0.1], "std": [0.25], "input_size": 4})
    assert given_facts(other, TASK) == Facts(mean=[0.1], std=[0.25], input_size=4)


@pytest.mark.parametrize("target", ["mlp", "timm_classifier"])
def test_the_given_statistics_count_before_the_files_and_these_before_the_datas(
    target: str, tmp_path: Path
) -> None:
    words = ["model@method.students.student=timm", f"{STUDENT}.name=test_resnet"]
    words = words if target == "timm_classifier" else ["model@method.students.student=mlp"]
    cfg = compose("method=supervised", *[o for o in TINY if "teacher" not in o], *words)
    build_data(cfg)

    def statistics(*given: str) -> list[float]:
        now = cfg.copy()
        now.merge_with_dotlist([f"{STUDENT}.{one}" for one in given])
        return build_method(now, None).students["student"].prepare.mean.tolist()

    of_data = statistics()
    net = build_method(cfg, None).students["student"]
    net.prepare.set_statistics([0.1] * 3, [0.2] * 3)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    file, given = f"weights={tmp_path}/net.pt", ("mean=[0.3,0.3,0.3]", "std=[1,1,1]")
    assert of_data == pytest.approx(list(cfg.task.mean))
    assert statistics(file) == pytest.approx([0.1] * 3)
    assert statistics(file, *given) == pytest.approx([0.3] * 3)


def test_sizes_are_set_for_images_and_for_nets_that_take_them() -> None:
    keys = {"input_size": None, "interpolation": None}
    facts = Facts(input_size=16, interpolation="bicubic")
    config = OmegaConf.create(keys)
    set_input(config, facts, TASK)
    assert config == {"input_size": 16, "interpolation": "bicubic"}
    for config, shape in (({}, [1, 8, 8]), (keys, [1, 8])):
        config = OmegaConf.create(config)
        before = config.copy()
        set_input(config, facts, OmegaConf.merge(TASK, {"shape": shape}))
        assert config == before


def test_a_sentence_says_statistics_origin_and_resizing() -> None:
    said = describe_input(prepared(mean=[0.4852, 0.4], std=[0.2, 1]), "from net.pt", 8)
    assert said == "Teacher: mean 0.4852 0.4, std 0.2 1, from net.pt"
    resized = prepared(size=16, interpolation="bicubic")
    assert describe_input(resized, "", 8).endswith(
        "input not normalized; images resized from 8 to 16, bicubic"
    )
    assert "resized" not in describe_input(resized, "", 16)
    assert describe_input(nn.Linear(1, 1), "", 8) == ""
    assert describe_input(net(), "", 8) == "Teacher: input not normalized"


def test_images_shown_otherwise_than_in_the_teachers_training_are_said_with_the_keys() -> None:
    data = ImageFolder(root=".", batch_size=2, image_size=32, crop_fraction=0.875)
    facts = Facts(input_size=48, crop_fraction=0.875, mean=[0.5], std=[0.5])
    said = differences(facts, data, "net.pt")
    assert "saw images with image_size 48; the data have image_size 32" in said
    assert "(data.image_size=48 for the teacher's)" in said
    assert differences(Facts(input_size=32), data, "net.pt") == ""
    assert differences(facts, Digits(batch_size=2), "net.pt") == ""
    data.resize, data.interpolation = "crop", "bilinear"
    said = differences(Facts(resize="squash", interpolation="bicubic"), data, "net.pt")
    assert "data.resize=squash data.interpolation=bicubic" in said


@pytest.mark.parametrize("size", [None, 8])
def test_numbers_of_many_channels_are_cut(size: int | None) -> None:
    many = prepared(mean=torch.arange(9.0).tolist(), std=[1.0] * 9, size=size)
    assert "mean 0 1 2 3 …, std 1 1 1 1 …" in describe_input(many, "given", 8)
