"""Files are read as the real libraries write them, and no code in them is run."""

import argparse
import json
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.models import save_for_hf
from timm.utils import CheckpointSaver, ModelEmaV2
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.checkpoints import read_checkpoint
from kd_lightning.models.timm_nets import timm_classifier
from kd_lightning.models.weights import Loaded, load_weights

TINY = "test_resnet"  # a net of timm for tests, 0.5 million parameters
STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


def states_of(content: object, path: Path) -> dict[str, dict[str, Tensor]]:
    torch.save(content, path)
    return read_checkpoint(path).states


@pytest.mark.parametrize(
    "key",
    [
        *("state_dict", "model", "model_state_dict", "net", "network", "weights", "params"),
        *("state_dict_ema", "model_ema", "ema", "anything"),
    ],
)
def test_weights_are_found_under_any_key_at_any_depth(key: str, tmp_path: Path) -> None:
    for content, where in (
        ({key: STATE, "epoch": 3}, key),
        ({"checkpoint": {key: STATE}}, f"checkpoint.{key}"),
    ):
        states = states_of(content, tmp_path / "net.pt")
        assert list(states) == [where]
        assert torch.equal(states[where]["weight"], STATE["weight"])


def test_the_state_of_an_optimizer_is_no_net(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"net": layer.state_dict(), "optimizer": optimizer.state_dict()}
    assert list(states_of(content, tmp_path / "net.pt")) == ["net"]


def test_plain_objects_beside_the_weights_are_read(tmp_path: Path) -> None:
    content = {
        "model": STATE,
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "best": np.float64(0.5),
        "history": np.ones(3),
        "cfg": OmegaConf.create({"a": [1]}),
    }
    assert list(states_of(content, tmp_path / "net.pt")) == ["model"]


def test_a_compiled_part_has_its_own_names(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    net[0] = torch.compile(net[0])
    states = states_of(torch.compile(net).state_dict(), tmp_path / "net.pt")
    assert states[""].keys() == {"0.weight", "0.bias"}


def test_a_pickled_net_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(timm.create_model(TINY), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"\(timm\..*\), and .*run code: save the net's state_dict"):
        read_checkpoint(tmp_path / "net.pt")


# What real programs write


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(TINY, num_classes=4).eval()


class Module(lightning.LightningModule):
    def __init__(self, nets: dict[str, nn.Module], **hyper_parameters: object) -> None:
        super().__init__()
        self.save_hyperparameters(hyper_parameters)
        for name, net in nets.items():
            setattr(self, name, net)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))


def save_lightning(module: lightning.LightningModule, path: Path) -> None:
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=False)


def loaded_into(path: Path, theirs: nn.Module, **options: object) -> Loaded:
    """Loads the file and checks that the net gives the logits of ``theirs``."""
    ours = timm_classifier(TINY, num_classes=4, in_chans=3).eval()
    loaded = load_weights(ours, path, "teacher.source", **options)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x)))
    if loaded.facts.mean is not None:
        assert ours.prepare.mean.tolist() == pytest.approx(loaded.facts.mean)
    return loaded


def test_a_checkpoint_of_lightning(theirs: nn.Module, tmp_path: Path) -> None:
    config = OmegaConf.create({"data": {"mean": [0.1] * 3, "std": [0.2] * 3, "image_size": 96}})
    save_lightning(Module({"model": theirs}, config=config), tmp_path / "epoch=3.ckpt")
    loaded = loaded_into(tmp_path / "epoch=3.ckpt", theirs)
    assert loaded.facts.mean == [0.1] * 3
    assert loaded.facts.input_size == 96
    (note,) = loaded.notes
    assert note.endswith("also has other tensors, which are not used: criterion.weight")


def test_a_checkpoint_of_lightning_with_two_nets_asks_which(
    theirs: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "two.ckpt"
    other = timm.create_model(TINY, num_classes=4)
    save_lightning(Module({"student": other, "teacher": theirs}), path)
    said = r"2 sets of weights .* choose one with teacher.weights_key=state_dict.student or state_"
    with pytest.raises(UserError, match=said):
        loaded_into(path, theirs, key_of_weights_key="teacher.weights_key")
    for key in ("teacher", "state_dict.teacher"):
        loaded_into(path, theirs, weights_key=key)
    with pytest.raises(UserError, match="no weights for the net under peer: expected state_dict"):
        loaded_into(path, theirs, weights_key="peer")


@pytest.fixture
def timm_checkpoint(theirs: nn.Module, tmp_path: Path) -> tuple[Path, nn.Module]:
    """What timm's training script writes, and the net with averaged weights."""
    average = ModelEmaV2(theirs)
    with torch.no_grad():
        average.module.fc.bias += 1
    args = argparse.Namespace(
        model=TINY, mean=[0.3] * 3, std=[0.4] * 3, img_size=None, crop_pct=0.9
    )
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    saver = CheckpointSaver(theirs, optimizer, args=args, model_ema=average,
                            checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))  # fmt: skip
    saver.save_checkpoint(0, metric=0.5)
    return tmp_path / "model_best.pth.tar", average.module.eval()


