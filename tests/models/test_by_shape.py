"""The nets of data=arrays follow from the shape of a sample, and every record names them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_lightning import distill
from kd_lightning.models.by_shape import KINDS, kind_of, net_for
from kd_lightning.running.build import build_data

SHAPES = {
    "series": (3, 40),
    "images": (3, 9, 9),
    "small": (2, 5),
    "small images": (3, 4, 4),
}
FACTORIES = {
    "series": ("resnet1d", "fcn", "resnet1d"),
    "images": ("resnet", "resnet", "wide_resnet"),
    "small": ("mlp", "mlp", "mlp"),
    "small images": ("mlp", "mlp", "mlp"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind of array."""
    folder, numbers = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for kind, shape in SHAPES.items():
        np.savez(folder / f"{kind}.npz", x=numbers.random((60, *shape)), y=np.arange(60) % 3)
    return {kind: folder / f"{kind}.npz" for kind in SHAPES}


def read(file: Path, *overrides: str):
    """The configuration of a run when its data are read."""
    cfg = compose("data=arrays", f"data.root='{file}'", "data.batch_size=8", *overrides)
    build_data(cfg)
    return cfg


def factory(config) -> str:
    return config._target_.split(".")[-1]


@pytest.mark.parametrize("kind", SHAPES)
def test_the_shape_of_the_samples_chooses_each_net(kind: str, files: dict[str, Path]) -> None:
    cfg = read(files[kind])
    nets = [cfg.method.teacher, *cfg.method.students.values()]
    assert tuple(map(factory, nets)) == FACTORIES[kind]
    sizes = []
    for config in nets:
        net = instantiate(config, _convert_="object")
        assert net(torch.zeros(2, *SHAPES[kind])).logits.shape == (2, 3)
        assert net.prepare.mean.tolist() == pytest.approx(cfg.task.mean)
        sizes.append(sum(parameter.numel() for parameter in net.parameters()))
    assert max(sizes[1:]) < sizes[0] / 2


def test_an_own_choice_wins_and_each_kind_keeps_its_own_keys(files: dict[str, Path]) -> None:
    cfg = read(
        files["series"],
        "model@method.students.a=inception_time",
        "method.students.b.series.widths=[7]",
        "method.students.b.dropout=0.25",
        "+method.students.b.series.block_dropout=0.5",
    )
    assert factory(cfg.method.students.a) == "inception_time"
    b = cfg.method.students.b
    assert (b["widths"], b.dropout, b.block_dropout) == ([7], 0.25, 0.5)
    assert not {"shape", "_recursive_", *KINDS} & set(b)


def test_a_method_sets_the_dropout_of_the_chosen_teacher(files: dict[str, Path]) -> None:
    cfg = read(files["series"], "method=stochastic_self_distillation", "dropout.head=0.3")
    assert cfg.method.teacher.dropout == 0.3
    assert cfg.method.students.student == cfg.method.teacher
    assert factory(cfg.method.students.student) == "resnet1d"


def test_a_net_by_shape_is_the_net_that_a_run_chooses(files: dict[str, Path]) -> None:
    config = compose("data=arrays", "task.shape=[3, 40]", "task.channels=3", "task.num_classes=5")
    config.task.update(mean=[0.0] * 3, std=[1.0] * 3, num_inputs=120)
    teacher = config.method.teacher
    torch.manual_seed(0)
    net = instantiate(teacher, _convert_="object")
    torch.manual_seed(0)
    config.method.teacher = net_for(teacher, "series")
    chosen = instantiate(config.method.teacher, _convert_="object")
    assert str(net) == str(chosen)
    for ours, theirs in zip(net.parameters(), chosen.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 8), "series"), ((1, 7), "small"), ((9, 8, 8), "images"), ((9, 7, 7), "small")],
)
def test_eight_steps_or_pixels_are_enough(shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(shape) == kind


def test_a_run_records_and_shows_the_chosen_nets(files: dict[str, Path], tmp_path: Path) -> None:
    result = distill(
        *("method=kd", "data=arrays", f"data.root='{files['series']}'", "data.batch_size=8"),
        *("trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.batch_size=8"),
        "method.teacher.series.widths=[8]",
        *("hardware=cpu", "callbacks=quiet", "logger=none", f"outputs={tmp_path}"),
    )
    titles = [net["title"] for net in result.metrics["nets"].values()]
    assert titles == [
        "teacher · resnet1d([8], [8, 5, 3])",
        "student · fcn([32, 64, 32], [8, 5, 3])",
    ]
    config = OmegaConf.load(result.directory / "config.yaml")
    assert factory(config.method.students.student) == "fcn"
    assert "net_by_shape" not in OmegaConf.to_yaml(config)
    resumed = distill(f"resume={result.directory}")
    assert resumed.metrics["nets"].keys() == result.metrics["nets"].keys()
