"""The kinds of files that people give: a small sound example, how the framework reads it, and a
slow, independent reader of the same file.
"""

import csv
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import as_user_errors, compose
from kd_lightning.data.arrays import Arrays
from kd_lightning.data.biovid import FOLDER, BioVid
from kd_lightning.data.har import CHANNELS, HAR
from kd_lightning.data.image_folder import ImageFolder
from kd_lightning.data.imagenet100 import read_class_list
from kd_lightning.data.prepared import Prepared
from kd_lightning.data.ucr import UCR, read_part
from kd_lightning.models.checkpoints import read_checkpoint
from kd_lightning.predictions.tables import read_table
from kd_lightning.students.file import read_student, write_student
from kd_lightning.teachers.class_order import read_order

Numbers = dict[str, Any]  # names -> arrays, or lists of plain values
NAN = float("nan")
TORCH_DTYPES = {"F32": "<f4", "I64": "<i8"}  # safetensors' names of those in the examples


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        form: what ``file_mutants.mutate`` should know of it.
        write: writes a sound example into a folder.
        files: of the example, those that are changed.
        read: reads the example as the framework does, after ``file`` was changed.
        reread: reads ``file`` alone with another program; raises if it cannot be read.
    """

    form: str
    write: Callable[[Path], None]
    files: Sequence[str]
    read: Callable[[Path, Path], Numbers]
    reread: Callable[[Path], Numbers]


# Images


def write_images(suffix: str, dtype: str = "u1") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        luck = np.random.default_rng(0)
        for label in "ab":
            folder = root / "train" / label
            folder.mkdir(parents=True)
            for i in range(4):
                shape = (24, 20, 3) if dtype == "u1" else (24, 20)
                pixels = luck.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
                Image.fromarray(pixels).save(folder / f"{i}{suffix}")

    return write


def read_images(root: Path, file: Path) -> Numbers:
    data = ImageFolder(root=str(root), batch_size=2, val_fraction=0, image_size=8)
    data.setup()
    return {"pixels": data.decode(file).numpy()}


def pil_pixels(file: Path) -> Numbers:
    content = file.read_bytes()
    if content.startswith(b"\x89PNG"):
        check_chunks(content)
    with Image.open(file) as image:
        if image.mode.startswith("I"):
            pixels = np.repeat(np.asarray(image)[None] // 256, 3, 0)
        else:
            pixels = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return {"pixels": pixels.astype(np.uint8)}


def check_chunks(content: bytes) -> None:
    """Raises ``ValueError`` if a chunk of a PNG file has another checksum than its content."""
    start, kind = 8, b""
    while kind != b"IEND":
        size = int.from_bytes(content[start : start + 4], "big")
        body, end = content[start + 4 : start + 8 + size], start + 12 + size
        kind = body[:4]
        if zlib.crc32(body) != int.from_bytes(content[end - 4 : end], "big"):
            raise ValueError(f"the checksum of chunk {kind!r} is wrong")
        start = end


# Series


def write_series(suffix: str, by: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        luck = np.random.default_rng(0)
        folder = root / "Made"
        folder.mkdir()
        for part in ("TRAIN", "TEST"):
            rows = [[f"{v:.3f}" for v in luck.normal(i % 2, 1, 6)] for i in range(8)]
            labels = [("1", "sit")[i % 2] for i in range(8)]
            if suffix == ".ts":
                head = "@problemName Made\n@timeStamps false\n@missing false\n@univariate true\n"
                lines = [f"{','.join(row)}:{y}" for row, y in zip(rows, labels, strict=True)]
                text = head + "\n".join(
                    ["@equalLength true\n@classLabel true 1 sit\n@data", *lines]
                )
            else:
                lines = [by.join([y, *row]) for row, y in zip(rows, labels, strict=True)]
                text = "\n".join(lines)
            (folder / f"Made_{part}{suffix}").write_text(text + "\n")

    return write


def read_series(root: Path, file: Path) -> Numbers:
    data = UCR(name="Made", root=str(root), batch_size=2, val_fraction=0)
    data.setup()
    part = read_part(file)
    return {"labels": part.labels, **{str(i): s.numpy() for i, s in enumerate(part.series)}}


def slow_text(file: Path) -> str:
    content = file.read_bytes()
    for encoding in (
        "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig",
        "latin-1",
    ):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("Latin-1 reads everything")


def slow_number(cell: str) -> float:
    """NumPy's own reading of a number."""
    cell = cell.strip()
    if cell.lower() in ("", "?", "nan"):
        return NAN
    return float(np.loadtxt([cell], comments=None, dtype=np.float64, ndmin=1).item())


