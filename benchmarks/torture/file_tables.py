"""Text tables: series with labels, signals of sensors, and samples to predict."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.torture.file_kind import Kind, Numbers, slow_number, slow_text
from kd_lightning.base.errors import UserError
from kd_lightning.data.biovid import FOLDER, BioVid
from kd_lightning.data.har import CHANNELS, HAR
from kd_lightning.data.ucr import UCR, read_part
from kd_lightning.predictions.tables import read_table

SERIES = {"kind": "series", "channels": 1, "size": 6}


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


def write_rows(by: str, suffix: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        values = np.random.default_rng(0).normal(0, 1, (6, 6))
        np.savetxt(root / f"new{suffix}", values, "%.3f", by)

    return write


def read_rows(root: Path, file: Path) -> Numbers:
    samples = list(read_table(file, SERIES, lambda x: x))
    good = {str(s.index): s.x.numpy() for s in samples if not s.error}
    if samples and not good:
        raise UserError(samples[0].error)
    return good


def slow_rows(file: Path) -> Numbers:
    """The rows that have six finite numbers. A first row without any number is a header."""
    sign = "\t" if file.suffix == ".tsv" else ","
    lines = [line.rstrip("\n") for line in io.StringIO(slow_text(file), None)]
    rows = [slow_row(line.split(sign)) for line in filter(None, lines)]
    rows = rows[1:] if rows and all(cell is None for cell in rows[0]) else rows
    numbers = {str(i): row for i, row in enumerate(rows) if None not in row}
    return finite_rows({i: np.array([row], np.float32) for i, row in numbers.items()})


def finite_rows(rows: Numbers) -> Numbers:
    return {i: row for i, row in rows.items() if row.shape == (1, 6) and np.isfinite(row).all()}


def slow_row(cells: Sequence[str]) -> list[float | None]:
    """The numbers in cells; None for other text."""
    numbers: list[float | None] = []
    for cell in cells:
        try:
            text = re.sub(r'^"(.*)"$', r"\1", cell.strip())  # a table may quote any cell
            numbers.append(float(np.loadtxt([text or "x"], comments=None)))
        except (ValueError, TypeError):  # several numbers in a cell
            numbers.append(None)
    return numbers


OF_SERIES = {
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
KINDS = {
    **OF_SERIES,
    "txt, har": Kind("text", write_har, [*HAR_FILES, "activity_labels.txt"], read_har, slow_har),
    "csv, biovid": Kind(
        "text", write_biovid, [f"{FOLDER}/a/a-BL1-001_bio.csv"], read_biovid, slow_biovid
    ),
    "csv, predict": Kind("text", write_rows(",", ".csv"), ["new.csv"], read_rows, slow_rows),
    "tsv, predict": Kind("text", write_rows("\t", ".tsv"), ["new.tsv"], read_rows, slow_rows),
}
