"""The time to load a batch, compared with torchvision's ImageFolder and torch's DataLoader.

    python -m benchmarks.loading                    both tables; some minutes
    python -m benchmarks.loading images             one of them

Ratios of the times of a batch, on one thread and without worker processes, measured in pairs
(``benchmarks/paired_timing.py``); below 1 is faster. The images are crops (500 x 375 and 375 x 500
pixels) of the photographs in scikit-learn and matplotlib, as JPEGs of quality 90, all in the file
cache of the system. A batch has 32 images of 224 x 224 pixels, as bytes on both sides.
"""

import argparse
import io
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import matplotlib
import sklearn
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.paired_timing import Step
from benchmarks.ratio_table import ratio_row, table
from benchmarks.report import Report
from kd_lightning.config.command_line import compose
from kd_lightning.data.loading import decoding
from kd_lightning.prepare import prepare
from kd_lightning.running.build import build_data, quieten

Row = tuple[str, int, Step, Step]  # title, samples per batch, A, B; the first row is the control
PHOTOS = [Path(sklearn.__file__).parent / f"datasets/images/{n}.jpg" for n in ("china", "flower")]
PHOTOS.append(Path(matplotlib.__file__).parent / "mpl-data/sample_data/grace_hopper.jpg")
BATCH = 32


def write_tree(root: Path, per_class: int = 48) -> None:
    """Writes a tree of JPEGs with a class for each photograph."""
    for seed, (part, count) in enumerate((("train", per_class), ("test", BATCH))):
        write_photos([root / part / photo.stem for photo in PHOTOS], count, seed)


def write_photos(folders: Sequence[Path], count: int, seed: int, ending: str = ".jpg") -> None:
    """Writes JPEGs into folders, in each random crops of one photograph."""
    rng, large = random.Random(seed), []
    for photo in PHOTOS:
        with Image.open(photo) as image:
            large.append(image.convert("RGB").resize((640, 640)))
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        for i in range(count):
            width, height = ((500, 375), (375, 500))[i % 2]
            left, top = rng.randint(0, 640 - width), rng.randint(0, 640 - height)
            crop = large[number % len(large)].crop((left, top, left + width, top + height))
            crop.save(folder / f"{i}{ending}", quality=90)


def loader(part: str, *words: str) -> Iterable:
    """The loader of a part of a composed data set, as in a run on the CPU."""
    data = build_data(compose(["hardware=cpu", "data.num_workers=0", *words]))
    return data.loader(part, device=torch.device("cpu"))


def batches(source: Iterable) -> Step:
    """A function that returns the next batch, epoch after epoch."""

    def endless() -> Iterator:
        epoch = 0
        while True:
            sampler = getattr(source.batch_sampler, "sampler", None)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            yield from source
            epoch += 1

    iterator = endless()
    return lambda: next(iterator)


@contextmanager
def without_simplejpeg() -> Iterator[None]:
    decoder, decoding.simplejpeg = decoding.simplejpeg, None
    try:
        yield
    finally:
        decoding.simplejpeg = decoder


def with_pil(step: Step) -> Step:
    """The step, decoding with PIL."""

    def slow() -> object:
        with without_simplejpeg():
            return step()

    return slow


def folder(root: Path, *transforms: Callable, shuffle: bool = True) -> Step:
    """torchvision's ImageFolder as in its reference scripts, with PIL, but returning bytes."""
    images = ImageFolder(root, v2.Compose([*transforms, v2.PILToTensor()]))
    return batches(DataLoader(images, BATCH, shuffle=shuffle, drop_last=True))


def images(place: Path) -> Iterator[Row]:
    """Batches from JPEG files, and from files prepared from them."""
    write_tree(place / "tree")
    words = (f"data.root={place / 'tree'}", f"out={place / 'prepared'}", "data.num_workers=0")
    with redirect_stdout(io.StringIO()):
        out = prepare("data=image_folder", *words)
    options = [f"data.batch_size={BATCH}", "data.val_fraction=0"]
    tree = ("data=image_folder", f"data.root={place / 'tree'}", *options)
    ready = ("data=prepared", f"data.root={out}", *options)
    theirs = folder(place / "tree/train", v2.RandomResizedCrop(224), v2.RandomHorizontalFlip())
    again = folder(place / "tree/train", v2.RandomResizedCrop(224), v2.RandomHorizontalFlip())
    yield "control, ImageFolder twice", BATCH, theirs, again
    yield "training: JPEG tree / ImageFolder", BATCH, batches(loader("train", *tree)), theirs
    slow = with_pil(batches(loader("train", *tree)))
    yield "training: JPEG tree by PIL / ImageFolder", BATCH, slow, theirs
    yield "training: prepared / ImageFolder", BATCH, batches(loader("train", *ready)), theirs
    theirs = folder(place / "tree/test", v2.Resize(256), v2.CenterCrop(224), shuffle=False)
    yield "test: JPEG tree / ImageFolder", BATCH, batches(loader("test", *tree)), theirs
    yield "test: prepared / ImageFolder", BATCH, batches(loader("test", *ready)), theirs


class InMemory(Dataset):
    """Samples in memory that torch's DataLoader fetches one by one."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, transform: Callable) -> None:
        self.x, self.y, self.transform = x, y, transform

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.x[index]), self.y[index]


def memory(place: Path) -> Iterator[Row]:
    """Batches from samples in memory."""
    words = ("data=ucr", "data.name=OSULeaf", "data.batch_size=16", "data.val_fraction=0")
    series = build_data(compose(words)).parts["train"]

    def theirs() -> Step:
        plain = TensorDataset(series.x, series.y)
        return batches(DataLoader(plain, 16, shuffle=True, drop_last=True))

    yield "control, DataLoader twice", 16, theirs(), theirs()
    yield "series (OSULeaf) / DataLoader", 16, batches(loader("train", *words)), theirs()
    one_by_one = batches(loader("train", *words, "data.resident=false"))
    yield "series (OSULeaf), not resident / DataLoader", 16, one_by_one, theirs()
    words = ("data=synthetic", "data.size=32", "data.batch_size=128", "data.val_fraction=0",
             "augmentation@data.augmentation=crop_flip", "data.num_train=2000")  # fmt: skip
    images = build_data(compose(words)).parts["train"]
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    samples = InMemory(images.x, images.y, transform)
    cropped = batches(DataLoader(samples, 128, shuffle=True, drop_last=True))
    ours = batches(loader("train", *words))
    yield "32 px images, cropped and flipped / DataLoader, one by one", 128, ours, cropped


TABLES = {"images": images, "memory": memory}


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; default: both")
    parser.add_argument("--pairs", type=int, default=31, help="of blocks per row")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    if unknown := [name for name in arguments.tables if name not in TABLES]:
        parser.error(f"no table '{unknown[0]}': expected some of {', '.join(TABLES)}")
    quieten()
    torch.set_num_threads(1)
    report = Report("loading", "The time to load a batch", words)
    report.add(
        f"Ratios of times, medians of {arguments.pairs} pairs; below 1 is faster. Pillow "
        f"{version('pillow')}, simplejpeg {version('simplejpeg')}."
    )
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.tables or TABLES:
            report.add(f"\n## {name}\n\n{' '.join(TABLES[name].__doc__.split())}\n")
            (_, _, control, _), *rows = TABLES[name](Path(place))
            ratios = (ratio_row(title, a, b) for title, _, a, b in rows)
            for line in table(ratios, control, arguments.pairs):
                report.add(line)
    if arguments.write:
        report.write(arguments.tables)


if __name__ == "__main__":
    main()