def slow_series(rows: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> Numbers:
    numbers: Numbers = {"labels": [label.strip() for label, _ in rows]}
    for i, (_, channels) in enumerate(rows):
        values = np.array([[slow_number(cell) for cell in row] for row in channels], np.float32)
        while np.isnan(values[:, -1]).all():
            values = values[:, :-1]
        numbers[str(i)] = values
    return numbers


def slow_ts(file: Path) -> Numbers:
    _, _, data = slow_text(file).lower().partition("@data")
    data = slow_text(file)[-len(data) :]
    lines = [line.rsplit(":", 1) for line in io.StringIO(data, None) if line.strip()]
    return slow_series([(y, [row.split(",") for row in x.split(":")]) for x, y in lines])


def slow_table(file: Path) -> Numbers:
    lines = [line for line in io.StringIO(slow_text(file), None) if line.strip()]
    sign = next((sign for sign in "\t;," if sign in lines[0]), None)
    rows = [line.rstrip("\n").split(sign) for line in lines]
    return slow_series([(row[0], [row[1:]]) for row in rows])


# Tables of numbers


def write_har(root: Path) -> None:
    luck = np.random.default_rng(0)
    for part, subject in (("train", 1), ("test", 2)):
        (root / part / "Inertial Signals").mkdir(parents=True)
        for channel in CHANNELS:
            path = root / part / "Inertial Signals" / f"{channel}_{part}.txt"
            np.savetxt(path, luck.normal(0, 1, (4, 128)), fmt="%.4e")
        np.savetxt(root / part / f"y_{part}.txt", [1, 2, 1, 2], "%d")
        np.savetxt(root / part / f"subject_{part}.txt", [subject] * 4, "%d")
    (root / "activity_labels.txt").write_text("1 WALKING\n2 SITTING\n")


def read_har(root: Path, file: Path) -> Numbers:
    data = HAR(root=str(root), batch_size=2, val_fraction=0)
    data.setup()
    train = data.parts["train"]
    if file.name.startswith("activity"):
        return {"values": data.class_names}
    if file.name.startswith("body"):
        return {"values": train.x[:, 0].numpy()}
    return {"values": (train.y + 1 if file.name.startswith("y_") else train.groups).tolist()}


def slow_har(file: Path) -> Numbers:
    text = [line.strip() for line in io.StringIO(slow_text(file), None) if line.strip()]
    if file.name.startswith("activity"):
        return {"values": [line.partition(" ")[2].strip() for line in text]}
    lines = [line.split() for line in text]
    if file.name.startswith("body"):
        return {"values": np.array([[slow_number(c) for c in line] for line in lines], np.float32)}
    return {"values": [int(slow_number(cell)) for (cell,) in lines]}


def write_biovid(root: Path) -> None:
    luck = np.random.default_rng(0)
    for subject in "ab":
        (root / FOLDER / subject).mkdir(parents=True)
        for level in ("BL1", "PA4"):
            path = root / FOLDER / subject / f"{subject}-{level}-001_bio.csv"
            table = np.column_stack([np.arange(6), luck.normal(0, 1, (6, 2))])
            np.savetxt(path, table, "%.3f", "\t", header="time\tgsr\tecg", comments="")


def read_biovid(root: Path, file: Path) -> Numbers:
    data = BioVid(
        classes=["BL1", "PA4"], channels=["gsr", "ecg"], fold=1, length=6,
        root=str(root), batch_size=1, val_fraction=0,
    )  # fmt: skip
    data.setup()
    return {"values": data.parts["train"].x[0].numpy()}


def slow_biovid(file: Path) -> Numbers:
    lines = [line.rstrip("\n") for line in io.StringIO(slow_text(file), None)]
    rows = list(csv.DictReader(filter(str.strip, lines), delimiter="\t", quoting=csv.QUOTE_NONE))
    values = [[slow_number(row[name]) for row in rows] for name in ("gsr", "ecg")]
    return {"values": np.array(values, np.float32)}


# Arrays


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


def checked_arrays(file: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if bad := archive.testzip():
            raise ValueError(f"the checksum of {bad} is wrong")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


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


# Samples to predict

SERIES = {"kind": "series", "channels": 1, "size": 6}


def write_rows(by: str, suffix: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        values = np.random.default_rng(0).normal(0, 1, (6, 6))
        np.savetxt(root / f"new{suffix}", values, "%.3f", by)

    return write


def write_npz_rows(root: Path) -> None:
    np.savez(root / "new.npz", x=np.random.default_rng(0).normal(0, 1, (6, 6)).astype(np.float32))


def read_rows(root: Path, file: Path) -> Numbers:
    samples = list(read_table(file, SERIES, lambda x: x))
    good = {str(s.index): s.x.numpy() for s in samples if not s.error}
    if samples and not good:
        raise UserError(samples[0].error)
    return good


def slow_rows(file: Path) -> Numbers:
    """The rows that have six finite numbers. A first row without any number is a header."""
    if file.suffix == ".npz":
        x = checked_arrays(file)["x"].astype(np.float32)
        rows: list[Any] = [row.reshape(1, -1) for row in x]
    else:
        sign = "\t" if file.suffix == ".tsv" else ","
        lines = [line.rstrip("\n") for line in io.StringIO(slow_text(file), None)]
        rows = [slow_row(line.split(sign)) for line in filter(None, lines)]
        rows = rows[1:] if rows and all(cell is None for cell in rows[0]) else rows
    rows = [None if None in row else row for row in rows] if file.suffix != ".npz" else rows
    found = {
        str(i): np.array([row], np.float32).reshape(1, -1)
        for i, row in enumerate(rows)
        if row is not None
    }
    return {i: row for i, row in found.items() if row.shape[1] == 6 and np.isfinite(row).all()}


def slow_row(cells: Sequence[str]) -> list[float | None]:
    """The numbers in cells; None for other text."""
    numbers: list[float | None] = []
    for cell in cells:
        try:
            text = re.sub(r'^"(.*)"$', r"\1", cell.strip())  # a table may quote any cell
            numbers.append(float(np.loadtxt([text or "x"], comments=None)))
        except ValueError:
            numbers.append(None)
    return numbers


# Weights


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3), "steps": torch.tensor(7)}


def write_safetensors(root: Path) -> None:
    save_file(weights(), root / "made.safetensors", {"kd_lightning": '{"class_names": ["a", "b"]}'})


def write_torch(root: Path) -> None:
    content = {"state_dict": weights(), "epoch": 3, "hyper_parameters": {"classes": ["a", "b"]}}
    torch.save(content, root / "made.ckpt")


def write_old_torch(root: Path) -> None:
    torch.save(weights(), root / "made.pth", _use_new_zipfile_serialization=False)


def read_weights(root: Path, file: Path) -> Numbers:
    checkpoint = read_checkpoint(file)
    (state,) = checkpoint.states.values()
    return {name: value.numpy() for name, value in state.items()}


def slow_safetensors(file: Path) -> Numbers:
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    numbers = {}
    for name, of_tensor in header.items():
        start, end = of_tensor["data_offsets"]
        values = np.frombuffer(body[start:end], TORCH_DTYPES[of_tensor["dtype"]])
        numbers[name] = values.reshape(of_tensor["shape"])
    return numbers


def slow_torch(file: Path) -> Numbers:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if bad := archive.testzip():
                raise ValueError(f"the checksum of {bad} is wrong")
    content = torch.load(file, weights_only=True)
    state = content.get("state_dict", content)
    return {name: value.numpy() for name, value in state.items()}


def write_student_file(root: Path) -> None:
    input_keys = ("mean", "std", "net_size", "net_interpolation", "resize", "crop_fraction")
    given = {"kind": "series", "channels": 1, "size": 6, "exif": False, "interpolation": None}
    info = {
        "architecture": {"constructor": "kd_lightning.models.perceptron.mlp", "arguments": {}},
        "class_names": ["a", "b"],
        "input": dict.fromkeys(input_keys) | given,
    }
    write_student(root, weights(), info)


def read_student_file(root: Path, file: Path) -> Numbers:
    info, state = read_student(file)
    return {"info": json.dumps(info), **{name: value.numpy() for name, value in state.items()}}


def slow_student(file: Path) -> Numbers:
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    info = json.dumps(json.loads(header["__metadata__"]["kd_lightning"]))
    return {"info": info, **slow_safetensors(file)}


# Names and settings


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text)


