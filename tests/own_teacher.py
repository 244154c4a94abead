"""What a user brings: photos in folders, and a teacher that a plain PyTorch script has trained.

The photos are pieces of ten pictures that come with scikit-image. Train and val are cut from the
upper part of each picture, test from the lower part. Pieces have many sizes and shapes, so it
matters how they are resized.
"""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

PICTURES = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png",
            "gravel.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
            "rocket.jpg")  # fmt: skip
COUNTS = {"train": 40, "val": 15, "test": 12}  # of each class
SIDE = 27


def pictures() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data"


def write_photos(root: Path) -> Path:
    """root/<part>/<class>/*.jpg."""
    luck = np.random.default_rng(0)
    for name in PICTURES:
        with Image.open(pictures() / name) as opened:
            picture = opened.convert("RGB")
        middle = int(0.7 * picture.height)
        for part, count in COUNTS.items():
            top, bottom = (middle, picture.height) if part == "test" else (0, middle)
            folder = root / part / Path(name).stem
            folder.mkdir(parents=True)
            for number in range(count):
                width, height = luck.integers(40, 110), luck.integers(40, min(110, bottom - top))
                x = luck.integers(0, picture.width - width)
                y = luck.integers(top, bottom - height + 1)
                piece = picture.crop((x, y, x + width, y + height))
                piece = Image.fromarray(
                    np.clip(np.asarray(piece) * luck.uniform(0.15, 0.5), 0, 255).astype(np.uint8)
                )
                piece.save(folder / f"{number:03d}.jpg", quality=90)
    return root


def statistics(root: Path) -> tuple[list[float], list[float]]:
    """The script's own mean and std of the training photos, in [0, 1]."""
    to_tensor = v2.Compose([v2.ToImage(), v2.Resize((SIDE, SIDE)), v2.ToDtype(torch.float32, True)])
    x = torch.stack([image for image, _ in ImageFolder(root / "train", to_tensor)])
    return x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).tolist()


def transform(mean: list[float], std: list[float]) -> v2.Compose:
    return v2.Compose(
        [v2.ToImage(), v2.Resize((SIDE, SIDE)), v2.ToDtype(torch.float32, True),
         v2.Normalize(mean, std)]
    )  # fmt: skip


def train_plainly(root: Path, epochs: int = 6) -> tuple[nn.Module, list[float], list[float]]:
    """A timm ResNet-18, trained as a script does that knows nothing of kd_lightning."""
    torch.manual_seed(0)
    mean, std = statistics(root)
    net = timm.create_model("resnet18", num_classes=len(PICTURES))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    loader = DataLoader(ImageFolder(root / "train", transform(mean, std)), 32, shuffle=True)
    net.train()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval(), mean, std


@torch.no_grad()
def accuracy(net: nn.Module, folder: Path, mean: list[float], std: list[float]) -> float:
    """As the script measures it."""
    right: list[Tensor] = []
    for x, y in DataLoader(ImageFolder(folder, transform(mean, std)), 50):
        right.append(net(x).argmax(1) == y)
    return torch.cat(right).float().mean().item()
