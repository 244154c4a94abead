"""A teacher from a file gives the file's own logits, in the data's order, for its own input."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from helpers import TINY, compose
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.data.classification import ClassificationData
from kd_lightning.running.build import build_data
from kd_lightning.teachers.sources import Teacher, get_teacher

NET = "test_resnet"  # a net of timm for tests, 0.5 million parameters
CLASSES = ["daisy", "iris", "rose"]
TIMM = ("model@method.teacher=timm", f"method.teacher.name={NET}")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("flowers")
    for part, count in (("train", 6), ("test", 2)):
        for shade, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                colour = (80 * shade, 40 + i, 99)
                Image.new("RGB", (40, 36), colour).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NET, num_classes=3).eval()


@pytest.fixture
def teacher_of(flowers: Path) -> Callable:
    """teacher_of(path, "teacher.class_order=…"): the teacher and what was said."""

    def load(source: Path | str, *overrides: str) -> tuple[Teacher, list[str]]:
        cfg = compose(
            "method=kd", "data=image_folder", f"data.root={flowers}", "data.image_size=32",
            "data.batch_size=4", "data.num_workers=0", *TIMM, f"teacher.source={source}",
            *overrides,
        )  # fmt: skip
        data: ClassificationData = build_data(cfg)
        said: list[str] = []
        return get_teacher(cfg, data, train=pytest.fail, say=said.append), said

    return load


def logits(teacher: Teacher, size: int = 32) -> torch.Tensor:
    return teacher.net.eval()(torch.rand(2, 3, size, size, generator=seeded())).logits


def expected(net: nn.Module, teacher: Teacher, size: int = 32) -> torch.Tensor:
    x = torch.rand(2, 3, size, size, generator=seeded())
    return net(teacher.net.prepare(x))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_plain_file_has_timms_statistics_and_the_datas_order(
    theirs: nn.Module, teacher_of: Callable, tmp_path: Path
) -> None:
    torch.save({"state_dict": {f"model.{k}": v for k, v in theirs.state_dict().items()}},
               tmp_path / "net.ckpt")  # fmt: skip
    teacher, said = teacher_of(tmp_path / "net.ckpt")
    torch.testing.assert_close(logits(teacher), expected(theirs, teacher))
    config = timm.get_pretrained_cfg(NET)
    assert teacher.net.prepare.mean.tolist() == pytest.approx(list(config.mean))
    assert teacher.class_names is None
    order, statistics = said
    assert "taken to be in the data's order: daisy, iris, rose" in order
    assert f"timm's defaults of {NET}: none in {tmp_path / 'net.ckpt'}" in statistics
    assert teacher.notes == tuple(said)


def test_a_folder_of_the_hub_is_followed_in_everything(
    theirs: nn.Module, teacher_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"mean": (0.1,) * 3, "std": (0.2,) * 3, "input_size": (3, 48, 48), "crop_pct": 1.0,
             "interpolation": "bicubic"}  # fmt: skip
    monkeypatch.setattr(theirs, "pretrained_cfg", {**theirs.pretrained_cfg, **about})
    save_for_hf(theirs, tmp_path / "hub", model_config={"label_names": ["rose", "daisy", "iris"]},
                safe_serialization=True)  # fmt: skip
    teacher, said = teacher_of(tmp_path / "hub")
    torch.testing.assert_close(logits(teacher), expected(theirs, teacher)[:, [1, 2, 0]])
    assert teacher.class_names == CLASSES
    prepare = teacher.net.prepare
    assert (prepare.size, prepare.interpolation) == (48, "bicubic")
    order, statistics, differences = said
    assert "brought into the data's order, by the names in" in order
    assert f"mean 0.1 0.1 0.1, std 0.2 0.2 0.2, from {tmp_path / 'hub'}" in statistics
    assert statistics.endswith("; images resized from 32 to 48, bicubic")
    assert "data.image_size=48" in differences
    assert "data.crop_fraction=1.0" in differences


def test_given_values_win(
    theirs: nn.Module, teacher_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"mean": (0.1,) * 3, "std": (0.2,) * 3, "input_size": (3, 48, 48)}
    monkeypatch.setattr(theirs, "pretrained_cfg", {**theirs.pretrained_cfg, **about})
    save_for_hf(theirs, tmp_path / "hub", safe_serialization=True)
    teacher, said = teacher_of(
        tmp_path / "hub", "method.teacher.mean=[0.3,0.3,0.3]", "method.teacher.std=[1,1,1]",
        "method.teacher.input_size=40", "method.teacher.interpolation=nearest-exact",
        "teacher.class_order=[rose,daisy,iris]",
    )  # fmt: skip
    prepare = teacher.net.prepare
    assert prepare.mean.tolist() == pytest.approx([0.3] * 3)
    assert (prepare.size, prepare.interpolation) == (40, "nearest-exact")
    torch.testing.assert_close(logits(teacher), expected(theirs, teacher)[:, [1, 2, 0]])
    assert "as given (method.teacher.mean); images resized from 32 to 40, nearest-exact" in said[1]


def test_more_classes_than_the_datas_are_left_out(teacher_of: Callable, tmp_path: Path) -> None:
    net = timm.create_model(NET, num_classes=5).eval()
    names = ["aster", "iris", "rose", "tulip", "daisy"]
    torch.save({"model": net.state_dict(), "classes": names}, tmp_path / "five.pt")
    teacher, said = teacher_of(tmp_path / "five.pt")
    torch.testing.assert_close(logits(teacher), expected(net, teacher)[:, [4, 1, 2]])
    assert teacher.net.head.out_features == 3
    assert "the data's 3 classes are taken out of its 5" in said[0]


def test_classes_that_are_not_the_datas_are_refused(teacher_of: Callable, tmp_path: Path) -> None:
    net = timm.create_model(NET, num_classes=3)
    torch.save({"model": net.state_dict(), "classes": ["a", "b", "c"]}, tmp_path / "abc.pt")
    with pytest.raises(UserError, match=r"have daisy, iris, rose, it has a, b, c; .*class_order=…"):
        teacher_of(tmp_path / "abc.pt")
    assert teacher_of(tmp_path / "abc.pt", "teacher.class_order=[0,2,1]")[0].class_names == CLASSES
    other = timm.create_model(NET, num_classes=7)
    torch.save(other.state_dict(), tmp_path / "seven.pt")
    with pytest.raises(UserError, match=r"expected weights for 3 classes, .*seven.pt has 7"):
        teacher_of(tmp_path / "seven.pt")


def test_a_students_file_of_this_package(
    theirs: nn.Module, teacher_of: Callable, tmp_path: Path
) -> None:
    about = {"class_names": ["iris", "rose", "daisy"], "mean": [0.1] * 3, "std": [0.2] * 3}
    metadata = {"kd_lightning": json.dumps(about)}
    save_file(theirs.state_dict(), tmp_path / "student.safetensors", metadata)
    for source in (tmp_path, tmp_path / "student.safetensors"):
        teacher, _ = teacher_of(source)
        torch.testing.assert_close(logits(teacher), expected(theirs, teacher)[:, [2, 0, 1]])
        assert teacher.net.prepare.mean.tolist() == pytest.approx([0.1] * 3)


def test_a_students_file_of_another_split_is_refused_as_its_run_is(
    theirs: nn.Module, teacher_of: Callable, tmp_path: Path
) -> None:
    """Fixed bug: the run directory was refused, and the file in it was not."""
    about = {"class_names": ["iris", "rose", "daisy"], "data": {"fingerprint": "of another split"}}
    metadata = {"kd_lightning": json.dumps(about)}
    exported = tmp_path / "student.safetensors"
    save_file(theirs.state_dict(), exported, metadata)
    kept = tmp_path / "run" / "best-student.ckpt"
    kept.parent.mkdir()
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, kept)
    write_kept(kept.parent, {"environment.json": json.dumps({"data": about["data"]})})
    for path in (exported, kept):
        with pytest.raises(UserError, match=r"another split, so it may have .*other_data=true"):
            teacher_of(path)
        teacher_of(path, "teacher.other_data=true")


def test_the_average_is_taken_unless_the_key_says_otherwise(
    theirs: nn.Module, teacher_of: Callable, tmp_path: Path
) -> None:
    raw = timm.create_model(NET, num_classes=3).eval()
    content = {"state_dict": raw.state_dict(), "state_dict_ema": theirs.state_dict()}
    torch.save(content, tmp_path / "both.pth.tar")
    teacher, said = teacher_of(tmp_path / "both.pth.tar")
    torch.testing.assert_close(logits(teacher), expected(theirs, teacher))
    assert "is used (teacher.weights_key=state_dict for the other)" in said[0]
    teacher, _ = teacher_of(tmp_path / "both.pth.tar", "teacher.weights_key=state_dict")
    torch.testing.assert_close(logits(teacher), expected(raw, teacher))


def test_keys_of_a_file_need_a_file(teacher_of: Callable) -> None:
    for key in ("class_order=[0,1,2]", "weights_key=ema"):
        with pytest.raises(UserError, match=rf"teacher.{key.split('=')[0]} is for a file of weigh"):
            teacher_of("train", f"teacher.{key}")


def test_timms_weights_get_their_own_statistics_and_size(
    teacher_of: Callable, write_tree: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = timm.get_pretrained_cfg(NET)
    repository = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    net = timm.create_model(NET, num_classes=1000).eval()
    save_file(net.state_dict(), snapshot / "model.safetensors")
    wnids = ["n01440764", "n01443537"]  # the first two classes of ImageNet-1k
    write_tree(tmp_path / "tree", {f"train/{name}": 8 for name in wnids})
    teacher, said = teacher_of("pretrained", f"data.root={tmp_path / 'tree'}")
    torch.testing.assert_close(logits(teacher), expected(net, teacher)[:, :2])
    side = config.input_size[-1]
    assert side != 32
    assert f"timm's of {NET}; images resized from 32 to {side}, {config.interpolation}" in said[0]
    assert f"timm's {NET} says it saw images with image_size {side}" in said[1]
    with pytest.raises(
        UserError, match=r"is for a file of weights, and teacher\.source=pretrained"
    ):
        teacher_of("pretrained", f"data.root={tmp_path / 'tree'}", "teacher.class_order=[0,1]")


def test_without_a_network_the_way_out_is_a_command_that_works(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    net = ["method=kd", *tiny, *TIMM, "trainer.max_epochs=1"]
    for words, instead in (
        ([*net, "method.teacher.weights=pretrained"], "method.teacher.weights=none"),
        ([*net, "teacher.source=pretrained"], "teacher.source=train"),
    ):
        with pytest.raises(UserError) as raised:
            distill(*words)
        message = str(raised.value)
        assert "test_resnet" in message
        assert "model.safetensors on another machine and give that file" in message
        program, command = message.split("or do without them: ")[1].split("kd_lightning.run ")
        assert program == "python -m "
        assert shlex.split(command) == [*words, instead]
        assert distill(*shlex.split(command)).directory.exists()


def test_weights_that_are_not_numbers_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    state = timm.create_model("resnet18", num_classes=10).state_dict()
    state["fc.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "teacher.pt")
    with pytest.raises(UserError, match=r"1 of 1\d\d tensors in .*teacher.pt have values that are "
                       r"not finite, the first is fc.weight"):  # fmt: skip
        distill("method=kd", *TINY, "model@method.teacher=resnet18", f"outputs={tmp_path}/outputs",
                f"teacher.source={tmp_path}/teacher.pt")  # fmt: skip
    assert not (tmp_path / "outputs").exists()


def test_names_of_other_runs_are_followed_too(tmp_path: Path) -> None:
    """The classes of a run in another order, which is the order of its data's names."""
    words = ["method=supervised", *[o for o in TINY if not o.startswith("teacher.")]]
    first = distill(*words, f"outputs={tmp_path}")
    record = first.directory / "environment.json"
    content = json.loads(record.read_text())
    names = content["data"]["class_names"]
    content["data"]["class_names"] = [names[-1], *names[:-1]]
    content["data"]["classes_sha256"] = "other"
    write_kept(record.parent, {record.name: json.dumps(content)})
    cfg = compose("method=kd", *TINY, f"teacher.source={first.directory}")
    teacher = get_teacher(cfg, build_data(cfg), train=pytest.fail, say=lambda note: None)
    weight = torch.load(first.directory / "best-student.ckpt")["state_dict"]["head.weight"]
    assert torch.equal(teacher.net.head.weight, weight.roll(-1, 0))
    assert "brought into the data's order" in teacher.notes[0]
