"""Arrays of NumPy: .npz files as data and to predict, and folders of prepared images."""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.torture.file_kind import Kind, Numbers
from benchmarks.torture.file_tables import finite_rows, read_rows
from kd_lightning.data.arrays import Arrays
from kd_lightning.data.prepared import Prepared


def write_npz(root: Path) -> None:
    luck = np.random.default_rng(0)
    x = luck.normal(0, 1, (8, 2, 6)).astype(np.float32)
    np.savez(root / "made.npz", x=x, y=np.arange(8) % 2, class_names=["a", "b"])


def read_arrays(root: Path, file: Path) -> Numbers:
    data = Arrays(root=str(file), batch_size=2, val_fraction=0, test_fraction=0.25)
    data.setup()
    parts = [data.parts[name] for name in ("train", "test")]
    labels = [data.class_names[i] for part in parts for i in part.y]
    rows = [
        (*row.flatten().tolist(), label)
        for row, label in zip(torch.cat([p.x for p in parts]), labels, strict=True)
    ]
    return {"rows": sorted(map(str, rows))}


def slow_arrays(file: Path) -> Numbers:
    arrays = checked_arrays(file)
    names = arrays.get("class_names")
    labels = [str(y) if names is None else str(names[y]) for y in arrays["y"]]
    x = arrays["x"]
    x = torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32))
    rows = [(*row.flatten().tolist(), label) for row, label in zip(x, labels, strict=True)]
    return {"rows": sorted(map(str, rows))}


def write_prepared(root: Path) -> None:
    luck = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 6), ("test", 4)):
        np.save(root / f"{part}.npy", luck.integers(0, 256, (count, 8, 8, 3), np.uint8))
        labels = [i % 2 for i in range(count)]
        parts[part] = {"source": "0" * 16, "labels": labels, "bad": []}
    facts = {
        "data": "ImageFolder", "val_fraction": 0.0, "split_seed": 0, "test_is": "its own",
        "test_is_cut": False, "class_names": ["a", "b"], "class_list_sha256": None,
        "imagenet_rows": None, "exif": True, "resize": "crop", "interpolation": "bilinear",
        "notes": [], "format": 3, "size": 8, "image_size": 8, "parts": parts,
    }  # fmt: skip
    (root / "index.json").write_text(json.dumps(facts))


def read_prepared(root: Path, file: Path) -> Numbers:
    data = Prepared(root=str(root), batch_size=2, val_fraction=0, image_size=8, crop_fraction=1.0)
    data.setup()
    train = data.parts["train"]
    return {"x": train.x[:].numpy(), "y": [data.class_names[i] for i in train.y]}


def slow_prepared(file: Path) -> Numbers:
    facts = json.loads(file.with_name("index.json").read_bytes())
    x = np.moveaxis(np.load(file.with_name("train.npy")), -1, 1)
    if x.dtype != np.uint8:
        raise ValueError("images are bytes")
    of_train = facts["parts"]["train"]
    kept = [i for i in range(len(x)) if i not in of_train["bad"]]
    return {"x": x[kept], "y": [facts["class_names"][of_train["labels"][i]] for i in kept]}


def checked_arrays(file: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if bad := archive.testzip():
            raise ValueError(f"the checksum of {bad} is wrong")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def write_npz_rows(root: Path) -> None:
    np.savez(root / "new.npz", x=np.random.default_rng(0).normal(0, 1, (6, 6)).astype(np.float32))


def slow_x(file: Path) -> Numbers:
    x = checked_arrays(file)["x"].astype(np.float32)
    return finite_rows({str(i): row.reshape(1, -1) for i, row in enumerate(x)})


KINDS = {
    "npz, arrays": Kind("zip", write_npz, ["made.npz"], read_arrays, slow_arrays),
    "npz, predict": Kind("zip", write_npz_rows, ["new.npz"], read_rows, slow_x),
    "npy, prepared": Kind("binary", write_prepared, ["train.npy"], read_prepared, slow_prepared),
    "json, prepared": Kind("json", write_prepared, ["index.json"], read_prepared, slow_prepared),
}
