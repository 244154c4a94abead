"""What holds for every test, and small stand-ins for data sets in exactly their real layouts."""

import gc
import gzip
import hashlib
import multiprocessing
import os
import pickle
import sys
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from PIL import Image
from torchvision import datasets

from kd_lightning import distill
from kd_lightning.base import threads
from kd_lightning.evaluation import metrics
from kd_lightning.running import build

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread in each process, also in runs without `threads`: more of them than cores slow each
# other down many times.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
threads.DEFAULT_THREADS = 1
# Before any test starts this server, which imports nothing later. The launcher of the package, too,
# names what its jobs need; in tests they also measure quickly.
preload = forkserver.set_forkserver_preload
forkserver.set_forkserver_preload = lambda names: preload([*names, "quick_measures"])
multiprocessing.get_context("forkserver").set_forkserver_preload(["kd_lightning.running.run"])
# No test takes the power away. Other processes wait for the disk as always.
os.fsync = lambda descriptor: None
# No test compares throughputs, so three calls are enough.
metrics.MEASURED_SECONDS = 0.0


def pytest_collection_finish() -> None:
    """Without this a tenth of the time goes into looking for garbage in a million objects of the
    libraries and of the collected tests.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quiet_libraries() -> None:
    build.quieten()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KD_LIGHTNING_RUN_DIR", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.compile`` follows the code and computes its operations one by one: for tests that do
    not ask what kernels it makes, which takes seconds.
    """
    compile_as_always = torch.compile

    def trace(*args, options: object = None, **how):
        return compile_as_always(*args, backend="eager", **how)

    monkeypatch.setattr(torch, "compile", trace)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained teachers, shared by all tests: pytest's processes have one folder in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "teachers"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def tiny(tmp_path: Path, store: Path) -> list[str]:
    """The overrides of a run of a few seconds, with its outputs in ``tmp_path``."""
    return [*TINY, f"outputs={tmp_path}", f"teacher.store={store}"]


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory, write_tree) -> Path:
    """The directory of a finished run on image files, with two students and soups of them. The
    files are in ``<outputs>/photos``, beside it.
    """
    place = tmp_path_factory.mktemp("image_run")
    counts = {f"{p}/{c}": n for p, n in (("train", 12), ("test", 7)) for c in ("cat", "dog")}
    write_tree(place / "photos", counts)
    words = (
        "method=mutual_learning",
        "data=image_folder",
        f"data.root={place / 'photos'}",
        *("data.image_size=16", "data.batch_size=8", "data.num_workers=0", "data.val_fraction=0.3"),
        *(f"model@method.students.{key}=timm" for key in "ab"),
        *(f"method.students.{key}.name=test_resnet" for key in "ab"),
        *("trainer.max_epochs=2", "evaluation.soups=true", "seed=3"),
        *("hardware=cpu", "callbacks=quiet", "logger=none", f"run_dir={place / 'run'}"),
    )
    return distill(*words).directory


@pytest.fixture(scope="session")
def write_tree():
    """write_tree(root, {"train/cat": 3}): that many JPEGs, of different sizes, in each folder."""

    def write(root, counts, ending=".JPEG"):
        numbers = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for i in range(count):
                pixels = numbers.integers(0, 256, (8 + i % 3, 9 + i % 2, 3), dtype=np.uint8)
                path = root / folder / f"{Path(folder).name}_{i}{ending}"
                Image.fromarray(pixels).save(path, "JPEG")
        return root

    return write


@pytest.fixture
def write_fashion():
    """write_fashion(folder): the four idx files, 40 + 20 images; gzipped or as they are."""

    def write(folder, gz=True):
        folder.mkdir(parents=True, exist_ok=True)
        numbers = np.random.default_rng(0)
        for part, count in (("train", 40), ("t10k", 20)):
            images = numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            for name, array in (
                (f"{part}-images-idx3-ubyte", images),
                (f"{part}-labels-idx1-ubyte", labels),
            ):
                sizes = np.array(array.shape, ">i4").tobytes()
                data = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
                if gz:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(data))
                else:
                    (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def write_cifar(monkeypatch):
    """write_cifar(datasets.CIFAR10, root): its pickles, whose md5 torchvision is told to expect."""

    def write(source, root):
        folder = root / source.base_folder
        folder.mkdir(parents=True)
        classes = 10 if source is datasets.CIFAR10 else 100
        key = "labels" if classes == 10 else "fine_labels"
        numbers = np.random.default_rng(0)

        def dump(name, content):
            (folder / name).write_bytes(pickle.dumps(content))
            return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

        def batch(name, count):
            pixels = numbers.integers(0, 256, (count, 3072), dtype=np.uint8)
            return dump(name, {"data": pixels, key: [i % classes for i in range(count)]})

        train = [batch(name, 4 * classes) for name, _ in source.train_list]
        test = [batch(name, classes) for name, _ in source.test_list]
        names = dump(
            source.meta["filename"], {source.meta["key"]: [f"c{i}" for i in range(classes)]}
        )
        monkeypatch.setattr(source, "train_list", train)
        monkeypatch.setattr(source, "test_list", test)
        monkeypatch.setattr(source, "meta", {**source.meta, "md5": names[1]})
        return root

    return write


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that exists once the module ``evil``, which can be imported, was imported."""
    (tmp_path / "evil.py").write_text(
        "import os\nopen(__file__ + '.mark', 'w').close()\ndef run(*_, **__): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return tmp_path / "evil.py.mark"
