"""timm's names, weights and options work, or fail at once. No network is used."""

import ast
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from kd_lightning import models
from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.stochastic import active_dropouts
from kd_lightning.models.timm_nets import timm_classifier

TINY = "test_resnet"  # a net of timm for tests, 0.5 million parameters


def tiny(**options: object) -> Classifier:
    return timm_classifier(TINY, **({"num_classes": 4, "in_chans": 3} | options))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the address of a hub that does not exist."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path


def test_importing_the_nets_does_not_import_timm() -> None:
    """The import of timm takes seconds, which only runs with a timm net should spend."""
    for path in Path(models.__path__[0]).glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                assert not {"timm", "huggingface_hub"} & set(names), path.name


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(UserError, match=r"unknown timm model 'resnet51': .*resnet50.*\(…name=…\)"):
        timm_classifier("resnet51", num_classes=2, in_chans=3)
    with pytest.raises(UserError, match=r"unknown weights of timm's resnet18 .*a1_in1k"):
        timm_classifier("resnet18.a1_in1", num_classes=2, in_chans=3)


@pytest.mark.parametrize("offline", [False, True])
def test_a_missing_network_gives_one_sentence_at_once(
    no_network: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"resnet18 are not on this machine.*\(…weights=…\)"):
        timm_classifier("resnet18", num_classes=2, in_chans=3, weights="pretrained")
    assert time.perf_counter() - started < 5


def test_cached_weights_need_no_network(no_network: Path) -> None:
    config = timm.get_pretrained_cfg(TINY)
    theirs = timm.create_model(TINY, num_classes=1000).eval()
    repository = no_network / f"models--{config.hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(theirs.state_dict(), repository / "snapshots" / ("0" * 40) / "model.safetensors")
    ours = tiny(num_classes=1000, weights="pretrained", require_head=True).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x)))
    torch.testing.assert_close(ours.prepare.mean, torch.tensor(config.mean))
    rows = tiny(num_classes=2, weights="pretrained", imagenet_rows=[7, 3]).eval()
    assert torch.equal(rows.head.weight, theirs.get_classifier().weight[[7, 3]])
    with pytest.raises(UserError, match="its weights have 1000"):
        tiny(num_classes=2, weights="pretrained", require_head=True)


def test_a_net_without_weights_in_timm_raises_an_error() -> None:
    with pytest.raises(UserError, match="timm has no weights for resnet200"):
        timm_classifier("resnet200", num_classes=2, in_chans=3, weights="pretrained")


def test_stochastic_depth_is_that_of_timm_or_raises_an_error() -> None:
    net = timm_classifier("test_convnext", num_classes=2, in_chans=3, drop_path=0.3)
    rates = [m.drop_prob for m in net.modules() if hasattr(m, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)
    for name in ("vgg11", "dla46x_c"):
        with pytest.raises(UserError, match=rf"{name} has no stochastic depth.*drop_path"):
            timm_classifier(name, num_classes=2, in_chans=3, drop_path=0.3)
    with pytest.raises(UserError, match="drop_path must be in"):
        tiny(drop_path=1.0)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "nest_tiny", "vit_relpos_small_patch16_224"]
)
def test_no_net_has_rates_that_nobody_asked_for(name: str) -> None:
    net = timm_classifier(name, num_classes=2, in_chans=3)
    rates = [m.p for m in net.modules() if isinstance(m, nn.Dropout)]
    rates += [m.drop_prob for m in net.modules() if hasattr(m, "drop_prob")]
    assert not any(rates)
    assert not active_dropouts(net)


def test_input_size_resizes_images_or_builds_the_net_for_it() -> None:
    net = tiny(input_size=48)
    assert net.prepare(torch.rand(2, 3, 32, 32)).shape[-1] == 48
    vit = timm_classifier("vit_tiny_patch16_224", num_classes=2, in_chans=3)
    assert vit.prepare(torch.rand(1, 3, 32, 32)).shape[-1] == 224
    small = timm_classifier("vit_tiny_patch16_224", num_classes=2, in_chans=3, input_size=32)
    assert small.trunk.patch_embed.num_patches == 4
    assert small.eval()(torch.rand(1, 3, 40, 40)).logits.shape == (1, 2)
    for name in ("xcit_nano_12_p16_224", "visformer_tiny"):
        with pytest.raises(UserError, match=r"cannot .* 65.*input_size"):
            timm_classifier(name, num_classes=2, in_chans=3, input_size=65)