def test_a_checkpoint_of_timm_gives_its_averaged_weights(
    theirs: nn.Module, timm_checkpoint: tuple[Path, nn.Module]
) -> None:
    path, averaged = timm_checkpoint
    loaded = loaded_into(path, averaged)
    assert loaded.facts.mean == [0.3] * 3
    assert loaded.facts.crop_fraction == 0.9
    assert "(state_dict) and their moving average (state_dict_ema): the average" in loaded.notes[0]
    assert not loaded_into(path, theirs, weights_key="state_dict").notes
    assert not loaded_into(path, averaged, weights_key="state_dict_ema").notes


def test_a_folder_for_the_hugging_face_hub(
    theirs: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["ant", "bee", "cat", "dog"]
    monkeypatch.setitem(theirs.pretrained_cfg, "input_size", (3, 96, 96))
    monkeypatch.setitem(theirs.pretrained_cfg, "crop_pct", 0.95)
    for safe in (True, False):
        folder = tmp_path / f"hub-{safe}"
        model_config = {"label_names": labels}
        save_for_hf(theirs, folder, model_config=model_config, safe_serialization=safe)
        facts = loaded_into(folder, theirs).facts
        assert (facts.architecture, facts.class_names) == (TINY, labels)
        assert (facts.input_size, facts.crop_fraction) == (96, 0.95)
        (file,) = folder.glob("*model*")
        assert loaded_into(file, theirs).facts == facts


def test_the_content_decides_how_a_file_is_read_and_not_its_name(
    theirs: nn.Module, tmp_path: Path
) -> None:
    save_file(
        theirs.state_dict(), tmp_path / "net.pt", {"kd_lightning": '{"mean": [1], "std": [2]}'}
    )
    torch.save(theirs.state_dict(), tmp_path / "net.safetensors")
    assert loaded_into(tmp_path / "net.safetensors", theirs).facts.mean is None
    assert read_checkpoint(tmp_path / "net.pt").facts.mean == [1]


def test_a_students_file_says_its_classes_and_statistics(theirs: nn.Module, tmp_path: Path) -> None:
    said = {"class_names": ["a", "b", "c", "d"], "mean": [0.1] * 3, "std": [0.2] * 3}
    path = tmp_path / "student.safetensors"
    save_file(theirs.state_dict(), path, {"kd_lightning": json.dumps(said)})
    for source in (path, tmp_path):
        facts = loaded_into(source, theirs).facts
        assert facts.class_names == said["class_names"]
        assert facts.mean == said["mean"]


def test_the_wrappers_of_torch(theirs: nn.Module, tmp_path: Path) -> None:
    wrapped = torch.optim.swa_utils.AveragedModel(torch.compile(nn.DataParallel(theirs)))
    torch.save(wrapped.state_dict(), tmp_path / "net.pt")
    assert not loaded_into(tmp_path / "net.pt", theirs).notes


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no weights: expected student.safetensors or .*key=…"):
        read_checkpoint(tmp_path, "key")


def test_a_folder_with_files_of_other_names_says_how_one_is_chosen(tmp_path: Path) -> None:
    for name in ("best.pt", "last.pth", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as raised:
        read_checkpoint(tmp_path, "teacher.source")
    chosen = " or ".join(f"teacher.source={tmp_path / name}" for name in ("best.pt", "last.pth"))
    assert str(raised.value).endswith(f"or give a file itself, with {chosen}")
    for i in range(5):
        (tmp_path / f"epoch-{i}.ckpt").touch()
    with pytest.raises(UserError, match=r"epoch-3.ckpt, or one of 2 more$"):
        read_checkpoint(tmp_path, "key")


# What is wrong with files


class CreatesFile:
    """An object whose unpickling would create a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return open, (str(self.proof), "w")


def test_code_in_a_checkpoint_raises_an_error_and_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "created"
    torch.save({"state_dict": {}, "x": CreatesFile(proof)}, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"could run code.*state_dict.*\(teacher.source=…\)"):
        read_checkpoint(tmp_path / "net.pt", "teacher.source")
    assert not proof.exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], {"state_dict": {"epoch": 3}}])
def test_a_file_without_tensors_raises_an_error(content: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no tensors"):
        states_of(content, tmp_path / "net.pt")


def test_metadata_and_configuration_that_are_damaged_say_nothing(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "student.safetensors", {"kd_lightning": "{broken"})
    (tmp_path / "config.json").write_text("{broken")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.facts == type(checkpoint.facts)()
