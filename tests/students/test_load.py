"""A loaded student is an ordinary module: it can be copied, pickled, traced, exported, found."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from student_files import make_student, net_config, samples
from torchvision.transforms.v2 import functional as tv

import kd_lightning
from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.students.load import Student
from kd_lightning.students.transform import ImageTransform

NETS = {
    "mlp": ("grey", {"widths": [4]}),
    "fcn": ("series", {"widths": [4, 4, 4]}),
    "resnet8": ("colour", {"widths": [4, 4, 4, 4]}),
    "timm": ("colour", {"name": "test_resnet", "input_size": 64}),
}
USER_NET = """
from torch import nn

from kd_lightning.models.outputs import ModelOutput


class Mine(nn.Module):
    def __init__(self, num_inputs, num_classes):
        super().__init__()
        self.layer = nn.Linear(num_inputs, 4)
        self.last = nn.Linear(4, num_classes)

    def forward(self, x):
        features = self.layer(x.flatten(1))
        return ModelOutput(self.last(features), features)
"""


@pytest.fixture(scope="module", params=NETS)
def student(request: pytest.FixtureRequest, tmp_path_factory) -> Student:
    kind, arguments = NETS[request.param]
    config = net_config(request.param, kind, **arguments)
    loaded = kd_lightning.load(make_student(tmp_path_factory.mktemp("s"), config, kind)[1])
    loaded.x = samples(kind)
    return loaded


def test_a_copy_and_a_pickle_compute_the_same(student: Student) -> None:
    for other in (copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
        assert torch.equal(other(student.x), student(student.x))
        assert other.class_names == student.class_names
        assert other.info == student.info


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated")
def test_it_can_be_traced_and_exported_for_any_batch_size(student: Student) -> None:
    x, more = student.x, torch.cat([student.x, student.x[:1]])
    traced = torch.jit.trace(student, x)
    program = torch.export.export(student, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for run in (traced, program.module()):
        torch.testing.assert_close(run(more), student(more))


def test_its_weights_need_no_gradient_but_its_input_may_have_one(student: Student) -> None:
    assert not any(parameter.requires_grad for parameter in student.parameters())
    x = student.x.clone().requires_grad_()
    student(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_bytes_are_steps_of_1_255(student: Student) -> None:
    if student.info["input"]["kind"] == "series":
        pytest.skip("series have no bytes")
    x = (student.x * 255).round().to(torch.uint8)
    torch.testing.assert_close(student(x), student(x.float() / 255))


def test_the_package_imports_load_when_it_is_asked_for() -> None:
    from kd_lightning import load

    assert load is kd_lightning.load
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        kd_lightning.other  # noqa: B018


@pytest.mark.slow
def test_a_student_needs_torch_and_no_more(tmp_path: Path) -> None:
    _, path = make_student(tmp_path, net_config("mlp", "grey", widths=[4]), "grey")
    program = (
        "import sys, torch, kd_lightning; "
        f"kd_lightning.load({str(path)!r})(torch.rand(1, 1, 8, 8)); "
        "assert not {'lightning', 'torchvision', 'timm', 'hydra'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_net_of_another_package_must_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_net.py").write_text(USER_NET)
    monkeypatch.syspath_prepend(tmp_path)
    config = {"_target_": "my_net.Mine", "num_inputs": 64, "num_classes": 3}
    net, path = make_student(tmp_path, config, "grey")
    with pytest.raises(UserError, match=r'my_net.Mine, which is no net .*allow=\["my_net"\]'):
        kd_lightning.load(path)
    student = kd_lightning.load(path, allow=["my_net"])
    assert torch.equal(student(samples("grey")), net(samples("grey")).logits)


def test_a_path_is_a_file_or_a_folder_with_one(tmp_path: Path) -> None:
    _, path = make_student(tmp_path / "a", net_config("mlp", "grey", widths=[4]), "grey")
    assert kd_lightning.load(tmp_path / "a").info == kd_lightning.load(str(path)).info
    renamed = path.rename(path.with_name("other.safetensors"))
    assert kd_lightning.load(tmp_path / "a").info == kd_lightning.load(renamed).info
    renamed.with_name("one_more.safetensors").write_bytes(renamed.read_bytes())
    with pytest.raises(UserError, match=r"expected one student file .*one_more.*other"):
        kd_lightning.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.safetensors", "none.safetensors, which does not exist"),
        ("best-a.ckpt", "best-a.ckpt, which is another kind of file"),
        (".", "expected one student file .*found none"),
    ],
)
def test_another_path_is_one_sentence(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "best-a.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        kd_lightning.load(tmp_path / name)


def test_a_student_by_name_is_for_a_run(tmp_path: Path) -> None:
    _, path = make_student(tmp_path, net_config("mlp", "grey", widths=[4]), "grey")
    with pytest.raises(UserError, match="--student a is for a run directory"):
        kd_lightning.load(path, student="a")


def test_the_transform_gives_images_their_size_and_channels() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    grey = tv.rgb_to_grayscale(image)
    resizing = Resizing(8, "crop", 1.0)
    colour = ImageTransform(3, resizing)
    assert torch.equal(colour(image), resizing(image))
    assert torch.equal(colour(grey), resizing(grey).expand(3, -1, -1))
    assert torch.equal(ImageTransform(1, resizing)(image), resizing(grey))
    own = image[:, :8, :8]
    assert torch.equal(colour(own), own)
    edges = (image > 127).float()
    bicubic = ImageTransform(3, Resizing(8, "crop", 1.0, "bicubic"))(edges)
    assert 0 <= bicubic.min() <= bicubic.max() <= 1
    with pytest.raises(UserError, match="takes images of 4 channels, got 3"):
        ImageTransform(4, resizing)(image)


def test_the_transform_can_be_pickled_and_leaves_series_alone(student: Student) -> None:
    transform = pickle.loads(pickle.dumps(student.transform()))
    x = student.x if student.info["input"]["kind"] == "series" else (student.x * 255).byte()
    assert torch.equal(transform(x[0]), x[0])


def test_of_a_sweep_a_job_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "0000").mkdir(parents=True)
    (tmp_path / "jobs" / "0000" / "job.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"is a sweep, and one run is needed: .* such as .*/jobs/0000$"
    ):
        kd_lightning.load(tmp_path)