def slow_lines(file: Path) -> Numbers:
    text = slow_text(file)
    if text.lstrip().startswith("["):
        return {"names": json.loads(text)}
    return {"names": [line.strip() for line in io.StringIO(text, None) if line.strip()]}


def slow_wnids(file: Path) -> Numbers:
    return {"names": sorted(slow_text(file).split())}


YAML = (
    "defaults: [digits, _self_]\nsplit_seed: 3\nval_fraction: 0.25\ntrain_per_class: 9 # of train\n"
)


def write_yaml(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / "mine.yaml").write_text(YAML)


def read_yaml(root: Path, file: Path) -> Numbers:
    with as_user_errors(("data=mine",)):
        cfg = compose(["data=mine"], root, "evaluate")
    return {name: cfg.data.get(name) for name in ("split_seed", "val_fraction", "train_per_class")}


def slow_yaml(file: Path) -> Numbers:
    given = {"split_seed": 0, "val_fraction": 0.1, "train_per_class": None} | yaml.safe_load(
        file.read_bytes()
    )
    return {name: given[name] for name in ("split_seed", "val_fraction", "train_per_class")}


IMAGES = {
    f"{suffix[1:]}{bits}": Kind(
        "png" if suffix == ".png" else "binary", write_images(suffix, dtype),
        [f"train/a/1{suffix}"], read_images, pil_pixels,
    )
    for suffix, dtype, bits in [
        (".png", "u1", ""), (".png", "u2", ", 16 bits"), (".jpg", "u1", ""), (".webp", "u1", ""),
        (".bmp", "u1", ""), (".tif", "u1", ""), (".tif", "u2", ", 16 bits"),
    ]
}  # fmt: skip
TABLES = {
    f"{suffix[1:]}, series by {name}": Kind(
        "text", write_series(suffix, by), [f"Made/Made_TRAIN{suffix}"], read_series,
        slow_ts if suffix == ".ts" else slow_table,
    )
    for suffix, by, name in [
        (".ts", ",", "comma"), (".tsv", "\t", "tab"), (".csv", ",", "comma"),
        (".csv", ";", "semicolon"), (".txt", "  ", "space"),
    ]
}  # fmt: skip
HAR_FILES = [f"train/{name}_train.txt" for name in ("y", "subject", "Inertial Signals/body_acc_x")]
KINDS: dict[str, Kind] = {
    **IMAGES,
    **TABLES,
    "txt, har": Kind("text", write_har, [*HAR_FILES, "activity_labels.txt"], read_har, slow_har),
    "csv, biovid": Kind(
        "text", write_biovid, [f"{FOLDER}/a/a-BL1-001_bio.csv"], read_biovid, slow_biovid
    ),
    "npz, arrays": Kind("zip", write_npz, ["made.npz"], read_arrays, slow_arrays),
    "npy, prepared": Kind("binary", write_prepared, ["train.npy"], read_prepared, slow_prepared),
    "json, prepared": Kind("json", write_prepared, ["index.json"], read_prepared, slow_prepared),
    "npz, predict": Kind("zip", write_npz_rows, ["new.npz"], read_rows, slow_rows),
    "csv, predict": Kind("text", write_rows(",", ".csv"), ["new.csv"], read_rows, slow_rows),
    "tsv, predict": Kind("text", write_rows("\t", ".tsv"), ["new.tsv"], read_rows, slow_rows),
    "safetensors": Kind(
        "safetensors", write_safetensors, ["made.safetensors"], read_weights, slow_safetensors
    ),
    "safetensors, student": Kind(
        "safetensors", write_student_file, ["student.safetensors"], read_student_file, slow_student
    ),
    "ckpt": Kind("zip", write_torch, ["made.ckpt"], read_weights, slow_torch),
    "pth, before torch 1.6": Kind(
        "binary", write_old_torch, ["made.pth"], read_weights, slow_torch
    ),
    "txt, class order": Kind(
        "text", write_text("names.txt", "cat\ndog\nfox\n"), ["names.txt"],
        lambda root, file: {"names": read_order(str(file))}, slow_lines,
    ),
    "json, class order": Kind(
        "json", write_text("names.json", '["cat", "dog", "fox"]'), ["names.json"],
        lambda root, file: {"names": read_order(str(file))}, slow_lines,
    ),
    "txt, class list": Kind(
        "text", write_text("some.txt", "n01440764\nn01443537\n"), ["some.txt"],
        lambda root, file: {"names": read_class_list(file)}, slow_wnids,
    ),
    "yaml, own data": Kind("text", write_yaml, ["data/mine.yaml"], read_yaml, slow_yaml),
}  # fmt: skip
